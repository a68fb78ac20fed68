"""The reference is what the code says, and an editor's schema accepts what the loader accepts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra import reference
from brickyard.infra.config import parse
from brickyard.infra.recipe import SourceConfig
from tests.infra.test_recipes import RECIPES

jsonschema = pytest.importorskip("jsonschema")


@pytest.mark.parametrize("name", ["recipe.md", "commands.md", "recipe.schema.json"])
def test_the_pages_are_what_the_code_says(name: str) -> None:
    made = reference.pages()
    assert set(made) == {path.name for path in reference.FOLDER.iterdir()}
    assert (reference.FOLDER / name).read_text() == made[name], "run `python -m brickyard.infra.reference`"


def test_every_key_has_a_meaning() -> None:
    silent = {(cls.__name__, spec) for cls in _classes() for spec in _silent(cls)}
    assert not silent, "say in `Attributes:` what it is"


def _classes() -> set[type[Any]]:
    schema = reference.Schema()
    schema.whole()
    return {cls for cls, _ in schema.names} | {reference.Recipe, SourceConfig}


def _silent(cls: type[Any]) -> list[str]:
    said = reference.meanings(cls)
    return [key for key, _, _, _ in reference.rows(cls) if "." not in key and not said.get(key)]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads((reference.FOLDER / "recipe.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_schema_accepts_what_the_loader_accepts(path: Path, validator: Any) -> None:
    validator.validate(parse(path.read_text(), where=path.name).plain())


BASE: dict[str, Any] = {
    "name": "a",
    "sources": [{"dataset": "kitti_object", "root": "r", "options": {"cameras": ["image_02"]}}],
    "train": {"objective": {"name": "sonata", "views": {}}, "lr": 0.5},
    "evaluate": {"protocols": ["knn"], "settings": {"knn": {"k": 3}}},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("nam",), "b"),
        (("name",), 3),
        (("sources", 0, "root"), None),
        (("sources", 0, "options", "versoin"), "v"),
        (("sources", 0, "options", "cameras"), "image_02"),
        (("sources", 0, "limit"), 0.5),
        (("train", "lr"), "fast"),
        (("train", "steps"), 1.5),
        (("train", "objective", "name"), "sonnet"),
        (("train", "objective", "exclusion"), "masked"),
        (("train", "objective", "mask_size"), [0.1]),
        (("evaluate", "settings", "knn", "kk"), 3),
        (("shards",), {"compressor": "zip"}),
        (("extends",), ["b.yaml"]),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(path: tuple[Any, ...], value: Any, validator: Any) -> None:
    validator.validate(BASE)
    changed = copy.deepcopy(BASE)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    assert not validator.is_valid(changed)


def test_a_recipe_that_extends_another_may_leave_out_what_stands_there(validator: Any) -> None:
    assert not validator.is_valid({"train": {"lr": 0.5}})
    assert validator.is_valid({"extends": "base.yaml", "train": {"lr": 0.5}, "curate": {"superpixels": None}})
    assert not validator.is_valid({"extends": "base.yaml", "sources": [{"dataset": "scannet"}]}), "lists are replaced"


def test_meanings_of_several_keys_in_a_sentence() -> None:
    class Base:
        """Nothing of ours.

        Attributes:
            a: is not read, this is no dataclass.
        """

    @reference.dataclasses.dataclass
    class Example(Base):
        """An example.

        Attributes:
            a, b: the first two:
                with a colon. c: the third; not_a_key: no.
            d: last, with `e`
        """

        a: int
        b: int
        c: int = 0
        d: int = 0
        e: int = 0

    assert reference.meanings(Example) == {
        "a": "the first two: with a colon",
        "b": "the first two: with a colon",
        "c": "the third; not_a_key: no",
        "d": "last, with `e`",
        "e": "see `d`",
    }
