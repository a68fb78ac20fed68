"""The recipes that come with the project are valid in every section, and documented keys exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from brickyard.infra.config import dump, load_file, parse, to_yaml
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.evaluate import EvaluateConfig
from brickyard.infra.verbs.train import section_of, training
from brickyard.ingest.simulate import SimulationConfig
from brickyard.ingest.source import find_source, source_names

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path
    for package in ("infra", "train")
    for path in (ROOT / package / "recipes").glob("*.yaml")
    if not path.stem.endswith(("-rooms", "-world"))  # sizes of a simulated world
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe, _ = load_recipe(path, raw=False)
    loop, objective = training(recipe.train)
    assert dump(loop)["batch"] == loop.batch
    assert objective.name.replace("_", "-") in recipe.name or recipe.name == "demo"
    config = recipe.evaluate.load(EvaluateConfig)
    assert {chosen.name for chosen in config.resolve()} == set(config.protocols or ("linear_probe",))


def test_the_worlds_of_recipes_can_be_simulated() -> None:
    path = ROOT / "train" / "recipes" / "sonata-tiny-rooms.yaml"
    assert load_file(path, SimulationConfig).scannet_frames == 0
    path = ROOT / "infra" / "recipes" / "demo-world.yaml"
    assert load_file(path, SimulationConfig).nuscenes_scenes >= 6  # validation scenes come third and sixth


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_train_section_written_out_is_the_same(path: Path) -> None:
    loop, objective = training(load_recipe(path, raw=False)[0].train)
    text = to_yaml(section_of(loop, objective))
    assert training(parse(text, where="x")) == (loop, objective)
