"""The index: one row per scene with its metadata, its shard, and the address of every blob.

`parts/NNNNN.parquet` is the index of one shard and at the same time the record that the shard is committed;
`index.parquet` is all parts, one after another. Both carry the build's fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from brickyard.shards.documents import document_bytes, read_document
from brickyard.shards.encode import EncodedScene
from brickyard.shards.errors import CorpusError
from brickyard.shards.guard import open_footer, open_parquet, read_columns
from brickyard.shards.seal import write_sealed

METADATA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("scene_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("timestamp_ns", pa.int64()),
        pa.field("n_points", pa.int64(), nullable=False),
        pa.field("n_views", pa.int32(), nullable=False),
        pa.field("n_pairs", pa.int64(), nullable=False),
        pa.field("visible_share", pa.float64()),
        pa.field("bounds_min", pa.list_(pa.float64())),
        pa.field("bounds_max", pa.list_(pa.float64())),
        pa.field("whole", pa.string()),
        pa.field("raw_bytes", pa.int64(), nullable=False),
        pa.field("dropped", pa.string(), nullable=False),
    ]
)
"""Columns every scene has, in the shards as in the index."""


@dataclass(frozen=True)
class Address:
    """Where a blob lies: `length` bytes at `offset` of a shard, whose xxh3-64 is `digest`."""

    offset: int
    length: int
    digest: int


def metadata_row(scene: EncodedScene) -> dict[str, Any]:
    """The values of the METADATA columns."""
    identity = scene.identity
    names = ("key", "dataset", "version", "split", "sequence", "scene_id", "domain", "licence", "timestamp_ns")
    return {name: getattr(identity, name) for name in names} | scene.summary


BLOBS = pa.list_(
    pa.struct(
        [
            pa.field("field", pa.string(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("length", pa.int64(), nullable=False),
            pa.field("digest", pa.uint64(), nullable=False),
        ]
    )
)

FIGURES = pa.field("figures", pa.map_(pa.string(), pa.float64()))
"""Numbers by which scenes are chosen; null where there are none."""

DESCRIPTORS = (
    pa.field("hashes", pa.list_(pa.uint64())),
    pa.field("embedding", pa.list_(pa.float16())),
    pa.field("signature", pa.list_(pa.float16())),
    pa.field("place", pa.list_(pa.float64())),
)
"""By what a scene is known when it comes again: hashes of pictures, a vector of them, one of the cloud, a place in the
dataset's world; null where nobody has described it (see `shards.described`)."""

SCHEMA = pa.schema([
    *METADATA, FIGURES, *DESCRIPTORS,
    pa.field("shard", pa.string(), nullable=False), pa.field("blobs", BLOBS, nullable=False),
])  # fmt: skip

MAX_INDEX_BYTES = 4 << 30


@dataclass(frozen=True)
class Quarantined:
    """A scene that was not built, and why."""

    key: str
    reason: str


def index_rows(
    shard: str, scenes: Sequence[EncodedScene], addresses: Sequence[Mapping[str, Address]]
) -> list[dict[str, Any]]:
    """Rows of SCHEMA for the scenes of one shard."""
    return [
        metadata_row(scene)
        | {
            "shard": shard,
            "blobs": [
                {"field": field, "offset": a.offset, "length": a.length, "digest": a.digest}
                for field, a in places.items()
            ],
        }
        for scene, places in zip(scenes, addresses, strict=True)
    ]


def write_index(table: pa.Table, note: Mapping[str, Any]) -> pa.Buffer:
    """Bytes of an index or part file, sealed; `note` is kept as JSON in the file's metadata. Raises `CorpusError` for
    what `read_index` would refuse."""
    text = document_bytes(note, indent=None, sort=True).decode()
    try:
        data = write_sealed(table.replace_schema_metadata({"brickyard": text}), {"brickyard": text})
    except ValueError as problem:
        raise CorpusError(f"an index of {len(table)} scenes cannot be written: {problem}") from problem
    if data.size > MAX_INDEX_BYTES:
        raise CorpusError(f"an index of {len(table)} scenes has {data.size} bytes, more than an index may have")
    return data


def read_note(data: bytes, name: str) -> dict[str, Any]:
    """The note of an index or part file alone; raises `CorpusError` naming it. Nothing of its rows is looked at."""
    if len(data) > MAX_INDEX_BYTES:
        raise CorpusError(f"{name} has {len(data)} bytes, more than an index may have")
    try:
        metadata = open_footer(data).metadata
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise CorpusError(f"{name} is damaged: {problem}; rebuild or run `brickyard verify`") from problem
    return read_document((metadata or {}).get(b"brickyard", b"null"), f"{name} (its notes)")


def read_index(data: bytes, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """(table, note) of an index or part file; raises `CorpusError` naming it when it is damaged or not an index."""
    if len(data) > MAX_INDEX_BYTES:
        raise CorpusError(f"{name} has {len(data)} bytes, more than an index may have")
    try:
        file = open_parquet(data)
        note = read_document((file.metadata.metadata or {}).get(b"brickyard", b"null"), f"{name} (its notes)")
        names = file.schema_arrow.names
        absent = [field for field in SCHEMA if field.name not in names]
        if not all(field.nullable for field in absent):
            raise CorpusError(f"{name} is not an index of a Brickyard corpus")
        table = read_columns(file, [field for field in SCHEMA.names if field in names])
        for field in absent:  # what later formats added is unknown, not wrong, in an older one
            table = table.append_column(field, pa.nulls(len(table), field.type))
        table = table.select(SCHEMA.names).cast(SCHEMA)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise CorpusError(f"{name} is damaged: {problem}; rebuild or run `brickyard verify`") from problem
    return table, note
