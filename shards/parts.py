"""`parts/NNNNN.parquet`: the index of one shard, and at the same time the record that its task is committed.

There are as many as shards, tens of thousands in a large corpus. So a rerun asks for the commits alone
(`read_commits`): both folders are listed once, of a record only its footer is parsed, and many are read at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from brickyard.shards.errors import NONSENSE, CorpusError
from brickyard.shards.index import MAX_INDEX_BYTES, Quarantined, read_index, read_note
from brickyard.shards.quarantine import MOVED, get_lists
from brickyard.shards.seal import is_whole
from brickyard.shards.storage import Store

T = TypeVar("T")
_AT_A_TIME = 16
"""Records that are read at a time."""


@dataclass(frozen=True)
class Part:
    """Commit record of one task.

    Attributes:
        shard: file name, or None where every scene of the task was quarantined.
        bytes, digest: of the shard file (xxh3-128, hex).
        scenes: keys in the shard.
    """

    task: int
    shard: str | None
    bytes: int
    digest: str | None
    scenes: int
    quarantined: tuple[Quarantined, ...]


@dataclass(frozen=True)
class Commit:
    """What the record of a task says, without the rows of its scenes.

    Attributes:
        build: what it is signed with.
    """

    build: str
    part: Part


def part_name(task: int) -> str:
    return f"parts/{task:05d}.parquet"


def read_commits(store: Store, tasks: int, *, need_shard: bool = True) -> list[Commit | None]:
    """The commit of every task from 0 on, or None where there is none that is whole, or (with `need_shard`) where its
    shard is gone or has another size."""
    store.refuse_links()
    there, sizes = store.sizes("parts"), store.sizes("shards")

    def commit(task: int) -> Commit | None:
        if part_name(task).removeprefix("parts/") not in there:
            return None
        found = _read(store, task, lambda data, name: (None, read_note(data, name)))
        if found is None:
            return None
        part, _, note = found
        if need_shard and part.shard is not None and sizes.get(part.shard.removeprefix("shards/")) != part.bytes:
            return None
        return Commit(str(note.get("build")), part)

    return list(side_by_side(commit, range(tasks)))


def side_by_side(read: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
    """`map`, with several calls at a time; results in order."""
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="brickyard-parts") as pool:
        yield from pool.map(read, *arguments)


def read_part(store: Store, task: int, build: str, *, need_shard: bool = True) -> tuple[Part, pa.Table] | None:
    """The commit record of a task, or None if it is not committed, or not by this build, or (with `need_shard`) its
    shard is gone or has another size."""
    store.refuse_links()
    if not store.exists(part_name(task)):
        return None
    if (found := _read(store, task, read_index)) is None:
        return None
    part, table, note = found
    if note.get("build") != build:
        return None
    if need_shard and part.shard is not None and store.size(part.shard) != part.bytes:
        return None
    return part, table


def _read(
    store: Store, task: int, parse: Callable[[bytes, str], tuple[T, dict[str, Any]]]
) -> tuple[Part, T, dict[str, Any]] | None:
    """(part, what was parsed, note); None if the record is damaged: the task is done again."""
    name = part_name(task)
    try:
        data = store.read(name, whole=is_whole, most=MAX_INDEX_BYTES)
        if not is_whole(data):
            return None
        parsed, note = parse(data, name)
        entry = dict(note["part"]) | get_lists(store, note["part"])
        entry["quarantined"] = tuple(Quarantined(**q) for q in entry["quarantined"])
        part = Part(**{name: value for name, value in entry.items() if name != MOVED})
    except (CorpusError, *NONSENSE):
        return None
    return (part, parsed, note) if part.task == task else None


def read_inputs(store: Store, name: str) -> tuple[Mapping[str, str], frozenset[str]]:
    """(inputs, keys of the scenes that were quarantined) of a file in `parts/`, whatever build it is of; nothing of a
    part that is damaged or does not say."""
    try:
        store.refuse_links()
        data = store.read(f"parts/{name}", whole=is_whole, most=MAX_INDEX_BYTES)
        note = read_note(data, name) if is_whole(data) else {}
        inputs = {str(key): str(digest) for key, digest in note.get("inputs", {}).items()}
        lists = note["part"] | get_lists(store, note["part"]) if inputs else {"quarantined": []}
        return inputs, frozenset(str(q["key"]) for q in lists["quarantined"])
    except (CorpusError, *NONSENSE):
        return {}, frozenset()


def read_names(store: Store, name: str) -> frozenset[str] | None:
    """The files that a commit record in `parts/` names, whatever build it is of; None if it is damaged."""
    try:
        store.refuse_links()
        data = store.read(f"parts/{name}", whole=is_whole, most=MAX_INDEX_BYTES)
        if not is_whole(data):
            return None
        part = read_note(data, name)["part"]
        shard = set() if part["shard"] is None else {str(part["shard"])}
        return frozenset(shard | {str(entry["file"]) for entry in part.get(MOVED, {}).values()})
    except (CorpusError, *NONSENSE):
        return None
