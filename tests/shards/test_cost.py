"""What a scene costs: expressions mean what they say; what is none is refused with the place, or the columns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.batching import Budget
from brickyard.shards.cost import COLUMNS, MAX_CHARACTERS, MAX_DEPTH, Cost

INDEX = pa.table(
    {
        "n_points": pa.array([0, 400, 70_000], pa.int64()),
        "n_views": pa.array([6, 0, 96], pa.int32()),
        "n_pairs": pa.array([5, 0, 7], pa.int64()),
        "raw_bytes": pa.array([9, 10, 1 << 40], pa.int64()),
        "visible_share": pa.array([0.5, None, 1.0], pa.float64()),
    }
)
TABLE = {name: INDEX.column(name).to_numpy().astype(float) for name in ("n_points", "n_views", "n_pairs", "raw_bytes")}

leaves = st.sampled_from(sorted(TABLE)) | st.integers(0, 10**6).map(str) | st.sampled_from(["0.5", "1.25e2", "3."])
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from(["+", "*", "min", "max"]), st.lists(inner, min_size=2, max_size=3)),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """A tree as text, with all its parentheses."""
    if isinstance(tree, str):
        return tree
    operation, parts = tree
    texts = [written(part) for part in parts]
    return f"({f' {operation} '.join(texts)})" if operation in "+*" else f"{operation}({','.join(texts)})"


def value(tree: Any) -> Any:
    """A tree's value, by numpy's own operations."""
    if isinstance(tree, str):
        return TABLE[tree] if tree in TABLE else np.full(len(INDEX), float(tree))
    operation, (first, *rest) = tree
    function: Any = {"+": np.add, "*": np.multiply, "min": np.minimum, "max": np.maximum}[operation]
    result = value(first)
    for part in rest:
        result = function(result, value(part))
    return result


@given(trees)
def test_an_expression_is_what_numpy_makes_of_it(tree: Any) -> None:
    found = Cost(written(tree)).of(INDEX)
    assert found.shape == (3,) and found.dtype == np.float64
    np.testing.assert_array_equal(found, value(tree))


def test_products_before_sums_and_spaces_at_will() -> None:
    plain, spaced = Cost("2+3*n_views*2+1"), Cost("  2 +3* n_views  *2\n+ 1 ")
    assert plain.of(INDEX).tolist() == spaced.of(INDEX).tolist() == [39, 3, 579]
    assert Cost("min(n_views, 4) * 1000 + n_points").columns == ("n_points", "n_views")
    again = copy.deepcopy(plain)  # as a budget goes to the workers of a job
    assert again.of(INDEX).tolist() == plain.of(INDEX).tolist()


def test_what_the_index_does_not_know_is_no_number() -> None:
    assert np.isnan(Cost("1 + visible_share").of(INDEX)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n_point + 1", "has no number 'n_point'; there are n_points, n_views, n_pairs, visible_share, raw_bytes"),
        ("key", "has no number 'key'"),
        ("n_points +", "at character 11: expected a number, a column, min, max or (, found the end"),
        ("n_points 3", "at character 10: expected the end, + or *, found '3'"),
        ("(n_points", "expected ')', found the end"),
        ("min(n_points; 3)", "at character 13: ';' is none of its signs"),
        ("min n_points", "at character 5: expected '(', found 'n_points'"),
        ("n_points - 3", "'-' is none of its signs"),
        ("-3", "'-' is none of its signs"),
        ("n_points ** 2", "at character 11: expected a number"),
        ("__import__('os')", "is none of its signs"),
        ("__import__(os)", "has no number '__import__'"),
        ("n_points.real", "'.' is none of its signs"),
        ("", "expected a number, a column, min, max or (, found the end"),
        ("٣", "none of its signs"),
        ("(" * 40 + "1" + ")" * 40, f"deeper than {MAX_DEPTH} levels"),
        ("1+" * 300 + "1", f"at most {MAX_CHARACTERS} characters"),
    ],
)
def test_what_is_no_cost_is_refused_with_its_place(text: str, words: str) -> None:
    for refused in (Cost, lambda text: Budget(cost=text, most=10)):
        with pytest.raises(ValueError, match="cost") as caught:
            refused(text)
        assert words in str(caught.value)


@given(st.text(alphabet="n_pointsview 01.e+*(),min", max_size=30) | st.text(max_size=12))
def test_any_text_is_a_cost_or_a_sentence(text: str) -> None:
    try:
        found = Cost(text)
    except ValueError as problem:
        assert str(problem).startswith("cost ")
        return
    values = found.of(INDEX)
    assert not (values < 0).any() and set(found.columns) <= set(COLUMNS)
