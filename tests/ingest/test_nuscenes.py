"""nuScenes: a generated dataset the devkit itself loads, and the real first keyframe of scene-0061."""

from __future__ import annotations

import io
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ingest.nuscenes import SOURCE
from ingest.nuscenes.categories import GENERAL, NOT_AN_ID, UNKNOWN_NAME, class_table, published_ids
from ingest.nuscenes.plan import CAMERAS, Options
from ingest.nuscenes.read import rotation_matrix
from ingest.source import Missing, SceneRef, find_source
from shards.errors import RawDataError, RecipeError
from shards.scene import UNLABELLED, Scene
from shards.storage import Store

VERSION = "v1.0-mini"
POINTS = 40
START = 2 * 10**15  # us
CAR, ROAD, EGO, CANONICAL = 17, 24, 31, list(range(32))


def sweep(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = rng.uniform((2, 2, -2, 0, 0), (30, 30, 2, 255, 0), (POINTS, 5)).astype("<f4")
    records[:, 4] = rng.integers(0, 32, POINTS)
    records[:4, :3] *= 0.02  # the ego vehicle
    return records


def labels(seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).choice((CAR, ROAD, 0), POINTS).astype(np.uint8)
    found[:4] = EGO
    return found


def jpeg(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def yaw(angle: float) -> list[float]:
    return [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]


def write_dataset(
    root: Path, cameras: tuple[str, ...] = CAMERAS[:2], keyframes: int = 2, scene: str = "scene-0061"
) -> None:
    """One scene whose car drives along x at a metre a keyframe; cameras fire 20 ms (0.04 m) before the lidar."""
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("attribute", "visibility", "instance", "sample_annotation")
    }
    tables["category"] = [{"token": f"c{i}", "name": n, "description": "", "index": i} for i, n in enumerate(GENERAL)]
    tables["log"] = [
        {"token": "log", "logfile": "l", "vehicle": "v", "date_captured": "d", "location": "boston-seaport"}
    ]
    tables["map"] = [{"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/m.png"}]
    tables["scene"] = [{"token": "scene", "log_token": "log", "nbr_samples": keyframes, "first_sample_token": "s0",
                        "last_sample_token": f"s{keyframes - 1}", "name": scene, "description": ""}]  # fmt: skip
    channels = ("LIDAR_TOP", *cameras)
    tables["sensor"] = [{"token": c, "channel": c, "modality": "camera" if c in cameras else "lidar"} for c in channels]
    tables["calibrated_sensor"] = [
        {"token": c, "sensor_token": c, "translation": [0.5 * i, 0.1, 1.8], "rotation": yaw(0.3 * i),
         "camera_intrinsic": [[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]] if c in cameras else []}
        for i, c in enumerate(channels)
    ]  # fmt: skip
    for table in ("sample", "sample_data", "ego_pose", "lidarseg"):
        tables[table] = []
    for k in range(keyframes):
        following = f"s{k + 1}" if k + 1 < keyframes else ""
        tables["sample"].append({"token": f"s{k}", "timestamp": START + k * 500_000, "prev": f"s{k - 1}" if k else "",
                                 "next": following, "scene_token": "scene"})  # fmt: skip
        for c in channels:
            camera, token = c in cameras, f"{c}{k}"
            time = START + k * 500_000 - (20_000 if camera else 0)
            name = f"samples/{c}/n+0800__{c}__{time}." + ("jpg" if camera else "pcd.bin")
            place = [1000.0 + k - (0.04 if camera else 0), 500.0, 0.0]
            tables["ego_pose"].append(
                {"token": f"e{token}", "timestamp": time, "rotation": yaw(0.01 * k), "translation": place}
            )
            tables["sample_data"].append({
                "token": token, "sample_token": f"s{k}", "ego_pose_token": f"e{token}", "calibrated_sensor_token": c,
                "timestamp": time, "fileformat": "jpg" if camera else "pcd", "is_key_frame": True,
                "height": 48 if camera else 0, "width": 64 if camera else 0, "filename": name, "prev": "", "next": "",
            })  # fmt: skip
            write(root / name, jpeg() if camera else sweep(k).tobytes())
        segments = f"lidarseg/{VERSION}/LIDAR_TOP{k}_lidarseg.bin"
        tables["lidarseg"].append(
            {"token": f"LIDAR_TOP{k}", "sample_data_token": f"LIDAR_TOP{k}", "filename": segments}
        )
        write(root / segments, labels(k).tobytes())
    mask = io.BytesIO()
    Image.new("L", (4, 4)).save(mask, "PNG")
    write(root / "maps" / "m.png", mask.getvalue())
    for table, rows in tables.items():
        write(root / VERSION / f"{table}.json", json.dumps(rows).encode())


def write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def edit(root: Path, table: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    file = root / VERSION / f"{table}.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read(item: SceneRef | Missing) -> Scene:
    assert isinstance(item, SceneRef), item
    return SOURCE.read(item)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path)
    return tmp_path


def test_entry_point_and_cheap_import() -> None:
    assert find_source("nuscenes") is SOURCE
    script = "import sys, ingest.nuscenes; print([m for m in ('nuscenes', 'cv2', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_keyframes_in_order_with_everything_they_need(dataset: Path) -> None:
    items = planned(dataset)
    assert [item.scene_id for item in items] == ["scene-0061/s0", "scene-0061/s1"]
    data = pickle.dumps(items[1])
    for table in (dataset / VERSION).iterdir():
        table.unlink()
    ref = pickle.loads(data)  # noqa: S301 - our own bytes
    scene = SOURCE.read(ref)
    assert (ref.split, ref.sequence, ref.points_estimate) == ("train", "scene-0061", POINTS)
    assert ref.bytes_estimate == sum(source.size for source in scene.identity.sources) > POINTS * 21
    assert scene.identity.timestamp_ns == (START + 500_000) * 1000
    assert scene.identity.licence == "CC-BY-NC-SA-4.0" and scene.identity.version == VERSION
    assert scene.points is not None and scene.points.ring is not None and scene.points.intensity is not None
    np.testing.assert_array_equal(scene.points.xyz, sweep(1)[:, :3])
    np.testing.assert_array_equal(scene.points.intensity, sweep(1)[:, 3])
    np.testing.assert_array_equal(scene.points.ring, sweep(1)[:, 4].astype(np.uint8))
    assert scene.points.ring.dtype == np.uint8 and scene.points.intensity_unit == "byte"
    classes = {CAR: 3, ROAD: 10, 0: UNLABELLED, EGO: UNLABELLED}
    assert scene.points.semantic["nuscenes16"].tolist() == [classes[raw] for raw in labels(1)]
    assert [(v.name, v.width, v.height) for v in scene.views] == [("CAM_FRONT", 64, 48), ("CAM_FRONT_LEFT", 64, 48)]
    assert scene.views[0].image == jpeg() and scene.views[0].timestamp_ns == (START + 480_000) * 1000


def test_cameras_go_through_their_own_ego_pose(dataset: Path) -> None:
    """At keyframe 0 the car looks along x: CAM_FRONT is turned by 0.3 and sat 0.04 m behind when it fired."""
    edit(dataset, "calibrated_sensor", lambda rows: rows[0].update(rotation=[1.01, 0, 0, 0]))  # is normalised
    scene = read(planned(dataset)[0])
    pose = scene.views[0].scene_from_camera
    assert pose is not None
    np.testing.assert_allclose(pose[:3, 3], (0.5 - 0.04, 0, 0), atol=1e-9)
    assert math.atan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.3, abs=1e-12)
    np.testing.assert_allclose(scene.world_from_scene[:3, 3], (1000, 500.1, 1.8))


