"""Diversity: budgets are kept, what is chosen differs, and lazy steps choose what plain ones would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.curate.selections import diversity
from brickyard.curate.selections.diversity import choose
from brickyard.shards.errors import RecipeError
from tests.curate.selections.rows import curated, many, out, row, vectors

KINDS = st.sampled_from(["k-centre", "facility-location"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 80), st.floats(0, 300), st.integers(0, 99), KINDS, st.sampled_from([10, 1000]))
def test_budgets_are_kept(count: int, budget: float, seed: int, by: str, limit: int) -> None:
    """Also where scenes are more than are compared each with each, and the budget is divided among cells."""
    looks = vectors(count, seed=seed).astype(np.float32)
    cost = np.random.default_rng(seed).uniform(0.5, 9, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "_LIMIT", {"k-centre": limit, "facility-location": limit})
        chosen = choose(looks, cost, budget, by)
    assert len(set(chosen.tolist())) == len(chosen) and chosen.tolist() == sorted(chosen)
    assert cost[chosen].sum() <= budget * (1 + 1e-9)
    left = np.setdiff1d(np.arange(count), chosen)
    if count <= limit and len(left):  # nothing that is left out would fit
        assert cost[left].min() > budget - cost[chosen].sum()


def test_lazy_steps_choose_what_plain_ones_would() -> None:
    looks = vectors(60, seed=3).astype(np.float32)
    similar = np.maximum(looks @ looks.T, 0)
    chosen: list[int] = []
    covered = np.zeros(60, np.float32)
    for _ in range(12):
        gain = np.maximum(similar - covered, 0).sum(axis=1)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, similar[chosen[-1]])
    assert choose(looks, np.ones(60), 12, "facility-location").tolist() == sorted(chosen)


def test_k_centre_covers_outliers_within_twice_the_best() -> None:
    """Gonzalez: the farthest scene is at most twice as far from a chosen one as with the best choice."""
    groups = np.repeat(np.eye(6, 16), 10, axis=0) + np.random.default_rng(0).normal(scale=0.02, size=(60, 16))
    looks = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    assert {k // 10 for k in choose(looks, np.ones(60), 6, "k-centre").tolist()} == set(range(6))


@pytest.mark.parametrize(("budget", "most"), [("scenes: 7", 7), ("points: 20000", 20_000), ("gib: 0.01", 10)])
def test_budgets_of_scenes_points_and_bytes(budget: str, most: int) -> None:
    rows = many(40)
    scenes = curated(rows, f"[diversity: {{{budget}}}]")
    column = {"scenes": np.ones(40), "points": scenes.number("n_points"), "gib": np.ones(40)}[
        budget.split(":", maxsplit=1)[0]
    ]
    assert 0 < column[scenes.weight > 0].sum() <= most
    assert all(why.startswith("diversity: others cover it (k-centre, ") for why in out(scenes).values())


def test_what_nobody_has_looked_at_is_out_and_says_so() -> None:
    looks = vectors(5).tolist()
    rows = [row(f"{k}", embedding=looks[k]) for k in range(5)] + [row("blind")]
    scenes = curated(rows, "[diversity: {scenes: 6}]")
    assert out(scenes) == {"blind": "diversity: it has no embedding"}
    assert scenes.notes == ["diversity (k-centre, 6 scenes): 5 of 5 stay, 1 without embedding out"]


def test_one_budget_above_zero() -> None:
    for wrong in ("{}", "{scenes: 0}", "{scenes: 3, points: 9}", "{gib: -1.0}"):
        with pytest.raises(RecipeError, match="give one budget"):
            curated(many(3), f"[diversity: {wrong}]")


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(50)), KINDS)
def test_the_order_of_rows_does_not_matter(order: list[int], by: str) -> None:
    rows, steps = many(50), f"[diversity: {{by: {by}, points: 60000}}]"
    assert out(curated(rows, steps)) == out(curated([rows[k] for k in order], steps))
