"""The simulated videos: same bytes again, and what the reader finds is the truth: the cut, the times, the poses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef
from brickyard.ingest.video import SOURCE
from brickyard.ingest.video.plan import VideoOptions
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(video_walks=1, video_frames=24, video_size=(128, 96))
EVERY = VideoOptions(clips=ClipOptions(frames=100_000, rate_hz=1000.0), short_side=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    counts = simulate(out, datasets=("video",), seed=5, config=CONFIG)
    assert counts["video"]["clips"] == 3 and counts["video"]["frames"] == 120
    return out


@pytest.fixture(scope="module")
def scenes(world: Path) -> dict[str, Scene]:
    refs = [item for item in SOURCE.plan(Store(world / "video"), EVERY) if isinstance(item, SceneRef)]
    return {ref.scene_id.removeprefix("train/"): SOURCE.read(ref) for ref in refs}


def _truth(world: Path, name: str) -> tuple[Any, Any]:
    folder = world / "truth" / "video"
    return json.loads((folder / f"{name}.json").read_text()), np.load(folder / name / "world_from_camera.npy")


def test_same_seed_same_bytes(world: Path, tmp_path: Path) -> None:
    simulate(tmp_path, datasets=("video",), seed=5, config=CONFIG)
    names = [path.relative_to(world) for path in sorted(world.rglob("*")) if path.is_file()]
    assert len(names) > 30
    assert all((world / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_cut_and_the_times_are_the_truth(world: Path, scenes: dict[str, Scene]) -> None:
    truth, _ = _truth(world, "tour-0000")
    scene = scenes["tour-0000.mp4/video/clip-000"]
    assert [view.timestamp_ns for view in scene.views] == [time * 10**6 for time in truth["times_ms"][: truth["cut"]]]
    assert scene.dropped == {"frames of other shots": 24, "views with assumed intrinsics": 24}


def test_the_poses_of_a_filmed_shot_are_the_truth(world: Path, scenes: dict[str, Scene]) -> None:
    truth, poses = _truth(world, "posed0000")
    intrinsics = np.load(world / "truth" / "video" / "posed0000" / "intrinsics.npy")
    for shot in range(2):
        scene = scenes[f"posed0000.mp4/posed0000-{shot}/clip-000"]
        frames = range(24 * shot, 24 * (shot + 1), 2)
        assert [view.timestamp_ns for view in scene.views] == [truth["times_ms"][k] * 10**6 for k in frames]
        for view, k in zip(scene.views, frames, strict=True):
            assert view.scene_from_camera is not None
            assert np.allclose(scene.world_from_scene @ view.scene_from_camera, poses[k], atol=1e-6)
            assert np.allclose(view.intrinsics, intrinsics, atol=1e-6)


def test_the_poses_of_the_folder_carry_depth_from_frame_to_frame(world: Path, scenes: dict[str, Scene]) -> None:
    """The reader's poses and intrinsics, with the true depth of one picture, give that of another."""
    depth = np.load(world / "truth" / "video" / "walk0000" / "depth.npy")
    views = scenes["walk0000/images/clip-000"].views
    assert len(views) == 24
    assert [view.name for view in views[9:11]] == ["images/frame-9", "images/frame-10"]
    one, two = views[0], views[12]
    assert one.scene_from_camera is not None and two.scene_from_camera is not None
    v, u = np.mgrid[:96, :128].reshape(2, -1)
    local = np.linalg.inv(one.intrinsics) @ np.stack([u, v, np.ones(u.size)]) * depth[0][v, u]
    there = np.linalg.inv(two.scene_from_camera) @ one.scene_from_camera @ np.vstack([local, np.ones(u.size)])
    column, row = np.rint((two.intrinsics @ there[:3])[:2] / there[2]).astype(int)
    inside = (there[2] > 0.1) & (column >= 0) & (row >= 0) & (column < 128) & (row < 96)
    error = np.abs(depth[12][row[inside], column[inside]] - there[2, inside])
    assert inside.mean() > 0.5 and np.median(error) < 0.01
    wrong = np.abs(depth[12][row[inside], column[inside]] - depth[0].ravel()[inside])
    assert np.median(wrong) > 3 * np.median(error)


def test_the_source_keeps_its_promises_on_it(world: Path) -> None:
    assert_source_ok(SOURCE, str(world / "video"), VideoOptions(clips=ClipOptions(frames=8, rate_hz=8.0)), scenes=2)