def test_min_range_drops_after_labels_are_joined(dataset: Path) -> None:
    scene = read(planned(dataset, Options(min_range=1.0))[0])
    assert scene.points is not None and scene.dropped == {"points within min_range": 4}
    whole = read(planned(dataset)[0])
    assert whole.points is not None
    np.testing.assert_array_equal(scene.points.xyz, whole.points.xyz[4:])
    np.testing.assert_array_equal(scene.points.semantic["nuscenes16"], whole.points.semantic["nuscenes16"][4:])


def test_labels_go_through_the_category_table(dataset: Path) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[CAR]["index"], rows[ROAD]["index"] = ROAD, CAR
        rows.reverse()

    straight = read(planned(dataset)[0])
    edit(dataset, "category", swap)
    swapped = read(planned(dataset)[0])
    assert straight.points is not None and swapped.points is not None
    before, after = (scene.points.semantic["nuscenes16"] for scene in (straight, swapped))
    np.testing.assert_array_equal(after, np.select([before == 3, before == 10], [10, 3], before))


def test_published_ids_and_class_table() -> None:
    rows = [{"name": name, "index": i} for i, name in enumerate(GENERAL)]
    assert published_ids(rows) == CANONICAL
    assert published_ids([{"name": "vehicle.car", "index": 2}, {"name": "boat", "index": 0}]) == [
        UNKNOWN_NAME,
        NOT_AN_ID,
        CAR,
    ]
    with pytest.raises(ValueError, match="share index 1"):
        published_ids([{"name": "noise", "index": 1}, {"name": "animal", "index": 1}])
    classes, exists = class_table(CANONICAL)
    assert exists.sum() == 32 and classes[CAR] == 3 and classes[0] == UNLABELLED and (classes[32:] == UNLABELLED).all()


