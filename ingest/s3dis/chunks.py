"""Cuts a huge room into chunks: which point of the room is whose, found alike by every reader of a chunk.

The plan knows the number of chunks (from the sizes of the files), not where the points are. So the cores are the leaves
of a k-d tree over all points of the room: a box is cut across its longer horizontal side so that the points divide in
proportion to the chunks on either side, until every box is one chunk. Chunks hold equal numbers of points, are about
as wide as long, and depend on the points alone. Each reader parses the whole room and keeps its chunk: n chunks cost n
readings, and some 70 bytes a point of the room while reading.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Float32, Float64


def core_of(xyz: Float32, number: int, count: int) -> tuple[Float64, Float64]:
    """The core box (lowest corner, highest corner), float64 (3,) each, of chunk `number` of `count`.

    The boxes of all chunks tile space, half-open, infinite towards the outside of the room and in z: each point is in
    exactly one. Cuts lie midway between two neighbouring coordinates, so rounding a point does not move it over.

    Args:
        xyz: float32 (N, 3), all points of the room.

    Raises:
        SceneError: the points do not suffice, such as when all lie in one vertical line.
    """
    low, high = np.full(3, -math.inf), np.full(3, math.inf)
    mine = xyz[:, :2]
    first, last = 0, count
    while last - first > 1:
        middle = (first + last) // 2
        axis, cut = _cut(mine, (middle - first) / (last - first))
        below = mine[:, axis] < np.array([cut])  # an array: a scalar would be rounded to float32 first
        if number < middle:
            last, high[axis], mine = middle, cut, mine[below]
        else:
            first, low[axis], mine = middle, cut, mine[~below]
    return low, high


def _cut(xy: Float32, share: float) -> tuple[int, float]:
    """(axis, coordinate) of the cut with about `share` of the points below it, and at least one on either side."""
    extent = np.ptp(xy, axis=0) if len(xy) else np.zeros(2)
    axis = int(extent.argmax())
    if not extent[axis] > 0:
        raise SceneError(f"{len(xy)} points at one spot cannot be cut into chunks")
    values = np.sort(xy[:, axis])
    place = min(max(round(share * len(values)), 1), len(values) - 1)
    above = int(np.searchsorted(values, values[place]))
    if above == 0:  # the lowest value repeats beyond the place
        above = int(np.searchsorted(values, values[0], side="right"))
    return axis, (float(values[above - 1]) + float(values[above])) / 2


def inside(xyz: Float32, low: Float64, high: Float64, margin: float) -> NDArray[np.bool_]:
    """Whether points lie in a half-open box grown by `margin` metres to every side, bool (N,)."""
    result: NDArray[np.bool_] = ((xyz >= low - margin) & (xyz < high + margin)).all(axis=1)
    return result
