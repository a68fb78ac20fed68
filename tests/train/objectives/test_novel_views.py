"""RayZer and LVSM in the loop: equal losses on ranks and after a kill, and a clip that is learned."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.loop import TrainConfig, train
from brickyard.train.models import lvsm, rayzer
from brickyard.train.models.lvsm import LVSMConfig
from brickyard.train.models.rayzer import RayZerConfig
from brickyard.train.objectives import CONFIGS
from brickyard.train.objectives.clips import ClipBatch, ClipConfig, psnr
from brickyard.train.objectives.novel_views import LVSM, RayZer
from brickyard.train.objectives.objective import Objective, ObjectiveConfig
from brickyard.train.objectives.perceptual import PerceptualConfig
from brickyard.train.running.distributed import Group
from brickyard.train.running.metrics import read_metrics
from brickyard.train.step import StepConfig, Stepper
from brickyard.train.students.export import load_exported
from tests.killing import kill_after_line
from tests.train.golden_curves import assert_golden
from tests.train.planes import clip_corpus, plane_clip
from tests.train.spy import child, numbers, one_thread, ranks

CLIPS = ClipConfig(inputs=3, targets=2, window=(5, 7), window_end=(8, 10), ramp=5)
RAYZER = RayZer(network=RayZerConfig(network="tiny", size=16, patch=8), clips=CLIPS)
POSED = LVSM(
    network=LVSMConfig(network="tiny", size=16, design="encoder-decoder"),
    clips=replace(CLIPS, inputs=2, targets=2, window=(4, 8), split="ends"),
    perceptual=PerceptualConfig(network="none"),
)
CONFIG = TrainConfig(
    steps=6, batch=2, optimiser="adamw", lr=0.001, warmup=2, betas=(0.9, 0.95), weight_decay=0.05, decay="matrices",
    clip=1.0, skip_factor=2.0, skip_after=100, checkpoint_every=3, threads=2, device="cpu", logs=(), seed=2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Five clips of 12 frames, and one that only the windows of the first steps fit in."""
    lengths = [12, 12, 7, 12, 12, 12]
    return clip_corpus(
        tmp_path_factory.mktemp("clips") / "corpus", [plane_clip(k, frames=n) for k, n in enumerate(lengths)]
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A run on one rank that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, RAYZER, corpus, folder)
    return folder


def start(uri: str, out: str, config: TrainConfig, settings: ObjectiveConfig) -> None:
    train(config, settings, Corpus.open(uri), out)


def start_and_die(*arguments: Any) -> None:
    kill_after_line(4)
    start(*arguments)


def test_killed_and_resumed_it_is_the_same_to_the_bit(tmp_path: Path, corpus: Corpus, whole: Path) -> None:
    process = child(start_and_die, corpus.store.uri, str(tmp_path / "run"), CONFIG, RAYZER)
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(read_metrics(tmp_path / "run")) == 4
    train(CONFIG, RAYZER, corpus, tmp_path / "run")
    assert numbers(tmp_path / "run") == numbers(whole)


