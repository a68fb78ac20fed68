"""Which row of one view shows the same place as a row of another: nearest in coordinates before augmentation.

Exact: on a CPU by a k-d tree, on a GPU by comparing all pairs of two views of a scene in blocks. Rows are those of a
coarse level (some thousands a view), which makes it some milliseconds a pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from brickyard.train.transfer import send_table

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
    return (found[0], distance[0]) if len(found) == 1 else (torch.cat(found), torch.cat(distance))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Views to be matched with views.

    Attributes:
        points, others: coordinates (n, 3) of the rows of every view on either side.
        pairs: (view, other view), as numbers in these lists.
    """

    points: Sequence[Tensor]
    others: Sequence[Tensor]
    pairs: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Rows that show the same place.

    Attributes:
        rows, others: int64 (m,), row among all `points` joined, and row among all `others` joined.
        owner: int64 (m,), number of the pair.
        sizes: int64 (pairs,), matches of every pair.
    """

    rows: Tensor
    others: Tensor
    owner: Tensor
    sizes: Tensor


@torch.no_grad()
def match(tasks: Sequence[Task], radius: float) -> list[Matches]:
    """Matches closer than `radius` metres for every task, of which there must be one; the device is asked once for the
    numbers of all."""
    found, distances, table = [], [], []
    for task in tasks:
        first, second = _starts(task.points), _starts(task.others)
        for number, (a, b) in enumerate(task.pairs):
            which, distance = nearest(task.points[a], task.others[b])
            found.append(which)
            distances.append(distance)
            table.append((first[a], second[b], number, len(which)))
    every, device = _starts(found), found[0].device
    columns = send_table(
        [(*entry, start, end) for entry, start, end in zip(table, every, every[1:], strict=False)], device
    )
    near = torch.cat(distances) < radius
    before = functional.pad(near.cumsum(0), (1, 0))
    sizes = before[columns[:, 5]] - before[columns[:, 4]]
    counted = sizes.tolist()
    place = torch.nonzero_static(near, size=sum(counted))[:, 0]
    pair = torch.repeat_interleave(columns[:, 3], output_size=every[-1])[place]
    entry = columns[pair]
    rows, others = place - entry[:, 4] + entry[:, 0], torch.cat(found)[place] + entry[:, 1]
    result, pairs, at = [], 0, 0
    for task in tasks:
        own = slice(pairs, pairs := pairs + len(task.pairs))
        mine = slice(at, at := at + sum(counted[own]))
        result.append(Matches(rows=rows[mine], others=others[mine], owner=entry[mine, 2], sizes=sizes[own]))
    return result


def _starts(parts: Sequence[Tensor]) -> list[int]:
    return [0, *itertools.accumulate(len(part) for part in parts)]
