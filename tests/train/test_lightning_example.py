"""The Lightning example of the documentation runs: with Lightning where it is installed, else with as much of its
interface as the example uses, in the order in which Lightning calls it."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.shards.corpus import Corpus
from brickyard.shards.selection import Selection, write_selection
from brickyard.shards.storage import Store
from brickyard.train.augment import CropConfig
from brickyard.train.objectives import STSLidR
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_corpus

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "lightning_distillation.py"
SETTINGS = STSLidR(
    student=UNetConfig(network="tiny"), crop=CropConfig(height=32, width=64, min_pairs=20), pixel_stride=4
)


class FakeModule(nn.Module):
    device = torch.device("cpu")

    def log(self, name: str, value: torch.Tensor, batch_size: int) -> None:
        self.__dict__.setdefault("logged", []).append((name, float(value.detach()), batch_size))


class FakeTrainer:
    def __init__(self, max_steps: int, **options: Any) -> None:
        self.max_steps, self.step = max_steps, 0

    def fit(self, model: Any, datamodule: Any, ckpt_path: str | None) -> None:
        self.model, self.data = model, datamodule
        optimiser = model.configure_optimizers()
        if ckpt_path:
            saved = torch.load(ckpt_path, weights_only=True)
            model.load_state_dict(saved["model"])
            datamodule.load_state_dict(saved["data"])
            self.step = saved["step"]
        batches = iter(datamodule.train_dataloader())
        ahead = next(batches)
        for number in itertools.count():
            batch, ahead = ahead, next(batches)  # as Lightning does
            batch = datamodule.transfer_batch_to_device(batch, model.device, number)
            optimiser.zero_grad()
            model.training_step(batch, number).backward()
            optimiser.step()
            self.step += 1
            if self.step >= self.max_steps:
                return

    def save_checkpoint(self, path: Path) -> None:
        torch.save({"model": self.model.state_dict(), "data": self.data.state_dict(), "step": self.step}, path)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    if importlib.util.find_spec("lightning") is None:
        fake = types.ModuleType("lightning")
        names = {"LightningModule": FakeModule, "LightningDataModule": object, "Trainer": FakeTrainer}
        fake.__dict__.update(names)
        monkeypatch.setitem(sys.modules, "lightning", fake)
    spec = importlib.util.spec_from_file_location("lightning_distillation", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=8)


@pytest.fixture
def seen(example: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Keys of the batches that are trained on."""
    seen: list[tuple[str, ...]] = []
    step = example.Distillation.training_step

    def watched(self: Any, batch: Any, number: int) -> torch.Tensor:
        seen.append(batch.keys)
        loss: torch.Tensor = step(self, batch, number)
        assert torch.isfinite(loss)
        return loss

    monkeypatch.setattr(example.Distillation, "training_step", watched)
    return seen


def test_the_example_trains_and_goes_on_with_the_next_batch(
    example: Any, corpus: Corpus, tmp_path: Path, seen: list[tuple[str, ...]]
) -> None:
    torch.manual_seed(0)
    model = example.main(corpus.store.uri, str(tmp_path), SETTINGS, batch=2, steps=1)
    before = [weights.clone() for weights in model.parameters()]
    trained = example.main(corpus.store.uri, str(tmp_path), SETTINGS, batch=2, steps=len(corpus) // 2)
    assert sorted(key for keys in seen for key in keys) == sorted(corpus.keys)  # one epoch, in two runs
    assert any(not torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))


def test_the_example_trains_on_what_was_selected(
    example: Any, corpus: Corpus, tmp_path: Path, seen: list[tuple[str, ...]]
) -> None:
    chosen = tuple(corpus.keys[2:6])
    selection = Selection(corpus.manifest["digest"], chosen, np.ones(4, np.float32), ("chosen",) * 4)
    write_selection(Store(tmp_path), "chosen.parquet", selection)
    example.main(
        corpus.store.uri, str(tmp_path), SETTINGS, selection=str(tmp_path / "chosen.parquet"), batch=2, steps=2
    )
    assert sorted(key for keys in seen for key in keys) == sorted(chosen)
