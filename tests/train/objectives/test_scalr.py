"""Distillation point by point: what a point is told, how far it is from it, what learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig
from brickyard.train.objectives import CONFIGS, ScaLR
from brickyard.train.objectives.scalr import ScaLRObjective, mean_distance
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_corpus

CROP = CropConfig(height=32, width=64, area=(1.0, 1.0), aspect=(2.0, 2.0), flip=0.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=3, blind=1)


def test_distances_are_those_of_unit_vectors() -> None:
    told, seen = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    assert float(mean_distance(told, seen, "l2")) == pytest.approx(2**0.5 / 2)
    assert float(mean_distance(told, seen, "cosine")) == pytest.approx(0.5)
    same = told.clone().requires_grad_()
    mean_distance(same, told, "l2").backward()  # type: ignore[no-untyped-call]
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_it_learns_what_the_teacher_sees(distance: str, corpus: Corpus) -> None:
    torch.manual_seed(0)
    built = CONFIGS["scalr"](student=UNetConfig(network="tiny"), crop=CROP, distance=distance).build()  # type: ignore[call-arg]
    assert isinstance(built, ScaLRObjective)
    stream = Stream(corpus, built.fields, batch=3, prepare=built.prepare, threads=1, rows=np.arange(3))
    batch = built.collate(next(iter(stream)), torch.device("cpu"))
    optimiser = torch.optim.AdamW(built.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss = built(batch)
        optimiser.zero_grad()
        loss.total.backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in built.parameters())
        optimiser.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is None for parameter in built.teacher.parameters())
    assert float(loss.metrics["scenes_without_pairs"]) == 1


def test_a_centred_teacher_is_not_told_by_one_direction(corpus: Corpus) -> None:
    """What is far from the mean of a teacher is as far from it as from its opposite."""
    losses = {}
    for centre in (False, True):
        torch.manual_seed(0)
        built = ScaLR(student=UNetConfig(network="tiny"), crop=CROP, centre=centre, distance="cosine").build()
        stream = Stream(corpus, built.fields, batch=3, prepare=built.prepare, threads=1, rows=np.arange(3))
        batch = built.collate(next(iter(stream)), torch.device("cpu"))
        seen = built.teacher(batch.images.float() / 255)
        mean = seen.mean((0, 2, 3))
        torch.nn.init.zeros_(built.point_head.weight)
        with torch.no_grad():
            built.point_head.bias.copy_(mean)  # a student that says the same of every point
        losses[centre] = float(built(batch).total.detach())
    assert losses[False] < 0.6
    assert abs(losses[True] - 1) < 0.2


def test_pairs_are_drawn_by_the_scenes_alone_and_none_is_a_loss_of_zero(corpus: Corpus) -> None:
    built = ScaLR(student=UNetConfig(network="tiny"), crop=CROP, max_pairs=100).build()
    stream = Stream(corpus, built.fields, batch=3, prepare=built.prepare, shuffle=False, rows=np.arange(3))
    items = next(iter(stream))
    batch = built.collate(items, torch.device("cpu"))
    drawn = built._drawn(batch)
    assert len(torch.unique(drawn)) == 100
    assert torch.equal(drawn, built._drawn(batch))
    loss = built(built.collate(items[:1], torch.device("cpu")))
    loss.total.backward()
    assert not loss.usable
    assert all(p.grad is not None and not p.grad.any() for p in built.parameters())


def test_settings_are_those_of_the_paper(tmp_path: Path) -> None:
    config = ScaLR()
    assert (config.distance, config.crop.height, config.crop.width, config.crop.flip) == ("l2", 224, 448, 0.0)
    assert (config.scale, config.cuboid.extent, config.max_pairs, config.superpixels) == (0.1, 0.0, None, False)
    with pytest.raises(ValueError, match="max_pairs"):
        ScaLR(max_pairs=0)
