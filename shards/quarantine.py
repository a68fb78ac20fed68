"""Lists of scenes with reasons, however long: who was left out of a corpus and why, what a plan saw and did not use.

Short lists stand in the JSON they belong to. A long one (a quarter of a million scenes of a download that broke off)
would make that JSON larger than any reader takes, so it moves to a Parquet file beside it, with its digest in the JSON:

    "quarantined": [], "moved": {"quarantined": {"file": "quarantined.parquet", "digest": ..., "entries": 250000}}

Readers get it back as the list it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.guard import open_parquet, read_columns
from brickyard.shards.index import Quarantined
from brickyard.shards.seal import write_sealed
from brickyard.shards.storage import Store, digest64

MAX_INLINE_BYTES = 256 << 10
"""Characters of keys and reasons of a list that stays in its JSON: far below what any of the readers refuses."""

MOVED = "moved"
MOVED_SHAPE = {"file": str, "digest": str, "entries": int}
_MAX_BYTES = 1 << 30
_MAX_TEXT = 4000
_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])


def printable(entries: Iterable[Quarantined]) -> list[Quarantined]:
    """Texts as they can be stored: of a bounded length, half characters (names that are not UTF-8) escaped."""
    return [Quarantined(_text(entry.key), _text(entry.reason)) for entry in entries]


def _text(text: str) -> str:
    short = text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} ... {text[-_MAX_TEXT // 2 :]}"
    return short.encode("utf-8", "backslashreplace").decode()


def put_lists(
    write: Callable[[str, Any], None], lists: Mapping[str, Sequence[Quarantined]], prefix: str = ""
) -> dict[str, Any]:
    """The entries of a JSON object that stand for the lists; those that are too long are given to `write`, under
    `prefix` + name + ".parquet"."""
    entries: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    for name, found in lists.items():
        if sum(len(entry.key) + len(entry.reason) for entry in found) <= MAX_INLINE_BYTES:
            entries[name] = [asdict(entry) for entry in found]
            continue
        columns = [pa.array([getattr(entry, column) for entry in found], pa.string()) for column in _SCHEMA.names]
        data = write_sealed(pa.Table.from_arrays(columns, schema=_SCHEMA), {}, use_dictionary=False)
        file = f"{prefix}{name}.parquet"
        if memoryview(data).nbytes > _MAX_BYTES:
            raise CorpusError(f"{file} would have more than {_MAX_BYTES} bytes: {len(found)} scenes are missing")
        write(file, data)
        entries[name] = []
        moved[name] = {"file": file, "digest": f"{digest64(data):016x}", "entries": len(found)}
    return entries | ({MOVED: moved} if moved else {})


def get_lists(store: Store, entries: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Name -> list of {"key", "reason"}, of the lists that were moved. Raises `CorpusError` for a damaged file."""
    return {name: _read(store, entry) for name, entry in entries.get(MOVED, {}).items()}


def _read(store: Store, entry: Mapping[str, Any]) -> list[dict[str, str]]:
    name, digest = entry["file"], entry["digest"]
    try:
        data = store.read(name, whole=lambda data: f"{digest64(data):016x}" == digest, most=_MAX_BYTES)
        if f"{digest64(data):016x}" != digest:
            raise ValueError("its digest is not the recorded one")
        table = read_columns(open_parquet(data), _SCHEMA.names).cast(_SCHEMA)
    except FileNotFoundError as problem:
        raise CorpusError(
            f"{store.uri}/{name} is missing: it holds {entry['entries']} scenes with reasons"
        ) from problem
    except (pa.ArrowException, BrickyardError, OSError, ValueError) as problem:
        raise CorpusError(f"{store.uri}/{name} is damaged: {problem}") from problem
    if len(table) != entry["entries"]:
        raise CorpusError(f"{store.uri}/{name} has {len(table)} entries where {entry['entries']} are promised")
    keys, reasons = (table.column(column).to_pylist() for column in _SCHEMA.names)
    return [{"key": key, "reason": reason} for key, reason in zip(keys, reasons, strict=True)]
