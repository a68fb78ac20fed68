"""PonderV2 from images on exact rooms: what is looked at and what is rendered, what learns, what is exported."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.evaluate.features import calibrate, random_student
from brickyard.evaluate.protocols.rendering import PROTOCOL, RenderingConfig
from brickyard.evaluate.subject import Subject
from brickyard.infra.config import load, to_yaml
from brickyard.shards.encode import SceneHeader, encode_scene
from brickyard.shards.errors import RecipeError, UnfitSceneError
from brickyard.shards.scene import Scene
from brickyard.shards.stream import Stream
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives.ponder_views import LookingBatch, PonderViews, PonderViewsObjective, drawn
from brickyard.train.objectives.view_rays import RaysConfig
from brickyard.train.rendering.views import ViewRenderingNetwork
from brickyard.train.students.export import load_companions, load_student
from brickyard.train.students.images import ImageStudent, ImageStudentConfig
from tests.train.golden_curves import assert_golden
from tests.train.objectives.test_ponder import SMALL as POINTS
from tests.train.posed_rooms import corpus_of, posed_room
from tests.train.test_golden import CONFIG, losses

IMAGES = ImageStudentConfig(network="tiny", channels=8, size=(32, 64), views=2, voxel=0.3)
SMALL = PonderViews(
    student=POINTS.student, renderer=POINTS.renderer, rays=RaysConfig(views=1, per_view=24), dropout=0.5, images=IMAGES
)
BOTH = replace(SMALL, points=True)


def batch_of(folder: Path, objective: PonderViewsObjective, scenes: list[Scene] | None = None) -> LookingBatch:
    corpus = corpus_of(folder, scenes or [posed_room(n, views=3) for n in range(2)])
    stream = Stream(
        corpus, objective.fields, batch=len(corpus), threads=1, prepare=objective.prepare, choose=objective.choose,
        shuffle=False,
    )  # fmt: skip
    return objective.collate(next(iter(stream)), torch.device("cpu"))


def test_golden(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [posed_room(n, views=4) for n in range(4)])
    config = replace(CONFIG, lr=0.005)
    curve = partial(losses, tmp_path, config, SMALL, corpus)
    first = curve()
    assert first[-1] < first[0]
    assert losses(tmp_path, replace(config, threads=1), SMALL, corpus) == first
    assert_golden("ponder-views", first, curve)


@settings(max_examples=50, deadline=None)
@given(views=st.integers(2, 7), looked=st.integers(1, 6), rendered=st.integers(1, 6), seed=st.integers(0, 99))
def test_no_view_is_looked_at_and_rendered(views: int, looked: int, rendered: int, seed: int) -> None:
    config = replace(SMALL, images=replace(IMAGES, views=looked), rays=replace(SMALL.rays, views=rendered))
    targets, inputs = drawn(header_with(views), np.random.default_rng(seed), config)
    assert targets and inputs and not set(targets) & set(inputs)
    assert len(inputs) == min(looked, views - 1) and len(targets) == min(rendered, views - len(inputs))


@cache
def header_with(views: int) -> SceneHeader:
    return header_of(posed_room(0, views=views))


def header_of(scene: Scene) -> SceneHeader:
    return SceneHeader(encode_scene(scene).header)


def test_what_is_rendered_cannot_reach_the_volume(tmp_path: Path) -> None:
    """Other images of the rendered views: the same is looked at, other colours are asked for."""
    torch.manual_seed(0)
    objective = SMALL.build()
    scene = posed_room(0, views=3)
    (rendered,), _ = drawn(header_of(scene), np.random.default_rng(0), SMALL)
    del rendered
    batch = batch_of(tmp_path / "a", objective, [scene])
    for number in range(3):
        views = list(scene.views)
        views[number] = replace(views[number], image=scene.views[number - 1].image)
        other = batch_of(tmp_path / f"b{number}", objective, [replace(scene, views=tuple(views))])
        looked = not torch.equal(other.shown, batch.shown)
        asked = not torch.equal(other.color, batch.color)
        assert looked != asked


@pytest.mark.parametrize("settings_", [SMALL, BOTH])
def test_every_weight_learns_and_the_order_of_views_does_not_matter(tmp_path: Path, settings_: PonderViews) -> None:
    torch.manual_seed(0)
    objective = settings_.build()
    batch = batch_of(tmp_path, objective)
    loss = objective(batch)
    loss.total.backward()
    idle = [name for name, p in objective.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert [name for name in idle if not name.startswith("renderer.")] == []
    assert loss.metrics["views_looked_at"] == 4.0
    order = torch.tensor([1, 0, 3, 2])
    torch.manual_seed(0)
    same = settings_.build()(replace(batch, shown=batch.shown[order], to_image=batch.to_image[order]))
    assert float(same.total.detach()) == pytest.approx(float(loss.total.detach()), rel=1e-4)


def test_it_is_trained_exported_rendered_and_read_again(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path / "corpus", [posed_room(n, views=4, split="val" if n == 2 else "train") for n in range(3)]
    )
    assert load(to_yaml(BOTH), PonderViews, where="here") == BOTH
    train(TrainConfig(steps=2, batch=2, lr=1e-3, threads=1, split="train"), BOTH, corpus, tmp_path / "run")
    student = load_student(tmp_path / "run" / "final")
    assert isinstance(student, ImageStudent) and student.config == IMAGES
    companions = load_companions(tmp_path / "run" / "final")
    network = companions["rendering"]
    assert isinstance(network, ViewRenderingNetwork) and set(companions) == {"rendering", "points"}
    measured = PROTOCOL.run(Subject(network, corpus), RenderingConfig(views=1, side=24, pictures=1, threads=1))
    assert measured.metrics["psnr"] is not None and measured.scenes == (0, 1)


def test_points_take_what_the_views_say_of_them(tmp_path: Path) -> None:
    """The student as protocols see it: rows of voxels, with the statistics of batch norms measured."""
    corpus = corpus_of(tmp_path / "corpus", [posed_room(n, views=3) for n in range(2)])
    student = random_student(IMAGES, 0)
    before = student.network.bn1.running_mean
    assert before is not None
    old = before.clone()
    calibrate(student, corpus, np.arange(2), threads=1, batch=1)
    assert not torch.equal(old, before)
    stream = Stream(corpus, student.fields, batch=2, threads=1, prepare=lambda s, rng: student.read(s), shuffle=False)
    clouds = next(iter(stream))
    with torch.no_grad():
        rows = student.encode(clouds)
    assert rows.features.shape == (len(rows.representative), 16) and len(rows.inverse) == 2400
    assert bool((rows.features.abs().sum(1) > 0).float().mean() > 0.5)
    with pytest.raises(RecipeError, match="knows nothing of points without their images"):
        student.encode_joined(SimpleNamespace(), ["indoor"])  # type: ignore[arg-type]


def test_scenes_that_cannot_be_learned_from_are_unfit() -> None:
    one = posed_room(0, views=1)
    lost = posed_room(0, views=3)
    bent = replace(
        lost, views=tuple(replace(v, camera_model="opencv", distortion=(0.1, 0, 0, 0, 0)) for v in lost.views)
    )
    for scene, words in (
        (one, "of its 1 views 1 could be rendered and 1 looked at"),
        (bent, "3 could be rendered and 0"),
    ):
        with pytest.raises(UnfitSceneError, match=words):
            drawn(header_of(scene), np.random.default_rng(0), SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "resnet51"}, "one of tiny, resnet18, resnet50"),
        ({"size": (30, 64)}, "multiples of 32"),
        ({"views": 0}, "positive"),
    ],
)
def test_absurd_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(IMAGES, **change)
    with pytest.raises(ValueError, match="without `points` there are none to be hidden"):
        replace(SMALL, mask_ratio=0.5)


def turned(scene: Scene, numbers: tuple[int, ...]) -> Scene:
    """The scene with some of its cameras 50 m away, looking past it; they keep their images and depths."""
    views = list(scene.views)
    for number in numbers:
        pose = views[number].scene_from_camera
        assert pose is not None
        away = pose.copy()
        away[:3, 3] += 50 * pose[:3, 2]
        views[number] = replace(views[number], scene_from_camera=away)
    return replace(scene, views=tuple(views))


def test_a_scene_whose_views_look_past_it_is_unfit_and_counted(tmp_path: Path) -> None:
    """It would be an empty volume, of which nothing can be learned; the others are drawn in its place."""
    objective = replace(SMALL, rays=RaysConfig(views=4, per_view=24), images=replace(IMAGES, views=1)).build()
    lost = turned(posed_room(1, views=3), (0, 1, 2))
    half = posed_room(0, views=3)
    corpus = corpus_of(tmp_path, [half, replace(lost, points=half.points)])
    stream = Stream(
        corpus, objective.fields, batch=2, threads=1, prepare=objective.prepare, choose=objective.choose, seed=1,
    )  # fmt: skip
    batch = next(iter(stream))
    assert {item.cloud.key for item in batch} == {corpus.index.column("key")[0].as_py()}
    assert [reason for reason in stream.unfit.values() if "sees a point of what is rendered" in reason]


def test_poses_that_are_no_numbers_are_never_looked_at() -> None:
    scene = posed_room(0, views=4)
    views = list(scene.views)
    views[2] = replace(views[2], scene_from_camera=None)
    header = header_of(replace(scene, views=tuple(views)))
    header.views[1]["scene_from_camera"][0][3] = float("nan")
    for seed in range(20):
        rendered, looked_at = drawn(header, np.random.default_rng(seed), SMALL)
        assert not {1, 2} & {*rendered, *looked_at}


def test_what_renders_refuses_to_look_at_what_is_held_out(tmp_path: Path) -> None:
    network = ViewRenderingNetwork(IMAGES.build(), None, SMALL.build().renderer)
    corpus = corpus_of(tmp_path, [posed_room(0, views=3)])
    sample = next(iter(Stream(corpus, ["points/*", "views/*"], batch=1, threads=1)))[0]
    assert len(network.read(sample, [0]).images) == 2
    with pytest.raises(UnfitSceneError, match="none is left that could be lifted"):
        network.read(sample, [0, 1, 2])
