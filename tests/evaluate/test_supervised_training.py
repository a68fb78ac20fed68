"""Supervised protocols are trainings like any other: stopped and gone on with, on several ranks, the best kept."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.evaluate.features import random_student
from brickyard.evaluate.protocols.image_to_lidar import PRESETS
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.segmenter import Segmenter
from brickyard.evaluate.supervised import loop_of, supervised, trained
from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.optimiser import learning_rate, momentum
from brickyard.train.running.checkpoint import checkpoints
from brickyard.train.running.metrics import MetricsLog, read_metrics
from brickyard.train.running.stopping import Interrupted
from brickyard.train.students.export import export_student, load_exported
from brickyard.train.students.unet import UNetConfig
from tests.evaluate.rooms import room_corpus
from tests.evaluate.test_supervised import CONFIG, TINY
from tests.train.rings import ring_corpus
from tests.train.running.test_stopping import signal_at_line
from tests.train.spy import numbers, one_thread, ranks


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return room_corpus(tmp_path_factory.mktemp("rooms"), train=4, val=2, points=200)


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=6, val=2)


DECODER = replace(CONFIG, kind="decoder", steps=6)
SLIDR = replace(
    PRESETS["slidr-nuscenes-finetune-tiny"], dataset=None, taxonomy="nuscenes16", steps=3, batch=2, threads=1
)


def test_stopped_and_gone_on_with_it_has_the_same_score(
    rooms: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = random_student(TINY, 0)
    whole = supervised(student, rooms, DECODER, tmp_path / "whole")
    monkeypatch.setattr(MetricsLog, "write", MetricsLog.write)
    signal_at_line(1, signal.SIGTERM)
    with pytest.raises(Interrupted):
        supervised(student, rooms, DECODER, tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000002"]
    again = supervised(student, rooms, DECODER, tmp_path / "run")
    assert np.array_equal(again.confusion, whole.confusion)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    assert {"loss", "cross_entropy", "lovasz", "lr"} <= set(read_metrics(tmp_path / "run")[0])
    # over: scored at once; on other weights it is another training
    assert np.array_equal(supervised(student, rooms, DECODER, tmp_path / "run").confusion, whole.confusion)
    with pytest.raises(RecipeError, match=r"objective\.weights: was"):
        supervised(random_student(TINY, 1), rooms, DECODER, tmp_path / "run")
    exported = load_exported(tmp_path / "run" / "final")
    assert isinstance(exported, Segmenter) and exported.config.trained == "decoder" and exported.decoder is not None
    assert main(["show", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert main(["runs", str(tmp_path / "run")]) == 0
    assert "segment " in capsys.readouterr().out


RECIPE = """
name: rings
evaluate:
  protocols: [slidr-nuscenes-finetune-tiny]
  settings: {slidr-nuscenes-finetune-tiny: {dataset: null, steps: 3, batch: 2, threads: 1}}
  baselines: []
  device: cpu
"""


def _evaluate(root: str) -> None:
    assert main(["evaluate", f"{root}/recipe.yaml", "--run", f"{root}/run", "--corpus", f"{root}/corpus"]) == 0


def test_two_ranks_train_together_and_share_the_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring_corpus(tmp_path / "corpus", train=4, val=3)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    (run / "final").mkdir(parents=True)
    export_student(random_student(UNetConfig(network="tiny"), 0), run / "final")
    (run / "config.json").write_text(json.dumps({"train": {"seed": 0}, "objective": {"name": "slidr"}, "corpus": "a"}))
    assert ranks(2, _evaluate, str(tmp_path)) == [0, 0]
    (training,) = (run / "evaluate").iterdir()
    assert len(read_metrics(training)) == 3
    assert json.loads((training / "environment.json").read_text())["world"] == 2
    _evaluate(str(tmp_path))  # alone; the training is over, so it is scored
    both, alone = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert both["results"] == alone["results"] and both["results"]["pretrained"]["miou"] > 0
    assert len(read_metrics(training)) == 3 and "slidr-nuscenes-finetune-tiny" in capsys.readouterr().out


def test_the_best_weights_are_scored_where_that_is_asked(rooms: Corpus, tmp_path: Path) -> None:
    student = random_student(TINY, 0)
    falling = replace(CONFIG, steps=6, lr=0.5, validations=3, scored="best")
    watched = supervised(student, rooms, replace(falling, scored="last"), tmp_path / "last").miou
    best = supervised(student, rooms, falling, tmp_path / "best")
    seen = {row["step"]: row["watch_miou"] for row in read_metrics(tmp_path / "best") if "watch_miou" in row}
    assert list(seen) == [2, 4, 6] and seen[6] == pytest.approx(watched, abs=0.02)
    assert best.miou == pytest.approx(max(seen.values()), abs=0.02)
    with pytest.raises(ValueError, match="needs validations"):
        replace(falling, validations=0)


def test_the_published_cycle_of_beta1_and_steps_of_epochs() -> None:
    loop = loop_of(SupervisedConfig(), 1201, "cpu")
    assert loop.steps == round(800 * 1201 / 24) and loop.checkpoint_every == loop.steps // 100
    peak = round(0.05 * loop.steps)
    assert momentum(loop, 0, loop.steps) == pytest.approx(0.95)
    assert momentum(loop, peak, loop.steps) == pytest.approx(0.85, abs=1e-4)
    assert learning_rate(loop, peak, loop.steps) == pytest.approx(0.002, rel=1e-4)


@pytest.mark.parametrize("kind", ["linear", "finetune"])
def test_a_probe_as_slidrs_honours_stored_statistics_and_has_an_idle_output(rings: Corpus, kind: str) -> None:
    student = random_student(UNetConfig(network="tiny"), 0)
    config = replace(SLIDR, kind=kind, steps=2)  # type: ignore[arg-type]
    model = trained(student, rings, config)
    assert model.linear.out_features == 17
    before, after = student.state_dict(), model.student.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(moved) == (kind == "finetune")
    if kind == "finetune":
        mean = "network.stem.norm.running_mean"
        quick = trained(student, rings, replace(config, norm_momentum=0.5)).student.state_dict()[mean]
        assert quick.abs().sum() > 5 * after[mean].abs().sum() > 0
    assert supervised(student, rings, replace(config, steps=1)).confusion.shape == (16, 16)


def test_a_frozen_encoder_may_stay_in_training_mode(rooms: Corpus) -> None:
    student = random_student(replace(TINY, drop_path=0.5), 0)
    config = replace(CONFIG, steps=2)
    still, moving = (trained(student, rooms, replace(config, frozen_mode=mode)) for mode in ("eval", "train"))
    assert not torch.equal(still.linear.weight, moving.linear.weight)
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in moving.student.state_dict().items())
    moving.train()
    assert moving.student.training and not still.train().student.training


def test_coordinates_are_clamped_in_training_and_scoring(rooms: Corpus) -> None:
    student = random_student(TINY, 0)
    flat = replace(CONFIG, steps=2, clamp=(-9.0, -9.0, -9.0, 9.0, 9.0, -8.0))
    assert supervised(student, rooms, flat).confusion.sum() == 400  # nobody is lost
    first, other = (trained(student, rooms, one).linear.weight for one in (flat, replace(flat, clamp=None)))
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="least x, y, z"):
        replace(flat, clamp=(0.0, 0.0, 0.0, 1.0, 1.0, 0.0))
