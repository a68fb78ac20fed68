"""Simulated point files: laspy and plyfile read what was written, and points lie on what the photographs show."""

from __future__ import annotations

import hashlib
from pathlib import Path

import laspy
import numpy as np
import plyfile
import pytest
import simplejpeg

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(pointfiles_pulses=9_000, pointfiles_images=3, pointfiles_image_size=(160, 120))
NAMES = ("street", "room", "office")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pointfiles")
    counts = simulate(root, datasets=["pointfiles"], config=CONFIG)["pointfiles"]
    assert counts["scans"] == 3 and counts["points"] > 20_000
    return root


@pytest.fixture(scope="module")
def scenes(world: Path) -> dict[str, Scene]:
    refs = [ref for ref in SOURCE.plan(Store(world / "pointfiles"), PointFilesOptions()) if isinstance(ref, SceneRef)]
    return {ref.scene_id.partition("/")[0]: SOURCE.read(ref) for ref in refs}


def truth(world: Path, scene: str, name: str) -> np.ndarray:
    return np.asarray(np.load(world / "truth/pointfiles" / scene / f"{name}.npy"))


def test_other_libraries_read_what_the_reader_reads(world: Path, scenes: dict[str, Scene]) -> None:
    las = laspy.read(world / "pointfiles/street/street.las")
    street = scenes["street"]
    points = street.points
    assert points is not None and points.time_offset is not None
    np.testing.assert_allclose(points.xyz + street.world_from_scene[:3, 3], las.xyz, atol=2e-6)
    np.testing.assert_array_equal(points.color, np.stack([las.red, las.green, las.blue], 1) >> 8)
    np.testing.assert_array_equal(points.return_number, las.return_number)
    np.testing.assert_array_equal(points.return_count, las.number_of_returns)
    np.testing.assert_array_equal(points.semantic["asprs"], las.classification)
    np.testing.assert_allclose(points.time_offset, las.gps_time - las.gps_time.min(), atol=1e-6)
    assert street.identity.timestamp_ns is not None and abs(street.identity.timestamp_ns / 1e9 - 1_361_500_000.25) < 1
    assert street.world_crs == las.header.vlrs[0].string and "UTM zone 33N" in str(street.world_crs)
    room, vertex = scenes["room"].points, plyfile.PlyData.read(world / "pointfiles/room/room.ply")["vertex"]
    assert room is not None
    np.testing.assert_array_equal(room.color, np.stack([vertex[c] for c in ("red", "green", "blue")], 1))
    np.testing.assert_allclose(room.normal, np.stack([vertex[c] for c in ("nx", "ny", "nz")], 1), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_points_lie_on_what_the_photographs_show(world: Path, scenes: dict[str, Scene], name: str) -> None:
    scene = scenes[name]
    assert scene.points is not None and scene.points.color is not None and len(scene.views) == 3
    xyz, label = truth(world, name, "xyz"), truth(world, name, "label")
    written = xyz - (0 if name == "street" else scene.world_from_scene[:3, 3])
    found = scene.points.xyz + (scene.world_from_scene[:3, 3] if name == "street" else 0)
    np.testing.assert_allclose(found, written, atol=1e-5)
    seen, close, same, colors = 0, [], [], []
    for view in scene.views:
        number = view.name.rpartition("/")[2]
        assert view.scene_from_camera is not None and (view.width, view.height) == (160, 120)
        pose = np.linalg.inv(view.scene_from_camera)
        camera = scene.points.xyz @ pose[:3, :3].T + pose[:3, 3]
        visible = truth(world, name, f"visible_{number}")
        pixel = camera[visible] @ view.intrinsics.T
        column, row = np.rint(pixel[:, :2] / pixel[:, 2:]).astype(int).clip(0, (159, 119)).T
        depth, shown = truth(world, name, f"{number}_depth"), truth(world, name, f"{number}_label")
        close.append(np.abs(depth[row, column].astype(float) - camera[visible, 2]) < 0.03 * camera[visible, 2] + 0.05)
        same.append(shown[row, column] == label[visible])
        image = simplejpeg.decode_jpeg(view.image).astype(int)
        colors.append(np.abs(image[row, column] - scene.points.color[visible]).mean(axis=1))
        seen += int(visible.sum())
        assert (view.depth is not None) is (name != "street")
        if view.depth is not None:
            measured = np.where(np.isfinite(depth), depth, 0)
            np.testing.assert_allclose(view.depth.values * view.depth.scale, measured, atol=0.006)
    assert seen > 300 and np.mean(np.concatenate(close)) > 0.9 and np.mean(np.concatenate(same)) > 0.9
    assert np.median(np.concatenate(colors)) < 25, "grey levels"


def test_second_echoes_lie_behind_leaves(world: Path, scenes: dict[str, Scene]) -> None:
    points = scenes["street"].points
    assert points is not None and points.return_number is not None and points.return_count is not None
    second = points.return_number == 2
    assert second.sum() > 20 and (points.return_count[second] == 2).all()
    assert set(points.semantic["asprs"][(points.return_count == 2) & ~second]) == {5}, "vegetation"


def test_equal_seeds_give_equal_bytes(world: Path, tmp_path: Path) -> None:
    simulate(tmp_path, datasets=["pointfiles"], config=CONFIG)

    def digests(root: Path) -> dict[str, str]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(tmp_path) == digests(world)


def test_the_source_keeps_its_promises_on_them(world: Path) -> None:
    assert_source_ok(SOURCE, str(world / "pointfiles"))
    assert_source_ok(SOURCE, str(world / "pointfiles"), PointFilesOptions(max_points=5000, overlap_m=0.5, max_views=2))
