"""Bytes a stored pair: the links between points and pixels, as image-to-lidar systems keep them and as we do.

Concerto writes float64 rows (x, y, point), 24 bytes a pair. The pairs here are those our curation makes of the sample's
sweep with its cameras and of the scan's frames. Ours hold more than the raw rows: one bit tells whether the point is
visible ("pairs"), and the row "with depth" adds the distance of each pair, quantised with the bound that is shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.shards import codecs
from brickyard.shards.codecs import Compressor, Pairs
from brickyard.shards.encode import DEPTH_STEPS
from brickyard.shards.scene import Correspondences
from tests.benchmarks.material import material
from tests.benchmarks.report import append, arguments, seconds, table

Stored = tuple[int, Callable[[], Any]]
COLUMNS = {
    "storage": "s storage",
    "bytes_per_pair": ".2f B/pair",
    "times_smaller": ".1f x smaller",
    "million_pairs_per_second": ".1f M pairs/s read",
    "max_depth_error_mm": ".2f max depth error, mm",
}


def raw(pairs: Correspondences) -> NDArray[np.float64]:
    """float64 (P, 3): x, y, point."""
    return np.column_stack([pairs.pixel, pairs.point]).astype(np.float64)


def store_npy(pairs: Correspondences) -> Stored:
    rows, out = raw(pairs), np.empty((len(pairs), 3))
    return rows.nbytes, lambda: np.copyto(out, rows)


def store_npz(pairs: Correspondences) -> Stored:
    file = io.BytesIO()
    np.savez_compressed(file, raw(pairs))
    data = file.getvalue()
    return len(data), lambda: np.load(io.BytesIO(data))["arr_0"]


def store_integers(pairs: Correspondences) -> Stored:
    """The smallest plain integers: int32 point, two uint16 of pixel."""
    parts = [pairs.point, pairs.pixel]
    out = [np.empty_like(part) for part in parts]
    size = sum(part.nbytes for part in parts)
    return size, lambda: [np.copyto(o, part) for o, part in zip(out, parts, strict=True)]


def store_ours(pairs: Correspondences, compressor: Compressor, *, depth: bool) -> Stored:
    """As in a shard; what comes back is compared with what went in before anything is timed."""
    blobs = [codecs.encode_pairs(pairs.point, pairs.pixel, pairs.visible, compressor)]
    if depth:
        blobs.append(codecs.encode_quantised(pairs.depth, DEPTH_STEPS, compressor))
    buffers = [np.empty(max(64, 9 * len(pairs)), np.uint8) for _ in blobs]

    def decode() -> list[Any]:
        free = iter(buffers)
        return [codecs.decode(spec, blob, lambda size: next(free).data[:size]) for blob, spec in blobs]

    found: Pairs = decode()[0]
    for name in ("point", "pixel", "visible"):
        if not np.array_equal(getattr(found, name), getattr(pairs, name)):
            raise SystemExit(f"correspondence benchmark is void: {name} is not what was stored")
    return sum(len(blob) for blob, _ in blobs), decode


def depth_error(pairs: Correspondences) -> float:
    """Largest difference in metres between a stored depth and the original."""
    blob, spec = codecs.encode_quantised(pairs.depth, DEPTH_STEPS)
    return float(np.abs(codecs.decode(spec, blob).dequantise() - pairs.depth).max())


def measure(views: list[Correspondences], window: float) -> list[dict[str, Any]]:
    """One row for every way to store the pairs of all views (each view by itself)."""
    ways: dict[str, Callable[[Correspondences], Stored]] = {
        "float64 rows": store_npy,
        "float64 rows, npz": store_npz,
        "int32 + uint16 x 2": store_integers,
        "brickyard zstd": lambda pairs: store_ours(pairs, "zstd", depth=False),
        "brickyard lz4": lambda pairs: store_ours(pairs, "lz4", depth=False),
        "brickyard zstd, with depth": lambda pairs: store_ours(pairs, "zstd", depth=True),
    }
    count = sum(len(pairs) for pairs in views)
    reference = sum(raw(pairs).nbytes for pairs in views)
    rows = []
    for name, way in ways.items():
        stored = [way(pairs) for pairs in views]
        took = seconds(lambda stored=stored: [read() for _, read in stored], window=window)  # type: ignore[misc]
        size = sum(size for size, _ in stored)
        worst = 1000 * max(depth_error(pairs) for pairs in views) if name.endswith("depth") else None
        rows.append(
            {
                "storage": name,
                "bytes_per_pair": size / count,
                "times_smaller": reference / size,
                "million_pairs_per_second": count / took / 1e6,
                "max_depth_error_mm": worst,
            }
        )
    return rows


def run(*, milliseconds: int = 300, dry: bool = False) -> list[dict[str, Any]]:
    """Measure the pairs of both kinds of scene, print the tables, append the record."""
    rows, origins = [], []
    for dataset in ("nuscenes", "scannet"):
        source = material(dataset)
        scenes = [add_correspondences(scene, CorrespondenceConfig()) for scene in source.scenes]
        views = [view.pairs for scene in scenes for view in scene.views if view.pairs is not None and len(view.pairs)]
        count, seen = sum(len(pairs) for pairs in views), sum(int(pairs.visible.sum()) for pairs in views)
        part = measure(views, milliseconds / 1000)
        title = f"correspondences: {source.origin}, {len(views)} views, {count:,} pairs, {seen / count:.0%} visible"
        table(title, part, COLUMNS)
        rows += [{"dataset": dataset, **row} for row in part]
        origins.append(f"{source.origin}, {len(views)} views, {count} pairs")
    if not dry:
        append("correspondences", {"milliseconds": milliseconds}, rows, material=origins)
    return rows


if __name__ == "__main__":
    options = arguments(__doc__, milliseconds=300).parse_args()
    run(**vars(options))
