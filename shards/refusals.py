"""What a curation left out, and why: a Parquet file beside its selection, one row a scene, sealed like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from brickyard.shards.documents import document_bytes, read_document
from brickyard.shards.errors import NONSENSE, CorpusError
from brickyard.shards.guard import open_parquet, read_columns
from brickyard.shards.seal import read_sealed, write_sealed
from brickyard.shards.storage import Store

_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])
_MAX_BYTES = 1 << 30
_NOTE = "brickyard-refusals"


def write_refusals(store: Store, name: str, corpus: str, keys: Sequence[str], reasons: Sequence[str]) -> None:
    """Write to a file of a store, whole or not at all; `corpus` is the digest of the manifest."""
    note = document_bytes({"corpus": corpus}, indent=None, sort=True).decode()
    table = pa.Table.from_arrays([pa.array(keys, pa.string()), pa.array(reasons, pa.string())], schema=_SCHEMA)
    data = write_sealed(table, {_NOTE: note}, rows=1 << 20)
    if data.size > _MAX_BYTES:
        raise CorpusError(f"the refusals {name} have {data.size} bytes, too many")
    store.write(name, data)


def read_refusals(store: Store, name: str) -> Mapping[str, str]:
    """Key -> reason; raises `CorpusError` naming a file that is missing or damaged."""
    data = read_sealed(store, name, _MAX_BYTES)
    try:
        file = open_parquet(data)
        read_document((file.metadata.metadata or {})[_NOTE.encode()], "its note", {"corpus": str})
        table: Any = read_columns(file, _SCHEMA.names).cast(_SCHEMA)
        keys, reasons = (table.column(name).to_pylist() for name in _SCHEMA.names)
        if None in keys or None in reasons or len(set(keys)) != len(keys):
            raise CorpusError("a scene is out once, for a reason")
    except (pa.ArrowException, OSError, CorpusError, *NONSENSE) as problem:
        raise CorpusError(f"{store.uri}/{name} is damaged or holds no refusals: {problem}") from problem
    return dict(zip(keys, reasons, strict=True))
