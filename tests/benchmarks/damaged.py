"""Small corpora in our formats and in what one would use instead, and a reader for each, as its documentation shows it.

A reader yields (name, digest) of every sample and lets errors pass. Everything here also runs in a peer's own virtual
environment: `python -m tests.benchmarks.damaged write_mosaic <folder>`.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCENES = 8
PER_FILE = 4
POINTS = 300
ARRAYS = ("xyz", "color", "normal", "label")
Digests = Iterator[tuple[str, str]]


class Format(NamedTuple):
    """A row of the table.

    Attributes:
        write, read: names of functions of this module.
        peer: module whose environment (see `peers`) both need, or None for ours.
        imports: what the reader needs; imported once.
        batch: cases that may share a process.
    """

    name: str
    write: str
    read: str
    imports: tuple[str, ...]
    peer: str | None = None
    batch: int = 50


FORMATS = (
    Format("npy folders", "write_npy", "read_npy", ()),
    Format("WebDataset", "write_webdataset", "read_webdataset", ("webdataset",)),
    Format("WebDataset, warn_and_continue", "write_webdataset", "read_webdataset_on", ("webdataset",)),
    Format("Parquet, pyarrow's defaults", "write_parquet", "read_parquet", ("pyarrow.parquet",)),
    Format(
        "Parquet, page checksums written and verified",
        "write_parquet_checked",
        "read_parquet_checked",
        ("pyarrow.parquet",),
    ),
    Format("MDS", "write_mosaic", "read_mosaic", ("streaming",), "streaming", 1),
    Format("MDS, hashes + validate_hash, local", "write_mosaic", "read_mosaic_hashed", ("streaming",), "streaming", 1),
    Format(
        "MDS, hashes + validate_hash, downloaded", "write_mosaic", "read_mosaic_remote", ("streaming",), "streaming", 1
    ),
    Format("MDS, downloaded, opened once more", "write_mosaic", "read_mosaic_again", ("streaming",), "streaming", 1),
    Format("litData", "write_litdata", "read_litdata", ("litdata",), "litdata", 1),
    Format("Brickyard, Parquet", "write_bricks", "read_bricks", ("brickyard.shards.stream",)),
    Format("Brickyard, WebDataset", "write_bricks_tar", "read_bricks", ("brickyard.shards.stream",)),
)


def scene(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    normal = rng.normal(size=(POINTS, 3))
    return {
        "name": f"scene-{number:03d}",
        "xyz": rng.uniform(0, 8, (POINTS, 3)).astype(np.float32),
        "color": rng.integers(0, 256, (POINTS, 3), dtype=np.uint8),
        "normal": (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        "label": rng.integers(-1, 20, POINTS).astype(np.int16),
    }


def digest(*arrays: Any) -> str:
    total = hashlib.blake2b(digest_size=8)
    for values in map(np.asarray, arrays):
        total.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def of(sample: dict[str, Any]) -> tuple[str, str]:
    return str(sample["name"]), digest(*(sample[name] for name in ARRAYS))


# npy, tar


def write_npy(folder: Path) -> None:
    for number in range(SCENES):
        entry = scene(number)
        place = folder / entry["name"]
        place.mkdir()
        for name in ARRAYS:
            np.save(place / f"{name}.npy", entry[name])


def read_npy(folder: Path) -> Digests:
    for place in sorted(folder.iterdir()):
        yield place.name, digest(*(np.load(place / f"{name}.npy") for name in ARRAYS))


def write_webdataset(folder: Path) -> None:
    for start in range(0, SCENES, PER_FILE):
        with tarfile.open(folder / f"{start:05d}.tar", "w") as tar:
            for entry in map(scene, range(start, start + PER_FILE)):
                for name in ARRAYS:
                    data = io.BytesIO()
                    np.save(data, entry[name])
                    member = tarfile.TarInfo(f"{entry['name']}.{name}.npy")
                    member.size = len(data.getvalue())
                    tar.addfile(member, io.BytesIO(data.getvalue()))


def read_webdataset(folder: Path, **handler: Any) -> Digests:
    import webdataset

    urls = sorted(str(path) for path in folder.iterdir())
    pipeline = webdataset.WebDataset(urls, shardshuffle=False, **handler).map(_from_tar, **handler)
    yield from pipeline


def read_webdataset_on(folder: Path) -> Digests:
    import webdataset

    yield from read_webdataset(folder, handler=webdataset.warn_and_continue)


def _from_tar(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["__key__"], digest(*(np.load(io.BytesIO(entry[f"{name}.npy"])) for name in ARRAYS))


# Parquet


def write_parquet(folder: Path, **options: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for start in range(0, SCENES, PER_FILE):
        rows = [scene(number) for number in range(start, start + PER_FILE)]
        columns = {name: pa.array([row[name].reshape(-1) for row in rows]) for name in ARRAYS}
        table = pa.table({"name": [row["name"] for row in rows], **columns})
        pq.write_table(table, folder / f"{start:05d}.parquet", row_group_size=1, **options)


def read_parquet(folder: Path, **options: Any) -> Digests:
    import pyarrow.parquet as pq

    for path in sorted(folder.iterdir()):
        table = pq.read_table(path, **options)
        for row in range(len(table)):
            yield of({"name": table["name"][row]} | {n: table[n][row].values.to_numpy() for n in ARRAYS})


def write_parquet_checked(folder: Path) -> None:
    write_parquet(folder, write_page_checksum=True)


def read_parquet_checked(folder: Path) -> Digests:
    yield from read_parquet(folder, page_checksum_verification=True)


# MosaicML Streaming


def write_mosaic(folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"name": "str"} | {name: f"ndarray:{scene(0)[name].dtype}" for name in ARRAYS}
    with MDSWriter(out=str(folder), columns=columns, hashes=["sha1"], size_limit=40_000) as writer:
        for number in range(SCENES):
            writer.write(scene(number))


def read_mosaic(folder: Path, **options: Any) -> Digests:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    where = options or {"local": str(folder)}
    for sample in StreamingDataset(shuffle=False, batch_size=1, **where):
        yield of(sample)


def read_mosaic_hashed(folder: Path) -> Digests:
    yield from read_mosaic(folder, local=str(folder), validate_hash="sha1")


def read_mosaic_remote(folder: Path) -> Digests:
    local = f"{folder}-downloaded"
    yield from read_mosaic(folder, remote=str(folder), local=local, validate_hash="sha1")


def read_mosaic_again(folder: Path) -> Digests:
    """A run that ended with an error (or not) is started again, its folder of downloads still there."""
    child = os.fork()
    if child == 0:
        try:
            list(read_mosaic_remote(folder))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    yield from read_mosaic_remote(folder)


# litData


def write_litdata(folder: Path) -> None:
    import litdata

    litdata.optimize(scene, list(range(SCENES)), str(folder), chunk_bytes=40_000, num_workers=1, verbose=False)


def read_litdata(folder: Path) -> Digests:
    import litdata

    for sample in litdata.StreamingDataset(str(folder), shuffle=False):
        yield of(sample)


# Brickyard


def write_bricks(folder: Path, container: Any = "parquet") -> None:
    from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
    from brickyard.shards.encode import encode_scene
    from brickyard.shards.scene import Identity, Points, Scene
    from brickyard.shards.storage import Store

    store, build = Store(folder), fingerprint_digest({})
    start_build(store, {})
    encoded = []
    for entry in map(scene, range(SCENES)):
        points = Points(
            xyz=entry["xyz"], color=entry["color"], normal=entry["normal"], normal_source="drawn",
            semantic={"scannet20": entry["label"]},
        )  # fmt: skip
        identity = Identity(
            dataset="toy", version="1", split="train", sequence="s", scene_id=entry["name"], domain="indoor",
            licence="CC0-1.0", timestamp_ns=None,
        )  # fmt: skip
        encoded.append(encode_scene(Scene(identity=identity, world_from_scene=np.eye(4), points=points)))
    for task, start in enumerate(range(0, SCENES, PER_FILE)):
        commit_task(store, task, build, encoded[start : start + PER_FILE], [], container=container)
    finish_build(store, SCENES // PER_FILE, build, [], {})
    for path in [folder / "build.json", *(folder / "parts").iterdir()]:
        path.unlink()  # a reader has no use for them; what a build makes of damage to them is tested elsewhere


write_bricks_tar = partial(write_bricks, container="webdataset")


def read_bricks(folder: Path) -> Digests:
    from brickyard.shards.corpus import Corpus
    from brickyard.shards.stream import Stream

    fields = ("points/xyz", "points/color", "points/normal", "points/semantic.scannet20")
    for (sample,) in Stream(Corpus.open(folder), fields, batch=1, epochs=1, shuffle=False):
        yield sample.key, digest(sample[fields[0]].dequantise(), *(sample[field] for field in fields[1:]))


if __name__ == "__main__":
    writer: Callable[[Path], None] = globals()[sys.argv[1]]
    writer(Path(sys.argv[2]))
