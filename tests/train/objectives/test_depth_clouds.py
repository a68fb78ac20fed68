"""Posed clips with depth and without points: trained on and rendered as rooms are, and what stands for their points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.evaluate.protocols.reconstruction import PROTOCOL as RECONSTRUCTION
from brickyard.evaluate.protocols.reconstruction import ReconstructionConfig
from brickyard.evaluate.protocols.rendering import PROTOCOL as RENDERING
from brickyard.evaluate.protocols.rendering import RenderingConfig
from brickyard.evaluate.subject import Subject
from brickyard.shards.errors import BrickyardError, UnfitSceneError
from brickyard.shards.scene import Scene
from brickyard.shards.stream import Sample, Stream
from brickyard.train.clouds import Cloud
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives.depth_clouds import depth_cloud
from brickyard.train.objectives.ponder_views import choose, drawn
from brickyard.train.rendering.views import ViewRenderingNetwork
from brickyard.train.students.export import load_companions
from tests.train.objectives.test_ponder_views import BOTH, IMAGES, SMALL, batch_of
from tests.train.posed_rooms import METRES, PLACE, corpus_of, posed_room
from tests.train.rendering.solids import distance_to


def clip(number: int = 0, **settings: Any) -> Scene:
    """A room of which only the frames are known."""
    return replace(posed_room(number, **settings), points=None)


def sample_of(folder: Path, scene: Scene) -> Sample:
    (sample,) = next(iter(Stream(corpus_of(folder, [scene]), ["*"], batch=1, threads=1)))
    assert isinstance(sample, Sample)
    return sample


def without_depth(scene: Scene, *numbers: int) -> Scene:
    """The scene with nothing measured in some of its depth images."""
    views = list(scene.views)
    for number in numbers:
        depth = views[number].depth
        assert depth is not None
        views[number] = replace(views[number], depth=replace(depth, values=np.zeros_like(depth.values)))
    return replace(scene, views=tuple(views))


def test_its_points_lie_on_the_surfaces_that_its_frames_show(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, clip(views=3))
    one, other = (depth_cloud(sample, [0, 2]) for _ in range(2))
    assert one.xyz.dtype == torch.float32 and torch.equal(one.xyz, other.xyz) and one.key == "solids/room-000"
    assert 900 < len(one.xyz) <= 2 * 32 * 24
    off = distance_to((one.xyz.double() - torch.from_numpy(PLACE)) / METRES).abs() * METRES
    assert float(off.max()) < 0.003  # depth in whole millimetres, along a slanted ray


def test_nothing_but_the_drawn_views_is_read(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, clip(views=4))
    rendered, looked_at = drawn(sample.header, np.random.default_rng(3), SMALL)
    fields = choose(sample, np.random.default_rng(3), SMALL)
    assert {name for name in fields if name.endswith("/depth")} == {f"views/{n}/depth" for n in (*rendered, *looked_at)}
    room = sample_of(tmp_path / "room", posed_room(0, views=4))
    fields = choose(room, np.random.default_rng(3), SMALL)
    assert {name for name in fields if name.endswith("/depth")} == {f"views/{n}/depth" for n in rendered}


def test_clips_and_rooms_are_trained_on_together_and_rendered(tmp_path: Path) -> None:
    scenes = [clip(0, views=4), posed_room(1, views=4), clip(2, views=4, split="val")]
    corpus = corpus_of(tmp_path / "corpus", scenes)
    config = TrainConfig(steps=3, batch=2, lr=1e-3, threads=1, split="train")
    summary = train(config, SMALL, corpus, tmp_path / "run")
    assert summary["unfit_scenes"]["scenes"] == 0 and summary["steps_left_out"] == 0
    assert summary["last_loss"] is not None
    network = load_companions(tmp_path / "run" / "final")["rendering"]
    subject = Subject(network, corpus)
    shown = RENDERING.run(subject, RenderingConfig(views=1, side=24, pictures=1, threads=1))
    assert shown.scenes == (0, 1) and shown.metrics["psnr"] is not None and shown.metrics["abs_rel"] is not None
    surface = RECONSTRUCTION.run(subject, ReconstructionConfig(cells=24, points=500, threads=1))
    assert surface.scenes == (0, 1) and surface.metrics["f_score"] is not None


def test_a_clip_makes_the_loss_that_its_room_makes(tmp_path: Path) -> None:
    """With points where its depth images have them, all else being equal: only the box is taken from them."""
    objective = SMALL.build()
    scene = clip(0, views=3)
    rendered, looked_at = drawn(sample_of(tmp_path / "look", scene).header, np.random.default_rng((0, 0)), SMALL)
    cloud = depth_cloud(sample_of(tmp_path / "again", scene), sorted((*rendered, *looked_at)))
    points = posed_room(0, views=3).points
    assert points is not None
    some = np.resize(np.arange(len(points.xyz)), len(cloud.xyz))
    assert points.color is not None and points.normal is not None
    own = replace(points, xyz=cloud.xyz.numpy(), color=points.color[some], normal=points.normal[some])
    losses = []
    for number, one in enumerate((scene, replace(scene, points=own))):
        torch.manual_seed(0)
        losses.append(float(objective(batch_of(tmp_path / f"{number}", objective, [one])).total.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # a corpus keeps points to the millimetre


def test_what_is_held_out_does_not_even_say_where_the_box_is(tmp_path: Path) -> None:
    network = ViewRenderingNetwork(IMAGES.build(), None, SMALL.build().renderer)
    scene = clip(views=3)
    clouds: list[Cloud] = [
        network.read(sample_of(tmp_path / name, one), [1])
        for name, one in (("whole", scene), ("hidden", without_depth(scene, 1)))
    ]
    assert torch.equal(clouds[0].xyz, clouds[1].xyz)
    with pytest.raises(UnfitSceneError, match="no points, and the 2 depth images that stand for them show nothing"):
        network.read(sample_of(tmp_path / "dark", without_depth(scene, 0, 2)), [1])


def test_clips_that_show_nothing_are_unfit_and_students_of_points_say_what_they_lack(tmp_path: Path) -> None:
    objective = SMALL.build()
    corpus = corpus_of(tmp_path / "corpus", [without_depth(clip(0, views=3), 0, 1, 2), clip(1, views=3)])
    stream = Stream(
        corpus, objective.fields, batch=2, threads=1, prepare=objective.prepare, choose=objective.choose, seed=1
    )
    assert {item.cloud.key for item in next(iter(stream))} == {"solids/room-001"}
    assert [reason for reason in stream.unfit.values() if "stand for them show nothing" in reason]
    with pytest.raises(BrickyardError, match="room-000 has no points, which this student needs"):
        batch_of(tmp_path / "both", BOTH.build(), [clip(0, views=3)])
