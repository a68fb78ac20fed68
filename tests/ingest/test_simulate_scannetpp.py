"""Simulated ScanNet++ scenes against their truth, through the reader: all fields, all cameras, both depth layouts."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from brickyard.ingest.simulate import simulate
from brickyard.shards.cameras import project, rays
from brickyard.shards.scene import Scene, View
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.scannetpp_toy import CONFIG, TEST, TRAIN, VAL, refs, scene, simulated, truth


@pytest.fixture(scope="module")
def root() -> Path:
    return simulated()[0]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = replace(CONFIG, scannetpp_scenes=1, scannetpp_photographs=3, scannetpp_frames=3)
    digests = []
    for name in ("once", "again"):
        simulate(tmp_path / name, datasets=("scannetpp",), seed=7, config=one)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1] and len(digests[0]) > 40


def test_points_and_labels_are_the_truth(root: Path) -> None:
    assert [(ref.scene_id, ref.split) for ref in refs(root)] == [(TRAIN, "train"), (VAL, "val"), (TEST, "test")]
    for name in (TRAIN, VAL, TEST):
        found = scene(root, name)
        assert found.points is not None and found.identity.sequence == name and found.part is None
        vertex = PlyData.read(str(root / f"data/{name}/scans/mesh_aligned_0.05.ply"))["vertex"]
        np.testing.assert_array_equal(found.points.xyz, np.stack([vertex[axis] for axis in "xyz"], axis=1))
        np.testing.assert_array_equal(found.points.color, truth(name, "color"))
        assert found.points.normal is not None and found.points.normal_source == "mesh-area-weighted"
        assert np.abs(np.linalg.norm(found.points.normal, axis=1) - 1).max() < 1e-5
        if name == TEST:
            assert not found.points.semantic and found.points.instance is None
            continue
        label = truth(name, "label")
        np.testing.assert_array_equal(found.points.semantic["scannetpp100"], label)
        np.testing.assert_array_equal(found.points.instance, np.where(label >= 0, truth(name, "object") + 1, 0))
        whole, things = taxonomy("scannetpp100").classes, taxonomy("scannetpp84").classes
        expected = [things.index(whole[k]) if k >= 0 and whole[k] in things else -1 for k in label]
        np.testing.assert_array_equal(found.points.semantic["scannetpp84"], expected)
        several = "vertex of several objects: it belongs to the smallest of the first three"
        hung = np.isin(label, [whole.index(n) for n in ("picture", "window", "whiteboard")])
        assert found.dropped[several] >= int(hung.sum()) > 0


def test_up_is_up(root: Path) -> None:
    found = scene(root)
    assert found.points is not None and found.points.normal is not None
    classes = found.points.semantic["scannetpp100"]
    floor = classes == taxonomy("scannetpp100").classes.index("floor")
    assert np.abs(found.points.xyz[floor, 2]).max() < 0.15 and (found.points.normal[floor, 2] > 0.9).mean() > 0.95


@pytest.mark.parametrize("kind", ["fisheye", "undistorted"])
def test_vertices_have_their_colour_in_the_photographs(root: Path, kind: str) -> None:
    """The bad, the held-out and (of the fisheye) the painted photograph are left out; the others meet the vertices."""
    found = scene(root, dslr=kind)
    names = (
        ["DSC00001", "DSC00005", "DSC00006"] if kind == "fisheye" else ["DSC00001", "DSC00004", "DSC00005", "DSC00006"]
    )
    assert [view.name for view in found.views] == names
    assert found.dropped["photograph that is marked bad"] == 1
    assert found.points is not None and found.points.color is not None
    for view in found.views:
        assert view.camera_model == ("fisheye" if kind == "fisheye" else "pinhole") and view.timestamp_ns is None
        np.testing.assert_allclose(view.scene_from_camera, truth(TRAIN, f"{view.name}_pose"), atol=1e-9)
        pixel, seen = _seen(found, view, truth(TRAIN, f"{view.name}_seen"))
        shown = np.asarray(Image.open(io.BytesIO(view.image)))[pixel[:, 1], pixel[:, 0]].astype(float)
        pairs = zip(shown.T, found.points.color[seen].T.astype(float), strict=True)
        assert len(seen) > 300 and min(np.corrcoef(*pair)[0, 1] for pair in pairs) > 0.45


def _seen(found: Scene, view: View, unhidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pixels (K, 2) of the vertices that a view sees, and which they are."""
    assert found.points is not None
    uv = project(found.points.xyz, view).uv
    inside = (
        unhidden & (np.nan_to_num(uv, nan=-9) > 3).all(axis=1) & (uv < (view.width - 4, view.height - 4)).all(axis=1)
    )
    seen = np.flatnonzero(inside)
    return np.rint(uv[seen]).astype(int), seen


