"""The step that a sample is for: by its place and how batches are cut, on any ranks, after any restart."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Sample, Stream
from brickyard.shards.visits import Portion
from tests.worlds import toy_corpus

SCENES = 13
FAST = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
batches = st.sampled_from(
    [1, 4, 12, Budget(points=1300, bins=4, window=12), Budget(cost="min(n_points, 100) + n_views", most=450, bins=12)]
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("steps") / "corpus", scenes=SCENES)


def item(sample: Sample, rng: np.random.Generator) -> tuple[int, int]:
    return sample.step, sample.position


def flat(batch: list[Any]) -> list[tuple[int, int]]:
    return [one for part in batch for one in (part if isinstance(part, list) else [part])]


def run(portions: Any, steps: int, batch: int | Budget, **options: Any) -> tuple[list[list[tuple[int, int]]], Any]:
    """(the items of so many batches, state after them)."""
    stream = Stream(portions, [], batch=batch, prepare=item, **options)
    return [flat(found) for found in islice(stream, steps)], stream.state()


@FAST
@given(
    batch=batches, parts=st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 5)), min_size=1, max_size=3),
    accumulate=st.integers(1, 3), old=st.booleans(), mixed=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_steps_are_counted_through_restarts_on_any_ranks(
    corpus: Corpus,
    *,
    batch: int | Budget,
    parts: list[tuple[int, int]],
    accumulate: int,
    old: bool,
    mixed: bool,
    seed: int,
) -> None:
    """Also from states that were saved before their number was kept (`old`), and in mixtures."""
    portions: Any = [Portion(corpus=corpus), Portion(corpus=corpus, rows=np.arange(5), weight=3)] if mixed else corpus
    state: dict[str, Any] | None = None
    number = 0
    for world, steps in parts:
        size = batch.bins if isinstance(batch, Budget) else batch
        world = world if size % world == 0 else 1
        options = {"seed": seed, "accumulate": accumulate, "state": state, "world": world}
        found = [run(portions, steps, batch, rank=rank, **options) for rank in range(world)]
        for done in range(steps):
            items = [one for shares, _ in found for one in shares[done]]
            assert items and {step for step, _ in items} == {(number + done) // accumulate}
        number += steps
        state = json.loads(json.dumps(found[0][1]))
        assert state is not None and state["batches"] == number
        if old:
            del state["batches"]


@FAST
@given(batch=batches, epochs=st.integers(1, 4), seed=st.integers(0, 99), stop=st.integers(0, 5))
def test_a_step_belongs_to_a_place(corpus: Corpus, batch: int | Budget, epochs: int, seed: int, stop: int) -> None:
    """However long the stream goes on: where it ends changes no step before its last window."""
    whole, _ = run(corpus, 10**6, batch, epochs=epochs, seed=seed)
    places = {place: step for items in whole for step, place in items}
    assert sorted(places) == list(range(epochs * SCENES))
    if isinstance(batch, int):
        assert all(step == place // batch for place, step in places.items())
    _, state = run(corpus, stop, batch, epochs=epochs, seed=seed)
    rest, _ = run(corpus, 10**6, batch, epochs=epochs, seed=seed, state=state)
    assert rest == whole[stop:]


def test_states_of_before_budgets_of_cost_and_their_number_go_on(corpus: Corpus) -> None:
    """As they stand in checkpoints: by count, and by points."""
    by_count = {
        "version": 2, "corpus": corpus.fingerprint, "rows": "", "seed": 3, "shuffle": True, "budget": None,
        "place": [8, 0],
    }  # fmt: skip
    by_points = by_count | {"budget": {"points": 1300, "bins": 4, "cap": None, "window": 8}, "place": [0, 1]}
    for old, batch in ((by_count, 4), (by_points, Budget(points=1300, bins=4, window=8))):
        whole, _ = run(corpus, 5, batch, seed=3)
        state = old | {"rows": Stream(corpus, [], batch=batch, seed=3).state()["rows"]}
        first = 2 if old is by_count else 1
        assert run(corpus, 5 - first, batch, seed=3, state=state)[0] == whole[first:]


def test_accumulate_is_positive(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate must be positive"):
        Stream(corpus, [], batch=1, accumulate=0)