@pytest.mark.parametrize(
    ("name", "split"), [("scene-0553", "train"), ("scene-0103", "val"), ("scene-9999", "none"), ("scene-0077", "test")]
)
def test_splits(tmp_path: Path, name: str, split: str) -> None:
    write_dataset(tmp_path, cameras=(), keyframes=1, scene=name)
    (item,) = planned(tmp_path)
    assert isinstance(item, SceneRef) and item.split == split


def test_absent_files(dataset: Path) -> None:
    max((dataset / "samples" / "LIDAR_TOP").iterdir()).unlink()
    min((dataset / "samples" / "CAM_FRONT").iterdir()).unlink()
    first, second = planned(dataset, Options(cameras=CAMERAS[:2]))
    assert isinstance(second, Missing) and "pcd.bin is not there" in second.reason
    scene = read(first)
    assert [v.name for v in scene.views] == ["CAM_FRONT_LEFT"] and scene.dropped == {"missing image CAM_FRONT": 1}


def test_rows_that_do_not_fit(dataset: Path) -> None:
    edit(dataset, "ego_pose", lambda rows: rows[0].update(token="lost"))
    edit(dataset, "sample_data", lambda rows: rows[3].update(filename="../../secret"))
    first, *rest = planned(dataset)
    assert isinstance(first, Missing) and "do not fit together" in first.reason and not rest
    write_dataset(dataset)
    edit(dataset, "sample", lambda rows: rows[0].pop("next"))
    assert [type(item) for item in planned(dataset)] == [Missing]


def test_table_errors_name_the_file(dataset: Path) -> None:
    with pytest.raises(RecipeError, match=r"no nuScenes v1.0-test .*found v1.0-mini"):
        planned(dataset, Options(version="v1.0-test"))
    with pytest.raises(RecipeError, match="min_range"):
        Options(min_range=-1)
    with pytest.raises(RecipeError, match="cameras"):
        Options(cameras=("CAM_TOP",))
    (dataset / "maps" / "m.png").unlink()
    with pytest.raises(RawDataError, match=r"maps/m.png: the map is missing"):
        planned(dataset)
    file = dataset / VERSION / "sample_data.json"
    text = file.read_text()
    file.write_text(text[:500])
    with pytest.raises(RawDataError, match=r"v1.0-mini/sample_data.json line 1: no valid JSON"):
        planned(dataset)
    file.unlink()
    with pytest.raises(RawDataError, match=r"v1.0-mini/sample_data.json: the table is missing"):
        planned(dataset)