def test_on_two_ranks_losses_are_equal(tmp_path: Path, corpus: Corpus, whole: Path) -> None:
    assert ranks(2, start, corpus.store.uri, str(tmp_path / "run"), CONFIG, RAYZER) == [0, 0]
    for ours, theirs in zip(numbers(tmp_path / "run"), numbers(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


def test_a_run_says_what_it_measured_and_leaves_the_network(whole: Path) -> None:
    lines = numbers(whole)
    names = {"loss", "loss_mse", "psnr", "perceptual_efficientnet_lite0", "focal", "baseline"}
    assert all(names <= line.keys() for line in lines)
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_mse"] + 0.2 * line["perceptual_efficientnet_lite0"], rel=1e-5)
    summary = json.loads((whole / "final" / "summary.json").read_text())
    assert summary["unfit_scenes"]["scenes"] == 1
    assert summary["unfit_scenes"]["reasons"][0].startswith("planes/clip-002: the clip has 7 frames, the window ")
    student = load_exported(whole / "final")
    assert student.config == RAYZER.network
    assert CONFIGS["rayzer"] is RayZer and CONFIGS["lvsm"] is LVSM


@pytest.mark.parametrize("settings", [RAYZER, POSED], ids=["rayzer", "lvsm"])
def test_golden_curves(tmp_path: Path, corpus: Corpus, settings: ObjectiveConfig) -> None:
    def losses() -> list[float]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        train(replace(CONFIG, checkpoint_every=100), settings, corpus, out)
        return [line["loss"] for line in numbers(out)]

    assert_golden(settings.name, losses(), losses)


def test_steps_whose_gradient_is_out_of_proportion_are_left_out(tmp_path: Path, corpus: Corpus) -> None:
    """By the guards that the loop has: after `skip_after` steps, above `skip_factor` times the clip."""
    calm = replace(CONFIG, steps=3, clip=1e-6, skip_factor=2.0, skip_after=1)
    settings = replace(RAYZER, perceptual=PerceptualConfig(network="none"))
    assert train(calm, settings, corpus, tmp_path)["steps_left_out"] == 2


def batch_of(objective: Objective, corpus: Corpus) -> ClipBatch:
    stream = Stream(
        corpus, objective.fields, batch=1, prepare=objective.prepare, choose=objective.choose, shuffle=False
    )
    batch: ClipBatch = objective.collate(next(iter(stream)), torch.device("cpu"))
    return batch


def mean_of_neighbours(batch: ClipBatch, inputs: int) -> torch.Tensor:
    """Each target as the mean of the input before it and the one after it in the list."""
    found = []
    for images, number in zip(batch.images, batch.number.tolist(), strict=True):
        for target in number[inputs:]:
            before = [n for n in number[:inputs] if n < target]
            after = [n for n in number[:inputs] if n > target]
            near = [max(before)] * bool(before) + [min(after)] * bool(after)
            found.append(torch.stack([images[number.index(n)] for n in near]).mean(0))
    return torch.stack(found).unflatten(0, (len(batch.images), -1))


@pytest.mark.parametrize("name", ["rayzer", "lvsm"])
def test_a_clip_is_learned_better_than_by_mixing_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One clip of two boards before a wall, drawn once: what is between two views is not what both show. Measured:
    26.3 dB by RayZer, 24.6 by LVSM, 18.6 by the mean of the neighbours, 11.0 at the start."""
    monkeypatch.setitem(rayzer.SIZES, "tiny", rayzer.RayZerSize(128, 16, 1, 1, 1))
    monkeypatch.setitem(lvsm.SIZES, "tiny", lvsm.LVSMSize(128, 16, 1, 1, 2))
    corpus = clip_corpus(tmp_path / "corpus", [plane_clip(4, frames=9, size=(32, 32))])
    clips = ClipConfig(inputs=5, targets=2, window=(9, 9), window_end=(9, 9), order="sorted", split="ends")
    network: Any = {"network": "tiny", "size": 16, "patch": 4, "checkpointing": False}
    settings: Any = {"clips": clips, "perceptual": PerceptualConfig(network="none")}
    torch.manual_seed(0)
    if name == "rayzer":
        objective: Any = RayZer(network=RayZerConfig(**network), **settings).build()
    else:
        objective = LVSM(network=LVSMConfig(**network), **settings).build()
    batch = batch_of(objective, corpus)
    mixed = float(psnr((mean_of_neighbours(batch, 5) - batch.images[:, 5:]).square().mean()))
    lr, steps = {"rayzer": (0.0015, 200), "lvsm": (0.005, 120)}[name]
    config = StepConfig(optimiser="adamw", lr=lr, warmup=10, clip=1.0, weight_decay=0.0, betas=(0.9, 0.95))
    objective.collate = lambda items, device: batch
    with Group.join("cpu") as group:
        stepper = Stepper(config, objective, group, lambda key: 0)
        found = [stepper.make(step, steps, iter([[None]]), [0]).metrics["psnr"] for step in range(steps)]
    assert found[0] < mixed < found[-1] - 2
