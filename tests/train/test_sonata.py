"""Sonata: what is compared with what, where gradients go, what follows which schedule."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import BrickyardError
from brickyard.shards.stream import Stream
from brickyard.train.augment import CropConfig as ImageCrop
from brickyard.train.clouds import Cloud
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.objectives.matching import nearest
from brickyard.train.objectives.prototypes import sinkhorn
from brickyard.train.objectives.sonata import (
    Coarse,
    Sonata,
    SonataBatch,
    SonataObjective,
    SonataScene,
    _use,
)
from brickyard.train.objectives.sonata_images import ImageTerm, rows_of
from brickyard.train.objectives.spread import koleo
from brickyard.train.students.export import export_student, load_student
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.views.color import ColorConfig
from brickyard.train.views.crops import CropConfig
from brickyard.train.views.geometry import GeometryConfig
from brickyard.train.views.views import ViewConfig
from tests.worlds import toy_corpus

CPU = torch.device("cpu")
TINY = PointStudentConfig(network="tiny", size=0.1)
SMALL = Sonata(student=TINY, prototypes=16, hidden=24, dimensions=8, radius=0.5)


def scene(seed: int, points: int = 900) -> SonataScene:
    """Points on the faces of a box."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0])
    xyz[torch.arange(points), torch.arange(points) % 3] = 0
    values = {
        "color": torch.rand(points, 3, generator=generator),
        "normal": torch.eye(3)[torch.arange(points) % 3],
    }
    return SonataScene(cloud=Cloud(key=f"box-{seed}", domain="indoor", xyz=xyz, values=values), seed=seed)


def built(config: Sonata = SMALL, seed: int = 0) -> SonataObjective:
    torch.manual_seed(seed)
    return config.build(CPU).train()


def batch(objective: SonataObjective, *seeds: int) -> SonataBatch:
    return objective.collate([scene(seed) for seed in seeds], CPU)


def test_golden_numbers_of_the_published_schedules() -> None:
    objective = built()
    objective.begin_step(0, 1000)
    assert (objective.mask_size, objective.mask_ratio, objective.teacher_temperature) == (0.1, 0.3, 0.04)
    objective.begin_step(25, 1000)  # 2.5 % of the steps
    assert objective.teacher_temperature == pytest.approx(0.055)
    assert (objective.mask_size, objective.mask_ratio) == (pytest.approx(0.25), pytest.approx(0.5))
    objective.begin_step(50, 1000)
    assert (objective.mask_size, objective.mask_ratio, objective.teacher_temperature) == (0.4, 0.7, 0.07)
    objective.begin_step(999, 1000)
    assert (objective.mask_size, objective.mask_ratio, objective.teacher_temperature) == (0.4, 0.7, 0.07)


def test_golden_learning_rates_of_the_published_blocks() -> None:
    with torch.device("meta"):
        objective = Sonata().build("meta")
    rates = {name: 0.004 * objective.rate(name) for name, p in objective.named_parameters() if p.requires_grad}
    block = "trained.encoder.network.stages.{}.{}.mlp.0.weight"
    for stage, expected in {0: (3.545e-4, 3.939e-4, 4.377e-4), 1: (4.863e-4, 5.403e-4, 6.004e-4),
                            2: (6.671e-4, 7.412e-4, 8.236e-4), 4: (3.24e-3, 3.6e-3, 4e-3)}.items():  # fmt: skip
        assert [rates[block.format(stage, i)] for i in range(3)] == pytest.approx(expected, rel=2e-4)
    assert rates[block.format(3, 0)] == pytest.approx(9.151e-4, rel=2e-4)
    assert rates[block.format(3, 11)] == pytest.approx(2.916e-3, rel=2e-4)
    others = [rate for name, rate in rates.items() if ".stages." not in name]
    assert set(others) == {0.004}
    assert sum(p.numel() for p in objective.student.parameters()) == 108_461_376
    assert sum(p.numel() for p in objective.trained.mask_head.parameters()) == 6_557_952


def test_the_teacher_starts_as_the_student_and_follows_it() -> None:
    objective = built()
    pairs = list(zip(objective.teacher.parameters(), objective.trained.parameters(), strict=True))
    assert all(torch.equal(teacher, student) for teacher, student in pairs)
    before = [teacher.clone() for teacher, _ in pairs]
    with torch.no_grad():
        for _, student in pairs:
            student.add_(1.0)
    objective.end_step(50, 100)  # half way the momentum is 0.997
    for old, (teacher, student) in zip(before, pairs, strict=True):
        torch.testing.assert_close(teacher, 0.997 * old + 0.003 * student)
    assert not any(teacher.requires_grad for teacher, _ in pairs)


