"""A corpus as plain WebDataset: tars of .npy, .jpg or .png, and .json, that stock decoders turn into arrays.

Everything a scene has goes along, decoded: nothing here needs Blosc, an index or this project. Samples of one split lie
in tars of their own, `train-00000.tar` and so on, in the order of the index. Their division follows from the index, and
a tar appears whole or not at all, so a killed export goes on with the tars that are not there. A tar is assembled in
memory: at most about 64 MiB of stored bytes, three to five times that decoded, plus one scene.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import read_document
from brickyard.shards.encode import HEADER
from brickyard.shards.export.folder import Progress, begin, finish, remove_temporaries, unique_names
from brickyard.shards.export.pointcept import npy_bytes
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store

LAYOUT = "webdataset-plain"
SHARD_BYTES = 64 << 20
MAX_SCENES = 10_000
_POINTS = ("xyz", "color", "normal", "intensity", "ring", "time_offset", "sweep", "return_number", "return_count",
           "elongation", "instance")  # fmt: skip
_ENDINGS = {"jpeg": "jpg", "png": "png"}


def export_plain(
    corpus: Corpus, out: Store, *, shard_bytes: int = SHARD_BYTES, progress: Progress = lambda done, total: None
) -> dict[str, int]:
    """Write every scene; returns {"scenes", "shards"} (counts).

    Args:
        shard_bytes: stored bytes of the scenes of one tar; a larger one has a tar for itself.

    Raises:
        CorpusError: `out` holds something else.
        CorruptDataError: a scene of the corpus is damaged.
    """
    begin(corpus, out, LAYOUT, shard_bytes=shard_bytes)
    remove_temporaries(out, "")
    shards = division(corpus, shard_bytes)
    done = 0
    for name, rows in shards.items():
        progress(done, len(corpus))
        if not out.exists(name):
            out.write(name, write_tar(corpus, name.removesuffix(".tar"), rows))
        done += len(rows)
    progress(done, len(corpus))
    summary = {"scenes": len(corpus), "shards": len(shards)}
    return finish(corpus, out, LAYOUT, summary, shard_bytes=shard_bytes)


def division(corpus: Corpus, shard_bytes: int) -> dict[str, list[int]]:
    """Name of the tar -> its rows."""
    splits = sorted(set(corpus.index.column("split").to_pylist()))
    shards: dict[str, list[int]] = {}
    for split, name in zip(splits, unique_names(splits), strict=True):
        number, size = 0, 0
        for row in corpus.select(split=split).tolist():
            stored = sum(place.length for place in corpus.addresses(row).values())
            current = shards.get(f"{name}-{number:05d}.tar", [])
            if current and (size + stored > shard_bytes or len(current) == MAX_SCENES):
                number, size = number + 1, 0
            size += stored
            shards.setdefault(f"{name}-{number:05d}.tar", []).append(row)
    return shards


def write_tar(corpus: Corpus, stem: str, rows: list[int]) -> bytes:
    """The bytes of a tar; equal rows give equal bytes."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, row in enumerate(rows):
            scene = corpus.scene(row)  # whose header is checked on the way
            blob = corpus.read_blob(row, HEADER, corpus.addresses(row)[HEADER])
            header = read_document(blob, f"the header of {corpus.keys[row]}")
            header.pop("fields")  # how the blobs were coded is of no use any more
            members = {"json": json.dumps(header).encode()} | dict(scene_members(scene))
            for name, data in members.items():
                member = tarfile.TarInfo(f"{stem}-{number:06d}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def scene_members(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """(name after the sample's, bytes) of every array and image."""
    if scene.points is not None:
        for name in _POINTS:
            if (values := getattr(scene.points, name)) is not None:
                yield f"points.{name}.npy", npy_bytes(values)
        for taxonomy, labels in scene.points.semantic.items():
            yield f"points.semantic.{taxonomy}.npy", npy_bytes(labels)
    for number, view in enumerate(scene.views):
        for name, data in _view_members(view):
            yield f"view{number}.{name}", data


def _view_members(view: View) -> Iterator[tuple[str, bytes]]:
    yield f"image.{_ENDINGS[view.image_format]}", view.image
    if view.depth is not None:
        yield "depth.npy", npy_bytes(view.depth.values)
    for taxonomy, labels in view.semantic.items():
        yield f"semantic.{taxonomy}.npy", npy_bytes(labels)
    if view.instance is not None:
        yield "instance.npy", npy_bytes(view.instance)
    if view.superpixels is not None:
        yield "superpixels.npy", npy_bytes(view.superpixels.labels)
    if view.pairs is not None:
        for name in ("point", "pixel", "visible", "depth"):
            yield f"pair_{name}.npy", npy_bytes(getattr(view.pairs, name))
