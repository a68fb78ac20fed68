"""A view warped into another by its depth: what a picture of a place looks like from elsewhere, without any network.

Every pixel with a depth becomes a point, and the points are drawn where the other camera sees them, the nearest of each
pixel in front. What no point falls on is filled from around, by repeated means of what is known. It is the baseline of
every renderer: it copies what was seen and invents nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.cameras import project
from brickyard.shards.scene import DepthAxis, View

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Warped:
    """A picture of H x W pixels.

    Attributes:
        color: float32 (H, W, 3). depth: float32 (H, W), metres.
        covered: bool (H, W), where a point fell; elsewhere both are filled, or 0 where there was nothing to fill from.
    """

    color: Float32
    depth: Float32
    covered: NDArray[np.bool_]


def warp(points: Float64, color: Float32, camera: View, along: DepthAxis = "z") -> Warped:
    """Points (N, 3) of a scene with colours (N, 3) as a camera with a pose sees them.

    Args:
        along: what its depth is along, see `shards.scene.Depth`.
    """
    shape = (camera.height, camera.width)
    seen = project(points, camera)
    reach, place = seen.along(along), np.rint(np.nan_to_num(seen.uv, nan=-1.0, posinf=-1.0, neginf=-1.0))
    inside = ((place >= 0) & (place < (camera.width, camera.height))).all(1)
    reach, color, place = reach[inside], color[inside], place[inside].astype(np.int64)
    order = np.argsort(-reach, kind="stable")  # the nearest comes last, and stays
    column, row = place[order].T
    depth, picture, covered = np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)
    depth[row, column], picture[row, column], covered[row, column] = reach[order], color[order], True
    filled = fill(np.concatenate((picture, depth[..., None]), 2), covered)
    return Warped(color=filled[..., :3], depth=filled[..., 3], covered=covered)


def fill(values: Float32, known: NDArray[np.bool_]) -> Float32:
    """Values (H, W, C) where they are known, elsewhere the mean of known neighbours, ring by ring; 0 if none is."""
    values, known = np.where(known[..., None], values, 0), known.copy()
    while known.any() and not known.all():
        padded, weight = np.pad(values, ((1, 1), (1, 1), (0, 0))), np.pad(known.astype(np.float32), 1)
        total, count = np.zeros_like(values), np.zeros(known.shape, np.float32)
        for down in range(3):
            for across in range(3):
                part = slice(down, down + known.shape[0]), slice(across, across + known.shape[1])
                total, count = total + padded[part], count + weight[part]
        ring = ~known & (count > 0)
        values[ring] = total[ring] / count[ring][:, None]
        known |= ring
    return values.astype(np.float32)
