"""Golden loss curves of the objectives on small worlds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.rooms import room_corpus
from tests.train.golden_curves import FOLDER, assert_golden
from tests.train.rings import ring_corpus
from tests.train.spy import numbers, one_thread
from train.augment import CropConfig
from train.loop import TrainConfig, train
from train.objectives import PPKT, SLidR, Sonata, STSLidR
from train.objectives.image_to_lidar import ImageToLidar
from train.point_student import PointStudentConfig
from train.student import StudentConfig

CONFIG = TrainConfig(steps=8, batch=2, lr=0.05, warmup=2, clip=5.0, threads=2, device="cpu", seed=3)
SMALL: dict[str, Any] = {
    "student": StudentConfig(network="tiny"), "crop": CropConfig(height=32, width=64, min_pairs=20), "pixel_stride": 4,
}  # fmt: skip


@pytest.mark.parametrize("objective", [SLidR, STSLidR, PPKT])
def test_image_to_lidar(tmp_path: Path, objective: type[ImageToLidar]) -> None:
    corpus = ring_corpus(tmp_path / "corpus", train=4)
    runs = ("first", "second") if objective is SLidR else ("first",)
    with one_thread():
        for name in runs:
            train(CONFIG, objective(**SMALL), corpus, tmp_path / name)
    assert numbers(tmp_path / "first") == numbers(tmp_path / runs[-1])
    assert_golden(objective.name, [line["loss"] for line in numbers(tmp_path / "first")])


def test_sonata(tmp_path: Path) -> None:
    corpus = room_corpus(tmp_path / "corpus", train=4)
    student = PointStudentConfig(network="tiny", size=0.2)
    sonata = Sonata(student=student, prototypes=32, hidden=32, dimensions=16, radius=0.8, mask_size=(0.4, 0.8))
    config = replace(CONFIG, optimiser="adamw", lr=0.002, schedule="one_cycle", weight_decay_end=0.2)
    with one_thread():
        train(config, sonata, corpus, tmp_path / "first")
        train(replace(config, checkpoint_every=3), sonata, corpus, tmp_path / "second")
    assert numbers(tmp_path / "first") == numbers(tmp_path / "second")
    assert_golden("sonata", [line["loss"] for line in numbers(tmp_path / "first")])


def test_a_curve_that_is_a_little_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRICKYARD_GOLDEN", raising=False)
    losses = json.loads((FOLDER / "slidr.json").read_text())["losses"]
    with pytest.raises(AssertionError):
        assert_golden("slidr", [losses[0] * 1.0002, *losses[1:]])
    with pytest.raises(AssertionError):
        assert_golden("slidr", losses[:-1])
