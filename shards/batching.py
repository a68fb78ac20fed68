"""Cutting the sequence of visits into batches, by count or by a budget of cost, the same on every rank.

By count a batch is the next so many places. By budget it is a fixed number of bins that hold scenes of at most so much
cost each (points, or what an expression over the index says: frames, pixels, rays): memory stays flat although scenes
differ a hundredfold in size, and every rank makes the same number of steps, because the bins are planned from the index
alone. A window takes the next run of scenes that fills its bins, largest first into
the emptiest (LPT; Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), and gives the last scenes of the run to
the next window until all fit. So the state is the window's first place and the step in it, and resuming plans one
window again, in milliseconds. Bins are 97 % full and more where twenty scenes go into one or sizes vary; of a dozen
equal scenes the last one does not fit, and nobody can help that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.cost import Cost
from brickyard.shards.errors import CorpusError
from brickyard.shards.visits import Visits

Place = tuple[int, int]
"""Where the next batch begins: (first place of the window, step in it)."""

_TIGHTEST, _LOOSEST = 0.998, 0.5
"""Share of the bins' capacity that the run of a window starts with, and at worst ends with."""


_MOST = 1 << 53
"""What a float counts exactly up to."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Batches by cost. Either `points` says how much a bin holds, or `cost` what is counted and `most` how much of it.

    Attributes:
        points: in a bin, at most: short for a `cost` of "n_points".
        bins: of a global batch; a multiple of the number of ranks. Each rank gets bins / ranks of them.
        cap: a scene counts with at most so much, because `prepare` crops it to that.
        window: bins planned together; more fill better, fewer keep the order closer to the sequence.
        cost: of a scene: numbers, columns of the index, +, *, min and max, such as "n_points + 4096 * min(n_views, 4)";
            what comes out is rounded up, and is 1 at least. Columns: n_points, n_views (a clip's frames), n_pairs,
            visible_share, raw_bytes.
        most: of `cost` in a bin.
    """

    points: int | None = None
    bins: int = 1
    cap: int | None = None
    window: int = 64
    cost: str | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        if (self.points is None) == (self.cost is None) or (self.cost is None) != (self.most is None):
            raise ValueError("a budget is either `points`, or `cost` together with `most`")
        limits = (self.room, self.bins, self.window, 1 if self.cap is None else self.cap)
        if min(limits) < 1 or max(limits) >= _MOST:
            raise ValueError(f"points, most, bins, window and cap must be positive and below 2**53, found {self}")
        _ = self.expression  # a wrong one is refused now

    @property
    def room(self) -> int:
        """What a bin holds at most."""
        most = self.points if self.points is not None else self.most
        assert most is not None
        return most

    @property
    def bins_planned(self) -> int:
        """Those of a window, rounded up to whole batches."""
        return -(-self.window // self.bins) * self.bins

    @cached_property
    def expression(self) -> Cost | None:
        """The parsed `cost`; None where points are counted."""
        return None if self.cost is None else Cost(self.cost)

    @property
    def identity(self) -> dict[str, Any]:
        """What a plan depends on, as JSON; of a budget of points as it ever was."""
        counted = {"points": self.points} if self.cost is None else {"cost": self.cost, "most": self.most}
        return counted | {"bins": self.bins, "cap": self.cap, "window": self.window}

    def tables(self, visits: Visits) -> list[NDArray[np.int64]]:
        """What every row of every portion's index counts.

        Raises:
            CorpusError: the index does not say, for one that is visited, what `cost` needs.
        """
        found = []
        for corpus, rows in zip(visits.corpora, visits.rows, strict=True):
            if self.expression is None:
                values = corpus.points_per_scene
            else:
                exact = np.ceil(self.expression.of(corpus.index))
                known = exact < _MOST
                if not known[rows].all():
                    key, cost = corpus.keys[rows[np.argmin(known[rows])]], self.expression
                    raise CorpusError(
                        f"{corpus.store.uri}: the cost {cost.text!r} of {key} is no number below 2**53, because of"
                        f" {' or '.join(cost.columns) or 'its numbers'}; count something else, or leave such scenes out"
                        " of the selection"
                    )
                values = np.where(known, exact, 0).astype(np.int64)
            found.append(np.clip(values, 1, self.cap))
        return found


def by_count(batch: int, start: Place, end: int | None) -> Iterator[tuple[Place, list[list[int]]]]:
    """(place after the batch, its one bin of places) of every batch; the last one may be short."""
    place = start[0]
    while end is None or place < end:
        stop = place + batch if end is None else min(place + batch, end)
        yield (stop, 0), [list(range(place, stop))]
        place = stop


def by_cost(visits: Visits, budget: Budget, start: Place, end: int | None) -> Iterator[tuple[Place, list[list[int]]]]:
    """(place after the batch, its bins of places) of every batch; only before `end` may bins be empty.

    Raises:
        CorpusError: as `Budget.tables`.
        ValueError: a scene that no bin can hold, when its window is planned.
    """
    place, skip = start
    tables = budget.tables(visits)
    while end is None or place < end:
        steps, stop = _plan_window(visits, budget, tables, place, end)
        for number in range(skip, len(steps)):
            yield ((place, number + 1) if number + 1 < len(steps) else (stop, 0)), steps[number]
        place, skip = stop, 0


def _plan_window(
    visits: Visits, budget: Budget, tables: list[NDArray[np.int64]], place: int, end: int | None
) -> tuple[list[list[list[int]]], int]:
    """(bins of every step, first place of the next window)."""
    bins, capacity = budget.bins_planned, budget.bins_planned * budget.room
    sizes = _next_sizes(visits, budget, tables, place, end)
    total = np.cumsum(sizes)
    share = _TIGHTEST
    while share >= _LOOSEST:
        count = max(1, int(np.searchsorted(total, share * capacity, side="right")))
        last = end is not None and place + count >= end
        if last:  # the rest may need fewer bins
            bins = min(bins, -(-int(total[count - 1]) // (budget.room * budget.bins)) * budget.bins)
        else:
            count = max(count, bins)  # one for each always fits, and no rank is left without a scene
        while True:
            packed = _pack(sizes[:count], bins)
            if max(load for load, _ in packed) <= budget.room:
                return _steps(visits, budget, place, packed), place + count
            if not last or (bins := bins + budget.bins) * budget.room > capacity:
                break
        share -= 0.002 if share > 0.95 else 0.02
    raise ValueError(f"scenes near place {place} fill less than half of bins that hold {budget.room}; allow more")


def _next_sizes(
    visits: Visits, budget: Budget, tables: list[NDArray[np.int64]], place: int, end: int | None
) -> NDArray[np.int64]:
    """What the scenes from `place` on count, enough of them to fill the bins of a window."""
    found: list[NDArray[np.int64]] = []
    reach, block, capacity = 0, 256, budget.bins_planned * budget.room
    while reach <= capacity and (end is None or place < end):
        stop = place + block if end is None else min(place + block, end)
        sizes = visits.values(tables, place, stop)
        if (largest := int(sizes.max())) > budget.room:
            raise ValueError(
                f"a scene {_counts(budget, largest)} and a bin holds {budget.room}: crop in `prepare` and set `cap`,"
                " allow more, or leave such scenes out of the selection"
            )
        found.append(sizes)
        reach += int(sizes.sum())
        place, block = stop, 2 * block
    return np.concatenate(found)


def _counts(budget: Budget, size: int) -> str:
    return f"has {size} points" if budget.cost is None else f"costs {size} ({budget.cost})"


def _pack(sizes: NDArray[np.int64], bins: int) -> list[tuple[int, list[int]]]:
    """(load, members) of every bin: the largest first, each into the emptiest bin."""
    heap: list[tuple[int, int]] = [(0, number) for number in range(bins)]
    members: list[list[int]] = [[] for _ in range(bins)]
    for element in np.argsort(-sizes, kind="stable").tolist():
        load, number = heap[0]
        members[number].append(element)
        heapq.heapreplace(heap, (load + int(sizes[element]), number))
    return [(load, members[number]) for load, number in sorted(heap, key=lambda entry: entry[1])]


def _steps(visits: Visits, budget: Budget, place: int, packed: list[tuple[int, list[int]]]) -> list[list[list[int]]]:
    """Bins in an order drawn by seed and place, cut into steps; scenes of a bin in the order of their places."""
    order = np.random.default_rng((visits.seed & (2**64 - 1), place)).permutation(len(packed))
    full = [number for number in order.tolist() if packed[number][1]]
    empty = [number for number in order.tolist() if not packed[number][1]]
    bins = [sorted(place + element for element in packed[number][1]) for number in full + empty]
    return [bins[first : first + budget.bins] for first in range(0, len(bins), budget.bins)]
