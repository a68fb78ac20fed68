"""Filter: every refusal carries its rule and the value that broke it; what is unknown is never taken for good."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.errors import CorpusError
from tests.curate.selections.rows import curated, many, out, row

ROWS = [
    row("blurred", figures={"sharpness": 0.1}),
    row("sharp", figures={"sharpness": 0.5}),
    row("unknown"),
    row("street", domain="outdoor", figures={"sharpness": 0.1}),
]


def test_refusals_carry_rule_and_value() -> None:
    scenes = curated(ROWS, "[filter: {at_least: {sharpness: 0.3}, domains: [indoor]}]")
    assert out(scenes) == {
        "blurred": "filter: sharpness >= 0.3, it is 0.1",
        "unknown": "filter: sharpness >= 0.3, it is unknown",
    }
    assert scenes.notes == ["filter: sharpness >= 0.3: 2 of 4 out, 1 of them unknown"]
    kept = curated(ROWS, "[filter: {at_least: {sharpness: 0.3}, unknown: keep}]")
    assert set(out(kept)) == {"blurred", "street"}


def test_a_declared_figure_that_no_scene_has_is_unknown_and_another_name_is_refused() -> None:
    assert set(out(curated(ROWS, "[filter: {at_most: {blank_share: 0.1}}]"))) == {r["scene_id"] for r in ROWS}
    assert not out(curated(ROWS, "[filter: {at_most: {blank_share: 0.1}, unknown: keep}]"))
    with pytest.raises(CorpusError, match="no number 'sharpnes' in the index; there are"):
        curated(ROWS, "[filter: {at_least: {sharpnes: 0.3}}]")


def test_sequences_are_judged_by_their_median() -> None:
    gains = {"good": (0.5, 0.6, -0.9), "bad": (-0.1, 0.0, 0.9), "mute": (None,)}
    rows = [
        row(f"{name}-{k}", sequence=name, figures={} if gain is None else {"edge_gain": gain})
        for name, values in gains.items() for k, gain in enumerate(values)
    ]  # fmt: skip
    found = out(curated(rows, "[filter: {at_least: {edge_gain: 0.1}, over: sequence, unknown: keep}]"))
    assert found == dict.fromkeys(
        ("bad-0", "bad-1", "bad-2"), "filter: edge_gain >= 0.1 over its sequence, it is 0"
    )  # fmt: skip


@given(st.floats(0, 1), st.permutations(range(24)))
def test_a_limit_is_what_it_says_in_any_order(limit: float, order: list[int]) -> None:
    rows = many(24)
    found = out(curated([rows[k] for k in order], f"[filter: {{at_least: {{sharpness: {limit!r}}}}}]"))
    assert set(found) == {r["scene_id"] for r in rows if np.float64(dict(r["figures"])["sharpness"]) < limit}
