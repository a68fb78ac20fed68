"""A second reader of the corpus on disk, written from docs/format.md alone, without code of the project.

It finds a scene's blobs in two ways: by the addresses of the index, and as what they are to stock tools (cells of a
Parquet table, members of a tar). Numbers in comments are sections of docs/format.md.
"""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash
from numcodecs import Blosc

Blobs = dict[str, bytes]
DTYPES = ["|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"]


def check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def open_corpus(root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(manifest, rows of the index), both checked (2, 3, 9.1)."""
    manifest = json.loads((root / "manifest.json").read_text())
    check(manifest["format"] in (1, 2, 3), "unknown format")
    others = {name: value for name, value in manifest.items() if name != "digest"}
    text = json.dumps(others, sort_keys=True).encode()
    check(xxhash.xxh3_64_hexdigest(text) == manifest["digest"], "manifest.json is damaged")
    index = (root / "index.parquet").read_bytes()
    check(xxhash.xxh3_64_hexdigest(index) == manifest["index_digest"], "index.parquet is damaged")
    rows = pq.read_table(root / "index.parquet").to_pylist()
    check(len(rows) == manifest["scenes"] == len({row["key"] for row in rows}), "rows are missing or doubled")
    return manifest, rows


def quarantine(root: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Who was left out, and why, also where the list has a file of its own (2)."""
    place = manifest.get("moved", {}).get("quarantined")
    if place is None:
        return list(manifest["quarantined"])
    data = (root / place["file"]).read_bytes()
    check(xxhash.xxh3_64_hexdigest(data) == place["digest"], f"{place['file']} is damaged")
    return list(pq.read_table(root / place["file"]).to_pylist())


def by_address(root: Path, row: dict[str, Any]) -> Blobs:
    """The blobs where the index says they are (3)."""
    check(".." not in Path(row["shard"]).parts and not Path(row["shard"]).is_absolute(), "a shard outside")
    data, blobs = (root / row["shard"]).read_bytes(), {}
    for place in row["blobs"]:
        check(0 <= place["offset"] <= place["offset"] + place["length"] <= len(data), "an address outside its shard")
        blobs[place["field"]] = data[place["offset"] : place["offset"] + place["length"]]
        check(xxhash.xxh3_64_intdigest(blobs[place["field"]]) == place["digest"], f"{place['field']} is damaged")
    return blobs


def by_container(root: Path, shard: str) -> dict[str, Blobs]:
    """Key -> blobs of a shard, without the index (4, 5)."""
    return _from_tar(root / shard) if shard.endswith(".tar") else _from_parquet(root / shard)


def _from_parquet(path: Path) -> dict[str, Blobs]:
    scenes: dict[str, Blobs] = {}
    for row in pq.read_table(path, page_checksum_verification=True).to_pylist():
        blobs = scenes[row["key"]] = {"header": row["header"]}
        for column, cell in row.items():
            group, slash, name = column.partition("/")
            cells = {column: cell}
            if group == "views" and slash:
                cells = {f"views/{i}/{name}": blob for i, blob in enumerate(cell)}
            blobs |= {field: blob for field, blob in cells.items() if slash and blob is not None}
    return scenes


def _from_tar(path: Path) -> dict[str, Blobs]:
    samples: dict[str, Blobs] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            stem, _, rest = member.name.partition(".")
            first, _, name = rest.rpartition(".")[0].partition(".")
            if first.startswith("view"):
                name = "image" if name == "image" else name
                first = f"views/{first.removeprefix('view')}"
            content = archive.extractfile(member)
            assert content is not None
            samples.setdefault(stem, {})[f"{first}/{name}" if name else first] = content.read()
    identities = {stem: json.loads(blobs["header"])["identity"] for stem, blobs in samples.items()}
    return {f"{who['dataset']}/{who['scene_id']}": samples[stem] for stem, who in identities.items()}


def content_of(spec: dict[str, Any], blob: bytes) -> Any:
    """The array a blob holds compressed (7, 7.9, 9.2)."""
    shape = tuple(spec["shape"])
    check(spec["dtype"] in DTYPES and len(shape) <= 4 and min(shape, default=0) >= 0, "an impossible spec")
    size = math.prod(shape) * np.dtype(spec["dtype"]).itemsize
    check(size <= 2**31 - 1024 and (size > 0 or not blob), "an impossible size")
    if size:
        check((int.from_bytes(blob[4:8], "little"), int.from_bytes(blob[12:16], "little")) == (size, len(blob)), "lie")
    return np.frombuffer(Blosc().decode(blob) if size else b"", spec["dtype"]).reshape(shape)


def decode(spec: dict[str, Any], blob: bytes) -> Any:
    """The value of a blob (7)."""
    codec = spec["codec"]
    if codec == "raw":
        check(len(blob) == spec["size"], "another size than written")
        return blob
    content = content_of(spec, blob)
    if codec == "array":
        return content
    if codec == "quantised":
        origin = np.array(spec["origin"] if content.ndim == 2 else spec["origin"][0])
        return (content * float(spec["step"]) + origin).astype(np.float32)
    if codec == "palette":
        return np.array(spec["table"], np.float32)[content]
    if codec == "octahedral":
        return _octahedral(content)
    if codec in ("rows", "labels"):
        image = np.cumsum(content, axis=0, dtype=content.dtype).astype(np.uint16)
        return image if codec == "rows" else (image - np.uint16(1)).astype(np.int16)
    check(codec == "pairs", f"unknown codec {codec}")
    count = spec["count"]
    gaps, moves, bits = content[: 4 * count], content[4 * count : 8 * count], content[8 * count :]
    point = np.cumsum(np.frombuffer(gaps.reshape(4, count).T.tobytes(), "<u4"), dtype=np.uint32).astype(np.int32)
    steps = np.frombuffer(moves.reshape(4, count).T.tobytes(), "<u2").reshape(count, 2)
    pixel = np.cumsum(steps, axis=0, dtype=np.uint16)
    return {"point": point, "pixel": pixel, "visible": np.unpackbits(bits, count=count).astype(bool)}


def _octahedral(codes: Any) -> Any:
    u, v = (np.maximum(codes, -127).astype(np.float64) / 127).T
    z = 1 - (np.abs(u) + np.abs(v))
    t = np.maximum(-z, 0)
    vectors = np.stack([np.where(u >= 0, u - t, u + t), np.where(v >= 0, v - t, v + t), z], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where((codes == -128).all(axis=1, keepdims=True), 0, vectors).astype(np.float32)


def read(blobs: Blobs) -> tuple[dict[str, Any], dict[str, Any]]:
    """(header, field -> value) of a scene or of a layer's scene; each field of the header is there (6)."""
    header = json.loads(blobs["header"])
    check(header["format"] in (1, 2), "unknown format")
    check(header["fields"].keys() == blobs.keys() - {"header"}, "fields that the header does not know, or lacks")
    return header, {field: decode(spec, blobs[field]) for field, spec in header["fields"].items()}
