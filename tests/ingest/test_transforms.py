"""transforms.json: both dialects, what is left out and counted, lies, and poses against a projection done by hand."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.transforms import Transforms, load_view, read_transforms
from brickyard.shards.errors import RawDataError

CALIBRATION = {"fl_x": 100.0, "fl_y": 110.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
LOOKS_NORTH = [[1, 0, 0, 5], [0, 0, -1, 6], [0, 1, 0, 7], [0, 0, 0, 1]]
"""OpenGL axes: its right is east (x), its up is up (z), its back is south: it stands at (5, 6, 7)."""


def frame(**more: Any) -> dict[str, Any]:
    return {"file_path": "images/a.png", "transform_matrix": LOOKS_NORTH} | more


def files_in(root: Path) -> RawFiles:
    return RawFiles(
        SceneRef(dataset="d", scene_id="s", split="none", sequence="s", root=str(root), files={"points": "a.ply"})
    )


def parse(root: Path, content: object, path: str = "run/transforms.json") -> Transforms:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_transforms(files_in(root), path)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_a_point_lands_where_a_projection_by_hand_puts_it(tmp_path: Path) -> None:
    (image,) = parse(tmp_path, CALIBRATION | {"frames": [frame()]}).images
    (tmp_path / "run/images").mkdir()
    (tmp_path / "run/images/a.png").write_bytes(png(np.zeros((48, 64, 3), np.uint8)))
    view = load_view(files_in(tmp_path), image, scene_from_world=np.eye(4))
    assert view.scene_from_camera is not None and (view.name, view.width, view.height) == ("images/a", 64, 48)
    assert (view.camera_model, view.distortion, view.depth) == ("pinhole", (), None)
    # Two metres north, 0.2 m east and 0.1 m above the camera: right of and above the middle of the image, which is
    # the corner point (32, 24), half a pixel right of and below the centre of pixel (31, 23).
    seen = view.intrinsics @ (np.linalg.inv(view.scene_from_camera) @ [5.2, 8, 7.1, 1])[:3]
    np.testing.assert_allclose(seen, np.array([32 - 0.5 + 10, 24 - 0.5 - 5.5, 1]) * 2, atol=1e-9)
    moved = np.eye(4)
    moved[:3, 3] = -1, -2, -3
    feet = load_view(files_in(tmp_path), image, scene_from_world=moved, metres_per_unit=0.3)
    assert feet.scene_from_camera is not None
    np.testing.assert_allclose(feet.scene_from_camera[:3, 3], [0.5, -0.2, -0.9])


def test_both_dialects_give_the_same_camera_and_frames_override_the_file(tmp_path: Path) -> None:
    angle = 2 * np.arctan(32 / 100)
    first = parse(tmp_path, {"camera_angle_x": angle, "frames": [frame()]}).images[0]
    second = parse(tmp_path, {"fl_x": 9, "frames": [frame(fl_x=100, k1=0.1, p2=0.2)]}).images[0]
    np.testing.assert_allclose(first.intrinsics(64, 48), second.intrinsics(64, 48))
    np.testing.assert_allclose(first.intrinsics(64, 48), [[100, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
    assert (second.camera_model, second.distortion) == ("opencv", (0.1, 0, 0, 0.2, 0))
    half = parse(tmp_path, CALIBRATION | {"frames": [frame()]}).images[0].intrinsics(32, 24)
    np.testing.assert_allclose(half, [[50, 0, 15.5], [0, 55, 11.5], [0, 0, 1]])


def test_depth_images_of_another_size_have_their_own_calibration(tmp_path: Path) -> None:
    content = {"frames": [frame(depth_file_path="depth/a.png")], "depth_unit_scale_factor": 0.01} | CALIBRATION
    (image,) = parse(tmp_path, content).images
    for folder in ("images", "depth"):
        (tmp_path / "run" / folder).mkdir()
    (tmp_path / "run/images/a.png").write_bytes(png(np.zeros((48, 64, 3), np.uint8)))
    depth = np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 80
    (tmp_path / "run/depth/a.png").write_bytes(png(depth))
    view = load_view(files_in(tmp_path), image, scene_from_world=np.eye(4))
    assert view.depth is not None and view.depth.scale == 0.01
    np.testing.assert_array_equal(view.depth.values, depth)
    np.testing.assert_allclose(view.depth.intrinsics, [[50, 0, 15.5], [0, 55, 11.5], [0, 0, 1]])
    whole = png(depth)
    for damaged, message in (
        (whole[:-9], "truncated"), (png(depth.astype(np.uint8)), "16-bit"), (b"\x93NUMPY", "an array of numpy"),
        (whole[:60] + bytes(9) + whole[69:], "checksum"), (png(depth[:, :12]), "another shape"),
    ):  # fmt: skip
        (tmp_path / "run/depth/a.png").write_bytes(damaged)
        with pytest.raises(RawDataError, match=message):
            load_view(files_in(tmp_path), image, scene_from_world=np.eye(4))
        dropped: Counter[str] = Counter()
        view = load_view(files_in(tmp_path), image, scene_from_world=np.eye(4), dropped=dropped)
        assert view.depth is None and view.image and list(dropped.values()) == [1]
    other = {"fl_x": 9, "integer_depth_scale": 0.5, "frames": [frame(depth_path="d.png")]}
    (image,) = parse(tmp_path, other).images
    assert (image.depth, image.depth_scale) == ("run/d.png", 0.5)


def test_what_a_view_cannot_express_is_counted(tmp_path: Path) -> None:
    mirrored, sheared = np.array(LOOKS_NORTH, float), np.array(LOOKS_NORTH, float)
    mirrored[:, 0] *= -1
    sheared[0, 1] = 0.1
    frames = [
        frame(),
        frame(camera_model="OPENCV_FISHEYE"), frame(is_fisheye=True), frame(k4=0.1), frame(camera_model=["X"]),
        frame(file_path="a.exr"),
        frame(transform_matrix=mirrored.tolist()), frame(transform_matrix=sheared.tolist()),
        frame(transform_matrix=[[1, 2]]), frame(transform_matrix=None), frame(transform_matrix=[["x"] * 4] * 4),
    ]  # fmt: skip
    found = parse(tmp_path, CALIBRATION | {"frames": frames})
    assert len(found.images) == 1 and found.dropped == {
        "frames of the camera model OPENCV_FISHEYE": 1,
        "frames of a fisheye camera": 2,
        "frames of the camera model that is not known": 1,
        "frames whose image is neither JPEG nor PNG": 1,
        "invalid pose": 5,
    }


def test_paths_are_relative_to_the_file_and_stay_inside_the_root(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"")
    content = {"fl_x": 9, "ply_file_path": "cloud.ply", "frames": [frame(file_path="./../b")]}
    found = parse(tmp_path, content)
    assert (found.images[0].image, found.points) == ("b.png", "run/cloud.ply")
    windows = parse(tmp_path, {"fl_x": 9, "frames": [frame(file_path=".\\images\\a.png")]}).images[0]
    assert (windows.image, windows.name) == ("run/images/a.png", "images/a")
    for name in ("/etc/passwd.png", "../../a.png", "x/../../../a.png", "..\\..\\a.png", "C:\\a.png", "a\0.png"):
        with pytest.raises(RawDataError, match=r"frame 0: file_path .* leaves the dataset's root"):
            parse(tmp_path, {"fl_x": 9, "frames": [frame(file_path=name)]})
        with pytest.raises(RawDataError, match=r"depth_file_path .* leaves"):
            parse(tmp_path, {"fl_x": 9, "frames": [frame(depth_file_path=name)]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[" * 100_000, "no object"),
        ([], "no object"),
        ({"frames": {}}, "no object"),
        ({"frames": [3]}, "no object"),
        ({"frames": [frame()]}, "frame 0 .* neither fl_x nor camera_angle_x"),
        ({"fl_x": 9, "frames": [frame(), {}]}, "frame 1 .* file_path is missing"),
        ({"fl_x": -9, "frames": [frame()]}, "fl_x is -9"),
        ({"fl_x": "9", "frames": [frame()]}, "fl_x is no finite number"),
        ({"fl_x": 9, "k1": float("nan"), "frames": [frame()]}, "k1 is no finite number"),
        ({"camera_angle_x": 60, "frames": [frame()]}, "radians are expected"),
        ({"fl_x": 9, "w": 9, "frames": [frame()]}, "given together"),
        ({"fl_x": 9, "depth_unit_scale_factor": 0, "frames": [frame(depth_file_path="a")]}, "scale_factor is 0"),
        ('{"fl_x": 1' + "0" * 400 + ', "frames": [{"file_path": "a.png"}]}', "frame 0"),
    ],
)
def test_lies_are_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(RawDataError, match=message):
        parse(tmp_path, content)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([[1.0] * 4] * 4))
KEYS = [
    "file_path",
    "transform_matrix",
    "camera_model",
    "is_fisheye",
    "depth_file_path",
    "cx",
    "k1",
    "k4",
    *CALIBRATION,
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_values_give_images_or_an_error_for_people(tmp_path: Path, change: dict[str, Any]) -> None:
    try:
        found = parse(tmp_path, CALIBRATION | {"frames": [frame(**change)]})
    except RawDataError as problem:
        assert "transforms.json" in str(problem)
    else:
        assert len(found.images) + sum(found.dropped.values()) == 1
        assert all(np.isfinite(image.intrinsics(64, 48)).all() for image in found.images)


@pytest.mark.real
def test_poses_of_a_real_camera_agree_with_its_own_depth(samples: Path, tmp_path: Path) -> None:
    """7-Scenes: depth of one frame, moved by the poses written as transforms.json, meets the depth of another."""
    source = samples / "rgbd_7scenes"
    frames = []
    for number in (0, 120):
        name = f"frame-{number:06d}"
        for suffix in ("color.jpg", "depth.png"):
            (tmp_path / f"{name}.{suffix}").write_bytes((source / f"{name}.{suffix}").read_bytes())
        pose = np.loadtxt(source / f"{name}.pose.txt") @ np.diag([1, -1, -1, 1])
        frames.append(
            {
                "file_path": f"{name}.color.jpg",
                "depth_file_path": f"{name}.depth.png",
                "transform_matrix": pose.tolist(),
            }
        )
    content = {"fl_x": 585, "cx": 320.5, "cy": 240.5, "w": 640, "h": 480, "frames": frames}
    images = parse(tmp_path, content, "transforms.json").images
    one, two = (load_view(files_in(tmp_path), image, scene_from_world=np.eye(4)) for image in images)
    assert one.depth is not None and two.depth is not None and one.scene_from_camera is not None
    row, column = np.nonzero((one.depth.values > 0) & (one.depth.values < 4000))
    pixel = np.stack([column, row, np.ones_like(row)])
    xyz = np.linalg.inv(one.intrinsics) @ pixel * one.depth.values[row, column] * one.depth.scale
    assert two.scene_from_camera is not None
    motion = np.linalg.inv(two.scene_from_camera) @ one.scene_from_camera
    moved = motion[:3, :3] @ xyz + motion[:3, 3:]
    column, row = np.rint((two.intrinsics @ moved)[:2] / moved[2]).astype(int)
    inside = (moved[2] > 0.3) & (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
    measured = two.depth.values[row[inside], column[inside]] * two.depth.scale
    error = np.abs(measured - moved[2][inside])[(measured > 0) & (measured < 4)]
    assert len(error) > 20_000 and np.median(error) < 0.05