def test_the_fisheye_sees_vertices_at_the_distance_of_the_truth(root: Path) -> None:
    found = scene(root)
    assert found.points is not None
    for view in found.views:
        distance = truth(TRAIN, f"{view.name}_distance").astype(float)
        pixel, seen = _seen(found, view, truth(TRAIN, f"{view.name}_seen"))
        reach = project(found.points.xyz[seen], view).distance
        assert np.median(np.abs(distance[pixel[:, 1], pixel[:, 0]] - reach)) < 0.015
        corners = np.array([[0.0, 0], [view.width - 1, 0], [0, view.height - 1], [view.width - 1, view.height - 1]])
        assert np.isfinite(rays(corners, view)).all(), "the fisheye fills the photograph"


@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_the_phone_has_the_frames_depths_and_times_of_the_truth(root: Path, name: str) -> None:
    """One layout of depth.bin, and one codec of the film, in each of the scenes."""
    found = scene(root, name, dslr="none", iphone_views=8)
    numbers = [int(view.name.removeprefix("frame_")) for view in found.views]
    assert numbers == [0, 2, 4, 5, 6, 7]
    assert found.dropped["frame of the phone that is painted over in too many pixels"] == 1
    assert found.dropped["frame of the phone whose depth contradicts the vertices"] == 1
    colors, depths, poses = (truth(name, what) for what in ("frames", "frame_depth", "frame_poses"))
    for view, number in zip(found.views, numbers, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(view.image))).astype(float)
        errors = [float(((shown - other) ** 2).mean()) for other in colors]
        assert int(np.argmin(errors)) == number and errors[number] < 100 and sorted(errors)[1] > 1000
        np.testing.assert_allclose(view.scene_from_camera, poses[number], atol=1e-12)
        assert view.timestamp_ns == round((1000 + number / 60) * 1e9)
        assert view.depth is not None and view.depth.along == "z"
        np.testing.assert_allclose(view.depth.values * view.depth.scale, depths[number].astype(float), atol=3e-3)
        focal = 1440 * (1 + 0.01 * np.sin(number)) * 240 / 1920
        expected = [[focal, 0, (957.3 + 0.5) / 8 - 0.5], [0, focal, (721.4 + 0.5) / 8 - 0.5], [0, 0, 1]]
        np.testing.assert_allclose(view.intrinsics, expected, rtol=1e-12)
        np.testing.assert_allclose(view.depth.intrinsics[:2, 2] + 0.5, (view.intrinsics[:2, 2] + 0.5) * 256 / 240)


def test_the_phone_with_poses_of_colmap(root: Path) -> None:
    found = scene(root, dslr="none", iphone_views=8, iphone_poses="colmap")
    assert [view.name for view in found.views] == ["frame_000000", "frame_000004"]
    assert {view.camera_model for view in found.views} == {"opencv"} and len(found.views[0].distortion) == 4
    for view in found.views:
        number = int(view.name.removeprefix("frame_"))
        np.testing.assert_allclose(view.scene_from_camera, truth(TRAIN, "frame_poses")[number], atol=1e-9)
        assert view.intrinsics[0, 2] == pytest.approx(957.8 / 8 - 0.5)


def test_frames_that_the_toolkit_took_out_of_the_film_are_read_as_they_are(tmp_path: Path) -> None:
    from tests.ingest.scannetpp_toy import copy

    root = copy(tmp_path)
    folder = root / f"data/{TRAIN}/iphone/rgb"
    folder.mkdir()
    for number in (0, 4):
        Image.fromarray(truth(TRAIN, "frames")[number]).save(folder / f"frame_{number:06d}.jpg", quality=80)
    found = scene(root, dslr="none", iphone_views=8, max_hidden=1.0)
    assert [view.name for view in found.views] == ["frame_000000", "frame_000004"]
    assert found.views[1].image == (folder / "frame_000004.jpg").read_bytes()
    assert found.dropped["frame of the phone that is not in the folder rgb"] == 6
