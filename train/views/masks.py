"""Masks of a view: cubes of points whose features the student does not get to see.

A view is cut into axis-aligned cubes from its own lowest corner; of the cubes with points a share is masked. (The
published code draws from the cubes of all views of a GPU's batch together, so that a view's share varies with its
batch-mates; here every view has its own.) Masked points are also moved a little, lest their exact places betray the
surface's shape; the published code cuts that noise off on one side only, here it is cut off on both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.clouds import Clouds
from brickyard.train.transfer import send_table
from brickyard.train.views.crops import ordered
from brickyard.train.views.noise import for_points, normal, uniform
from brickyard.train.voxels import runs


def mask_cubes(clouds: Clouds, size: float, ratio: float, seeds: Tensor, *, known: bool = False) -> Tensor:
    """bool (N,): the points in floor(ratio * cubes) random cubes of edge `size` of every view.

    Args:
        clouds: the views; size: metres; seeds: int64 (views,).
        known: that no view spans too many cubes, which else the device is asked for.
    """
    cells = clouds.cells_unchecked(size).long() if known else clouds.cells(size)
    code, members = clouds.cell_codes(cells).sort(stable=True)
    cube, first = runs(code)
    # A cube is drawn by its first point; as everything is sorted by view, numbers count along every such order.
    view, numbers = clouds.scene, clouds.numbers()
    key = uniform(for_points(seeds, "mask", view, code & (1 << 48) - 1))[:, 0]
    order = (view << 33 | (~first).long() << 32 | ordered(key)).argsort(stable=True)
    ends = send_table([max(sum(clouds.counts[: v + 1]) - 1, 0) for v in range(clouds.batch)], view.device)
    cubes = functional.pad((cube[ends] + 1)[None], (1, 0))[0].diff()
    drawn = torch.empty_like(first)
    drawn[order] = numbers < (ratio * cubes.double()).floor()[view]
    begin = torch.where(first, torch.arange(len(first), device=first.device), 0).cummax(0).values
    masked = torch.empty_like(first)
    masked[members] = drawn[begin]
    return masked


def shaken(clouds: Clouds, masked: Tensor, deviation: float, limit: float, seeds: Tensor) -> Tensor:
    """Coordinates (N, 3) with normal noise, cut off at +-limit metres, on the masked points."""
    if deviation == 0:
        return clouds.xyz
    noise = normal(for_points(seeds, "shake", clouds.scene, clouds.numbers()), 3) * deviation
    return torch.where(masked[:, None], clouds.xyz + noise.clamp(-limit, limit), clouds.xyz)
