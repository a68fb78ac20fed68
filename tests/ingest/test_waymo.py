"""Waymo in both releases: the geometry against scalar loops, choice of sensors, frames that cannot be used."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.ingest.waymo_toy as toy
from brickyard.ingest.waymo.frame import Options
from brickyard.ingest.waymo.range_image import euler_rotation
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.waymo_reading import SOURCES, planned, refs, scene_of, write

BOTH = pytest.mark.parametrize("release", ["v1", "v2"])


def beam_points(frame: toy.ToyFrame, laser: int, echo: int) -> np.ndarray:
    """Valid pixels of a range image, row by row, one trigonometric function at a time."""
    image = frame.images[laser, echo]
    height, width = image.shape[:2]
    extrinsic = toy.EXTRINSICS[laser]
    found = []
    for row in range(height):
        if laser in toy.INCLINATIONS:
            inclination = toy.INCLINATIONS[laser][height - 1 - row]
        else:
            low, high = toy.RANGES[laser]
            inclination = low + (height - 1 - row + 0.5) / height * (high - low)
        for column in range(width):
            reach = float(image[row, column, 0])
            if reach <= 0:
                continue
            azimuth = ((width - column - 0.5) / width * 2 - 1) * math.pi - math.atan2(extrinsic[1, 0], extrinsic[0, 0])
            beam = [math.cos(azimuth) * math.cos(inclination), math.sin(azimuth) * math.cos(inclination),
                    math.sin(inclination), 1 / reach]  # fmt: skip
            point = extrinsic @ (reach * np.array(beam))
            if laser == 1 and frame.pixel_pose is not None:
                roll, pitch, yaw, *position = frame.pixel_pose[row, column].astype(float)
                moved = np.eye(4)
                moved[:3, :3] = about(2, yaw) @ about(1, pitch) @ about(0, roll)
                moved[:3, 3] = np.array(position) - toy.pose_at(frame.time)[:3, 3]
                point = moved @ point
                point[:3] = toy.pose_at(frame.time)[:3, :3].T @ point[:3]
            found.append(point[:3])
    return np.array(found)


def about(axis: int, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    rotation = np.eye(3)
    rotation[i, i] = rotation[j, j] = c
    rotation[i, j], rotation[j, i] = -s, s
    return rotation


@BOTH
@pytest.mark.parametrize("returns", [1, 2])
def test_points_labels_rings(tmp_path: Path, release: str, returns: int) -> None:
    frames = [toy.toy_frame(0), toy.toy_frame(1)]
    options = Options(cameras=("FRONT",), returns=returns)
    scene = scene_of(release, tmp_path, frames, options)
    points = scene.points
    assert points is not None
    order = [(laser, echo) for laser in toy.SHAPES for echo in range(1, returns + 1)]
    expected = np.concatenate([beam_points(frames[1], *key) for key in order])
    assert points.xyz.shape == expected.shape
    np.testing.assert_allclose(points.xyz, expected, atol=1e-5)
    images = [frames[1].images[key] for key in order]
    assert points.intensity is not None and points.ring is not None
    np.testing.assert_array_equal(points.intensity, np.concatenate([i[i[..., 0] > 0, 1] for i in images]))
    np.testing.assert_array_equal(points.ring, np.concatenate([np.nonzero(i[..., 0] > 0)[0] for i in images]))
    assert points.intensity_unit == "raw" and points.ring.dtype == np.uint8
    raw = [frames[1].labels.get(key, np.zeros((*i.shape[:2], 2), int))[i[..., 0] > 0]
           for key, i in zip(order, images, strict=True)]  # fmt: skip
    classes = np.concatenate(raw)[:, 1] - 1
    np.testing.assert_array_equal(points.semantic["waymo22"], classes)  # class 0 is UNLABELLED
    np.testing.assert_array_equal(points.instance, np.concatenate(raw)[:, 0])
    assert set(classes) > {UNLABELLED, 0, 21}
    np.testing.assert_array_equal(scene.world_from_scene, toy.pose_at(frames[1].time))
    assert scene.identity.timestamp_ns == frames[1].timestamp * 1000
    assert scene.identity.split == "train" and scene.identity.sequence == toy.SEGMENT and not scene.dropped


def test_rotation_is_yaw_pitch_roll() -> None:
    entries = euler_rotation(np.array([[0, 0, np.pi / 2], [0, np.pi / 2, 0], [np.pi / 2, 0, 0]]).T)
    turned = np.moveaxis(np.array(entries), 2, 0)
    np.testing.assert_allclose(turned @ [1, 2, 3], [[-2, 1, 3], [3, 2, -1], [1, -3, 2]], atol=1e-12)


@BOTH
def test_cameras_of_a_moving_car(tmp_path: Path, release: str) -> None:
    """A point straight ahead of a camera in the world, at the middle of its read-out, is at its principal point."""
    frame = toy.toy_frame(2)
    scene = scene_of(release, tmp_path, [frame])
    assert [view.name for view in scene.views] == ["FRONT", "SIDE_LEFT"]
    for view, number in zip(scene.views, (1, 4), strict=True):
        middle = frame.time + 0.01 * number
        assert view.timestamp_ns is not None and abs(view.timestamp_ns - (toy.START + middle * 1e6) * 1000) < 2000
        ahead = toy.pose_at(middle) @ toy.CAMERA_MOUNTS[number] @ (10, -2, 3, 1)  # 2 m to the right, 3 m up
        assert view.scene_from_camera is not None
        seen = np.linalg.inv(scene.world_from_scene @ view.scene_from_camera) @ ahead
        np.testing.assert_allclose(seen, (2, -3, 10, 1), atol=2e-6)
        np.testing.assert_array_equal(view.intrinsics, [[50, 0, 31.5], [0, 51, 23.5], [0, 0, 1]])
        assert view.camera_model == "opencv" and view.distortion == tuple(toy.INTRINSIC[4:])
        assert view.image == toy.jpeg(number) and (view.width, view.height) == toy.SIZE


def test_both_releases_give_the_same_scene(tmp_path: Path) -> None:
    frames = [toy.toy_frame(0, labelled=False), toy.toy_frame(1)]
    one, two = (scene_of(release, tmp_path / release, frames) for release in ("v1", "v2"))
    assert one.points is not None and two.points is not None
    for name in ("xyz", "intensity", "ring", "instance"):
        np.testing.assert_array_equal(getattr(one.points, name), getattr(two.points, name))
    np.testing.assert_array_equal(one.points.semantic["waymo22"], two.points.semantic["waymo22"])
    np.testing.assert_array_equal(one.world_from_scene, two.world_from_scene)
    for left, right in zip(one.views, two.views, strict=True):
        assert (left.name, left.image, left.distortion) == (right.name, right.image, right.distortion)
        np.testing.assert_array_equal(left.intrinsics, right.intrinsics)
        np.testing.assert_array_equal(left.scene_from_camera, right.scene_from_camera)


@BOTH
def test_choice_of_sensors(tmp_path: Path, release: str) -> None:
    frame = toy.toy_frame(0, labelled=False)
    del frame.images[3, 1], frame.images[3, 2], frame.images[5, 2]
    frame.cameras = (1,)
    options = Options(lasers=("REAR", "SIDE_LEFT"), cameras=("FRONT", "SIDE_LEFT"), returns=2)
    scene = scene_of(release, tmp_path, [frame], options)
    assert scene.points is not None and not scene.points.semantic and scene.points.instance is None
    np.testing.assert_allclose(scene.points.xyz, beam_points(frame, 5, 1), atol=1e-5)
    assert [view.name for view in scene.views] == ["FRONT"]
    assert scene.dropped == {"missing laser SIDE_LEFT": 1, "missing image SIDE_LEFT": 1}


@BOTH
def test_pixels_that_are_no_measurements(tmp_path: Path, release: str) -> None:
    frame = toy.toy_frame(0)
    for laser, value in ((2, np.nan), (3, np.inf), (4, 5000.0), (5, -1.0)):
        frame.images[laser, 1][0, 0, 0] = value
    frame.images[2, 1][1, 1, :2] = 3.0, np.nan
    scene = scene_of(release, tmp_path, [frame])
    assert scene.points is not None and scene.dropped == {"non-finite points": 3, "impossible points": 1}


def break_frame(frame: toy.ToyFrame, how: str) -> None:
    if how == "empty":
        frame.images.clear()
        frame.labels.clear()
    elif how == "no poses":
        frame.pixel_pose = None
    elif how == "class 23":
        rows, columns = np.nonzero(frame.images[1, 1][..., 0] > 0)
        frame.labels[1, 1][rows[0], columns[0], 1] = 23
    elif how == "beams":
        frame.images[1, 1] = frame.images[1, 1][1:]
        frame.pixel_pose = frame.pixel_pose[1:] if frame.pixel_pose is not None else None
        frame.labels.clear()
    elif how == "poses of another size":
        frame.pixel_pose = frame.pixel_pose[:, 1:] if frame.pixel_pose is not None else None
    elif how == "labels of another size":
        frame.labels[1, 1] = frame.labels[1, 1][1:]
    elif how == "channels":
        frame.images[2, 1] = frame.images[2, 1][..., :3]


@BOTH
@pytest.mark.parametrize(
    ("how", "says"),
    [("empty", "no usable point"), ("no poses", "cannot be placed"), ("class 23", "expected 0..22"),
     ("beams", "beam inclinations"), ("poses of another size", "poses for"),
     ("labels of another size", "labels for"), ("channels", "expected height x width x 4")],
)  # fmt: skip
def test_frames_that_cannot_be_used(tmp_path: Path, release: str, how: str, says: str) -> None:
    frame, other = toy.toy_frame(1), toy.toy_frame(0)
    break_frame(frame, how)
    with pytest.raises(RawDataError, match=says) as caught:
        scene_of(release, tmp_path, [other, frame])
    assert caught.value.scene is not None and toy.SEGMENT in caught.value.path


@BOTH
def test_plan(tmp_path: Path, release: str) -> None:
    frames = [toy.toy_frame(n) for n in range(5)]
    write(release, tmp_path, frames)
    every = refs(release, tmp_path, Options(every=2, segments=(toy.SEGMENT,)))
    assert len(every) == 3 and len({ref.scene_id for ref in every}) == 3
    assert [SOURCES[release].read(ref).identity.timestamp_ns for ref in every] == [
        f.timestamp * 1000 for f in frames[::2]
    ]
    assert pickle.loads(pickle.dumps(every[0])) == every[0]  # noqa: S301
    with pytest.raises(RecipeError, match="no such segment"):
        planned(release, tmp_path, Options(segments=("elsewhere",)))
    with pytest.raises(RecipeError, match="no Waymo"):
        planned(release, tmp_path / "training" / "nothing")
    # The root may also be one split's own folder, whose name then says which split it is.
    assert [ref.split for ref in refs(release, tmp_path / "training")] == ["train"] * 5


@pytest.mark.parametrize(
    "bad", [{"lasers": ("LEFT",)}, {"lasers": ()}, {"cameras": ("FRONT", "FRONT")}, {"returns": 3}, {"every": 0}]
)
def test_options(bad: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Options(**bad)


def test_light_import() -> None:
    code = "import sys, ingest.waymo.v1, ingest.waymo.v2; print({'ray', 'torch', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_taxonomy() -> None:
    found = taxonomy("waymo22")
    assert len(found.classes) == 22 and found.from_raw == {raw: raw - 1 for raw in range(1, 23)}
    assert (found.classes[0], found.classes[17], found.classes[21]) == ("car", "road", "sidewalk")
