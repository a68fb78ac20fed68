"""The supervised protocols: what is frozen stays, what is trained learns, every raw point is scored."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brickyard.evaluate.augment import AugmentConfig
from brickyard.evaluate.features import random_student
from brickyard.evaluate.segment import LabelledCloud, Segment, SupervisedConfig, segmentation_loss
from brickyard.evaluate.segmenter import Kind, Segmenter, SegmenterConfig, adapted
from brickyard.evaluate.supervised import supervised, trained
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.models.point_transformer import CONFIGS
from brickyard.train.students.base import Student
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.views.geometry import GeometryConfig
from tests.evaluate.rooms import room_corpus
from tests.train.rings import ring_corpus

DECODER = PointDecoderConfig(channels=(16, 16, 16, 16), heads=(1, 1, 1, 1), depths=(1, 1, 1, 1), drop_path=0.1)
CONFIG = SupervisedConfig(
    dataset="scannet",
    taxonomy="scannet20",
    grid=None,
    steps=25,
    batch=2,
    lr=0.01,
    augment=None,
    decoder=DECODER,
    frozen_mode="eval",
    validations=0,
    scored="last",
    test_variants="none",
    most_turns=3,
    threads=1,
)
TINY = PointStudentConfig(network="tiny", size=0.1, upcast=2)


def segmenter(student: Student, classes: int, kind: Kind, decoder: PointDecoderConfig = DECODER) -> Segmenter:
    names = tuple(f"class {number}" for number in range(classes))
    return Segmenter(student, SegmenterConfig(student=student.config, classes=names, trained=kind, decoder=decoder))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return room_corpus(tmp_path_factory.mktemp("rooms"), train=4, val=2, points=300)


@pytest.mark.parametrize("kind", ["linear", "decoder", "finetune"])
def test_only_what_the_protocol_trains_changes(corpus: Corpus, kind: str) -> None:
    student = random_student(TINY, 0)
    before = copy.deepcopy(student.state_dict())
    config = replace(CONFIG, kind=kind, steps=2)  # type: ignore[arg-type]
    first, model = trained(student, corpus, replace(config, lr=1e-12)), trained(student, corpus, config)
    changed = [
        name
        for name, value in model.student.state_dict().items()
        if not torch.equal(value, before[name]) and "mask_token" not in name
    ]
    assert bool(changed) == (kind == "finetune")
    if kind == "finetune":
        assert any("stages.0" in name for name in changed) and any("stem" in name for name in changed)
    assert (model.decoder is None) == (kind == "linear")
    assert not torch.equal(first.linear.weight, model.linear.weight)
    if model.decoder is not None and first.decoder is not None:
        pairs = zip(first.decoder.parameters(), model.decoder.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_decoder_on_a_frozen_random_encoder_learns_rooms(corpus: Corpus) -> None:
    result = supervised(random_student(TINY, 0), corpus, replace(CONFIG, kind="decoder", steps=25))
    assert result.confusion.sum() == 600 and result.scenes == (4, 2)
    assert result.miou > 0.4
    untrained = supervised(random_student(TINY, 0), corpus, replace(CONFIG, kind="decoder", steps=1, lr=1e-9))
    assert untrained.miou < 0.2


def test_training_is_the_same_again_and_not_with_another_seed(corpus: Corpus) -> None:
    config = replace(CONFIG, kind="finetune", steps=3, augment=AugmentConfig(crop=100, mix=0.5))
    student = random_student(TINY, 0)
    state = torch.get_rng_state()
    first = trained(student, corpus, config).linear.weight
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, trained(student, corpus, replace(config, threads=2)).linear.weight)
    assert not torch.equal(first, trained(student, corpus, replace(config, seed=1)).linear.weight)


def test_blocks_of_the_encoder_learn_at_a_tenth() -> None:
    config = replace(CONFIG, kind="finetune", encoder_rate=0.1)
    objective = Segment(weights="", protocol=config, domain="indoor", student=random_student(TINY, 0)).build()
    names = [name for name, _ in objective.named_parameters()]
    slow = {name for name in names if objective.rate(name) == 0.1}
    fast = {name for name in names if objective.rate(name) == 1.0}
    assert slow and all(name.startswith("student.student.network.stages.") for name in slow)
    assert {"linear.weight", "student.network.stem.0.weight", "decoder.stages.0.0.mlp.0.weight"} <= {
        name.removeprefix("student.") for name in fast
    }
    assert len(slow) + len(fast) == len(names)
    probe = segmenter(random_student(TINY, 0), 20, "linear")
    trained_ones = [name for name, parameter in probe.named_parameters() if parameter.requires_grad]
    assert trained_ones == ["linear.weight", "linear.bias"]


def test_published_sizes() -> None:
    """16.3 million parameters of the decoder, 1,232 channels of the linear probe."""
    with torch.device("meta"):
        decoder = PointDecoderConfig()
        student = random_student(PointStudentConfig(network="base", upcast=2), 0, "meta")
        model = segmenter(student, 20, "decoder", decoder)
    assert model.decoder is not None
    assert sum(p.numel() for p in model.decoder.parameters()) == 16_331_520
    assert CONFIGS["base"].width(4) == 1232


def test_a_probe_sees_all_levels_in_the_protocols_grid() -> None:
    student = random_student(replace(TINY, scale={"outdoor": 0.4}), 0)
    copy_ = adapted(student, grid=0.05, domain="outdoor")
    assert student.channels == sum(CONFIGS["tiny"].channels[2:]) and copy_.channels == sum(CONFIGS["tiny"].channels)
    assert copy_.config.size == pytest.approx(0.02) and copy_.config.voxel_size("outdoor") == pytest.approx(0.05)
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in copy_.state_dict().items())


def test_labelled_rows_alone_make_the_loss(corpus: Corpus) -> None:
    """Against cross-entropy by hand; a point without a label has no say."""
    student = adapted(random_student(TINY, 0), grid=None, domain="indoor")
    model = segmenter(student, 20, "linear").eval()
    generator = torch.Generator().manual_seed(0)
    cloud = Cloud(
        key="a/b",
        domain="indoor",
        xyz=torch.rand(80, 3, generator=generator) * 2,
        values={name: torch.rand(80, 3, generator=generator) for name in ("color", "normal")},
    )
    labels = torch.randint(-1, 20, (80,), generator=generator)
    config = replace(CONFIG, lovasz=0.0)
    rows = model.classify([cloud])
    known = labels[rows.representative] >= 0
    expected = -rows.features.log_softmax(1)[known].gather(1, labels[rows.representative][known][:, None]).mean()
    item = LabelledCloud(cloud=cloud, labels=labels, seed=1)
    torch.testing.assert_close(segmentation_loss(model, [item], config, size=0.1, few=False).total, expected)
    with_lovasz = segmentation_loss(model, [item], replace(config, lovasz=1.0), size=0.1, few=False)
    assert with_lovasz.total > expected and set(with_lovasz.metrics) == {"cross_entropy", "lovasz"}
    nothing = segmentation_loss(model, [replace(item, labels=torch.full((80,), -1))], config, size=0.1, few=False)
    assert nothing.total.item() == 0 and not nothing.usable


def test_a_unet_is_tuned_with_a_linear_head_and_has_no_decoder_probe(tmp_path: Path) -> None:
    corpus = ring_corpus(tmp_path, train=2, val=1)
    light = AugmentConfig(geometry=GeometryConfig(elastic=()), about="sensor", crop=500)
    config = replace(CONFIG, dataset=None, taxonomy="nuscenes16", kind="finetune", augment=light, steps=2)
    student = random_student(UNetConfig(network="tiny"), 0)
    model = trained(student, corpus, config)
    assert model.decoder is None
    assert not torch.equal(model.student.network.stem.norm.running_mean, student.network.stem.norm.running_mean)
    still = trained(student, corpus, replace(config, kind="linear", calibrate=False)).student.state_dict()
    assert all(torch.equal(value, still[name]) for name, value in student.state_dict().items())
    assert supervised(student, corpus, replace(config, kind="linear")).confusion.sum() == 960
    with pytest.raises(RecipeError, match="was pretrained together with"):
        trained(student, corpus, replace(config, kind="decoder"))
    with pytest.raises(RecipeError, match="has 2 stages, but one for an encoder of 5 has 4"):
        two = PointDecoderConfig(channels=(8, 8), heads=(1, 1), depths=(1, 1))
        segmenter(random_student(TINY, 0), 4, "decoder", two)
