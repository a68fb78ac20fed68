"""Balance: shares of datasets by temperature, rare scenes more often, and no weight beyond its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.curate.selections.balance import effective, limited
from brickyard.shards.errors import CorpusError, RecipeError
from tests.curate.selections.rows import curated, many, outcome, row, vectors

ROWS = [row(f"a{k}") for k in range(90)] + [row(f"b{k}", dataset="b", domain="outdoor") for k in range(10)]


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_shares_follow_the_temperature(temperature: float, share: float) -> None:
    """90 and 10 scenes: proportional to 90^t and 10^t."""
    for over in ("dataset", "domain"):
        scenes = curated(ROWS, f"[balance: {{over: {over}, temperature: {temperature}}}]")
        assert scenes.weight[:90].sum() / 100 == pytest.approx(share)
        assert scenes.weight.mean() == pytest.approx(1)
    assert scenes.notes[1:] == [
        f"balance: domain indoor: 90.0 % before, {100 * share:.1f} % after",
        f"balance: domain outdoor: 10.0 % before, {100 - 100 * share:.1f} % after",
    ]


def test_rare_scenes_are_seen_more_often() -> None:
    common, rare = vectors(2).astype(np.float32)
    near = common + np.random.default_rng(0).normal(scale=0.05, size=(30, 16))
    rows = [row(f"{k:02d}", embedding=one.tolist()) for k, one in enumerate(near)]
    found = outcome(
        curated([*rows, row("x", embedding=rare.tolist()), row("unseen")], "[balance: {rarity: 1, most: 4}]")
    )
    assert found["x"][0] > 2 * found["00"][0] and found["x"][1] == "balance"
    assert found["unseen"][0] == pytest.approx(1, rel=0.2)
    with pytest.raises(CorpusError, match="embedding is known of no scene"):
        curated(ROWS, "[balance: {rarity: 1}]")


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40), st.floats(1, 1000), st.floats(0.01, 100))
def test_limits_hold_and_the_mean_stays(weights: list[float], most: float, mean: float) -> None:
    weight = np.array(weights)
    found = limited(weight, mean, most)
    assert found.mean() == pytest.approx(mean, rel=1e-6)
    assert found.min() >= mean / most * (1 - 1e-9) and found.max() <= mean * most * (1 + 1e-9)
    order = np.argsort(weight, kind="stable")
    assert (np.diff(found[order]) >= 0).all()  # what was rarer stays rarer


def test_the_effective_number() -> None:
    assert effective(np.ones(7)) == pytest.approx(7) and effective(np.array([1.0, 0, 0])) == 1
    assert effective(np.zeros(3)) == 0


def test_nothing_left_to_weigh_and_impossible_settings() -> None:
    assert not curated(ROWS, "[filter: {at_least: {n_points: 5000}}, balance: {}]").weight.any()
    for wrong in ("temperature: 1.5", "rarity: -1", "most: 0.5", "most: 2000"):
        with pytest.raises(RecipeError, match="temperature lies in"):
            curated(ROWS, f"[balance: {{{wrong}}}]")


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(60)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows, steps = many(60), "[balance: {rarity: 0.5, temperature: 0.3}]"
    first, again = curated(rows, steps), curated([rows[k] for k in order], steps)
    assert first.keys == again.keys and np.array_equal(first.weight, again.weight) and first.notes == again.notes
