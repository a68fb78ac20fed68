"""Two selections compared: scenes, weights, and how they were made."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.selection import Selection
from brickyard.shards.selection_diff import diff_selections


def chosen(weights: dict[str, float], corpus: str = "x", **about: object) -> Selection:
    return Selection(corpus, tuple(weights), np.array(list(weights.values()), np.float32), ("",) * len(weights), about)


def test_what_differs_is_named() -> None:
    found = diff_selections(
        chosen({"a": 1, "b": 1, "c": 2}, recipe=1, same=0), chosen({"c": 0.5, "b": 1, "d": 1}, "y", recipe=2, same=0)
    )
    assert (found.only_first, found.only_second, found.same) == (("a",), ("d",), 1)
    assert found.reweighted == {"c": (2.0, 0.5)} and found.made == ("corpus", "recipe") and not found.equal


@given(st.dictionaries(st.text(max_size=3), st.floats(0.125, 100, width=32)), st.randoms())
def test_the_same_scenes_in_another_order_are_equal(weights: dict[str, float], random: object) -> None:
    items = list(weights.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert diff_selections(chosen(weights, note=1), chosen(dict(items), note=1)).equal
