"""What a build will cost: by samples, by rates of another plan, and what the recipe expects beside what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.infra.cli import main
from brickyard.infra.estimate import Rates, estimate, read_rates
from brickyard.infra.plan import Plan
from brickyard.infra.recipe import Recipe, SourceConfig
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RecipeError
from tests.infra.test_plan import folder as folder  # noqa: PLC0414  # a fixture
from tests.infra.test_plan import write

RATES: Rates = {"scannet": {"seconds": 2e-6, "bytes_out": 0.1}}


def listed(*splits: str, dataset: str = "scannet", size: int = 1_000_000) -> list[SceneRef]:
    """Scenes whose files are not there, each larger than the one before."""
    return [
        SceneRef(dataset=dataset, scene_id=f"{number}", split=split, sequence=f"{number}", root="/nowhere",
                 files={}, points_estimate=10, bytes_estimate=size * (number + 1))
        for number, split in enumerate(splits)
    ]  # fmt: skip


def plan_of(*tasks: list[SceneRef]) -> Plan:
    return Plan(tuple(map(tuple, tasks)), (), (), {})


def test_rates_of_another_plan_stand_in_for_samples() -> None:
    plan = plan_of(listed("train", "val"), listed("train", dataset="s3dis"))
    known = estimate(plan, Recipe(name="x"), cpus=2, rates=RATES)
    scannet, s3dis = known["datasets"]
    assert scannet["core_seconds"] == pytest.approx(6.0) and scannet["bytes_out"] == 300_000 and scannet["elsewhere"]
    assert scannet["problems"] and s3dis["core_seconds"] is s3dis["rates"] is None and not s3dis["elsewhere"]
    assert known["core_seconds"] is known["bytes_out"] is None and known["rates"] == RATES
    assert estimate(plan, Recipe(name="x"), cpus=2)["rates"] == {}


def test_a_build_takes_as_long_as_its_longest_task() -> None:
    plan = plan_of(listed("train"), listed("train", size=50_000_000))
    found = estimate(plan, Recipe(name="x"), cpus=64, rates=RATES)
    assert [task["core_seconds"] for task in found["longest"]] == pytest.approx([100.0, 2.0])
    assert found["seconds"] == pytest.approx(100.0) and found["core_seconds"] == pytest.approx(102.0)


def test_what_is_expected_stands_beside_what_is_there() -> None:
    recipe = Recipe(
        name="x",
        sources=(
            SourceConfig(dataset="scannet", root="a", expected={"train": 2, "test": 7}),
            SourceConfig(dataset="scannet", root="b", expected={"train": 1}),
            SourceConfig(dataset="s3dis", root="c"),
        ),
    )
    found = estimate(plan_of(listed("train", "val"), listed("train", dataset="s3dis")), recipe, cpus=1)["splits"]
    assert [tuple(row.values()) for row in found] == [
        ("scannet", "test", 0, 7), ("scannet", "train", 1, 3), ("scannet", "val", 1, None), ("s3dis", "train", 1, None)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="not be negative"):
        SourceConfig(dataset="scannet", root="a", expected={"train": -1})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "rates"),
        ({"rates": {"x": {"seconds": 1.0}}}, "bytes_out"),
        ({"rates": {"x": {"seconds": "1", "bytes_out": 1.0}}}, "seconds"),
        ({"rates": {"x": {"seconds": -1.0, "bytes_out": 1.0}}}, "negative"),
    ],
)
def test_what_holds_no_rates_is_refused(tmp_path: Path, document: dict[str, Any], words: str) -> None:
    (tmp_path / "rates.json").write_text(json.dumps(document))
    with pytest.raises(RecipeError, match=rf"rates\.json.*{words}"):
        read_rates(tmp_path / "rates.json")
    with pytest.raises(RecipeError, match="not there"):
        read_rates(tmp_path / "none.json")


def test_a_plan_gives_its_rates_to_the_next_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", write(folder, {"scenes": 4}), "--json"]) == 0
    (folder / "rates.json").write_text(capsys.readouterr().out)
    assert main(["plan", write(folder, {"scenes": 400, "cut": True}), "--rates", str(folder / "rates.json")]) == 0
    printed = capsys.readouterr().out
    assert "toy: rates of another plan" in printed and "sample failed" in printed and "longest tasks: toy/" in printed
    recipe = json.loads(Path(write(folder, {"scenes": 3})).read_text())
    recipe["sources"][0]["expected"] = {"train": 1201}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["plan", str(folder / "recipe.yaml")]) == 0
    assert "1,201" in capsys.readouterr().out
