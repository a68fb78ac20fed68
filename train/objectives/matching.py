"""Which row of one view shows the same place as a row of another: nearest in coordinates before augmentation.

Exact: on a CPU by a k-d tree, on a GPU by comparing all pairs of two views of a scene in blocks. Rows are those of a
coarse level (some thousands a view), which makes it some milliseconds a pair.
"""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

_BLOCK = 1 << 24
"""Distances computed at a time."""


@torch.no_grad()
def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(number of the nearest of `others` int64 (n,), distance to it float32 (n,)) of every point (n, 3)."""
    if len(others) == 0:
        return points.new_zeros(len(points), dtype=torch.int64), points.new_full((len(points),), torch.inf)
    if points.device.type == "cpu":
        apart, which = cKDTree(others.double().numpy()).query(points.double().numpy().reshape(-1, 3))
        return torch.from_numpy(which), torch.from_numpy(apart).float()
    return nearest_of_all(points, others)


def nearest_of_all(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The same by comparing everything with everything, in blocks; `others` are not empty."""
    found, distance = [], []
    for block in torch.split(points, max(1, _BLOCK // len(others))):
        # Not by matrix products: those lose what matters, the last digits of nearly equal coordinates.
        d = torch.cdist(block, others, compute_mode="donot_use_mm_for_euclid_dist")
        closest = d.min(1)
        found.append(closest.indices)
        distance.append(closest.values)
    return torch.cat(found), torch.cat(distance)


@torch.no_grad()
def match(
    points: list[Tensor], others: list[Tensor], pairs: list[tuple[int, int]], radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Matches of views with views.

    Args:
        points, others: coordinates (n, 3) of the rows of every view on either side.
        pairs: (view, other view) to be matched, as numbers in these lists.
        radius: matches are closer than this, metres.

    Returns:
        int64 (m,) each: row among all `points` joined, row among all `others` joined, number of the pair.
    """
    first = _starts(points)
    second = _starts(others)
    rows, targets, owner, distances = [], [], [], []
    for number, (a, b) in enumerate(pairs):
        found, distance = nearest(points[a], others[b])
        rows.append(torch.arange(first[a], first[a + 1], device=found.device))
        targets.append(found + second[b])
        owner.append(torch.full_like(found, number))
        distances.append(distance)
    near = (torch.cat(distances) < radius).nonzero()[:, 0]  # a GPU waits once, not for every pair
    return torch.cat(rows)[near], torch.cat(targets)[near], torch.cat(owner)[near]


def _starts(parts: list[Tensor]) -> list[int]:
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    return starts
