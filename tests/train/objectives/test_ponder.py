"""The objective on exact rooms: what it learns, what it exports, what it refuses, and that rounding does it no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.infra.config import load, to_yaml
from brickyard.shards.errors import RecipeError
from brickyard.shards.images import decode
from brickyard.shards.scene import Scene, View
from brickyard.shards.stream import Stream
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives.moves import MoveConfig
from brickyard.train.objectives.ponder import Ponder, PonderObjective
from brickyard.train.objectives.posed import PosedBatch
from brickyard.train.objectives.view_rays import RaysConfig, labels_at
from brickyard.train.rendering.losses import RenderingLossConfig
from brickyard.train.rendering.network import RenderingNetwork
from brickyard.train.rendering.render import CONFIGS, RenderConfig
from brickyard.train.rendering.renderer import RendererConfig
from brickyard.train.students.base import Student
from brickyard.train.students.export import load_companions, load_exported, load_student
from brickyard.train.students.point import PointStudentConfig
from brickyard.train.students.unet import UNetConfig
from brickyard.train.voxels import VoxelConfig
from tests.train.golden_curves import assert_golden
from tests.train.posed_rooms import corpus_of, posed_room
from tests.train.test_golden import CONFIG, losses

STUDENT = UNetConfig(
    network="tiny", inputs=("color",), voxels=VoxelConfig(kind="cartesian", size=(0.25,) * 3), intensity="unit"
)
SMALL = Ponder(
    student=STUDENT,
    renderer=RendererConfig(
        network="tiny", decoders="tiny", cells=(12, 12, 8), sampling=RenderConfig(even=12, extra=4)
    ),
    rays=RaysConfig(views=2, per_view=24),
    dropout=0.5,
)
OUTDOOR = replace(
    SMALL,
    renderer=replace(SMALL.renderer, decoders="published-outdoor", range=((3.0, -7.0, -2.0), (11.0, 1.0, 3.0))),
    rays=RaysConfig(source="pairs", views=2, per_view=24),
    moves=MoveConfig(turn=0, tilt_chance=0, scale=(1, 1), flip=0, shift=0.1),
    losses=RenderingLossConfig(depth=10.0, color=0.0, surface=0.0, free=0.0, eikonal=0.0),
    mask_ratio=0.5,
    mask_size=1.0,
)


def batch_of(folder: Path, settings: Ponder, objective: PonderObjective, *, pairs: bool = False) -> PosedBatch:
    corpus = corpus_of(folder, [posed_room(n, views=3, pairs=pairs) for n in range(2)])
    stream = Stream(
        corpus, objective.fields, batch=2, threads=1, prepare=objective.prepare, choose=objective.choose, shuffle=False
    )
    return objective.collate(next(iter(stream)), torch.device("cpu"))


@pytest.mark.parametrize(("name", "settings"), [("ponder", SMALL), ("ponder-outdoor", OUTDOOR)])
def test_golden(tmp_path: Path, name: str, settings: Ponder) -> None:
    corpus = corpus_of(tmp_path / "corpus", [posed_room(n, views=4, pairs=settings is OUTDOOR) for n in range(4)])
    config = replace(CONFIG, lr=0.005)
    curve = partial(losses, tmp_path, config, settings, corpus)
    first = curve()
    assert first[-1] < first[0]
    assert losses(tmp_path, replace(config, threads=1), settings, corpus) == first
    assert_golden(name, first, curve)


@pytest.mark.parametrize(
    ("student", "pairs"), [(STUDENT, False), (PointStudentConfig(network="tiny", size=0.3), False), (STUDENT, True)]
)
def test_every_weight_learns(tmp_path: Path, student: Any, pairs: bool) -> None:
    """Of any student, but for a point transformer's own mask token; and of the masks' tokens."""
    torch.manual_seed(0)
    settings = replace(OUTDOOR if pairs else SMALL, student=student)
    settings = replace(settings, losses=RenderingLossConfig(), mask_ratio=0.5, mask_size=0.5)
    objective = settings.build()
    loss = objective(batch_of(tmp_path, settings, objective, pairs=pairs))
    assert loss.usable and set(loss.metrics) >= {"loss_depth", "loss_color", "depth_error", "rays", "views_left_out"}
    loss.total.backward()
    still = [name for name, p in objective.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert still in ([], ["student.network.mask_token"])
    assert {name.split(".")[0] for name, _ in objective.named_parameters()} == {"student", "renderer", "tokens"}


def test_a_scene_is_rendered_alike_whoever_stands_beside_it(tmp_path: Path) -> None:
    """Rays and samples of a scene depend on the scene: alone in evaluation mode it has the loss that it adds to two."""
    torch.manual_seed(0)
    objective = SMALL.build().eval()
    corpus = corpus_of(tmp_path, [posed_room(n, views=3) for n in range(2)])
    stream = Stream(
        corpus, objective.fields, batch=2, threads=1, prepare=objective.prepare, choose=objective.choose, shuffle=False
    )
    items, cpu = next(iter(stream)), torch.device("cpu")
    alone = [objective(objective.collate([item], cpu)).metrics for item in items]
    both = objective(objective.collate(items, cpu)).metrics
    for name in ("depth_error", "loss_depth"):
        assert float(both[name]) == pytest.approx(sum(float(one[name]) for one in alone) / 2, rel=1e-4)


def test_a_run_exports_the_student_and_what_renders_it(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [posed_room(n, views=3) for n in range(2)])
    config = TrainConfig(steps=2, batch=2, lr=0.001, threads=1, device="cpu")
    train(config, SMALL, corpus, tmp_path / "run")
    student, companions = load_student(tmp_path / "run/final"), load_companions(tmp_path / "run/final")
    rendering = companions["rendering"]
    assert isinstance(rendering, RenderingNetwork) and isinstance(student, Student) and len(companions) == 1
    assert rendering.config.renderer.color and rendering.config.student == student.config
    for name, value in student.state_dict().items():
        assert torch.equal(rendering.student.state_dict()[name], value)
    assert isinstance(load_exported(tmp_path / "run/final"), Student)
    table = json.loads((tmp_path / "run/final/rendering/student.json").read_text())
    assert (table["kind"], table["student_kind"]) == ("rendering", "sparse_unet")


def test_features_of_an_image_network_are_rendered(tmp_path: Path) -> None:
    """Only views' images are seen by the teacher, and the term falls when it is learned."""
    torch.manual_seed(0)
    settings = replace(
        SMALL, semantics="features", teacher_size=(32, 32), semantic_weight=1.0,
        losses=RenderingLossConfig(color=0.0, depth=0.0, surface=1.0, free=0.0, eikonal=0.0),
    )  # fmt: skip
    objective = settings.build()
    batch = batch_of(tmp_path, settings, objective)
    assert batch.images.shape == (4, 3, 32, 32) and int(batch.place.max()) < 32 and int(batch.image.max()) == 3
    optimiser = torch.optim.Adam(objective.parameters(), 0.003)
    seen = []
    for _ in range(12):
        loss = objective(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        seen.append(float(loss.metrics["loss_semantics"]))
    assert seen[-1] < 0.8 * seen[0]
    assert not any("teacher" in name or "frozen" in name for name in objective.state_dict())


def test_a_batch_that_no_ray_meets_is_not_usable(tmp_path: Path) -> None:
    """Cameras and what they see lie far outside the room: no step, and no loss that is not a number."""
    torch.manual_seed(0)
    objective = SMALL.build()
    batch = batch_of(tmp_path, SMALL, objective)
    far = replace(batch, eyes=batch.eyes + 1000, seen=batch.seen + 1000)
    loss = objective(far)
    loss.total.backward()
    assert not loss.usable and float(loss.total.detach()) == 0
    assert all(p.grad is not None for p in objective.parameters())


def test_a_camera_inside_a_wall_does_no_harm(tmp_path: Path) -> None:
    """And neither do rays that begin where they end, but for a thousandth."""
    torch.manual_seed(0)
    objective = SMALL.build()
    batch = batch_of(tmp_path, SMALL, objective)
    wall = replace(batch, eyes=batch.seen + 0.001 * torch.randn_like(batch.seen))
    loss = objective(wall)
    loss.total.backward()
    assert bool(torch.isfinite(loss.total)) and bool(torch.isfinite(loss.metrics["depth_error"]))  # type: ignore[arg-type]
    assert all(bool(torch.isfinite(p.grad).all()) for p in objective.parameters() if p.grad is not None)


def test_short_numbers_do_no_harm(tmp_path: Path) -> None:
    """Under autocast to bfloat16 networks compute with 8 bits. What decides distances and weights stays in float32, so
    the loss falls all the same, and nothing is ever infinite."""
    torch.manual_seed(0)
    objective = SMALL.build()
    batch = batch_of(tmp_path, SMALL, objective)
    optimiser = torch.optim.AdamW(objective.parameters(), 0.004)
    found = []
    for _ in range(25):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        found.append(float(loss.total.detach()))
        assert all(bool(torch.isfinite(p.grad).all()) for p in objective.parameters() if p.grad is not None)
    assert np.isfinite(found).all() and np.mean(found[-5:]) < 0.7 * np.mean(found[:3])


def labelled(scene: Scene, name: str = "scannet20") -> Scene:
    """Views whose bright pixels are of class 3, others of class 5, and whose left columns nobody has labelled."""

    def told(view: View) -> View:
        label = np.where(decode(view.image).mean(axis=2) > 120, 3, 5).astype(np.int16)
        label[:, :4] = -1
        return replace(view, semantic={name: label})

    return replace(scene, views=tuple(map(told, scene.views)))


def test_labels_of_images_are_rendered_where_there_are_any(tmp_path: Path) -> None:
    """Rays have the class of their pixel of the whole image; the loss falls; without labels it is nothing."""
    settings = replace(SMALL, semantics="labels", taxonomy="scannet20", losses=RenderingLossConfig(color=0.0))
    torch.manual_seed(0)
    objective = settings.build()
    scenes = [labelled(posed_room(n, views=3)) for n in range(2)]
    stream = Stream(
        corpus_of(tmp_path / "labelled", scenes), objective.fields, batch=2, threads=1, prepare=objective.prepare,
        choose=objective.choose, shuffle=False,
    )  # fmt: skip
    batch = objective.collate(next(iter(stream)), torch.device("cpu"))
    assert set(batch.label.tolist()) == {-1, 3, 5} and len(batch.label) == len(batch.eyes)
    optimiser = torch.optim.AdamW(objective.parameters(), 0.005)
    found = []
    for _ in range(30):
        loss = objective(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        found.append(float(loss.metrics["loss_semantics"]))
    assert found[-1] < 0.4 * found[0]
    plain = batch_of(tmp_path / "plain", settings, objective)
    assert set(plain.label.tolist()) == {-1} and float(objective(plain).metrics["loss_semantics"]) == 0


def test_labels_are_those_of_the_nearest_pixel() -> None:
    labels = np.arange(12).reshape(3, 4).astype(np.int16)
    place = np.array([[0.4, 0.4], [2.6, 1.4], [-0.5, 2.4], [3.4, 2.5]])
    assert labels_at(labels, place).tolist() == [0, 7, 8, 11]
    assert labels_at(None, place).tolist() == [-1] * 4


def test_refused_settings() -> None:
    for wrong in ({"semantics": "labels"}, {"taxonomy": "scannet20"}, {"semantics": "features", "taxonomy": "nyu40"}):
        with pytest.raises(ValueError, match="needs a taxonomy"):
            Ponder(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no taxonomy 'scannet21'"):
        Ponder(semantics="labels", taxonomy="scannet21")
    for bad in ({"dropout": 1.0}, {"mask_ratio": -0.1}, {"mask_size": 0.0}, {"teacher_size": (0, 8)}):
        with pytest.raises(ValueError, match="must"):
            Ponder(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source"):
        RaysConfig(source="lidar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="range must be"):
        RendererConfig(range=((0.0,) * 3, (0.0,) * 3))
    with pytest.raises(RecipeError, match="unknown key 'elastic' in moves"):
        load("moves: {elastic: [[0.2, 0.4]]}", Ponder, where="r.yaml")
    with pytest.raises(RecipeError, match="unknown field 'large'"):
        replace(SMALL, renderer=replace(SMALL.renderer, decoders="large")).build()


def test_settings_survive_a_recipe() -> None:
    for settings in (SMALL, OUTDOOR, replace(SMALL, student=PointStudentConfig(network="tiny"))):
        assert load(to_yaml(settings), Ponder, where="r.yaml") == settings
    assert CONFIGS["published-indoor"] == Ponder().renderer.sampling
    assert isinstance(load("student: {kind: point_transformer}", Ponder, where="r.yaml").student, PointStudentConfig)
