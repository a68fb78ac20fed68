"""Feature maps at single pixels, without making the enlarged map: points fall on few of its pixels.

A map of 1,024 channels at 224 x 448 pixels is 392 MiB in float32, for each image; a scan's 22,000 pairs are 86 MiB.
"""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_at(x: Tensor, size: tuple[int, int], image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """`functional.interpolate(x, size, mode="bilinear", align_corners=True)[image, :, row, column]`, computed there
    alone: (P, C).

    Args:
        x: float32 (images, C, h, w). size: of the map that is not made.
        image, row, column: int64 (P,), places in it.
    """
    (top, bottom, down), (left, right, across) = (
        _between(place, x.shape[axis], size[axis - 2]) for axis, place in ((2, row), (3, column))
    )
    above = torch.lerp(x[image, :, top, left], x[image, :, top, right], across)
    below = torch.lerp(x[image, :, bottom, left], x[image, :, bottom, right], across)
    return torch.lerp(above, below, down)


def _between(place: Tensor, cells: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(cell before, cell after, share of the latter (P, 1)) of places 0..size-1 over the centres of `cells`."""
    exact = place * ((cells - 1) / max(size - 1, 1))
    before = exact.long().clamp(max=cells - 1)
    return before, (before + 1).clamp(max=cells - 1), (exact - before)[:, None]