def _change(root: Path, pattern: str, change: Callable[[bytes], bytes]) -> None:
    file = min(root.glob(pattern))
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    ("pattern", "change", "problem"),
    [
        ("samples/LIDAR_TOP/*", lambda d: d[:-7], r"at byte 780: 793 bytes are no multiple of 20"),
        ("samples/LIDAR_TOP/*", lambda d: b"", "the sweep is empty"),
        ("samples/LIDAR_TOP/*", lambda d: b"\xff" * 800, "none of 40 points is usable"),
        ("lidarseg/*/LIDAR_TOP0*", lambda d: d[:-1], "39 labels for 40 points"),
        ("lidarseg/*/LIDAR_TOP0*", lambda d: d[:5] + b"\x20" + d[6:], "at byte 5: label 32 is no category"),
        ("samples/CAM_FRONT/*", lambda d: d[:-9], "the JPEG has no end"),
        ("samples/CAM_FRONT/*", lambda d: d[1:], "not a JPEG"),
        ("samples/CAM_FRONT/*", lambda d: jpeg(32, 24), "the image is 32x24, sample_data.json says 64x48"),
    ],
)
def test_damaged_files(tmp_path: Path, pattern: str, change: Callable[[bytes], bytes], problem: str) -> None:
    write_dataset(tmp_path, keyframes=1)
    _change(tmp_path, pattern, change)
    with pytest.raises(RawDataError, match=problem):
        read(planned(tmp_path)[0])


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("ego_pose", {"rotation": [0, 0, 0, 0]}, r"v1.0-mini/ego_pose.json: .*no unit quaternion"),
        ("ego_pose", {"translation": [0, 1]}, r"translation of global_from_ego of lidar should be \(3,\)"),
        ("calibrated_sensor", {"rotation": "north"}, "not made of numbers"),
        ("calibrated_sensor", {"camera_intrinsic": []}, "camera_intrinsic of CAM_FRONT should be"),
    ],
)
def test_damaged_poses(tmp_path: Path, table: str, change: dict[str, Any], problem: str) -> None:
    write_dataset(tmp_path, keyframes=1)
    edit(tmp_path, table, lambda rows: [row.update(change) for row in rows])
    with pytest.raises(RawDataError, match=problem):
        read(planned(tmp_path)[0])


def test_non_finite_points_take_their_labels_along(dataset: Path) -> None:
    records = sweep()
    records[9, 0], records[11, 4], records[12, 3] = np.nan, 3.5, 400
    _change(dataset, "samples/LIDAR_TOP/*", lambda _: records.tobytes())
    scene = read(planned(dataset)[0])
    assert scene.dropped == {"non-finite points": 1, "impossible points": 2} and scene.points is not None
    np.testing.assert_array_equal(scene.points.xyz, np.delete(records, (9, 11, 12), axis=0)[:, :3])
    assert len(scene.points.semantic["nuscenes16"]) == POINTS - 3


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> SceneRef:
    root = tmp_path_factory.mktemp("nuscenes")
    write_dataset(root, keyframes=1)
    (item,) = planned(root)
    assert isinstance(item, SceneRef)
    return item


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_mutation_ends_in_a_scene_or_a_raw_data_error(reference: SceneRef, data: st.DataObject) -> None:
    file = Path(reference.root) / data.draw(st.sampled_from(sorted(reference.files.values())))
    original = file.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    cut = data.draw(st.sampled_from([0, 1, 5, 20, len(original)]))
    file.write_bytes(original[:place] + data.draw(st.binary(max_size=6)) + original[place + cut :])
    try:
        SOURCE.read(reference).validate()
    except RawDataError as error:
        assert error.scene == "scene-0061/s0"
    finally:
        file.write_bytes(original)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_mutated_tables_end_in_items_or_errors_for_people(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tables")
    write_dataset(root, cameras=CAMERAS[:1], keyframes=1)
    tables = ["calibrated_sensor", "ego_pose", "sample", "sample_data", "scene", "lidarseg", "category", "sensor"]
    file = root / VERSION / f"{data.draw(st.sampled_from(tables))}.json"
    original = file.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    cut = data.draw(st.sampled_from([0, 1, 4, 30]))
    new = data.draw(st.sampled_from([b"", b"7", b"null", b'"', b"]", b"9e99", b"\xff"]))
    file.write_bytes(original[:place] + new + original[place + cut :])
    try:
        for item in planned(root):
            if isinstance(item, SceneRef):
                SOURCE.read(item).validate()
    except RawDataError:
        pass


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 0.01))
def test_quaternions_are_w_first(quaternion: list[float]) -> None:
    from pyquaternion import Quaternion

    np.testing.assert_allclose(rotation_matrix(quaternion), Quaternion(quaternion).rotation_matrix, atol=1e-12)


