"""Batches by cost: bins that fit, full bins, every scene once, the same on every rank and after every restart."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards.batching import Budget, Place, by_cost, by_count
from brickyard.shards.errors import CorpusError
from brickyard.shards.stream import Stream
from brickyard.shards.visits import Portion, Visits
from tests.worlds import toy_corpus


class Counts:
    """As much of a corpus as planning looks at."""

    store = SimpleNamespace(uri="counts")

    def __init__(self, points: Any, name: str = "counts") -> None:
        self._points, self.fingerprint = np.asarray(points, np.int64), name

    def __len__(self) -> int:
        return len(self._points)

    @cached_property
    def points_per_scene(self) -> Any:
        return self._points


def visits(points: Any, seed: int = 0) -> Visits:
    return Visits([Portion(corpus=Counts(points))], seed)  # type: ignore[arg-type]


class Clips:
    """As much of a corpus of clips as planning looks at: they have no points, and differ in frames."""

    store, fingerprint = SimpleNamespace(uri="clips"), "clips"

    def __init__(self, frames: list[int], share: list[float | None] | None = None) -> None:
        points, shares = [0] * len(frames), share or [1.0] * len(frames)
        self.index = pa.table({"n_points": points, "n_views": frames, "visible_share": pa.array(shares, pa.float64())})
        self.keys = [f"clips/{number}" for number in range(len(frames))]
        self.points_per_scene = np.zeros(len(frames), np.int64)

    def __len__(self) -> int:
        return len(self.keys)


def clips(frames: list[int], seed: int = 0, **options: Any) -> Visits:
    return Visits([Portion(corpus=Clips(frames, **options))], seed)  # type: ignore[arg-type]


sizes = st.lists(st.integers(0, 1000).map(lambda n: n if n < 3 else max(n, 100)), min_size=10, max_size=200)


@settings(deadline=None)
@given(sizes, st.integers(1000, 5000), st.integers(1, 16), st.integers(1, 64), st.integers(1, 3))
def test_every_scene_once_an_epoch_and_no_bin_too_full(
    points: list[int], most: int, bins: int, window: int, epochs: int
) -> None:
    budget, seed = Budget(points=most, bins=bins, window=window), most
    order = visits(points, seed)
    steps = [batch for _, batch in by_cost(order, budget, (0, 0), epochs * len(points))]
    assert all(len(batch) == bins for batch in steps)
    places = [place for batch in steps for bin_ in batch for place in bin_]
    assert sorted(places) == list(range(epochs * len(points)))
    assert Counter(order.at(place)[1] for place in places) == dict.fromkeys(range(len(points)), epochs)
    for batch in steps:
        for bin_ in batch:
            assert sum(max(1, points[order.at(place)[1]]) for place in bin_) <= most


@settings(deadline=None, max_examples=30)
@given(sizes, st.integers(1, 8), st.integers(0, 40), st.integers(0, 99))
def test_restarting_anywhere_goes_on_exactly_there(points: list[int], bins: int, stop: int, seed: int) -> None:
    budget = Budget(points=2000, bins=bins, window=16)
    steps = by_cost(visits(points, seed), budget, (0, 0), None)
    whole = [next(steps) for _ in range(stop + 5)]
    place: Place = whole[stop - 1][0] if stop else (0, 0)
    again = by_cost(visits(points, seed), budget, place, None)
    assert [next(again) for _ in range(5)] == whole[stop:]


@settings(deadline=None)
@given(
    frames=st.lists(st.integers(0, 200), min_size=10, max_size=200), bins=st.integers(1, 6), window=st.integers(1, 40),
    seed=st.integers(0, 99), cap=st.sampled_from([None, 64]), stop=st.integers(0, 20),
)  # fmt: skip
def test_a_budget_of_frames(
    *, frames: list[int], bins: int, window: int, seed: int, cap: int | None, stop: int
) -> None:
    """Each clip once an epoch, its cost (worked out by hand here) kept in every bin, the same after a restart."""
    budget = Budget(cost="5 + 2 * min(n_views, 48)", most=210, bins=bins, window=window, cap=cap)
    costs = [min(5 + 2 * min(count, 48), cap or 1000) for count in frames]
    order = clips(frames, seed)
    steps = list(by_cost(order, budget, (0, 0), 2 * len(frames)))
    places = [place for _, batch in steps for bin_ in batch for place in bin_]
    assert sorted(places) == list(range(2 * len(frames)))
    loads = [sum(costs[order.at(place)[1]] for place in bin_) for _, batch in steps for bin_ in batch]
    assert max(loads) <= 210
    stop = min(stop, len(steps) - 1)
    place: Place = steps[stop - 1][0] if stop else (0, 0)
    assert list(by_cost(clips(frames, seed), budget, place, 2 * len(frames))) == steps[stop:]


@settings(deadline=None, max_examples=30)
@given(sizes, st.integers(1000, 5000), st.integers(1, 8), st.integers(0, 99))
def test_a_cost_of_points_plans_what_a_budget_of_points_does(
    points: list[int], most: int, bins: int, seed: int
) -> None:
    class Indexed(Counts):
        index, keys = pa.table({"n_points": points}), [str(n) for n in range(len(points))]

    order = Visits([Portion(corpus=Indexed(points))], seed)  # type: ignore[arg-type]
    plans = [
        list(by_cost(order, budget, (0, 0), 2 * len(points)))
        for budget in (Budget(points=most, bins=bins), Budget(cost="n_points", most=most, bins=bins))
    ]
    assert plans[0] == plans[1]


def test_what_a_budget_cannot_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"costs 1500 \(15 \* n_views\) and a bin holds 1000"):
        next(by_cost(clips([10, 100]), Budget(cost="15 * n_views", most=1000), (0, 0), None))
    unknown = clips([10, 20, 30], share=[0.5, None, 0.5])
    with pytest.raises(
        CorpusError, match=r"the cost 'visible_share \* n_views' of clips/1 is no number .*visible_share"
    ):
        next(by_cost(unknown, Budget(cost="visible_share * n_views", most=1000), (0, 0), None))
    unknown.rows[0] = np.array([2, 0])  # a selection without it
    assert next(by_cost(unknown, Budget(cost="visible_share * n_views", most=1000), (0, 0), 2))[1] == [[0, 1]]
    for wrong in ({}, {"points": 3, "cost": "n_views", "most": 3}, {"cost": "n_views"}, {"points": 3, "most": 3}):
        with pytest.raises(ValueError, match="either `points`, or `cost` together with `most`"):
            Budget(**wrong)
    for wrong in ({"points": 0}, {"cost": "n_views", "most": 0}, {"points": 3, "cap": 0}, {"points": 1 << 53}):
        with pytest.raises(ValueError, match="must be positive"):
            Budget(**wrong)


@pytest.mark.parametrize("bins", [1, 8, 64])
def test_bins_are_full(bins: int) -> None:
    """Rooms (log-normal, 150,000 points in the middle), sweeps (34,000), and a mixture, 97 % at least."""
    rng = np.random.default_rng(0)
    rooms = np.minimum(rng.lognormal(np.log(150_000), 0.6, 4000), 800_000)
    lidar = rng.normal(34_000, 2500, 4000)
    for points, most in ((rooms, 1_600_000), (lidar, 1_040_000), (np.concatenate([rooms, lidar]), 1_600_000)):
        order = visits(points.astype(np.int64))
        steps = by_cost(order, Budget(points=most, bins=bins), (0, 0), None)
        chosen = [next(steps)[1] for _ in range(256 // bins)]
        loads = [sum(int(points[order.at(p)[1]]) for p in bin_) for batch in chosen for bin_ in batch]
        assert np.mean(loads) / most >= 0.97


def test_a_cap_counts_what_is_cropped() -> None:
    order = visits([5000, 10, 10, 10])
    with pytest.raises(ValueError, match="has 5000 points and a bin holds 1000"):
        next(by_cost(order, Budget(points=1000), (0, 0), None))
    steps = by_cost(order, Budget(points=1000, cap=900), (0, 0), 4)
    assert sorted(place for _, ((bin_),) in steps for place in bin_) == [0, 1, 2, 3]


def test_batches_by_count_are_the_next_places() -> None:
    assert list(by_count(4, (3, 0), 10)) == [((7, 0), [[3, 4, 5, 6]]), ((10, 0), [[7, 8, 9]])]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_bins(tmp_path: Path, world: int) -> None:
    corpus = toy_corpus(tmp_path)
    budget = Budget(points=1200, bins=4, window=8)

    def key(sample: Any, rng: np.random.Generator) -> tuple[str, float]:
        return sample.key, rng.random()

    whole = list(Stream(corpus, ["points/xyz"], batch=budget, seed=5, prepare=key, epochs=2))
    ranks = [
        list(Stream(corpus, ["points/xyz"], batch=budget, seed=5, prepare=key, epochs=2, rank=rank, world=world))
        for rank in range(world)
    ]
    assert [[bin_ for rank in ranks for bin_ in rank[step]] for step in range(len(whole))] == whole
    assert Counter(name for batch in whole for bin_ in batch for name, _ in bin_) == dict.fromkeys(corpus.keys, 2)
    stream = Stream(corpus, ["points/xyz"], batch=budget, seed=5, prepare=key, epochs=2)
    first = next(iter(stream))
    state = json.loads(json.dumps(stream.state()))
    assert len(json.dumps(state)) < 400
    rest = list(Stream(corpus, ["points/xyz"], batch=budget, seed=5, prepare=key, epochs=2, state=state))
    assert [first, *rest] == whole
    with pytest.raises(CorpusError, match="another budget"):
        Stream(corpus, ["points/xyz"], batch=Budget(points=1300, bins=4), seed=5, state=state)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0.05, 20)), min_size=2, max_size=5), st.integers(0, 99))
def test_a_mixture_keeps_its_weights_and_its_epochs(portions: list[tuple[int, float]], seed: int) -> None:
    mixture = Visits(
        [Portion(corpus=Counts(range(n), str(i)), weight=w) for i, (n, w) in enumerate(portions)],  # type: ignore[arg-type]
        seed,
    )
    found = [mixture.at(place) for place in range(1000)]
    total = sum(weight for _, weight in portions)
    for number, (count, weight) in enumerate(portions):
        rows = [row for portion, row in found if portion == number]
        assert abs(len(rows) - 1000 * weight / total) <= len(portions) + 1
        for start in range(0, len(rows) - count + 1, count):
            assert sorted(rows[start : start + count]) == list(range(count))
    tables = [corpus.points_per_scene for corpus in mixture.corpora]
    assert mixture.values(tables, 0, 1000).tolist() == [row for _, row in found]  # a scene's points are its row here
    assert mixture.values(tables, 371, 402).tolist() == [row for _, row in found[371:402]]
    with pytest.raises(ValueError, match="no epochs"):
        _ = mixture.epoch_length


def test_streaming_a_mixture(tmp_path: Path) -> None:
    one, two = toy_corpus(tmp_path / "a", scenes=5), toy_corpus(tmp_path / "b", scenes=12)
    portions = [Portion(corpus=one, weight=3), Portion(corpus=two, rows=np.array([7, 8, 9]), weight=1)]
    stream = Stream(portions, ["points/xyz"], batch=10, seed=1)
    batches = iter(stream)
    names = Counter(sample.key for _ in range(100) for sample in next(batches))
    assert sum(names[f"toy/scene-{i:03d}"] for i in (7, 8, 9)) == 250
    with pytest.raises(ValueError, match="no epochs"):
        Stream(portions, ["points/xyz"], batch=10, epochs=1)
    with pytest.raises(ValueError, match="weights"):
        Stream([Portion(corpus=one, weight=0.0)], ["points/xyz"], batch=1)


@pytest.mark.parametrize("budget", [8, Budget(points=400_000, bins=8)], ids=["count", "points"])
def test_going_on_late_in_a_long_epoch_costs_no_more_than_early(budget: int | Budget) -> None:
    """Processor seconds to the first plan of two million scenes; nothing before the place is gone through."""
    scenes = visits(np.random.default_rng(0).integers(20_000, 100_000, 2_000_000))

    def spent(place: int) -> float:
        begun = time.process_time()
        plan = by_cost(scenes, budget, (place, 0), None) if isinstance(budget, Budget) else by_count(
            budget, (place, 0), None)  # fmt: skip
        (after, _), bins = next(iter(plan))
        assert place <= after and sum(map(len, bins)) >= 8
        return time.process_time() - begun

    early = min(spent(0) for _ in range(3))
    for place in (1_000_000, 1_900_000):
        assert min(spent(place) for _ in range(3)) < max(0.05, 5 * early)
