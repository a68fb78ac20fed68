"""Image folders: order, times, poses, broken images, RGB-D; and RealEstate10K's cameras."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.ingest.video import SOURCE
from brickyard.ingest.video.folders import natural_key
from brickyard.ingest.video.plan import VideoOptions
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.ingest.video_toy import glide, write_movie


def _folder(root: Path, count: int = 5, size: tuple[int, int] = (32, 24)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(glide(count, size=size), start=8):
        (root / f"img{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, 80))
    return root


def _posed(root: Path, count: int = 3) -> Path:
    _folder(root / "images", count)
    frames = []
    for number in range(count):
        pose = np.eye(4)
        pose[:3, 3] = 100 + number, 50, 2
        frames.append({"file_path": f"images/img{8 + number}.jpg", "transform_matrix": pose.tolist()})
    table = {"fl_x": 30.0, "cx": 16.0, "cy": 12.0, "w": 32, "h": 24, "frames": frames[::-1]}
    (root / "transforms.json").write_text(json.dumps(table))
    return root


def _plan(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), VideoOptions(**options)))


def _read(root: Path, **options: Any) -> Scene:
    (ref,) = (item for item in _plan(root, **options) if not isinstance(item, Notice))
    assert isinstance(ref, SceneRef), ref
    return SOURCE.read(ref)


def test_numbers_sort_by_value() -> None:
    names = ["b", "a10", "a9", "a9b", "10", "9"]
    assert sorted(names, key=natural_key) == ["a9", "a9b", "a10", "b", "9", "10"]


def test_a_folder_is_a_sequence_of_images_as_shipped(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "test" / "walk")
    (folder / "img10.jpg").unlink()
    scene = _read(tmp_path, fps=10.0, clips=ClipOptions(frames=9, rate_hz=None), focal=2.0)
    assert [view.name for view in scene.views] == ["img8", "img9", "img11", "img12"]
    assert [view.timestamp_ns for view in scene.views] == [800_000_000, 900_000_000, 1_100_000_000, 1_200_000_000]
    assert scene.views[1].image == (folder / "img9.jpg").read_bytes()
    assert scene.views[0].intrinsics.tolist() == [[64, 0, 15.5], [0, 64, 11.5], [0, 0, 1]]
    assert scene.identity.split == "test" and scene.dropped == {"views with assumed intrinsics": 4}
    assert [view.name for view in _read(tmp_path, fps=10.0, clips=ClipOptions(rate_hz=2.5)).views] == ["img8", "img12"]
    assert _read(tmp_path).views[0].timestamp_ns is None


def test_broken_images_cost_themselves(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    whole = (folder / "img9.jpg").read_bytes()
    (folder / "img9.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "img10.jpg").write_bytes(b"")
    (folder / "img11.png").write_bytes(b"GIF89a")
    scene = _read(tmp_path)
    assert [view.name for view in scene.views] == ["img8", "img11", "img12"]
    assert scene.dropped == {"broken images": 3, "views with assumed intrinsics": 3}
    for number in (8, 11):
        (folder / f"img{number}.jpg").write_bytes(b"")
    with pytest.raises(RawDataError, match=r"img8\.jpg at byte 0: not a JPEG or PNG image but an empty file"):
        _read(tmp_path)


def test_a_single_image_is_no_clip_and_no_images_are_no_dataset(tmp_path: Path) -> None:
    _folder(tmp_path / "one", 1)
    _folder(tmp_path / "two", 2)
    lost, found = _plan(tmp_path)
    assert isinstance(lost, Missing) and lost.reason == "one has 1 image, a clip needs 2"
    assert found.scene_id == "two/images/clip-000"
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(RecipeError, match="nothing to read"):
        _plan(tmp_path)


def test_smaller_images_keep_their_calibration(tmp_path: Path) -> None:
    """The corners of the image lie on the same rays in both sizes."""
    scene, small = _read(_posed(tmp_path)), _read(tmp_path, image_short_side=16)
    assert (small.views[0].width, small.views[0].height) == (21, 16)
    k, q = scene.views[0].intrinsics, small.views[0].intrinsics
    corner = np.array([-0.5, -0.5, 1.0])
    assert np.allclose(np.linalg.inv(k) @ corner, np.linalg.inv(q) @ corner)
    assert np.allclose(np.linalg.inv(k) @ [31.5, 23.5, 1], np.linalg.inv(q) @ [20.5, 15.5, 1])
    assert simplejpeg.decode_jpeg(small.views[0].image).shape == (16, 21, 3)


def test_transforms_give_poses_near_the_origin(tmp_path: Path) -> None:
    scene = _read(_posed(tmp_path / "walk"))
    assert [view.name for view in scene.views] == ["images/img8", "images/img9", "images/img10"]
    assert scene.world_from_scene[:3, 3].tolist() == [100, 50, 2]
    for number, view in enumerate(scene.views):
        assert view.scene_from_camera is not None
        assert view.scene_from_camera[:3, 3].tolist() == [number, 0, 0]
        assert np.allclose(view.scene_from_camera[:3, 2], [0, 0, -1])  # OpenGL's camera looks along -z
    (tmp_path / "walk" / "images" / "img9.jpg").unlink()
    assert _read(tmp_path / "walk").dropped == {"images that are missing": 1}
    (tmp_path / "walk" / "transforms.json").write_text("{")
    items = _plan(tmp_path / "walk")
    assert any(isinstance(item, Missing) and "transforms.json" in item.reason for item in items)


def test_the_source_keeps_its_promises(tmp_path: Path) -> None:
    _posed(tmp_path / "train" / "posed", 7)
    _folder(tmp_path / "val" / "plain", 7)
    for options in (VideoOptions(clips=ClipOptions(frames=4)), VideoOptions(fps=12.0, image_short_side=16)):
        assert_source_ok(SOURCE, str(tmp_path), options)


def test_damaged_folders_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    _posed(tmp_path, 2)
    found = assert_survives(SOURCE, tmp_path, ["images/img9.jpg", "transforms.json"], count=2000)
    assert found.scenes > 100 and found.errors > 300


def _re10k(root: Path) -> Path:
    write_movie(root / "videos" / "vid30.mp4", glide(30), range(0, 1200, 40))
    lines = ["https://www.youtube.com/watch?v=vid30"]
    for frame in range(2, 20, 2):
        pose = [1, 0, 0, -0.1 * frame, 0, 1, 0, 0, 0, 0, 1, 0]
        lines.append(" ".join(map(str, [frame * 40_000, 0.9, 1.2, 0.5, 0.5, 0, 0, *pose])))
    (root / "cameras").mkdir()
    (root / "cameras" / "0001.txt").write_text("\n".join(lines) + "\n")
    return root


def test_cameras_of_realestate10k_pose_their_frames(tmp_path: Path) -> None:
    scene = _read(_re10k(tmp_path), clips=ClipOptions(frames=99, rate_hz=30.0), short_side=None)
    assert scene.identity.scene_id == "videos/vid30.mp4/0001/clip-000"
    assert [view.timestamp_ns for view in scene.views] == [frame * 40_000_000 for frame in range(2, 20, 2)]
    places = np.array([view.scene_from_camera for view in scene.views])[:, 0, 3]
    assert np.allclose(places, np.arange(0, 1.8, 0.2))
    assert np.allclose(scene.views[0].intrinsics, [[57.6, 0.0, 31.5], [0.0, 57.6, 23.5], [0.0, 0.0, 1.0]])
    path = tmp_path / "cameras" / "0001.txt"
    path.write_text(path.read_text().replace("0.9 1.2", "0.9 nan", 1))
    with pytest.raises(RawDataError, match=r"0001\.txt line 2: expected a time in microseconds"):
        _read(tmp_path)


@pytest.mark.real
def test_seven_scenes_frames_agree_with_their_depth(samples: Path, tmp_path: Path) -> None:
    """Depth of one frame, carried by the poses into another, is the depth that was measured there."""
    shutil.copytree(samples / "rgbd_7scenes", tmp_path / "redkitchen")
    assert_source_ok(SOURCE, str(tmp_path))
    scene = _read(tmp_path, fps=30.0, clips=ClipOptions())
    assert [view.timestamp_ns for view in scene.views] == [0, 4 * 10**9, 8 * 10**9]
    errors, moved = [], []
    for one in scene.views:
        for two in scene.views:
            if one is not two:
                errors.append(_depth_errors(one, two))
                still = replace(two, scene_from_camera=one.scene_from_camera)
                moved.append(_depth_errors(one, still))
    seen = np.concatenate(errors)
    assert len(seen) > 30_000 and np.median(seen) < 0.03
    assert np.median(np.concatenate(moved)) > 0.1


def _depth_errors(one: Any, two: Any) -> Any:
    v, u = np.nonzero(one.depth.values[::4, ::4])
    z = one.depth.values[::4, ::4][v, u] * one.depth.scale
    rays = np.linalg.inv(one.depth.intrinsics) @ np.stack([4 * u, 4 * v, np.ones(len(u))])
    world = one.scene_from_camera[:3, :3] @ (rays * z) + one.scene_from_camera[:3, 3:]
    local = two.scene_from_camera[:3, :3].T @ (world - two.scene_from_camera[:3, 3:])
    pixel = np.rint((two.depth.intrinsics @ local)[:2] / local[2]).astype(int)
    height, width = two.depth.values.shape
    inside = (local[2] > 0.2) & (pixel[0] >= 0) & (pixel[1] >= 0) & (pixel[0] < width) & (pixel[1] < height)
    measured = two.depth.values[pixel[1, inside], pixel[0, inside]] * two.depth.scale
    return np.abs(measured - local[2, inside])[measured > 0]


def test_sixteen_bit_depth_marks_what_was_not_measured(tmp_path: Path) -> None:
    for number, picture in enumerate(glide(2, size=(32, 24))):
        stem = tmp_path / f"frame-{number:06d}"
        Image.fromarray(picture).save(f"{stem}.color.png")
        Image.fromarray(np.array([[0, 1500], [65535, 900]], np.uint16)).save(f"{stem}.depth.png")
        Path(f"{stem}.pose.txt").write_text("\n".join(" ".join(map(str, row)) for row in np.eye(4)) + "\n")
    Path(tmp_path / "frame-000001.pose.txt").write_text("nan " * 16)
    scene = _read(tmp_path)
    depth = scene.views[0].depth
    assert depth is not None and depth.values.tolist() == [[0, 1500], [0, 900]] and depth.scale == 1e-3
    assert scene.views[1].scene_from_camera is None and scene.dropped == {"invalid pose": 1}
    assert [view.name for view in scene.views] == ["frame-000000", "frame-000001"]
