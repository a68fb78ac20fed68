"""Were colours turned against their depth? People rotate the images upright and leave the rest as it is.

Edges of depth are edges of the picture. Of the four quarter turns of a picture, the one whose edges lie best on those
of the depth is the one it was taken at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float64

_BLOCK = 4
_SURE, _LEAST = 1.25, 0.15
"""By how much another turn must fit better before it is believed, and the least correlation of edges that says
something: a real walk and all simulated ones but one have 0.18 to 0.48, under any other turn at most 0.06. A wall
before the lens has no edges, and says nothing."""


def quarter_turns(frames: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint16]]]) -> int:
    """Quarter turns (counter-clockwise) that colours (H, H, 3) need to fit depth (H, H), 0 unless sure."""
    scores = np.zeros(4)
    for color, depth in frames:
        picture, surfaces = _edges(color.mean(axis=2)), _edges(np.log(np.maximum(depth, 1).astype(np.float64)))
        for turns in range(4):
            scores[turns] += _correlation(np.rot90(picture, turns), surfaces)
    best = int(np.argmax(scores))
    return best if best and scores[best] > max(_SURE * scores[0], _LEAST * len(frames)) else 0


def _edges(values: Float64) -> Float64:
    """Strength of the edges in blocks of pixels, within the lens's circle."""
    side = len(values) // _BLOCK
    small = values[: side * _BLOCK, : side * _BLOCK].reshape(side, _BLOCK, side, _BLOCK).mean(axis=(1, 3))
    down, right = np.gradient(small)
    strength = np.minimum(np.hypot(down, right), np.percentile(np.hypot(down, right), 97))
    away = np.hypot(*(np.indices(small.shape) - (side - 1) / 2)) > 0.47 * side
    strength[away] = np.nan
    return np.asarray(strength)


def _correlation(one: Float64, other: Float64) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    a, b = one[known] - one[known].mean(), other[known] - other[known].mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length else 0.0
