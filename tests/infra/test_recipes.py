"""The recipes that come with the project are valid in every section, and documented keys exist."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import files
from pathlib import Path

import pytest

from infra.config import dump
from infra.recipe import load_recipe
from infra.verbs.evaluate import EvaluateConfig
from infra.verbs.train import training
from ingest.source import find_source, source_names

RECIPES = sorted(Path(str(files("infra"))).joinpath("recipes").glob("*.yaml"))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe, _ = load_recipe(path)
    loop, objective = training(recipe.train)
    assert dump(loop)["batch"] == loop.batch
    assert objective.name in {"slidr", "stslidr", "ppkt"}
    assert recipe.evaluate.load(EvaluateConfig).linear_probe.taxonomy == "nuscenes16"


def test_the_table_of_sources_names_every_option() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    for name in source_names():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        options = [field.name for field in dataclasses.fields(find_source(name).options)]
        assert re.findall(r"`(\w+)`", row.split("|")[4]) == options, name


def test_recipes_in_the_documentation_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(name:.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        recipe, _ = load_recipe(path)
        training(recipe.train)
        recipe.evaluate.load(EvaluateConfig)