def test_gradients_reach_all_of_the_student_and_nothing_of_the_teacher() -> None:
    objective = built()
    objective(batch(objective, 1, 2)).total.backward()
    missing = [name for name, p in objective.trained.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # Biases that a LayerNorm, or the softmax within a patch, takes away have no gradient but rounding.
    assert not [name for name in missing if not name.endswith("bias")]
    assert all(p.grad is None for p in objective.teacher.parameters())


def slow_loss(objective: SonataObjective, data: SonataBatch) -> tuple[float, dict[str, float]]:
    """The published loss, written as loops over scenes, views and points."""
    config, views = objective.config, data.views
    count, total = views.scenes, len(views.clouds.counts) // views.scenes
    whole = sum(views.clouds.counts[: 2 * count])
    with torch.no_grad():
        seen = objective.teacher.encoder(views.clouds.first(2 * count), origin=views.origin[:whole])
        taught = Coarse.of(objective.teacher.encoder, seen, config.upcast)
        said = Coarse.of(
            objective.student,
            objective.trained.encoder(views.shown, xyz=views.xyz, masked=views.masked, origin=views.origin),
            config.upcast,
        )
        mine = said.features.split([len(o) for o in said.origins])
        theirs = taught.features.split([len(o) for o in taught.origins])

        def term(pairs: list[tuple[int, int]], head: Any, other: Any) -> float:
            logits, answers, sizes = [], [], []
            for a, b in pairs:
                n = 0
                for row, place in enumerate(said.origins[a]):
                    distance = (taught.origins[b].double() - place.double()).norm(dim=1)
                    if float(distance.min()) < config.radius:
                        logits.append(head(mine[a][row : row + 1])[0])
                        chosen = int(nearest(place[None], taught.origins[b])[0])  # two may be equally near
                        assert distance[chosen] < distance.min() + 1e-6
                        answers.append(other(theirs[b])[chosen])
                        n += 1
                sizes.append(n)
            target = sinkhorn(torch.stack(answers), objective.teacher_temperature)
            each = -(target * (torch.stack(logits) / config.temperature).log_softmax(1)).sum(1)
            return float(np.mean([part.mean() for part in each.split(sizes) if len(part)]))

        student, teacher = objective.trained, objective.teacher
        globals_ = range(2 * count)
        terms = {
            "mask": term([(v, v) for v in globals_], student.mask_head, teacher.mask_head),
            "roll": term([(v, (v + count) % (2 * count)) for v in globals_], student.mask_head, teacher.mask_head),
            "local": term(
                [(v, v % count) for v in range(2 * count, total * count)], student.local_head, teacher.local_head
            ),
        }
    return 0.25 * terms["mask"] + 0.25 * terms["roll"] + 0.5 * terms["local"], terms


def test_the_loss_is_the_published_one() -> None:
    config = replace(SMALL, student=replace(TINY, drop_path=0.0, patch=32))
    objective = built(config).eval()  # no shuffling of curves
    objective.begin_step(500, 1000)
    with torch.no_grad():  # a teacher of its own, so that mistaking one for the other shows
        for parameter in objective.teacher.parameters():
            parameter.mul_(1.3)
    data = batch(objective, 3, 4)
    loss = objective(data)
    expected, terms = slow_loss(objective, data)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert {name: float(loss.metrics[f"loss_{name}"]) for name in terms} == pytest.approx(terms, rel=1e-4)
    assert 2 < expected < 8  # the log of 16 is 2.8


def test_koleo_spreads_the_first_views_of_the_student() -> None:
    objective, spread = built(), built(replace(SMALL, koleo=0.5))
    spread.load_state_dict(objective.state_dict())
    data = batch(objective, 1, 2)
    for each in (objective, spread):
        each.eval().begin_step(500, 1000)
    views = data.views
    with torch.no_grad():
        seen = spread.trained.encoder(views.shown, xyz=views.xyz, masked=views.masked, origin=views.origin)
        said = Coarse.of(spread.student, seen, 2)
        expected = float(koleo(said.features[: len(said.origins[0]) + len(said.origins[1])]))
        plain, loss = objective(data), spread(data)
    assert float(loss.metrics["loss_koleo"]) == pytest.approx(expected, rel=1e-5)
    assert float(loss.total) == pytest.approx(float(plain.total) + 0.5 * expected, rel=1e-5)
    assert "loss_koleo" not in plain.metrics


def test_agreement_is_that_of_the_teachers_two_views() -> None:
    """A whole scene seen twice without augmentation says the same twice, and nothing of the sort if one is turned."""
    still = GeometryConfig(scale=(1, 1), turn=0, tilt_chance=0, flip=0, jitter=0, elastic=())
    plain = ColorConfig(chance=0, shift_chance=0)
    views = ViewConfig(crop=CropConfig(global_share=(1, 1)), geometry=still, color=plain)
    objective = built(replace(SMALL, views=views)).eval()
    with torch.no_grad():
        same = objective(batch(objective, 1, 2)).metrics["agreement"]
        turned = built(replace(SMALL, views=replace(views, geometry=replace(still, turn=1.0)))).eval()
        turned.load_state_dict(objective.state_dict())
        other = turned(batch(turned, 1, 2)).metrics["agreement"]
    assert float(same) == pytest.approx(1, abs=1e-4)
    assert float(other) < 0.9


def test_masked_points_are_seen_as_the_token_alone() -> None:
    """Whatever colours and normals masked points have, the student says the same."""
    objective = built(replace(SMALL, student=replace(TINY, drop_path=0.0))).eval()
    objective.begin_step(500, 1000)
    data = batch(objective, 1)
    views = data.views
    values = {name: torch.where(views.masked[:, None], 0.5, v) for name, v in views.shown.values.items()}
    changed = replace(views, shown=replace(views.shown, values=values))

    def said(v: Any) -> Tensor:
        with torch.no_grad():
            return objective.trained.encoder(v.shown, xyz=v.xyz, masked=v.masked, origin=v.origin).upcast(2)

    assert 0.3 < float(views.masked.float().mean()) < 0.7
    assert torch.equal(said(views), said(changed))


def test_no_term_without_its_views_or_weight() -> None:
    without = replace(SMALL, views=ViewConfig(crop=CropConfig(locals=0)))
    objective = built(without)
    assert "loss_local" not in objective(batch(objective, 1)).metrics
    objective = built(replace(SMALL, roll_weight=0.0))
    assert "loss_roll" not in objective(batch(objective, 1)).metrics


def test_collapse_is_reported() -> None:
    objective = built()
    flat = Coarse(features=torch.ones(60, 176) * torch.randn(60, 1), origins=[torch.rand(10, 3)] * 6)
    taught = Coarse(features=flat.features[:20], origins=flat.origins[:2])
    with pytest.warns(UserWarning, match="the features have collapsed: for 100 steps they vary in 1.0 directions"):
        for step in range(100):
            loss = objective._compare(flat, taught, 1)
            objective.end_step(step, 100)
    assert float(loss.metrics["feature_rank"]) == pytest.approx(1, abs=0.01)


def test_how_prototypes_are_used() -> None:
    single = torch.eye(16)[torch.arange(4000) % 4]
    use = _use(single.sum(0), torch.special.entr(single).sum(), 4000)
    assert float(use["prototypes_used"]) == pytest.approx(4 / 16)
    assert float(use["teacher_entropy"]) == 0
    even = torch.full((50, 16), 1 / 16)
    use = _use(even.sum(0), torch.special.entr(even).sum(), 50)
    assert float(use["prototypes_used"]) == pytest.approx(1)
    assert float(use["teacher_entropy"]) == pytest.approx(1)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"upcast must be within 0\.\.4"):
        replace(SMALL, upcast=5)
    with pytest.raises(ValueError, match="withhold needs"):
        replace(SMALL, views=ViewConfig(withhold={"color": 0.2}))
    with pytest.raises(ValueError, match="withhold takes probabilities of"):
        ViewConfig(withhold={"colour": 0.2})
    with pytest.raises(ValueError, match="weights must not be negative"):
        replace(SMALL, mask_weight=0.0, roll_weight=0.0, views=ViewConfig(crop=CropConfig(locals=0)))
    with pytest.raises(ValueError, match="koleo must not be negative"):
        replace(SMALL, koleo=-0.1)
    with pytest.raises(ValueError, match=r"images\.upcast"):
        replace(SMALL, images=ImageTerm(upcast=9))


