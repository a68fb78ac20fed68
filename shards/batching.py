"""Cutting the sequence of visits into batches, by count or by a budget of points, the same on every rank.

By count a batch is the next so many places. By budget it is a fixed number of bins with at most so many points each:
memory stays flat although scenes differ a hundredfold in size, and every rank makes the same number of steps, because
the bins are planned from the index alone. A window takes the next run of scenes that fills its bins, largest first into
the emptiest (LPT; Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), and gives the last scenes of the run to
the next window until all fit. So the state is the window's first place and the step in it, and resuming plans one
window again, in milliseconds. Bins are 97 % full and more where twenty scenes go into one or sizes vary; of a dozen
equal scenes the last one does not fit, and nobody can help that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.visits import Visits

Place = tuple[int, int]
"""Where the next batch begins: (first place of the window, step in it)."""

_TIGHTEST, _LOOSEST = 0.998, 0.5
"""Share of the bins' capacity that the run of a window starts with, and at worst ends with."""


@dataclass(frozen=True, kw_only=True)
class PointBudget:
    """Batches by points.

    Attributes:
        points: in a bin, at most.
        bins: of a global batch; a multiple of the number of ranks. Each rank gets bins / ranks of them.
        cap: a scene counts with at most so many points, because `prepare` crops it to that.
        window: bins planned together; more fill better, fewer keep the order closer to the sequence.
    """

    points: int
    bins: int = 1
    cap: int | None = None
    window: int = 64

    def __post_init__(self) -> None:
        if min(self.points, self.bins, self.window) < 1 or (self.cap is not None and self.cap < 1):
            raise ValueError(f"points, bins, window and cap must be positive, found {self}")


def by_count(batch: int, start: Place, end: int | None) -> Iterator[tuple[Place, list[list[int]]]]:
    """(place after the batch, its one bin of places) of every batch; the last one may be short."""
    place = start[0]
    while end is None or place < end:
        stop = place + batch if end is None else min(place + batch, end)
        yield (stop, 0), [list(range(place, stop))]
        place = stop


def by_points(
    visits: Visits, budget: PointBudget, start: Place, end: int | None
) -> Iterator[tuple[Place, list[list[int]]]]:
    """(place after the batch, its bins of places) of every batch; only before `end` may bins be empty."""
    place, skip = start
    while end is None or place < end:
        steps, stop = plan_window(visits, budget, place, end)
        for number in range(skip, len(steps)):
            yield ((place, number + 1) if number + 1 < len(steps) else (stop, 0)), steps[number]
        place, skip = stop, 0


def plan_window(visits: Visits, budget: PointBudget, place: int, end: int | None) -> tuple[list[list[list[int]]], int]:
    """(bins of every step, first place of the next window). Raises ValueError for a scene that no bin can hold."""
    bins = -(-budget.window // budget.bins) * budget.bins
    capacity = bins * budget.points
    sizes = _next_sizes(visits, budget, place, end, capacity)
    total = np.cumsum(sizes)
    share = _TIGHTEST
    while share >= _LOOSEST:
        count = max(1, int(np.searchsorted(total, share * capacity, side="right")))
        last = end is not None and place + count >= end
        if last:  # the rest may need fewer bins
            bins = min(bins, -(-int(total[count - 1]) // (budget.points * budget.bins)) * budget.bins)
        else:
            count = max(count, bins)  # one for each always fits, and no rank is left without a scene
        while True:
            packed = _pack(sizes[:count], bins)
            if max(load for load, _ in packed) <= budget.points:
                return _steps(visits, budget, place, packed), place + count
            if not last or (bins := bins + budget.bins) * budget.points > capacity:
                break
        share -= 0.002 if share > 0.95 else 0.02
    raise ValueError(f"scenes near place {place} fill less than half of bins of {budget.points} points; allow more")


def _next_sizes(visits: Visits, budget: PointBudget, place: int, end: int | None, capacity: int) -> NDArray[np.int64]:
    """Points of the scenes from `place` on, enough of them to fill the capacity."""
    found: list[NDArray[np.int64]] = []
    reach, block = 0, 256
    while reach <= capacity and (end is None or place < end):
        stop = place + block if end is None else min(place + block, end)
        sizes = np.maximum(visits.points(place, stop), 1)
        if budget.cap is not None:
            sizes = np.minimum(sizes, budget.cap)
        if (largest := int(sizes.max())) > budget.points:
            raise ValueError(
                f"a scene has {largest} points and a bin holds {budget.points}: crop in `prepare` and set `cap`, "
                "allow more points, or leave such scenes out of the selection"
            )
        found.append(sizes)
        reach += int(sizes.sum())
        place, block = stop, 2 * block
    return np.concatenate(found)


def _pack(sizes: NDArray[np.int64], bins: int) -> list[tuple[int, list[int]]]:
    """(load, members) of every bin: the largest first, each into the emptiest bin."""
    heap: list[tuple[int, int]] = [(0, number) for number in range(bins)]
    members: list[list[int]] = [[] for _ in range(bins)]
    for element in np.argsort(-sizes, kind="stable").tolist():
        load, number = heap[0]
        members[number].append(element)
        heapq.heapreplace(heap, (load + int(sizes[element]), number))
    return [(load, members[number]) for load, number in sorted(heap, key=lambda entry: entry[1])]


def _steps(
    visits: Visits, budget: PointBudget, place: int, packed: list[tuple[int, list[int]]]
) -> list[list[list[int]]]:
    """Bins in an order drawn by seed and place, cut into steps; scenes of a bin in the order of their places."""
    order = np.random.default_rng((visits.seed & (2**64 - 1), place)).permutation(len(packed))
    full = [number for number in order.tolist() if packed[number][1]]
    empty = [number for number in order.tolist() if not packed[number][1]]
    bins = [sorted(place + element for element in packed[number][1]) for number in full + empty]
    return [bins[first : first + budget.bins] for first in range(0, len(bins), budget.bins)]