@pytest.fixture(scope="module")
def real(samples: Path) -> tuple[Any, Scene]:
    """The devkit's view of the sample and ours."""
    from nuscenes.nuscenes import NuScenes

    (item,) = planned(samples / "nuscenes")
    return NuScenes(VERSION, str(samples / "nuscenes"), verbose=False), read(item)


@pytest.mark.real
@pytest.mark.parametrize("camera", CAMERAS)
def test_real_projection_equals_the_devkit(real: tuple[Any, Scene], camera: str) -> None:
    """The devkit's steps with its own classes, in float64: its float32 clouds lose 0.1 mm in the world frame."""
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import view_points
    from pyquaternion import Quaternion

    tables, scene = real
    sample = tables.get("sample", scene.identity.scene_id.split("/")[1])
    lidar, image = (tables.get("sample_data", sample["data"][c]) for c in ("LIDAR_TOP", camera))
    cloud = LidarPointCloud.from_file(f"{tables.dataroot}/{lidar['filename']}")
    cloud.points = cloud.points.astype(np.float64)
    for table, row in (("calibrated_sensor", lidar), ("ego_pose", lidar)):
        pose = tables.get(table, row[f"{table}_token"])
        cloud.rotate(Quaternion(pose["rotation"]).rotation_matrix)
        cloud.translate(np.array(pose["translation"]))
    for table, row in (("ego_pose", image), ("calibrated_sensor", image)):
        pose = tables.get(table, row[f"{table}_token"])
        cloud.translate(-np.array(pose["translation"]))
        cloud.rotate(Quaternion(pose["rotation"]).rotation_matrix.T)
    mount = tables.get("calibrated_sensor", image["calibrated_sensor_token"])
    pixels = view_points(cloud.points[:3], np.array(mount["camera_intrinsic"]), normalize=True)[:2].T
    theirs = _inside(pixels, cloud.points[2], image["width"], image["height"])

    (view,) = (v for v in scene.views if v.name == camera)
    assert scene.points is not None and view.scene_from_camera is not None
    points = np.c_[scene.points.xyz.astype(np.float64), np.ones(len(scene.points))]
    in_camera = (points @ np.linalg.inv(view.scene_from_camera).T)[:, :3]
    homogeneous = in_camera @ view.intrinsics.T
    ours = homogeneous[:, :2] / homogeneous[:, 2:]
    inside = _inside(ours, in_camera[:, 2], view.width, view.height)
    np.testing.assert_array_equal(inside, theirs)
    np.testing.assert_allclose(ours[inside], pixels[theirs], rtol=0, atol=1e-3)
    official = tables.explorer.map_pointcloud_to_image(lidar["token"], image["token"], min_dist=1.0)[0]
    assert official.shape[1] == inside.sum() > 1000
    assert camera != "CAM_FRONT" or inside.sum() == 3053


def _inside(pixels: np.ndarray, depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """The devkit's rule: deeper than 1 m, and strictly more than a pixel from the border."""
    u, v = pixels.T
    return (depth > 1) & (u > 1) & (u < width - 1) & (v > 1) & (v < height - 1)


@pytest.mark.real
def test_real_labels_and_ego_points(samples: Path, real: tuple[Any, Scene]) -> None:
    _, scene = real
    assert scene.points is not None and len(scene.points) == 34_688 and len(scene.views) == 6
    raw = np.fromfile(next((samples / "nuscenes" / "lidarseg" / VERSION).glob("*.bin")), np.uint8)
    ours = scene.points.semantic["nuscenes16"]
    assert (ours[raw == ROAD] == 10).all() and (ours[raw == 28] == 14).all() and (raw == ROAD).sum() > 1000
    near = read(planned(samples / "nuscenes", Options(min_range=1.0))[0])
    assert near.dropped == {"points within min_range": 8029}
