"""Curators in a row: what one leaves is what the next one takes, and every scene knows why it is where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brickyard.curate.selections.curate import CurationRecipe, run_curators
from brickyard.curate.selections.why_not import why_not
from brickyard.infra.config import load
from brickyard.shards.errors import RecipeError
from tests.curate.selections.rows import curated, many, out, outcome, row, table, vectors

ALL = """
  - filter: {at_least: {sharpness: 0.2}}
  - deduplicate: {}
  - guard: {}
  - balance: {rarity: 0.5}
  - diversity: {scenes: 12}
"""


def test_twice_the_same() -> None:
    first, again = curated(many(80, copies=20), ALL), curated(many(80, copies=20), ALL)
    assert outcome(first) == outcome(again) and first.notes == again.notes
    assert (first.weight > 0).sum() == 12
    assert {why.partition(":")[0] for why in out(first).values()} == {"filter", "deduplicate", "guard", "diversity"}
    assert {why for weight, why in outcome(first).values() if weight} == {"balance"}


def test_no_curator_takes_back_what_another_has_left_out() -> None:
    steps = [f"  - {line.strip(' -')}\n" for line in ALL.strip().splitlines()]
    before: set[str] = set()
    for count in range(1, 6):
        gone = set(out(curated(many(80, copies=20), "\n" + "".join(steps[:count]))))
        assert before <= gone
        before = gone


def test_scenes_without_a_word_against_them_say_so_and_no_scenes_are_no_trouble() -> None:
    assert outcome(curated([row("x")], "[guard: {keep_evaluation_scenes: true}]")) == {"x": (1.0, "no rule against it")}
    assert len(curated([], "[filter: {at_least: {n_points: 1}}, balance: {}]")) == 0


def test_all_that_stands_against_a_scene() -> None:
    look = vectors(6).tolist()
    rows = [
        row("a", split="val", n_points=10, embedding=look[0], figures={"sharpness": 0.1, "blank_share": 0.5}),
        row("b", embedding=look[0], figures={"sharpness": 0.9, "blank_share": 0.0}),
    ]
    rows += [row(f"f{k}", embedding=look[k], figures={"sharpness": 0.9, "blank_share": 0.0}) for k in range(1, 6)]
    steps = "[filter: {at_least: {sharpness: 0.3}, at_most: {blank_share: 0.2}}, deduplicate: {}, guard: {}]"
    recipe = load(f"curators: {steps}", CurationRecipe, where="recipe")
    found = why_not(table(rows), recipe, "a/a")
    assert found[:2] == ["filter: sharpness >= 0.3, it is 0.1", "filter: blank_share <= 0.2, it is 0.5"]
    assert found[2].startswith("deduplicate: as a/b by embedding") and found[3:] == ["guard: of the official val split"]
    assert why_not(table(rows), recipe, "a/f1") == []
    assert run_curators(table(rows), recipe).refused_at[:2].tolist() == [0, 2]


@pytest.mark.parametrize("step", ["{}", "{guard: {}, filter: {}}", "{sort: {}}", "guard"])
def test_a_step_is_one_curator(step: str) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        curated([row("x")], f"[{step}]")


def test_the_recipe_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "curation.md").read_text()
    [steps] = re.findall(r"```yaml\ncurators:\n(.*?)```", text, re.DOTALL)
    rows = many(150, copies=10)
    for k, one in enumerate(rows):
        one["place"], one["timestamp_ns"] = [10.0 * k, 0.0, 0.0], k
    scenes = curated(rows, "\n" + steps)
    assert 0 < (scenes.weight > 0).sum() <= 100
    told = " ".join(scenes.notes)
    assert all(f"{name}" in told for name in ("filter", "deduplicate by place", "guard", "balance", "diversity"))
