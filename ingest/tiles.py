"""Parts of clouds that are too large for one scene: squares of a grid, or strips of equal numbers of points.

A file whose header has bounds (LAS) is cut into a grid, so that one square can be read without keeping the others. PLY
and PCD headers have none, and planning opens no payload; so planning decides only how many strips there are, and every
reading finds the same borders for itself: quantiles of all points along the longer horizontal side.

Each part has a core; the cores are half-open boxes that tile the plane (infinite towards a side without neighbour), so
every point is in exactly one. A part also holds the points within `overlap` of its core. Borders are computed once, in
float64 world metres, the same for both neighbours; float32 coordinates in the scene frame are moved to the right side
of a border where rounding took them across (by one unit in the last place, micrometres).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float32, Float64

STEP = 2.0**-10
"""Borders of strips are multiples of this, metres: no two lie closer than float32 can tell within 8 km."""


@dataclass(frozen=True, kw_only=True)
class Core:
    """A half-open box of the world, float64 (3,) metres, and how far beyond it points are kept, metres."""

    low: Float64
    high: Float64
    overlap: float

    def near(self, xyz: Float64) -> NDArray[np.bool_]:
        """Which of the points (N, 3) belong to the part, those of the overlap included."""
        return _between(xyz, self.low - self.overlap, self.high + self.overlap)

    def holds(self, xyz: Float64) -> NDArray[np.bool_]:
        """Which of the points (N, 3) are in the core."""
        return _between(xyz, self.low, self.high)


def _between(xyz: Float64, low: Float64, high: Float64) -> NDArray[np.bool_]:
    """Axis by axis, which numpy does ten times faster than all at once; sides without border cost nothing."""
    inside = np.ones(len(xyz), np.bool_)
    for axis in range(3):
        if np.isfinite(low[axis]):
            inside &= xyz[:, axis] >= low[axis]
        if np.isfinite(high[axis]):
            inside &= xyz[:, axis] < high[axis]
    return inside


def square(tile: Mapping[str, Any]) -> Core:
    """The core of a square of a grid: x, y, edge (metres), columns, rows, column, row, overlap."""
    low, high = np.full(3, -np.inf), np.full(3, np.inf)
    for axis, (start, number, count) in enumerate(
        ((tile["x"], tile["column"], tile["columns"]), (tile["y"], tile["row"], tile["rows"]))
    ):
        if number > 0:
            low[axis] = start + number * tile["edge"]
        if number + 1 < count:
            high[axis] = start + (number + 1) * tile["edge"]
    return Core(low=low, high=high, overlap=tile["overlap"])


def strip(tile: Mapping[str, Any], xyz: Float64) -> Core:
    """The core of a strip (strip, strips, overlap) of the points (N, 3), N > 0; it may be empty if many are equal."""
    axis = int(np.ptp(xyz[:, 1]) > np.ptp(xyz[:, 0]))
    number, count = tile["strip"], tile["strips"]
    places = [len(xyz) * k // count for k in (number, number + 1)]
    sorted_there = np.partition(xyz[:, axis], [min(place, len(xyz) - 1) for place in places])
    low, high = np.full(3, -np.inf), np.full(3, np.inf)
    if number > 0:
        low[axis] = np.floor(sorted_there[places[0]] / STEP) * STEP
    if number + 1 < count:
        high[axis] = np.floor(sorted_there[places[1]] / STEP) * STEP
    return Core(low=low, high=high, overlap=tile["overlap"])


def to_scene(xyz: Float64, origin: Float64, core: Core | None) -> Float32:
    """World coordinates (N, 3) -> float32 in the scene frame, on the same side of every border of the core."""
    local = np.empty(xyz.shape, np.float32)
    for axis in range(3):
        local[:, axis] = xyz[:, axis] - origin[axis]
    if core is None:
        return local
    for axis in range(3):
        for border in (core.low[axis], core.high[axis]):
            if np.isfinite(border):
                _keep_side(local[:, axis], xyz[:, axis] >= border, border - origin[axis])
    return local


def _keep_side(values: Float32, above: NDArray[np.bool_], border: float) -> None:
    """Change float32 `values` in place so that `values >= border` (in float64) is `above`."""
    nearest = np.float32(border)
    first = nearest if float(nearest) >= border else np.nextafter(nearest, np.float32(np.inf))
    values[above & (values < first)] = first
    values[~above & (values >= first)] = np.nextafter(first, np.float32(-np.inf))
