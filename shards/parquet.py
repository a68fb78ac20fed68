"""The Parquet container: one row, and one row group, per scene.

Metadata stands in ordinary columns, the header as a JSON string, blobs in plain binary columns (fields of points) or
lists of binary (fields of views). Nothing is compressed or dictionary-coded by Parquet, so a blob's bytes lie
contiguous in the file, at an address that the index records; page checksums are on for those who read it as Parquet.

A shard is assembled in memory and written once: its size is bounded by the plan, and object stores have no rename.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brickyard.shards.encode import HEADER, EncodedScene
from brickyard.shards.index import METADATA, Address, metadata_row
from brickyard.shards.storage import digest64


def write_shard(scenes: Sequence[EncodedScene], task: int) -> tuple[pa.Buffer, list[dict[str, Address]]]:
    """The bytes of a shard, and for every scene the addresses of its header and blobs; the task's number is not used:
    rows carry their keys."""
    points, views = _columns(scenes)
    schema = METADATA.append(pa.field(HEADER, pa.binary(), nullable=False))
    for name in points:
        schema = schema.append(pa.field(name, pa.binary()))
    for name in views:
        schema = schema.append(pa.field(name, pa.list_(pa.binary())))
    sink = pa.BufferOutputStream()
    options: dict[str, Any] = {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": [name for name in METADATA.names if name not in ("bounds_min", "bounds_max")],
        "write_page_checksum": True,
        "store_schema": False,  # no Arrow schema in the metadata: it is what unsafe extension types hide in
        "data_page_size": 1 << 30,  # a scene's column is one page
    }
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for scene in scenes:
            row = metadata_row(scene) | {HEADER: scene.header}
            row |= {name: scene.blobs.get(name) for name in points}
            row |= {name: _view_list(scene, name) for name in views}
            writer.write_table(pa.Table.from_pylist([row], schema=schema), row_group_size=1)
    data = sink.getvalue()
    return data, _locate(data, scenes)


def _columns(scenes: Sequence[EncodedScene]) -> tuple[list[str], list[str]]:
    """Columns for point fields ("points/xyz") and for view fields ("views/image"), in first-seen order."""
    points: dict[str, None] = {}
    views: dict[str, None] = {}
    for scene in scenes:
        for name in scene.blobs:
            group, _, rest = name.partition("/")
            if group == "views":
                views["views/" + rest.partition("/")[2]] = None
            else:
                points[name] = None
    return list(points), list(views)


def _view_list(scene: EncodedScene, column: str) -> list[bytes | None]:
    field = column.removeprefix("views/")
    return [scene.blobs.get(f"views/{number}/{field}") for number in range(scene.summary["n_views"])]


def _locate(data: pa.Buffer, scenes: Sequence[EncodedScene]) -> list[dict[str, Address]]:
    """Find every blob inside the column chunk it was written to. An address is right by construction: the bytes there
    are the blob's bytes, preceded by Parquet's own four-byte length."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    whole = data.to_pybytes()
    result = []
    for row, scene in enumerate(scenes):
        group = metadata.row_group(row)
        chunks = {}
        for number in range(group.num_columns):
            chunk = group.column(number)
            name = chunk.path_in_schema.removesuffix(".list.element")
            chunks[name] = (chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size)
        result.append(_locate_scene(whole, chunks, {HEADER: scene.header} | scene.blobs, scene.identity.key))
    return result


def _locate_scene(
    whole: bytes, chunks: Mapping[str, tuple[int, int]], blobs: Mapping[str, bytes], key: str
) -> dict[str, Address]:
    cursor = {name: start for name, (start, _) in chunks.items()}
    addresses = {}
    for name, blob in blobs.items():
        group, _, rest = name.partition("/")
        column = "views/" + rest.partition("/")[2] if group == "views" else name
        marked = len(blob).to_bytes(4, "little") + blob
        start, end = cursor[column], chunks[column][1]
        found = whole.find(marked, start, end)
        if found < 0:
            raise AssertionError(f"{key}: blob {name} is not where Parquet was asked to write it")
        offset = found + 4
        cursor[column] = offset + len(blob)
        addresses[name] = Address(offset, len(blob), digest64(blob))
    return addresses