def test_with_a_decoder_the_finest_level_is_compared(tmp_path: Path) -> None:
    decoder = PointDecoderConfig(channels=(8, 16, 24, 32), heads=(1, 1, 1, 1), depths=(1, 1, 1, 1))
    objective = built(replace(SMALL, student=replace(TINY, decoder=decoder)))
    data = batch(objective, 1, 2)
    loss = objective(data)
    loss.total.backward()
    assert objective.student.decoder is not None
    assert all(p.grad is not None for p in objective.student.decoder.parameters())
    assert float(loss.metrics["matched_mask"]) > 0.99  # every point of a view is in the other
    objective.eval()
    export_student(objective.student, tmp_path)
    again = load_student(tmp_path).eval()
    rows = again.encode([scene(5).cloud])
    assert rows.features.shape == (len(rows.representative), 8)
    assert torch.equal(rows.features, objective.student.encode([scene(5).cloud]).features)


# On a corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("sonata") / "corpus")


def first_batch(corpus: Corpus, objective: SonataObjective) -> list[SonataScene]:
    return next(iter(Stream(corpus, objective.fields, batch=4, prepare=objective.prepare, rows=np.arange(4))))


def test_outdoor_scenes_without_colours_train_with_flags(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = ("xyz", "color", "normal", "intensity", "valid")
    student = replace(TINY, inputs=inputs, scale={"outdoor": 0.25})
    views = ViewConfig(geometry=GeometryConfig(elastic=()), withhold={"color": 0.5, "intensity": 0.5})
    objective = built(replace(SMALL, student=student, views=views))
    items = first_batch(corpus, objective)
    stored = next(iter(Stream(corpus, ("points/xyz",), batch=4, rows=np.arange(4))))
    for item, sample in zip(items, stored, strict=True):
        assert isinstance(sample.header, SceneHeader)
        np.testing.assert_allclose(item.cloud.xyz.numpy(), sample["points/xyz"].dequantise() * 0.25, atol=1e-6)
    bare = [replace(i, cloud=replace(i.cloud, values={"normal": i.cloud.values["normal"]})) for i in items[:2]]
    loss = objective(objective.collate(bare + items[2:], CPU))
    assert math.isfinite(float(loss.total.detach()))
    strict = built(replace(SMALL, student=replace(TINY, inputs=("xyz", "color", "normal"))))
    sample = stored[0]
    monkeypatch.setattr(type(sample), "__contains__", lambda self, field: field == "points/xyz")
    with pytest.raises(BrickyardError, match="has no color, which this student needs"):
        strict.student.read(sample)


def test_images_are_told_from_the_points_they_show(corpus: Corpus) -> None:
    images = ImageTerm(crop=ImageCrop(height=32, width=48, min_pairs=5, flip=0.5), views=2)
    student = replace(TINY, size=0.5, inputs=("xyz", "color"))
    views = ViewConfig(geometry=GeometryConfig(elastic=()))
    objective = built(replace(SMALL, student=student, views=views, images=images, radius=5.0))
    items = first_batch(corpus, objective)
    data = objective.collate(items, CPU)
    assert data.pictures is not None
    assert len(data.pictures.images) == 8
    loss = objective(data)
    loss.total.backward()
    assert objective.predictor is not None
    assert float(objective.predictor.linear.weight.grad.abs().sum()) > 0
    assert 0 < float(loss.metrics["loss_images"]) < 2
    assert float(loss.metrics["patches"]) > 0
    encoded = objective.trained.encoder(data.views.shown, xyz=data.views.xyz, origin=data.views.origin)
    row, pair = rows_of(encoded, 2, data.views, data.pictures.point)
    coarse = encoded.levels[2]
    starts = np.cumsum([0, *(len(item.cloud.xyz) for item in items)])
    for r, p in zip(row.tolist(), data.pictures.point[pair].tolist(), strict=True):
        owner = int(np.searchsorted(starts, p, side="right")) - 1
        place = items[owner].cloud.xyz[p - starts[owner]]
        assert int(coarse.scene[r]) == owner  # the first global view of the point's own scene
        assert (
            float((coarse.origin[r] - place).abs().max()) < 4 * 0.5 * 2
        )  # cells of a coarse row, turned and stretched
