"""Diversity: a budget of scenes, points or bytes, spent on scenes that differ.

k-centre (Gonzalez, 1985): again and again the scene that is farthest from all chosen ones; it covers outliers.
Facility location: the scene that brings every scene nearest to a chosen one, by lazy greedy steps (Minoux, 1978); it
covers the bulk. Both are within a constant factor of the best choice. Among more than 10,000 (k-centre) or 4,000
(facility location) scenes the budget is divided among cells of similar scenes, in proportion to the root of what they
hold, and spent in each: so a common kind of scene gives up more of its own.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.candidates import Candidates
from brickyard.curate.selections.neighbours import find_cells
from brickyard.shards.scene import Float32, Float64

_LIMIT = {"k-centre": 10_000, "facility-location": 4_000}


@dataclass(frozen=True, kw_only=True)
class DiversityConfig:
    """What may be spent.

    Attributes:
        by: "k-centre" or "facility-location".
        scenes, points, gib: the budget: scenes, points of all scenes, GiB of their raw files; exactly one is given.
    """

    by: Literal["k-centre", "facility-location"] = "k-centre"
    scenes: int | None = None
    points: int | None = None
    gib: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.scenes, self.points, self.gib) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError("give one budget, above 0: scenes, points or gib")


def diversify(scenes: Candidates, config: DiversityConfig) -> None:
    """Keep what the budget buys. Scenes without an embedding are out. Raises `CorpusError` where none has one."""
    vectors, known = scenes.unit_vectors("embedding", scenes.mean("embedding"))
    blind = scenes.alive[~known[scenes.alive]]
    scenes.refuse(blind, lambda row: "diversity: it has no embedding")
    rows = scenes.alive
    cost, budget = _costs(scenes, config)
    cells = scenes.cells()
    chosen = choose(vectors[rows], cost[rows], budget, config.by, None if cells is None else cells[1][rows, 0])
    out = np.setdiff1d(rows, rows[chosen])
    told = f"{config.by}, {budget:g} " + ("scenes" if config.scenes else "points" if config.points else "bytes")
    scenes.refuse(out, lambda row: f"diversity: others cover it ({told})")
    scenes.notes.append(f"diversity ({told}): {len(chosen)} of {len(rows)} stay, {len(blind)} without embedding out")


def _costs(scenes: Candidates, config: DiversityConfig) -> tuple[Float64, float]:
    if config.scenes is not None:
        return np.ones(len(scenes)), float(config.scenes)
    if config.points is not None:
        return scenes.number("n_points"), float(config.points)
    return scenes.number("raw_bytes"), float(config.gib or 0) * 2**30


def choose(
    vectors: Float32, cost: Float64, budget: float, by: str, cell: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Rows that are chosen, ascending; together they cost no more than the budget.

    Args:
        cell: of every row, where these are known.
    """
    pick = _k_centre if by == "k-centre" else _facility_location
    if len(vectors) <= _LIMIT[by]:
        return np.sort(pick(vectors, cost, budget))
    if cost.sum() <= budget:
        return np.arange(len(vectors))
    cell = find_cells(vectors)[1][:, 0] if cell is None else cell
    held = np.bincount(cell, cost).astype(np.float64)
    share = _shares(np.sqrt(held), held, budget)
    order = np.argsort(cell, kind="stable")
    members = np.split(order, np.searchsorted(cell[order], np.arange(1, len(held))))
    found, left = [], 0.0
    for mine, one in zip(members, share.tolist(), strict=True):
        chosen = mine[pick(vectors[mine], cost[mine], one + left)]
        left += one - float(cost[chosen].sum())  # what a cell cannot spend is the next one's
        found.append(chosen)
    return np.sort(np.concatenate(found))


def _shares(wanted: Float64, most: Float64, budget: float) -> Float64:
    """The budget in proportion to `wanted`, none above `most`; what is left over is given to the others."""
    share, open_ = np.zeros(len(most)), most > 0
    while open_.any() and budget > 1e-9:
        offer = np.where(open_, wanted, 0) * budget / wanted[open_].sum()
        full = open_ & (offer >= most)
        if not full.any():
            return np.asarray(share + offer)
        share[full], open_ = most[full], open_ & ~full
        budget -= most[full].sum()
    return share


def _k_centre(vectors: Float32, cost: Float64, budget: float) -> NDArray[np.int64]:
    chosen: list[int] = []
    near, left = np.full(len(vectors), -np.inf, np.float32), budget
    barred = cost > left
    if barred.all():
        return np.array(chosen, np.int64)
    place = int(np.argmin(np.where(barred, np.inf, -(vectors @ vectors.mean(axis=0)))))  # the most ordinary one
    while not barred.all():
        chosen.append(place)
        left -= cost[place]
        near = np.maximum(near, vectors @ vectors[place])
        barred |= cost > left
        barred[place] = True
        place = int(np.argmin(np.where(barred, np.inf, near)))
    return np.array(chosen, np.int64)


def _facility_location(vectors: Float32, cost: Float64, budget: float) -> NDArray[np.int64]:
    similar = np.maximum(vectors @ vectors.T, 0)
    covered, left, chosen = np.zeros(len(vectors), np.float32), budget, list[int]()
    heap = [
        (-float(gain) / max(c, 1e-9), k, 0) for k, (gain, c) in enumerate(zip(similar.sum(axis=1), cost, strict=True))
    ]
    heapq.heapify(heap)
    while heap:
        _, k, when = heapq.heappop(heap)
        if cost[k] > left:
            continue
        if when != len(chosen):  # what it brings has shrunk since
            gain = float(np.maximum(similar[k] - covered, 0).sum())
            heapq.heappush(heap, (-gain / max(cost[k], 1e-9), k, len(chosen)))
            continue
        chosen.append(k)
        left -= cost[k]
        covered = np.maximum(covered, similar[k])
    return np.array(chosen, np.int64)
