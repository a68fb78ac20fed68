"""Colours of pictures: depth and height as Turbo, classes by their taxonomy's palette.

Turbo (A. Mikhailov, Google AI blog, 2019) is a rainbow without the false edges of Jet; it is evaluated by the author's
polynomial of degree five, which is within 1/50 of the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED

RGB = NDArray[np.uint8]

_TURBO = np.array(
    [
        [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
        [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
        [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
    ]
)
_GREY = (96, 102, 112)


def turbo(value: NDArray[np.floating[Any]]) -> RGB:
    """0 (blue) .. 1 (red) -> uint8 (..., 3); values outside are clipped."""
    powers = np.clip(np.asarray(value, np.float64), 0, 1)[..., None] ** np.arange(6)
    return np.asarray(np.clip(powers @ _TURBO.T, 0, 1) * 255 + 0.5, np.uint8)


def spread(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The range that colours should cover: 2nd to 98th percentile, never empty."""
    if not len(values):
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (2, 98)))
    return (low, high) if high - low > 1e-3 else (low - 0.5, low + 0.5)


def height_colours(height: NDArray[np.floating[Any]]) -> RGB:
    low, high = spread(height)
    return turbo(_bright((height - low) / (high - low)))


def depth_colours(depth: NDArray[np.floating[Any]], near: float, far: float) -> RGB:
    """Near is red, far is blue, by the logarithm: equal colour steps are equal ratios of distance."""
    return turbo(_bright(1 - np.log(np.maximum(depth, 1e-6) / near) / np.log(far / near)))


def _bright(value: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """0..1 without the ends of Turbo, which are too dark for dots on a dimmed image."""
    return 0.07 + 0.85 * np.clip(value, 0, 1)


def class_colours(labels: NDArray[np.integer[Any]], palette: tuple[tuple[int, int, int], ...]) -> RGB:
    """One colour per class id; grey where unlabelled or outside the palette."""
    table = np.array([*palette, _GREY], np.uint8)
    known = (labels > UNLABELLED) & (labels < len(palette))
    return np.asarray(table[np.where(known, labels, len(palette))], np.uint8)


def css(rgb: tuple[int, int, int] | RGB) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in rgb)
