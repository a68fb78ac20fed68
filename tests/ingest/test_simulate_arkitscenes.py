"""Simulated ARKitScenes: what the reader gives equals the truth, and a second reading with other tools."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from brickyard.ingest.arkitscenes import SOURCE
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.simulate import simulate
from brickyard.shards.cameras import project
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.arkitscenes_toy import (
    CONFIG,
    FIRST,
    FOURTH,
    THIRD,
    TWIN,
    folder,
    frames,
    refs,
    scene,
    simulated,
    truth,
)


@pytest.fixture(scope="module")
def root() -> Path:
    return simulated()[0]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = replace(CONFIG, arkitscenes_captures=1, arkitscenes_frames=1, arkitscenes_spacing=0.4)
    digests = []
    for name in ("once", "again"):
        simulate(tmp_path / name, datasets=("arkitscenes",), seed=7, config=one)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1] and len(digests[0]) > 30


def test_the_promises_of_a_source_are_kept(root: Path) -> None:
    assert_source_ok(SOURCE, str(root), SOURCE.options(views=2), scenes=2)


def test_captures_have_their_folds_and_visits(root: Path) -> None:
    found = [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)]
    assert found == [
        (FIRST, "train", "420000"), (TWIN, "val", "420000"), (THIRD, "val", "420001"), (FOURTH, "train", FOURTH)
    ]  # fmt: skip


@pytest.mark.parametrize("video", [FIRST, THIRD])
def test_points_and_labels_are_the_truth(root: Path, video: str) -> None:
    found = scene(root, video)
    assert found.points is not None and found.points.normal is not None
    table = PlyData.read(str(folder(root, video) / f"{video}_3dod_mesh.ply"))
    vertex = table["vertex"]
    np.testing.assert_array_equal(found.points.xyz, np.stack([vertex[axis] for axis in "xyz"], axis=1))
    np.testing.assert_array_equal(found.points.color, np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1))
    np.testing.assert_array_equal(found.points.semantic["arkitscenes17"], truth(video, "label"))
    np.testing.assert_array_equal(found.points.instance, truth(video, "box"))
    assert found.points.normal_source == "mesh-area-weighted"
    np.testing.assert_allclose(found.points.normal, _plain_normals(table), atol=1e-5)
    assert (truth(video, "label") >= 0).sum() > 100


def _plain_normals(table: PlyData) -> np.ndarray:
    """Face by face, as the published preparation of this mesh does."""
    vertex = table["vertex"]
    xyz = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    total = np.zeros_like(xyz)
    for face in table["face"]["vertex_indices"]:
        a, b, c = xyz[face]
        for corner in face:
            total[corner] += np.cross(b - a, c - a)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 1e-12)


def test_boxes_are_those_of_a_plain_reading_of_the_file(root: Path) -> None:
    """Corner by corner in the world, with whole lengths and axes as rows; labels of the smallest box."""
    found = scene(root, THIRD)
    assert found.points is not None and found.points.instance is not None
    data = json.loads((folder(root, THIRD) / f"{THIRD}_3dod_annotation.json").read_text())["data"]
    assert len(found.annotations["boxes"]) == len(data)
    for number, entry in enumerate(data, 1):
        box = entry["segments"]["obbAligned"]
        axes = np.array(box["normalizedAxes"]).reshape(3, 3)
        corners = np.array([
            axes.T @ (np.array(box["axesLengths"]) / 2 * sign) + box["centroid"]
            for sign in ((-1, -1, -1), (1, 1, 1))
        ])  # fmt: skip
        mine = found.points.xyz[found.points.instance == number].astype(float) @ axes.T
        low, high = np.sort(corners @ axes.T, axis=0)
        assert len(mine) > 3 and (mine >= low - 1e-6).all() and (mine <= high + 1e-6).all()
        label = taxonomy("arkitscenes17").classes.index(entry["label"].replace(" ", "_"))
        assert (found.points.semantic["arkitscenes17"][found.points.instance == number] == label).all()


@pytest.mark.parametrize("video", [FIRST, TWIN, THIRD, FOURTH])
def test_frames_with_a_pose_have_the_pose_image_and_depth_of_the_truth(root: Path, video: str) -> None:
    """The tablet is held another way in each; pixels are as stored, whatever metadata.csv says of the sky."""
    found = scene(root, video)
    assert found.points is not None and found.points.color is not None
    assert [view.name for view in found.views] == ["1627.681", "1627.781", "1627.881"]
    assert found.dropped["frame without a pose near enough in time"] == 3
    lies = found.dropped.get("frame that is turned another way than sky_direction says: the pose is believed", 0)
    assert lies == (3 if video in (TWIN, FOURTH) else 0)
    for view in found.views:
        assert view.timestamp_ns == round(float(view.name) * 1e9) and view.depth is not None
        assert view.image == (frames(root, video) / f"lowres_wide/{video}_{view.name}.png").read_bytes()
        np.testing.assert_allclose(view.scene_from_camera, truth(video, f"{view.name}_pose"), atol=0.004)
        width, height, fx, fy, cx, cy = map(
            float, (frames(root, video) / f"lowres_wide_intrinsics/{video}_{view.name}.pincam").read_text().split()
        )
        assert (view.width, view.height) == (width, height)
        np.testing.assert_array_equal(view.intrinsics, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        np.testing.assert_array_equal(view.depth.intrinsics, view.intrinsics)
        stored = np.asarray(Image.open(frames(root, video) / f"lowres_depth/{video}_{view.name}.png"))
        np.testing.assert_array_equal(view.depth.values, stored)
        assert view.depth.scale == 0.001 and view.depth.along == "z"
        _check_colours(found.points.xyz, found.points.color, view, truth(video, f"{view.name}_depth"))


def _check_colours(xyz: np.ndarray, color: np.ndarray, view, depth: np.ndarray) -> None:
    """Vertices that nothing hides have the colour of their pixels, and the distance of the truth."""
    seen = project(xyz, view)
    uv = np.nan_to_num(seen.uv, nan=-9)
    inside = np.flatnonzero((seen.depth > 0.1) & (uv > 1).all(axis=1) & (uv < (view.width - 2, view.height - 2)).all(1))
    column, row = np.rint(uv[inside]).astype(int).T
    near = np.abs(depth[row, column].astype(float) - seen.depth[inside]) < 0.03
    assert near.sum() > 60
    shown = np.asarray(Image.open(io.BytesIO(view.image)))[row[near], column[near]].astype(float)
    assert np.corrcoef(shown.mean(axis=1), color[inside][near].mean(axis=1))[0, 1] > 0.5


def test_poses_equal_scipy_and_the_camera_is_above_the_floor(root: Path) -> None:
    """A second reading of the trajectory; read the other way round, cameras leave the room."""
    found = scene(root)
    assert found.points is not None
    rows = np.loadtxt(frames(root) / "lowres_wide.traj")
    low, high = found.points.xyz.min(axis=0), found.points.xyz.max(axis=0)
    for row, view in zip(rows, found.views, strict=True):
        rotation = Rotation.from_rotvec(row[1:4]).as_matrix()
        camera_from_world = np.vstack([np.column_stack([rotation, row[4:]]), [0, 0, 0, 1]])
        np.testing.assert_allclose(view.scene_from_camera, np.linalg.inv(camera_from_world), atol=1e-9)
        assert view.scene_from_camera is not None
        centre = view.scene_from_camera[:3, 3]
        assert (centre > low).all() and (centre < high).all() and 1.0 < centre[2] - low[2] < 2.0


def test_interpolated_poses_are_nearer_to_the_truth(root: Path) -> None:
    found = scene(root, poses="interpolated")
    assert {"1627.731", "1627.781", "1627.831"} <= {view.name for view in found.views}
    assert found.dropped["frame without a pose near enough in time"] == 6 - len(found.views) <= 3
    for view in found.views:  # nothing is extrapolated to frames before the first pose and after the last
        np.testing.assert_allclose(view.scene_from_camera, truth(FIRST, f"{view.name}_pose"), atol=0.0015)


def test_the_larger_frames_of_raw_share_the_trajectory(root: Path) -> None:
    for kind, size in (("wide", (96, 72)), ("vga_wide", (64, 48))):
        found = scene(root, subset="raw", images=kind, depth="highres")
        assert [(view.width, view.height) for view in found.views] == [size] * 3
        for view in found.views:
            assert view.depth is not None and view.depth.values.shape == (72, 96)
            metres, known = view.depth.values * 0.001, view.depth.values > 0
            expected = truth(FIRST, f"{view.name}_wide_depth").astype(float)
            np.testing.assert_allclose(metres[known], expected[known], atol=0.004)
            assert 0.4 < known.mean() < 0.8


def test_depth_of_low_confidence_is_left_out_and_counted(root: Path) -> None:
    whole = scene(root, subset="raw")
    for least in (1, 2):
        found = scene(root, subset="raw", min_confidence=least)
        count = 0
        for view, before in zip(found.views, whole.views, strict=True):
            assert view.depth is not None and before.depth is not None
            unsure = truth(FIRST, f"{view.name}_confidence") < least
            np.testing.assert_array_equal(view.depth.values, np.where(unsure, 0, before.depth.values))
            count += int((unsure & (before.depth.values > 0)).sum())
        assert found.dropped["depth pixels of low confidence: left out"] == count > 0
    assert scene(root, min_confidence=2).dropped["depth image without confidence: kept as it is"] == 3


def test_the_lists_are_as_the_real_ones_are_written(root: Path) -> None:
    rows = list(csv.DictReader((root / "3dod/3dod_train_val_splits.csv").open()))
    assert [row["visit_id"] for row in rows] == ["420000", "420000", "420001", "NA"]
    assert not (root / "3dod/3dod_train_val_splits.csv").read_bytes().endswith(b"\n")
    assert list(rows[0]) == ["video_id", "visit_id", "fold"]
