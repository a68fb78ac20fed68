"""Golden loss curves of the objectives on small worlds."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from brickyard.shards.corpus import Corpus
from brickyard.train.augment import CropConfig
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import PPKT, SLidR, Sonata, STSLidR
from brickyard.train.objectives.image_to_lidar import ImageToLidar
from brickyard.train.objectives.objective import ObjectiveConfig
from brickyard.train.running.distributed import Group
from brickyard.train.step import StepConfig, Stepper
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from tests.evaluate.rooms import room_corpus
from tests.train.golden_curves import FOLDER, assert_golden, nudged_weights, spread
from tests.train.rings import ring_corpus
from tests.train.spy import Spy, numbers, one_thread

CONFIG = TrainConfig(steps=8, batch=2, lr=0.05, warmup=2, clip=5.0, threads=2, device="cpu", seed=3)
SMALL: dict[str, Any] = {
    "student": UNetConfig(network="tiny", intensity="unit"), "crop": CropConfig(height=32, width=64, min_pairs=20),
    "pixel_stride": 4,
}  # fmt: skip


@pytest.mark.parametrize("objective", [SLidR, STSLidR, PPKT])
def test_image_to_lidar(tmp_path: Path, objective: type[ImageToLidar]) -> None:
    corpus = ring_corpus(tmp_path / "corpus", train=4)
    curve = partial(losses, tmp_path, CONFIG, objective(**SMALL), corpus)
    first = curve()
    if objective is SLidR:
        assert curve() == first
    assert_golden(objective.name, first, curve)


def test_sonata(tmp_path: Path) -> None:
    corpus = room_corpus(tmp_path / "corpus", train=4)
    student = PointStudentConfig(network="tiny", size=0.2)
    sonata = Sonata(student=student, prototypes=32, hidden=32, dimensions=16, radius=0.8, mask_size=(0.4, 0.8))
    config = replace(CONFIG, optimiser="adamw", lr=0.002, schedule="one_cycle", weight_decay_end=0.2)
    curve = partial(losses, tmp_path, config, sonata, corpus)
    first = curve()
    assert losses(tmp_path, replace(config, checkpoint_every=3), sonata, corpus) == first
    assert_golden("sonata", first, curve)


def losses(folder: Path, config: TrainConfig, objective: ObjectiveConfig, corpus: Corpus) -> list[float]:
    """Of a training in a new folder, on one thread."""
    out = Path(tempfile.mkdtemp(dir=folder))
    with one_thread():
        train(config, objective, corpus, out)
    return [line["loss"] for line in numbers(out)]


def test_a_curve_that_is_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRICKYARD_GOLDEN", raising=False)
    stored = json.loads((FOLDER / "slidr.json").read_text())
    golden, check = stored["losses"], partial(assert_golden, "slidr", again=list)
    assert max(stored["spread"]) < 0.001
    for damaged in (
        [golden[0] * 1.00002, *golden[1:]],
        [*golden[:4], golden[4] * 1.005, *golden[5:]],
        golden[:-1],
    ):
        with pytest.raises(AssertionError):
            check(damaged)


def test_spread_is_what_a_rounding_does() -> None:
    objective = Spy().build()
    before = {name: value.detach().clone() for name, value in objective.named_parameters()}
    with nudged_weights(0), Group.join("cpu") as group:
        Stepper(StepConfig(), objective, group, lambda key: 0)
    moved = [(value / before[name] - 1).abs().max().item() for name, value in objective.named_parameters()]
    assert 0 < max(moved) < 1e-6
    assert spread([1.0, 2.0], lambda: [1.0, 2.002]) == [0.0, 0.001]
