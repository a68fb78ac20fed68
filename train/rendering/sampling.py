"""Where along a ray the field is asked: evenly spaced sections first, then more of them where a surface seems to be.

A ray is cut at S + 1 distances into S sections, and the field is asked at the start of each. Random numbers come from a
seed for each ray (`views.noise`), so a ray gets the same samples however rays are batched or cut into pieces; without
seeds there is nothing random, as rendering wants it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from brickyard.train.rendering.neus import weights
from brickyard.train.views.noise import derive, uniform

_EPSILON = 1e-5


def stratified(near: Tensor, far: Tensor, count: int, seeds: Tensor | None = None) -> Tensor:
    """Distances (R, count + 1) of the ends of `count` sections between near and far (R,), ascending.

    With seeds (int64 (R,)) each end lies anywhere between the middles of the even sections beside it.
    """
    even = torch.linspace(0, 1, count + 1, device=near.device).expand(len(near), -1)
    if seeds is not None:
        middle = (even[:, 1:] + even[:, :-1]) / 2
        low, high = torch.cat((even[:, :1], middle), 1), torch.cat((middle, even[:, -1:]), 1)
        even = low + (high - low) * uniform(derive(seeds, "stratified"), count + 1)
    return near[:, None] + (far - near)[:, None] * even


def guess(ends: Tensor, sdf: Tensor, inv_s: float) -> Tensor:
    """Weights (R, S) of the sections by the distances at their starts alone, for a fixed sharpness.

    The slope is that between neighbouring samples, or that of the section before where it falls more steeply: a surface
    that a ray has just gone through keeps some weight (NeuS, supplementary material). The last section gets none.
    """
    lengths = (ends[:, 1:] - ends[:, :-1])[:, :-1]
    before, after = sdf[:, :-1], sdf[:, 1:]
    slope = (after - before) / (lengths + _EPSILON)
    slope = torch.minimum(torch.cat((torch.zeros_like(slope[:, :1]), slope[:, :-1]), 1), slope).clamp(-1e3, 0)
    middle, half = (before + after) / 2, slope * lengths / 2
    high, low = torch.sigmoid((middle - half) * inv_s), torch.sigmoid((middle + half) * inv_s)
    shown = weights((high - low + _EPSILON) / (high + _EPSILON))
    return torch.cat((shown, torch.zeros_like(shown[:, :1])), 1)


def resample(ends: Tensor, weight: Tensor, count: int, seeds: Tensor | None = None) -> Tensor:
    """Distances (R, count + 1) drawn from the density that `weight` (R, S) gives to the sections, ascending.

    Evenly through the cumulated weights; with seeds, anywhere in each of the count + 1 equal parts of them.
    """
    total = weight.sum(1, keepdim=True)
    missing = torch.relu(_EPSILON - total)  # a ray that nothing is seen on is sampled evenly
    density = (weight + missing / weight.shape[1]) / (total + missing)
    cumulated = torch.cat((torch.zeros_like(total), torch.cumsum(density, 1).clamp(max=1)), 1)
    part = 1 / (count + 1)
    place = torch.arange(count + 1, device=ends.device).expand(len(ends), -1)
    drawn = (place + (0.5 if seeds is None else uniform(derive(seeds, "importance"), count + 1))) * part
    above = torch.searchsorted(cumulated, drawn.contiguous(), right=True)
    below = (above - 1).clamp(0, ends.shape[1] - 1)
    above = above.clamp(0, ends.shape[1] - 1)
    low, high = cumulated.gather(1, below), cumulated.gather(1, above)
    width = torch.where(high - low < _EPSILON, 1.0, high - low)
    share = ((drawn - low) / width).clamp(0, 1)
    start, end = ends.gather(1, below), ends.gather(1, above)
    return start + share * (end - start)


def merge(ends: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Sections that start wherever those of either set do, and end where the farther set ends.

    Returns:
        (ends (R, S + M + 1), order int64 (R, S + M): which start each is, the first set's counted before the second's).
    """
    starts, order = torch.sort(torch.cat((ends[:, :-1], more[:, :-1]), 1), dim=1, stable=True)
    return torch.cat((starts, torch.maximum(ends[:, -1:], more[:, -1:])), 1), order
