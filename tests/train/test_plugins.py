"""Objectives and students of third parties: found by entry point, trained by the loop, exported and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.shards.errors import BrickyardError
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import CONFIGS, Loss, Objective, ObjectiveConfig
from brickyard.train.students.base import Exported, ExportedConfig
from brickyard.train.students.export import load_exported, load_student
from tests.train.rings import ring_corpus


@dataclass(frozen=True, kw_only=True)
class PosterConfig(ExportedConfig):
    """A network that knows nothing of points."""

    kind: ClassVar[str] = "poster"

    width: int = 3

    def build(self, device: torch.device | str = "cpu") -> Poster:
        return Poster(self)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        return cls(width=table["width"])


class Poster(Exported):
    def __init__(self, config: PosterConfig) -> None:
        super().__init__()
        self.config, self.paint = config, nn.Linear(config.width, 1)


@dataclass(frozen=True, kw_only=True)
class Guess(ObjectiveConfig):
    """Settings of an objective without clouds."""

    name: ClassVar[str] = "guess"

    def build(self, device: torch.device | str = "cpu") -> GuessObjective:
        return GuessObjective()


class GuessObjective(Objective):
    def __init__(self) -> None:
        super().__init__()
        self.fields, self.student = ("views/*/image",), Poster(PosterConfig())

    def prepare(self, sample: Any, rng: np.random.Generator) -> tuple[str, float]:
        return sample.key, float(rng.random())

    def collate(self, items: Sequence[tuple[str, float]], device: torch.device) -> Any:
        return SimpleNamespace(keys=[key for key, _ in items], values=torch.tensor([[v] * 3 for _, v in items]))

    def forward(self, batch: Any) -> Loss:
        return Loss(total=(self.student.paint(batch.values) - 1).square().mean())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "site" / "guessing-1.0.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: guessing\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text(
        f"[brickyard.objectives]\nguess = {__name__}:Guess\n[brickyard.students]\nposter = {__name__}:PosterConfig\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("installed")
def test_an_objective_without_points_trains_and_its_network_is_loaded_again(tmp_path: Path) -> None:
    assert "guess" in CONFIGS and CONFIGS["guess"] is Guess and {"sonata", "slidr"} < set(CONFIGS)
    corpus = ring_corpus(tmp_path / "corpus")
    run = tmp_path / "run"
    config = TrainConfig(steps=3, batch=2, lr=0.1, device="cpu", split=None, threads=1)
    train(config, CONFIGS["guess"](), corpus, run)
    again = load_exported(run / "final")
    assert isinstance(again, Poster) and again.paint.weight.abs().sum() > 0
    with pytest.raises(BrickyardError, match="'poster', which does not encode clouds"):
        load_student(run / "final")


def test_a_kind_that_is_not_installed_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from brickyard.train.students.export import export_student

    export_student(Poster(PosterConfig()), tmp_path)
    with pytest.raises(BrickyardError, match=r"unknown kind of student 'poster'; installed: .*sparse_unet"):
        load_exported(tmp_path)
    request.getfixturevalue("installed")
    assert isinstance(load_exported(tmp_path), Poster)
