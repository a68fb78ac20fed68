"""Simulated S3DIS rooms and 2D-3D-S views against their truth, through the reader: points, labels, poses, depth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.plan import S3DISOptions
from brickyard.ingest.s3dis.views import agreement
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

CONFIG = SimulationConfig(s3dis_rooms=3, s3dis_views=4, s3dis_points=12_000, s3dis_image_size=128)
ROOMS, VIEWS = "Stanford3dDataset_v1.2", "2D-3D-S"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("s3dis")
    counts = simulate(out, datasets=("s3dis",), seed=5, config=CONFIG)["s3dis"]
    assert (counts["rooms"], counts["views"]) == (3, 12) and counts["points"] > 20_000
    return out


def scenes(world: Path, **options: Any) -> list[Scene]:
    items = SOURCE.plan(Store(world / "s3dis"), S3DISOptions(rooms=ROOMS, **{"views": VIEWS, **options}))
    return [SOURCE.read(item) for item in items if isinstance(item, SceneRef)]


def truth(world: Path, scene: Scene, name: str) -> Any:
    return np.load(world / "truth/s3dis" / scene.identity.scene_id / f"{name}.npy")


def project(scene: Scene, view: View) -> tuple[Any, Any]:
    assert scene.points is not None and view.scene_from_camera is not None
    local = (scene.points.xyz - view.scene_from_camera[:3, 3]) @ view.scene_from_camera[:3, :3]
    pixel = local @ view.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return pixel[:, :2] / pixel[:, 2:], local[:, 2]


def test_points_and_labels_are_the_truth_despite_the_defects(world: Path) -> None:
    found = scenes(world)
    assert [scene.identity.scene_id for scene in found] == ["Area_1/storage_1", "Area_2/office_1", "Area_5/lounge_1"]
    names = np.array(taxonomy("s3dis13").classes)
    for scene in found:
        assert scene.points is not None and scene.identity.version == "simulated"
        place = scene.points.xyz @ scene.world_from_scene[:3, :3].T + scene.world_from_scene[:3, 3]
        np.testing.assert_allclose(place, truth(world, scene, "xyz"), atol=1e-5)
        np.testing.assert_array_equal(names[scene.points.semantic["s3dis13"]], truth(world, scene, "label"))
        pairs = np.unique(np.stack([scene.points.instance, truth(world, scene, "object")]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1], "one instance, one object"
    repaired = {"file that names no class": 1, "line repaired: a stray byte instead of a space": 1}
    assert [dict(scene.dropped) for scene in found] == [repaired, {}, {}]


@pytest.mark.parametrize("align", [False, True])
def test_points_land_where_the_views_show_them(world: Path, align: bool) -> None:
    """Half of the views of area 5 come from the frame of area_5b; with `align_rooms` the cameras turn with the room."""
    depth_ok, label_ok, shifted, count = 0, 0, 0, 0
    for scene in scenes(world, align_rooms=align):
        assert scene.points is not None and len(scene.views) == 4
        for view in scene.views:
            assert view.depth is not None and (view.width, view.height) == (128, 128)
            seen = truth(world, scene, f"visible_{view.name}")
            pixel, depth = project(scene, view)
            column, row = np.clip(np.rint(pixel[seen]), 0, 127).astype(int).T
            measured = view.depth.values[row, column] * view.depth.scale
            depth_ok += int((np.abs(measured - depth[seen]) < 0.06 * (1 + depth[seen] / 4)).sum())
            label_ok += int((view.semantic["s3dis13"][row, column] == scene.points.semantic["s3dis13"][seen]).sum())
            moved = np.clip(column + 12, 0, 127)
            shifted += int((view.semantic["s3dis13"][row, moved] == scene.points.semantic["s3dis13"][seen]).sum())
            count += len(row)
    assert count > 10_000 and depth_ok > 0.97 * count and label_ok > 0.97 * count
    assert shifted < 0.95 * count, "the test can tell a wrong calibration"


def test_images_are_the_truth(world: Path) -> None:
    table = json.loads((world / "s3dis" / VIEWS / "assets/semantic_labels.json").read_text())
    for scene in scenes(world):
        for view in scene.views:
            assert view.depth is not None and view.instance is not None
            objects, depth = (truth(world, scene, f"{view.name}_{what}") for what in ("object", "depth"))
            np.testing.assert_array_equal(view.instance, objects)
            known = np.isfinite(depth)
            np.testing.assert_array_equal(view.depth.values > 0, known)
            found = view.depth.values.astype(np.float64) * view.depth.scale
            assert np.abs(found - depth)[known].max() <= 1 / 1024 + 1e-6
            classes = np.array([*taxonomy("s3dis13").classes, "<UNK>"])  # -1 is the last
            shown = np.array([name.partition("_")[0] for name in table])[objects]
            np.testing.assert_array_equal(classes[view.semantic["s3dis13"]], shown)


def test_cameras_stand_where_the_pose_files_say(world: Path) -> None:
    for scene in scenes(world):
        for view in scene.views:
            assert view.scene_from_camera is not None
            (path,) = (world / "s3dis" / VIEWS).glob(f"*/data/pose/{view.name.replace('_frame', '_*_frame')}_*.json")
            place = (scene.world_from_scene @ view.scene_from_camera)[:3, 3]
            x, y, z = json.loads(path.read_text())["camera_location"]
            np.testing.assert_allclose(place, [y - 4.10, 6.25 - x, z] if "area_5b" in str(path) else [x, y, z])


def test_views_in_a_wrong_frame_are_not_believed(world: Path) -> None:
    (lounge,) = scenes(world, areas=(5,))
    (wrong,) = scenes(world, areas=(5,), area_5b=(0, 0, 0, 0))
    assert len(lounge.views) == 4 and len(wrong.views) == 2
    assert wrong.dropped == {"view whose depth contradicts the points": 2}
    (all_kept,) = scenes(world, areas=(5,), area_5b=(0, 0, 0, 0), min_agreement=0)
    assert len(all_kept.views) == 4 and all_kept.points is not None
    shares = sorted(agreement(view, all_kept.points.xyz)[0] for view in all_kept.views)
    assert shares[1] < 0.3 and shares[2] > 0.95


def test_views_are_shared_among_chunks_each_in_one(world: Path) -> None:
    whole = scenes(world, areas=(1, 2))
    chunks = scenes(world, areas=(1, 2), chunk_points=5000)
    names = sorted(view.name for chunk in chunks for view in chunk.views)
    assert len(chunks) > 4 and names == sorted(view.name for scene in whole for view in scene.views)
    for chunk in chunks:
        (parent,) = (scene for scene in whole if chunk.part is not None and scene.identity.scene_id == chunk.part.whole)
        poses = {view.name: view.scene_from_camera for view in parent.views}
        assert all(np.array_equal(view.scene_from_camera, poses[view.name]) for view in chunk.views)
        assert chunk.points is not None and (len(chunk.points) > 1000)


@pytest.mark.parametrize("options", [{}, {"align_rooms": True, "chunk_points": 9000}, {"read_depth": False}])
def test_views_keep_the_promises_of_a_source(world: Path, options: dict[str, Any]) -> None:
    chosen = S3DISOptions(rooms=ROOMS, views=VIEWS, max_views=2, areas=(5,), **options)
    assert_source_ok(SOURCE, str(world / "s3dis"), chosen, scenes=1)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    config = SimulationConfig(s3dis_rooms=2, s3dis_views=2, s3dis_points=2000, s3dis_image_size=24)

    def digests(folder: str, seed: int) -> dict[str, str]:
        simulate(tmp_path / folder, datasets=("s3dis",), seed=seed, config=config)
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        return {str(p.relative_to(tmp_path / folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    one = digests("a", 1)
    assert one == digests("b", 1) != digests("c", 2)
    assert {"wall_1 (1).txt", ".DS_Store", "copy_storage_1.txt"} <= {Path(name).name for name in one}
