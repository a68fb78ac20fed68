"""`brickyard evaluate` and `brickyard features`, as a user types them, on a run of rooms."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from brickyard.evaluate.features import random_student
from brickyard.evaluate.records import read_results
from brickyard.infra.cli import main
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.evaluate import EvaluateConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.students.export import export_student
from brickyard.train.students.point import PointStudentConfig
from tests.evaluate.rooms import room_corpus

RECIPE = """
name: rooms
train:
  batch: 2
  lr: 0.1
  objective: {name: sonata, student: {network: tiny, size: 0.1}}
evaluate:
  linear_probe: {taxonomy: scannet20, dataset: scannet, steps: 30, batch: 128, threads: 1}
  protocols: [linear_probe, knn, geometry, scannet-decoder-tiny, "knn@5%"]
  settings:
    knn: {k: 5}
    scannet-decoder-tiny: {steps: 2, batch: 2, most_turns: 1, threads: 1}
  pictures: 1
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run, beside its corpus and recipe."""
    room_corpus(tmp_path / "corpus", train=2, val=1, points=150)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    final = tmp_path / "run" / "final"
    final.mkdir(parents=True)
    export_student(random_student(PointStudentConfig(network="tiny", size=0.1), 3), final)
    config = {  # as an older version wrote it: what is not there was the default
        "train": {"seed": 7, "batch": 2, "lr": 0.1, "threads": 3},
        "objective": {"name": "sonata", "student": {"network": "tiny", "size": 0.1}},
        "corpus": "abc",
    }
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return tmp_path / "run"


def test_all_protocols_and_the_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run.parent
    assert main(["evaluate", str(root / "recipe.yaml"), "--run", str(run), "--corpus", str(root / "corpus")]) == 0
    printed = capsys.readouterr().out
    assert "scannet-decoder-tiny, mIoU %" in printed and "published by others" in printed
    results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    names = [entry["protocol"] for entry in results]
    assert names == ["linear_probe", "knn", "geometry", "scannet-decoder-tiny", "knn@5%"]
    knn, fewer = results[1], results[4]
    assert (knn["settings"]["k"], fewer["settings"]["k"]) == (5, 20)
    assert (knn["train_scenes"], fewer["train_scenes"]) == (2, 1)
    assert results[3]["settings"]["decoder"]["channels"] == [32, 32, 48, 64]
    assert list(results[0]["results"]) == ["random", "raw", "pretrained"]
    whose = {(entry["run"], entry["seed"], entry["corpus"], entry["weights"]) for entry in results}
    assert whose == {(str(run), 7, Corpus.open(root / "corpus").fingerprint, results[0]["weights"])}

    corpus, out = str(root / "corpus"), root / "seen"
    keys = ["--scene", "scannet/scene0000_00", "--scene", "scene1000_00"]
    assert main(["features", str(run), "--corpus", corpus, *keys, "--query", "4", "--out", str(out)]) == 0
    assert "most similar to the query" in capsys.readouterr().out
    seen = json.loads((out / "features.json").read_text())
    assert [entry["scene"] for entry in seen["query"]["scenes"]] == ["scannet/scene0000_00", "scannet/scene1000_00"]
    assert len(list(out.glob("*.png"))) == 12 and len(list(out.glob("*.ply"))) == 2

    assert main(["show", str(run), "--out", str(root / "page.html")]) == 0
    page = (root / "page.html").read_text()
    assert "geometry, height R²" in page and "Features, from above" in page and "scannet/scene1000_00" in page


def test_the_documented_section_is_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\ntrain: {{objective: {{name: slidr}}}}\n{block}")
    resolved = load_recipe(path)[0].evaluate.load(EvaluateConfig).resolve()
    configs: dict[str, Any] = {chosen.name: chosen.config for chosen in resolved}
    assert configs["scannet-linear@5%"].scene_list == Path("data_efficient_05.txt")
    assert configs["scannet-linear@5%"].fraction == 0.05
    assert configs["scannet-linear@20pts"].points_per_scene == 20


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{protocols: [scannet-lineal]}", "unknown protocol 'scannet-lineal'"),
        ("{protocols: [knn], settings: {geometry: {}}}", "line 3.*not among the protocols"),
        ("{protocols: [knn], settings: {knn: {kk: 3}}}", "line 3.*kk"),
        ("{protocols: [knn], settings: {knn: {k: 0}}}", "line 3.*must be positive"),
    ],
)
def test_wrong_protocols_are_refused_with_their_line(tmp_path: Path, section: str, problem: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\ntrain: {{objective: {{name: slidr}}}}\nevaluate: {section}\n")
    recipe, _ = load_recipe(path)
    with pytest.raises(RecipeError, match=problem):
        recipe.evaluate.load(EvaluateConfig).resolve()


def test_without_protocols_it_is_the_linear_probe_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run.parent
    text = RECIPE[: RECIPE.index("  protocols")]
    (root / "recipe.yaml").write_text(text)
    assert main(["evaluate", str(root / "recipe.yaml"), "--run", str(run), "--corpus", str(root / "corpus")]) == 0
    assert not (run / "features").exists()
    (line,) = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert line["protocol"] == "linear_probe"
    words = capsys.readouterr().out.split()
    assert words[:8] == ["linear", "probe,", "IoU", "%", "random", "raw", "inputs", "pretrained"]
    assert words[-1] == f"{100 * line['results']['pretrained']['miou']:.1f}"


def test_another_evaluation_loses_nothing_of_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run.parent
    room_corpus(root / "other", train=1, val=1, points=100)
    written = []
    for protocols, corpus in (("[knn]", "corpus"), ("[geometry]", "corpus"), ("[knn]", "other"), ("[knn]", "corpus")):
        text = RECIPE[: RECIPE.index("  protocols")] + f"  protocols: {protocols}\n"
        (root / "recipe.yaml").write_text(text)
        assert main(["evaluate", str(root / "recipe.yaml"), "--run", str(run), "--corpus", str(root / corpus)]) == 0
        written.append((run / "results.jsonl").read_text())
    assert all(later.startswith(earlier) for earlier, later in pairwise(written))
    assert written[-1].count("\n") == 4
    shown = [(entry["protocol"], entry["corpus"]) for entry in read_results(run)]
    first, other = (Corpus.open(root / name).fingerprint for name in ("corpus", "other"))
    assert shown == [("geometry", first), ("knn", other), ("knn", first)]


def test_a_recipe_that_did_not_make_the_run_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run.parent
    command = ["evaluate", str(root / "recipe.yaml"), "--run", str(run), "--corpus", str(root / "corpus")]
    text = RECIPE[: RECIPE.index("  protocols")]
    for was, becomes, said in (
        ("lr: 0.1", "lr: 0.2", "train.lr: was 0.1, is 0.2"),
        ("size: 0.1", "size: 0.1, upcast: 1", "objective.student.upcast: was null, is 1"),
        ("{name: sonata, student: {network: tiny, size: 0.1}}", "{name: slidr}", 'objective.name: was "sonata", is'),
    ):
        (root / "recipe.yaml").write_text(text.replace(was, becomes))
        assert main(command) == 2
        assert f"did not make {run}" in (told := capsys.readouterr().err) and said in told
    (root / "recipe.yaml").write_text(text.replace("  lr: 0.1\n", "  lr: 0.1\n  seed: 3\n  log_every: 9\n"))
    assert main(command) == 0
    (root / "recipe.yaml").write_text("name: rooms\n" + text[text.index("evaluate:") :])
    assert main(command) == 0
    capsys.readouterr()
    (run / "config.json").write_text("")
    assert main(command) == 1 and "config.json is empty" in capsys.readouterr().err
