"""Masks of a view: cubes of points whose features the student does not get to see.

A view is cut into axis-aligned cubes from its own lowest corner; of the cubes with points a share is masked. (The
published code draws from the cubes of all views of a GPU's batch together, so that a view's share varies with its
batch-mates; here every view has its own.) Masked points are also moved a little, lest their exact places betray the
surface's shape; the published code cuts that noise off on one side only, here it is cut off on both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from brickyard.train.clouds import Clouds
from brickyard.train.views.crops import rank_within
from brickyard.train.views.noise import derive, normal, uniform


def mask_cubes(clouds: Clouds, size: float, ratio: float, seeds: Tensor) -> Tensor:
    """bool (N,): the points in floor(ratio * cubes) random cubes of edge `size` of every view.

    Args:
        clouds: the views; size: metres; seeds: int64 (views,).
    """
    codes, inverse = torch.unique(clouds.cell_codes(clouds.cells(size)), return_inverse=True)
    view, cube = codes >> 48, codes & ((1 << 48) - 1)
    counts = torch.bincount(view, minlength=clouds.batch)
    key = uniform(derive(seeds[view], "mask", cube))[:, 0]
    masked = rank_within(key, view, tuple(counts.tolist())) < (ratio * counts.double()).floor()[view]
    return masked[inverse]


def shaken(clouds: Clouds, masked: Tensor, deviation: float, limit: float, seeds: Tensor) -> Tensor:
    """Coordinates (N, 3) with normal noise, cut off at +-limit metres, on the masked points."""
    if deviation == 0:
        return clouds.xyz
    noise = normal(derive(seeds[clouds.scene], "shake", clouds.numbers()), 3) * deviation
    return torch.where(masked[:, None], clouds.xyz + noise.clamp(-limit, limit), clouds.xyz)
