"""The order of a stream is exact whatever happens to it: any ranks, threads, selections, damage and restarts.

One toy corpus; `prepare` gives back keys, so an example costs milliseconds. A run is a list of stretches, each on
another number of ranks and threads, resumed from the state that the one before had saved as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.order import permute_many
from brickyard.shards.stream import Sample, Stream
from brickyard.shards.visits import Portion
from tests.worlds import toy_corpus

SCENES = 13
DAMAGED = (2, 9)
WORLDS = st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 16])
Item = tuple[int, str, float]
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Stretch:
    """Part of a run: so many steps on so many ranks and threads."""

    world: int
    threads: int
    steps: int


stretches = st.lists(
    st.builds(Stretch, world=WORLDS, threads=st.integers(1, 4), steps=st.integers(0, 6)), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("properties") / "corpus", scenes=SCENES)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same corpus with a flipped bit in two scenes."""
    folder: Path = tmp_path_factory.mktemp("properties") / "damaged"
    corpus = toy_corpus(folder, scenes=SCENES)
    for row in DAMAGED:
        place, path = corpus.addresses(row)["points/color"], folder / corpus.shard(row)
        data = bytearray(path.read_bytes())
        data[place.offset + place.length // 2] ^= 4
        path.write_bytes(data)
    return Corpus.open(folder)


def item(sample: Sample, rng: np.random.Generator) -> Item:
    return sample.position, sample.key, rng.random()


def flat(batches: list[Any]) -> list[Item]:
    return [one for batch in batches for part in batch for one in (part if isinstance(part, list) else [part])]


def run(corpus: Any, parts: list[Stretch], batch: int | Budget, epochs: int | None, **options: Any) -> list[Any]:
    """Global batches (the ranks' shares put together) of all stretches, then of one rank to the end of the epochs."""
    found: list[Any] = []
    state: dict[str, Any] | None = None
    for part in [*parts, *([Stretch(1, 2, 10**6)] if epochs else [])]:
        size = batch.bins if isinstance(batch, Budget) else batch
        world = part.world if size % part.world == 0 else 1
        ranks = [
            Stream(corpus, ["points/color"], batch=batch, prepare=item, rank=rank, world=world, threads=part.threads,
                   epochs=epochs, state=state, **options)
            for rank in range(world)
        ]  # fmt: skip
        running = [iter(rank) for rank in ranks]
        for _ in range(part.steps):
            shares = [next(rank, None) for rank in running]
            assert len({share is None for share in shares}) == 1  # no rank makes a step more than another
            if shares[0] is None:
                break
            found.append([one for share in shares for one in share or ()])
        states = [json.dumps(rank.state()) for rank in ranks]
        assert len(set(states)) == 1 and len(states[0]) < 1000
        state = json.loads(states[0])
        for rank in running:
            rank.close()  # type: ignore[attr-defined]
    return found


@FAST
@given(
    parts=stretches,
    batch=st.sampled_from([1, 4, 12, 48]),
    epochs=st.integers(1, 5),
    rows=st.none() | st.lists(st.integers(0, SCENES - 1), min_size=1, max_size=30),
    seed=st.integers(0, 2**63 - 1),
)
def test_by_count_every_epoch_is_exact(
    corpus: Corpus, *, parts: list[Stretch], batch: int, epochs: int, rows: list[int] | None, seed: int
) -> None:
    """A selection may name a scene twice; then an epoch has it twice."""
    found = run(corpus, parts, batch, epochs, rows=rows, seed=seed)
    items, wanted = flat(found), Counter(corpus.keys[row] for row in (range(SCENES) if rows is None else rows))
    length = wanted.total()
    assert [position for position, _, _ in items] == list(range(epochs * length))
    for epoch in range(epochs):
        assert Counter(key for _, key, _ in items[epoch * length : (epoch + 1) * length]) == wanted
    assert found == run(corpus, [], batch, epochs, rows=rows, seed=seed)


@FAST
@given(
    parts=st.lists(
        st.builds(Stretch, world=st.integers(1, 16), threads=st.integers(1, 4), steps=st.integers(0, 3)),
        min_size=1, max_size=4,
    ),
    each=st.integers(1, 3),
    epochs=st.integers(1, 6),
    seed=st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_any_number_of_ranks_from_1_to_16_takes_over_from_any_other(
    corpus: Corpus, *, parts: list[Stretch], each: int, epochs: int, seed: int
) -> None:
    """Primes, too: the global batch is `each` scenes a rank here, so it changes with the ranks; the order does not."""
    items: list[Item] = []
    state: dict[str, Any] | None = None
    for part in [*parts, Stretch(1, 2, 10**6)]:
        ranks = [
            Stream(corpus, ["points/color"], batch=each * part.world, prepare=item, rank=rank, world=part.world,
                   threads=part.threads, epochs=epochs, seed=seed, state=state)
            for rank in range(part.world)
        ]  # fmt: skip
        shares = [list(islice(rank, part.steps)) for rank in ranks]
        assert len({len(share) for share in shares}) == 1  # as many steps on every rank
        items += [one for step in zip(*shares, strict=True) for share in step for one in share]
        assert len({json.dumps(rank.state()) for rank in ranks}) == 1
        state = json.loads(json.dumps(ranks[0].state()))
    assert items == flat(run(corpus, [], 4, epochs, seed=seed))
    for epoch in range(epochs):
        keys = [key for _, key, _ in items[epoch * SCENES : (epoch + 1) * SCENES]]
        assert sorted(keys) == sorted(corpus.keys)


@FAST
@given(
    parts=stretches,
    bins=st.sampled_from([1, 4, 12, 16]),
    room=st.integers(2, 6),
    window=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_by_cost_every_epoch_is_exact_and_no_bin_too_full(
    corpus: Corpus, *, parts: list[Stretch], bins: int, room: int, window: int, epochs: int, seed: int
) -> None:
    sizes = dict(zip(corpus.keys, corpus.points_per_scene.tolist(), strict=True))
    budget = Budget(points=room * max(sizes.values()), bins=bins, window=window)
    found = run(corpus, parts, budget, epochs, seed=seed)
    assert all(len(batch) == bins for batch in found)
    assert all(sum(sizes[key] for _, key, _ in bin_) <= budget.points for batch in found for bin_ in batch)
    items = flat(found)
    assert sorted(position for position, _, _ in items) == list(range(epochs * SCENES))
    by_place = [key for _, key, _ in sorted(items)]
    for epoch in range(epochs):
        assert sorted(by_place[epoch * SCENES : (epoch + 1) * SCENES]) == sorted(corpus.keys)
    assert found == run(corpus, [], budget, epochs, seed=seed)


@FAST
@given(parts=stretches, batch=st.sampled_from([4, 12]), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_damaged_scenes_are_replaced_in_the_same_way_everywhere(
    corpus: Corpus, damaged: Corpus, *, parts: list[Stretch], batch: int, epochs: int, seed: int
) -> None:
    found = flat(run(damaged, parts, batch, epochs, seed=seed, bad_scenes=len(DAMAGED)))
    healthy = flat(run(corpus, [], batch, epochs, seed=seed))
    bad = {corpus.keys[row] for row in DAMAGED}
    for got, wanted in zip(found, healthy, strict=True):
        assert got[0] == wanted[0] and got[1] not in bad
        assert got == wanted or wanted[1] in bad
    assert found == flat(run(damaged, [], batch, epochs, seed=seed, bad_scenes=len(DAMAGED)))


@FAST
@given(
    parts=stretches,
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=3),
    batch=st.sampled_from([4, 12]),
    seed=st.integers(0, 99),
)
def test_a_mixture_goes_on_exactly_where_it_stopped(
    corpus: Corpus, *, parts: list[Stretch], weights: list[float], batch: int, seed: int
) -> None:
    portions = [Portion(corpus=corpus, rows=np.arange(n, SCENES), weight=w) for n, w in enumerate(weights)]
    found = run(portions, parts, batch, None, seed=seed)
    undisturbed = run(portions, [Stretch(1, 2, len(found))], batch, None, seed=seed)
    assert found == undisturbed
    assert [position for position, _, _ in flat(found)] == list(range(len(found) * batch))


def test_the_order_is_as_good_as_a_full_shuffle() -> None:
    """20,000 frames of 100 drives in batches of 8: how often one holds a drive twice, and whether place tells row."""
    repeats, ranks, rng = {}, {}, np.random.default_rng(0)
    orders = {"ours": [permute_many(np.arange(20_000), 20_000, seed, 0) for seed in range(5)],
              "full": [rng.permutation(20_000) for _ in range(5)]}  # fmt: skip
    for name, epochs in orders.items():
        batches = [batch for order in epochs for batch in (order // 200).reshape(-1, 8).tolist()]
        repeats[name] = 1 - np.mean([len(set(batch)) for batch in batches]) / 8
        ranks[name] = max(abs(np.corrcoef(np.arange(20_000), order)[0, 1]) for order in epochs)
    assert repeats["ours"] == pytest.approx(repeats["full"], abs=0.003)  # three standard deviations of either
    assert ranks["ours"] < 0.03 > ranks["full"]
