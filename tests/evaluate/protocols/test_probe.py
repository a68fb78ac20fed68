"""The linear probe: it reads what features hold, no more, and sees that pretraining helped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.evaluate.features import calibrate, random_student
from brickyard.evaluate.protocols.linear_probe import ProbeConfig, fit, probe
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.taxonomy import taxonomy
from brickyard.train.augment import CropConfig
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import SLidR
from brickyard.train.students.export import load_student
from brickyard.train.students.unet import UNetConfig
from tests.train.rings import ring_corpus

CONFIG = ProbeConfig(steps=200, batch=2048, threads=1)
TINY = UNetConfig(network="tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return ring_corpus(tmp_path_factory.mktemp("rings"), train=12, val=6)


def test_the_classifier_separates_what_is_linear_whatever_its_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3000, 5, generator=generator) * torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0]) + 50
    truth = (features - 50) / torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0]) @ torch.randn(5, 3, generator=generator)
    labels = truth.argmax(1)
    for optimiser, lr in (("adamw", 0.05), ("sgd", 0.5)):
        config = replace(CONFIG, optimiser=optimiser, lr=lr, lovasz=0.5)  # type: ignore[arg-type]
        predicted = fit(features, labels, 3, config)(features.double().float()).argmax(1)
        assert (predicted == labels).float().mean() > 0.95
    shuffled = labels[torch.randperm(3000, generator=generator)]
    assert (fit(features, shuffled, 3, CONFIG)(features).argmax(1) == shuffled).float().mean() < 0.55


def test_pretraining_beats_the_same_network_at_random(tmp_path: Path, corpus: Corpus) -> None:
    """Both with batch norms measured on the same scenes, so only weights differ."""
    settings = SLidR(student=TINY, crop=CropConfig(height=64, width=112, min_pairs=50), pixel_stride=4)
    config = TrainConfig(steps=40, batch=4, lr=0.1, checkpoint_every=100, threads=1, seed=3, device="cpu")
    train(config, settings, corpus, tmp_path / "run")
    baseline = probe(random_student(TINY, 3), corpus, CONFIG)
    result = probe(load_student(tmp_path / "run" / "final"), corpus, CONFIG)
    assert result.miou > baseline.miou + 0.04
    assert result.scenes == (12, 6)


def test_the_baseline_is_what_training_starts_from() -> None:
    torch.manual_seed(11)
    objective = SLidR(student=TINY).build()
    baseline = random_student(TINY, 11).state_dict()
    assert all(torch.equal(value, baseline[name]) for name, value in objective.student.state_dict().items())
    state = torch.get_rng_state()
    random_student(TINY, 5)
    assert torch.equal(state, torch.get_rng_state())


def test_every_validation_point_counts_once_and_the_student_is_untouched(corpus: Corpus) -> None:
    student = random_student(TINY, 0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    result = probe(student, corpus, replace(CONFIG, steps=5))
    points = [len(corpus.scene(int(row)).points.xyz) for row in corpus.select(split="val")]  # type: ignore[union-attr]
    assert result.confusion.sum() == sum(points)
    names = taxonomy("nuscenes16").classes
    assert set(result.iou) == set(names)
    assert result.miou == pytest.approx(np.nanmean(list(result.iou.values())))
    assert sum(not np.isnan(v) for v in result.iou.values()) == 4
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    again = probe(student, corpus, replace(CONFIG, steps=5, threads=2))
    assert (again.confusion == result.confusion).all()


def test_calibration_makes_features_centred(corpus: Corpus) -> None:
    student = random_student(TINY, 0)
    calibrate(student, corpus, corpus.select(split="train"), threads=1)
    norm = student.network.stem.norm
    assert norm.momentum == 0.05
    assert not student.training
    assert norm.running_mean is not None and norm.running_mean.abs().max() > 0
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 3


def test_what_cannot_be_probed_is_refused(corpus: Corpus) -> None:
    student = random_student(TINY, 0)
    with pytest.raises(RecipeError, match="no scene of split 'test'"):
        probe(student, corpus, replace(CONFIG, val_split="test"))
    with pytest.raises(RecipeError, match="no labels of 'scannet20'"):
        probe(student, corpus, replace(CONFIG, taxonomy="scannet20"))
    with pytest.raises(RecipeError, match="cache_gib"):
        probe(student, corpus, replace(CONFIG, cache_gib=1e-6))
    few = replace(CONFIG, steps=3, voxels_per_scene=50, scenes=2, cache_gib=2 * 50 * 32 * 4 / 2**30)
    assert probe(student, corpus, few).scenes == (2, 6)
