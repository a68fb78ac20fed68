"""`brickyard evaluate --predictions` and `--weights`, as a user types them, on scans of KITTI."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.evaluate.features import random_student
from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.infra import cli
from brickyard.infra.answers.write import RAW
from brickyard.infra.cli import main
from brickyard.train.students.export import export_student
from brickyard.train.students.released import save_released
from brickyard.train.students.unet import UNetConfig
from tests.infra.answers.raw_worlds import corpus_of, write_kitti

RECIPE = """
name: scans
evaluate:
  linear_probe: {taxonomy: semantickitti19, dataset: kitti_odometry, steps: 2, batch: 8, threads: 1}
  protocols: [knn, semantickitti-finetune-tiny]
  baselines: [raw]
  settings:
    semantickitti-finetune-tiny: {steps: 2, batch: 2, most_turns: 1, validations: 0, scored: last, threads: 1}
"""
STUDENT = UNetConfig(network="tiny")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A finished run, its corpus and recipe, and the scans."""
    write_kitti(tmp_path / "raw")
    corpus_of("semantickitti", tmp_path / "raw", tmp_path / "corpus")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    final = tmp_path / "run" / "final"
    final.mkdir(parents=True)
    export_student(random_student(STUDENT, 3), final)
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({"train": {"seed": 7}, "objective": {"name": "sonata"}, "corpus": "abc"})
    )
    return tmp_path


def evaluate(home: Path, *words: str, run: bool = True) -> int:
    whose = ["--run", str(home / "run")] if run else []
    return main(["evaluate", str(home / "recipe.yaml"), *whose, "--corpus", str(home / "corpus"), *words])


def test_a_run_answers_the_server_and_trains_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ["--to", "semantickitti", "--predictions"]
    assert evaluate(home, *to, str(home / "val"), "--raw", str(home / "raw")) == 0
    told = capsys.readouterr().out
    assert "2 files for semantickitti (the whole split has 4,071; the server wants all), 480 points" in told
    assert "by the rules of semantickitti's tool" in told
    (training,) = (home / "run" / "evaluate").iterdir()
    before = (training / "metrics.jsonl").read_bytes()
    assert evaluate(home, *to, str(home / "test"), "--split", "test", "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (result["files"], result["scores"], result["official_files"]) == (2, None, 20_351)
    assert (training / "metrics.jsonl").read_bytes() == before and not (home / "run" / "results.jsonl").exists()
    with zipfile.ZipFile(home / "test" / "submission.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        assert names == [f"sequences/11/predictions/{frame:06d}.label" for frame in range(2)]
        assert [len(archive.read(name)) for name in names] == [960, 960]

    # what the protocol itself scores is what was predicted, class by class
    assert evaluate(home) == 0
    (tables,) = (home / "run" / "tables").glob("semantickitti-finetune-tiny-*")
    assert sorted(folder.name for folder in tables.iterdir()) == ["pretrained"]
    for name in ("confusion.csv", "classes.csv"):
        assert (tables / "pretrained" / name).read_bytes() == (home / "val" / name).read_bytes()
    (knn,) = (home / "run" / "tables").glob("knn-*")
    with (knn / "raw" / "classes.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    lines = [json.loads(line) for line in (home / "run" / "results.jsonl").read_text().splitlines()]
    assert float(rows["mean"]["iou"]) == pytest.approx(lines[0]["results"]["raw"]["miou"], abs=1e-6)


def test_a_released_file_is_evaluated_like_a_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = random_student(STUDENT, 3)
    file, out = home / "released.pth", home / "released"
    save_released(file, student)
    given = ["--weights", str(file), "--out", str(out)]
    only = ["--set", "evaluate.protocols=[knn]", "--set", "evaluate.settings={}"]
    assert evaluate(home, *given, *only, run=False) == 0
    assert evaluate(home, *only) == 0
    ours, theirs = (json.loads((folder / "results.jsonl").read_text()) for folder in (home / "run", out))
    assert theirs["run"] == str(out) and theirs["seed"] == 0
    for init in ("pretrained", "raw"):
        assert theirs["results"][init] == ours["results"][init]
    assert evaluate(home, *given, "--to", "semantickitti", "--predictions", str(home / "val"), run=False) == 0
    assert json.loads((home / "val" / "predictions.json").read_text())["files"] == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--predictions", "p"], "--predictions DIR and --to go together"),
        (["--to", "waymo"], "--predictions DIR and --to go together"),
        (["--split", "test"], "--split goes with --predictions"),
        (["--out", "o"], "--weights FILE and --out DIR go together"),
        (["--predictions", "p", "--to", "scannet"], "classes of scannet20.*the recipe has none"),
        (["--predictions", "p", "--to", "semantickitti", "--split", "nights"], "no scene of kitti_odometry"),
        (["--predictions", "p", "--to", "semantickitti", "--about", "a.json"], "a.json is not there"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    home: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert evaluate(home, *words) == 2
    assert re.search(problem, capsys.readouterr().err)
    assert not (home / "run" / "evaluate").exists() and not (home / "p").exists()


def test_the_targets_of_the_command_line_are_those_that_can_be_written() -> None:
    assert set(cli.TARGETS) == set(TARGETS) == set(RAW)
    assert np.all([TARGETS[name].name == name for name in cli.TARGETS])
