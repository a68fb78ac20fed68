"""Chunks of a scene, as Sonata was trained on: squares of 6 x 6 m, 3 m apart, which overlap by half.

Along an axis with points from a to b, square k covers a + 3 k .. a + 3 k + 6 for k = 0, 1, ... until b is reached, and
one square is enough for what is narrower. (The script that was published for it tiles y with the extent of x: it makes
no chunk of a scene up to 3 m wide, and leaves out what lies beyond in y.) Of each square the part that is nearest to
its middle is its core, open to the outside, so that every point is in exactly one core.

A mesh does not say how large it is, and planning opens no payload: it looks at `PIECES` pieces of the vertices, 64 KB
in all, which gives the number of squares, generously. Where they lie is found by every reader from all vertices. A
square that was planned and is not there has no points, and a build passes over it; one that was not foreseen is part
of the last one, which is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brickyard.ingest.mesh import parse_header
from brickyard.ingest.source import RawFiles
from brickyard.ingest.tiles import Core, square
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Float32

PIECES = 30
HEAD_BYTES = PIECE_BYTES = 2048
SLACK_M = 1.0
"""Metres by which a scene may be longer than the pieces of it show."""
MAX_EXTENT_M = 1000.0


@dataclass(frozen=True, kw_only=True)
class ChunkOptions:
    """How scenes are cut.

    Attributes:
        size_m: edge of the squares, metres.
        stride_m: from the corner of a square to the next one's; the cores of the inner ones are as wide.
    """

    size_m: float = 6.0
    stride_m: float = 3.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size_m) and 0 < self.stride_m <= self.size_m):
            raise RecipeError(
                f"scannetpp options: chunks need 0 < stride_m <= size_m, found {self.stride_m} and {self.size_m}"
            )


def count_along(extent: float, size: float, stride: float) -> int:
    """Squares that cover an extent in metres."""
    return 1 + max(0, math.ceil((extent - size) / stride))


def planned(files: RawFiles, path: str, options: ChunkOptions) -> tuple[int, int, int]:
    """(columns, rows, vertices) of a mesh from pieces of it; raises `RawDataError` where its header is damaged."""
    size = files.size(path)
    vertex, vertices, _, start = parse_header(files, path, files.read_range(path, 0, min(size, HEAD_BYTES)))
    rows = max(1, PIECE_BYTES // vertex.itemsize)
    places = sorted({round(k * max(0, vertices - rows) / (PIECES - 1)) for k in range(PIECES)})
    found = []
    for place in places:
        count = min(rows, vertices - place)
        data = files.read_range(path, start + place * vertex.itemsize, count * vertex.itemsize)
        table = np.frombuffer(data, vertex, count)
        found.append(np.stack([table["x"], table["y"]], axis=1).astype(np.float64))
    xy = np.concatenate(found)
    extents = np.ptp(xy, axis=0) if len(xy) else np.zeros(2)
    if not (np.isfinite(xy).all() and (extents < MAX_EXTENT_M).all()):
        raise files.error(path, f"vertices lie {extents[0]:g} x {extents[1]:g} m apart", hint="download it again")
    columns, lines = (count_along(float(extent) + SLACK_M, options.size_m, options.stride_m) for extent in extents)
    return columns, lines, vertices


def core_of(xyz: Float32, chunk: Mapping[str, Any]) -> tuple[Core, int]:
    """The chunk's core, and how many squares it stands in for beside its own.

    The core of a square that the scene does not have lies beyond all vertices.

    Args:
        xyz: float32 (N, 3), all vertices, N > 0.
        chunk: as planned: column, row, columns, rows, size, stride.
    """
    low, high = (pick(axis=0).astype(np.float64) for pick in (xyz.min, xyz.max))
    size, stride = chunk["size"], chunk["stride"]
    found = [count_along(float(high[axis] - low[axis]), size, stride) for axis in range(2)]
    counts = [min(number, chunk[name]) for number, name in zip(found, ("columns", "rows"), strict=True)]
    if chunk["column"] >= counts[0] or chunk["row"] >= counts[1]:
        return Core(low=high + size, high=high + 2 * size, overlap=0.0), 0
    overlap = (size - stride) / 2
    last = [chunk["column"] + 1 == counts[0], chunk["row"] + 1 == counts[1]]
    wide, deep = (1 + (number - count) * at for number, count, at in zip(found, counts, last, strict=True))
    tile = {
        "x": low[0] + overlap, "y": low[1] + overlap, "edge": stride, "overlap": overlap,
        "column": chunk["column"], "row": chunk["row"], "columns": counts[0], "rows": counts[1],
    }  # fmt: skip
    return square(tile), wide * deep - 1
