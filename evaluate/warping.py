"""A view warped into another by its depth: what a picture of a place looks like from elsewhere, without any network.

Every pixel with a depth becomes a point, and the points are drawn where the other camera sees them, the nearest of each
pixel in front. What no point falls on is filled from around, by repeated means of what is known. It is the baseline of
every renderer: it copies what was seen and invents nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Warped:
    """A picture of H x W pixels.

    Attributes:
        color: float32 (H, W, 3). depth: float32 (H, W), metres along the camera's z.
        covered: bool (H, W), where a point fell; elsewhere both are filled, or 0 where there was nothing to fill from.
    """

    color: Float32
    depth: Float32
    covered: NDArray[np.bool_]


def warp(
    points: Float64, color: Float32, camera_from_scene: Float64, intrinsics: Float64, shape: tuple[int, int]
) -> Warped:
    """Points (N, 3) of a scene with colours (N, 3) as a pinhole camera sees them.

    Args:
        camera_from_scene: float64 (4, 4), rigid.
        intrinsics: float64 (3, 3); the centre of the top left pixel is (0, 0).
        shape: (height, width) of the picture.
    """
    local = points @ camera_from_scene[:3, :3].T + camera_from_scene[:3, 3]
    ahead = local[:, 2] > 1e-6
    local, color = local[ahead], color[ahead]
    place = np.rint((local / local[:, 2:]) @ intrinsics.T)[:, :2]
    inside = ((place >= 0) & (place < (shape[1], shape[0]))).all(1)
    local, color, place = local[inside], color[inside], place[inside].astype(np.int64)
    order = np.argsort(-local[:, 2], kind="stable")  # the nearest comes last, and stays
    column, row = place[order].T
    depth, picture, covered = np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)
    depth[row, column], picture[row, column], covered[row, column] = local[order, 2], color[order], True
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
