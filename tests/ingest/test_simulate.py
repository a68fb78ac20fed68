"""The simulated worlds: same seed, same bytes; and the written calibration leads every visible point to its class."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.simulate.nuscenes import GENERAL_IDS
from brickyard.ingest.simulate.scannet import NYU40, RAW_IDS
from brickyard.ingest.source import Missing, find_source
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

TINY = SimulationConfig(
    scannet_rooms=2, scannet_frames=3, scannet_spacing=0.15, scannet_color_size=(160, 120), scannet_depth_size=(80, 60),
    nuscenes_scenes=3, nuscenes_keyframes=2, nuscenes_image_size=(320, 180), nuscenes_columns=180, kitti_frames=1,
    kitti_drives=1, kitti_drive_frames=3, kitti_columns=180, kitti_missing_scan=True,
)  # fmt: skip
SMALLEST = SimulationConfig(
    scannet_rooms=1, scannet_frames=1, scannet_spacing=0.3, scannet_color_size=(40, 30), scannet_depth_size=(20, 16),
    nuscenes_scenes=1, nuscenes_keyframes=1, nuscenes_image_size=(64, 36), nuscenes_columns=24, kitti_frames=1,
    kitti_drives=1, kitti_drive_frames=1, kitti_columns=24, kitti_image_size=(62, 19),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    simulate(out, datasets=("scannet", "nuscenes", "kitti"), seed=7, config=TINY)
    return out


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_another_seed_another_world(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    first = simulate(tmp_path / "a", seed=3, config=SMALLEST, progress=lambda *call: calls.append(call))
    simulate(tmp_path / "b", datasets=("kitti", "nuscenes", "scannet"), seed=3, config=SMALLEST)
    simulate(tmp_path / "c", datasets=("scannet",), seed=4, config=SMALLEST)
    one = _digests(tmp_path / "a")
    assert one == _digests(tmp_path / "b")
    ply = "scannet/scans/scene9000_00/scene9000_00_vh_clean_2.ply"
    assert one[ply] != _digests(tmp_path / "c")[ply]
    assert calls[0] == ("scannet", 1, 1) and calls[-1] == ("kitti", 2, 2)
    assert first["nuscenes"]["scenes"] == 1 and first["kitti"]["frames"] == 2
    assert first["scannet"]["files"] == sum(name.startswith("scannet/") for name in one)


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="atlantis"):
        simulate(tmp_path, datasets=("atlantis",))


def _matches(pixel: Any, depth: Any, label: Any, image: Any, near: float) -> tuple[float, float, int]:
    """Shares of points whose class is at their pixel, or within one pixel of it, and how many lie in the image."""
    height, width = image.shape
    column, row = np.rint(pixel).astype(int).T
    inside = (depth > near) & (column >= 1) & (row >= 1) & (column < width - 1) & (row < height - 1)
    column, row, label = column[inside], row[inside], label[inside]
    exact = image[row, column] == label
    around = np.zeros(len(label), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            around |= image[row + dy, column + dx] == label
    return float(exact.mean()), float(around.mean()), len(label)


def _project(scene: Scene, view: View) -> tuple[Any, Any]:
    assert scene.points is not None and view.scene_from_camera is not None
    camera_from_scene = np.linalg.inv(view.scene_from_camera)
    local = scene.points.xyz @ camera_from_scene[:3, :3].T + camera_from_scene[:3, 3]
    pixel = local @ view.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = np.where(local[:, 2:] > 0, pixel[:, :2] / pixel[:, 2:], -1)
    return np.clip(uv, -1, 1e6), local[:, 2]


CASES = [("scannet", "scannet"), ("nuscenes", "nuscenes"), ("kitti_object", "kitti/object"), ("kitti_raw", "kitti/raw")]


def _truth_folder(world: Path, dataset: str, scene_id: str) -> Path:
    name = scene_id.rpartition("/")[2]
    if dataset == "nuscenes":
        rows = json.loads((world / "nuscenes/v1.0-mini/sample_data.json").read_text())
        name = next(
            r["token"] for r in rows if r["sample_token"] == name and r["fileformat"] == "pcd" and r["is_key_frame"]
        )
    if dataset == "kitti_raw":
        return world / "truth/kitti/raw" / scene_id
    return world / {"kitti_object": "truth/kitti/object"}.get(dataset, f"truth/{dataset}") / name


@pytest.mark.parametrize(("dataset", "folder"), CASES)
def test_readers_carry_visible_points_onto_their_class(world: Path, dataset: str, folder: str) -> None:
    source = find_source(dataset)
    items = list(source.plan(Store(str(world / folder)), source.options()))
    missing = [item for item in items if isinstance(item, Missing)]
    assert len(missing) == (1 if dataset == "kitti_raw" else 0)
    exact, around, shifted, counts = [], [], [], []
    for item in items:
        if isinstance(item, Missing):
            continue
        scene = source.read(item).validate()
        truth = _truth_folder(world, dataset, item.scene_id)
        label = np.load(truth / "label.npy")
        assert scene.points is not None and len(scene.points) == len(label)
        for view in (v for v in scene.views if v.scene_from_camera is not None):
            seen = np.load(truth / f"visible_{view.name}.npy")
            picture = np.load(truth / f"{view.name}_label.npy")
            assert picture.shape == (view.height, view.width)
            pixel, depth = _project(scene, view)
            a, b, count = _matches(pixel[seen], depth[seen], label[seen], picture, 0.3)
            exact.append(a * count)
            around.append(b * count)
            counts.append(count)
            shifted.append(_matches(pixel[seen] + (12, 6), depth[seen], label[seen], picture, 0.3)[1] * count)
    assert sum(counts) > 1000
    assert sum(around) / sum(counts) > 0.97
    # a room's vertices lie on the very edges of things, where half a pixel decides
    assert sum(exact) / sum(counts) > (0.8 if dataset == "scannet" else 0.93)
    assert sum(shifted) < 0.97 * sum(around)  # the test can tell a wrong calibration


def test_nuscenes_devkit_reads_it(world: Path) -> None:
    from nuscenes.nuscenes import NuScenes

    devkit = NuScenes(version="v1.0-mini", dataroot=str(world / "nuscenes"), verbose=False)
    assert [scene["name"] for scene in devkit.scene] == ["scene-0061", "scene-0553", "scene-0103"]
    assert len(devkit.category) == 32 and devkit.lidarseg_idx2name_mapping[24] == "flat.driveable_surface"
    counts = []
    for sample in devkit.sample:
        lidar = sample["data"]["LIDAR_TOP"]
        points, depth, image = devkit.explorer.map_pointcloud_to_image(lidar, sample["data"]["CAM_FRONT"])
        assert points.shape[1] > 100 and depth.min() > 0 and image.size == (320, 180)
        for name in sample["anns"]:
            row = devkit.get("sample_annotation", name)
            _, boxes, _ = devkit.get_sample_data(lidar, selected_anntokens=[name])
            counts.append(_inside(devkit, lidar, boxes[0]) == row["num_lidar_pts"])
            assert devkit.get("instance", row["instance_token"])["nbr_annotations"] >= 1
        assert "vehicle.ego" in _lidarseg_names(devkit, sample["token"])
    assert len(counts) > 30 and np.mean(counts) > 0.98
    speeds = [np.linalg.norm(devkit.box_velocity(row["token"])) for row in devkit.sample_annotation]
    assert np.nanmax(speeds) > 3 and np.nanmin(speeds) < 0.01


def _inside(devkit: Any, lidar: str, box: Any) -> int:
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    cloud = LidarPointCloud.from_file(devkit.get_sample_data_path(lidar))
    return int(points_in_box(box, cloud.points[:3]).sum())


def _lidarseg_names(devkit: Any, sample: str) -> set[str]:
    devkit_row = devkit.get("lidarseg", devkit.get("sample", sample)["data"]["LIDAR_TOP"])
    labels = np.fromfile(Path(devkit.dataroot) / devkit_row["filename"], np.uint8)
    return {devkit.lidarseg_idx2name_mapping[int(k)] for k in np.unique(labels)}


def test_sens_stream_parses_to_the_last_byte(world: Path) -> None:
    data = (world / "scannet/scans/scene9000_00/scene9000_00.sens").read_bytes()
    version, length = struct.unpack_from("<IQ", data)
    cursor = 12 + length + 4 * 64
    kinds = struct.unpack_from("<iiIIIIfQ", data, cursor)
    assert version == 4 and kinds == (2, 1, 160, 120, 80, 60, 1000.0, 3)
    cursor += 36
    finite = []
    for _ in range(3):
        pose = np.frombuffer(data, "<f4", 16, cursor)
        color, depth = struct.unpack_from("<QQ", data, cursor + 80)
        cursor += 96
        assert simplejpeg.decode_jpeg(data[cursor : cursor + color]).shape == (120, 160, 3)
        metres = np.frombuffer(zlib.decompress(data[cursor + color : cursor + color + depth]), "<u2") / 1000
        assert len(metres) == 80 * 60 and 0.3 < np.median(metres) < 8
        cursor += color + depth
        finite.append(bool(np.isfinite(pose).all()))
        assert finite[-1] or bool((pose == -np.inf).all())
    assert finite == [True, True, False]
    assert data[cursor:] == bytes(8)


def test_class_ids_agree_with_the_taxonomies(world: Path) -> None:
    nyu, outdoor = taxonomy("nyu40"), taxonomy("nuscenes16")
    rows = [line.split("\t") for line in (world / "scannet/scannetv2-labels.combined.tsv").read_text().splitlines()[1:]]
    for row in rows:
        assert nyu.classes[nyu.from_raw[int(row[4])]] == row[7]
    assert {row[1] for row in rows} == set(NYU40) == set(RAW_IDS)
    for name in ("car", "truck", "bus", "bicycle", "pedestrian", "barrier", "traffic_cone", "sidewalk", "terrain"):
        assert outdoor.classes[outdoor.from_raw[GENERAL_IDS[name]]] == name


def test_classes_look_different(world: Path) -> None:
    """Mean colours of road, vegetation, sky and manmade differ, and no class is told by intensity alone."""
    truth = sorted((world / "truth/nuscenes").iterdir())[0].name
    rows = json.loads((world / "nuscenes/v1.0-mini/sample_data.json").read_text())
    lidar = next(row for row in rows if row["token"] == truth)
    label = np.load(world / "truth/nuscenes" / truth / "label.npy")
    intensity = np.fromfile(world / "nuscenes" / lidar["filename"], "<f4").reshape(-1, 5)[:, 3]
    road, wall = (np.percentile(intensity[label == k], (10, 90)) for k in (24, 28))
    assert road[1] > wall[0] and wall[1] > road[0]
    front = next(r for r in rows if r["sample_token"] == lidar["sample_token"] and "/CAM_FRONT/" in r["filename"])
    picture = np.asarray(Image.open(world / "nuscenes" / front["filename"])).astype(float)
    seen = np.load(world / "truth/nuscenes" / truth / "CAM_FRONT_label.npy")
    means = [picture[seen == k].mean(0) for k in (24, 255) if (seen == k).any()]
    assert np.linalg.norm(means[0] - means[1]) > 30
