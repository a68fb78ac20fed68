"""nuScenes keyframes: a toy dataset with known values, whole and damaged."""

from __future__ import annotations

import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.categories import GENERAL, NOT_AN_ID, UNKNOWN_NAME, class_table, published_ids
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.nuscenes.sensors import rotation_matrix
from brickyard.ingest.nuscenes.splits import split_of
from brickyard.ingest.source import Missing, SceneRef, find_source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import UNLABELLED
from tests.ingest.nuscenes_toy import (
    CAR,
    EGO,
    POINTS,
    ROAD,
    START,
    VERSION,
    edit,
    jpeg,
    labels,
    npz,
    panoptic,
    planned,
    read,
    sweep,
    write_dataset,
)  # fmt: skip

CANONICAL = list(range(32))


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
    """At keyframe 0 the car looks along x; when CAM_FRONT (turned by 0.3) fired, it was 0.04 m behind, turned back."""
    edit(dataset, "calibrated_sensor", lambda rows: rows[0].update(rotation=[1.01, 0, 0, 0]))  # is normalised
    scene = read(planned(dataset)[0])
    pose = scene.views[0].scene_from_camera
    assert pose is not None
    turn = -0.02 * 0.02
    place = (0.5 * math.cos(turn) - 0.1 * math.sin(turn) - 0.04, 0.5 * math.sin(turn) + 0.1 * math.cos(turn) - 0.1, 0)
    np.testing.assert_allclose(pose[:3, 3], place, atol=1e-9)
    assert math.atan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.3 + turn, abs=1e-12)
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


def test_panoptic_gives_instances_and_the_other_classes(dataset: Path) -> None:
    points = read(planned(dataset)[1]).points
    ours = read(planned(dataset, Options(semantic="panoptic"))[1]).points
    assert points is not None and ours is not None and points.instance is not None and ours.instance is not None
    raw = panoptic(1)
    np.testing.assert_array_equal(points.instance, np.where(raw % 1000 > 0, raw, 0))
    np.testing.assert_array_equal(ours.instance, points.instance)
    assert len(np.unique(points.instance)) == 4 and raw[5] == 0 != labels(1)[5]
    classes, ours_classes = points.semantic["nuscenes16"], ours.semantic["nuscenes16"]
    assert ours_classes[5] == UNLABELLED != classes[5]
    np.testing.assert_array_equal(np.delete(ours_classes, 5), np.delete(classes, 5))
    (dataset / VERSION / "lidarseg.json").unlink()
    only = read(planned(dataset)[1]).points
    assert only is not None
    np.testing.assert_array_equal(only.semantic["nuscenes16"], ours_classes)


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


def test_splits_are_the_official_ones() -> None:
    from nuscenes.utils import splits

    official = {name: split for split in ("train", "val", "test") for name in getattr(splits, split)}
    assert split_of("v1.0-trainval") == split_of("v1.0-test") == official and len(official) == 1000
    mini = dict.fromkeys(splits.mini_train, "train") | dict.fromkeys(splits.mini_val, "val")
    assert split_of("v1.0-mini") == official | mini and official["scene-0553"] == "val" != mini["scene-0553"]


def test_absent_files(dataset: Path) -> None:
    max((dataset / "samples" / "LIDAR_TOP").iterdir()).unlink()
    min((dataset / "samples" / "CAM_FRONT").iterdir()).unlink()
    first, second = planned(dataset, Options(cameras=CAMERAS[:2]))
    assert isinstance(second, Missing) and "pcd.bin is not there" in second.reason
    scene = read(first)
    assert [v.name for v in scene.views] == ["CAM_FRONT_LEFT"] and scene.dropped == {"missing image CAM_FRONT": 1}


def test_a_keyframe_whose_rows_do_not_fit_is_missing_and_the_next_one_is_not(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=4)
    edit(tmp_path, "ego_pose", lambda rows: rows[0].update(token="lost"))
    edit(tmp_path, "sample_data", lambda rows: rows[3].update(filename="../../secret"))
    lost, leaving, whole, last = planned(tmp_path)
    assert isinstance(lost, Missing) and "is in no row of ego_pose.json" in lost.reason
    assert isinstance(leaving, Missing) and "leaves the folder" in leaving.reason
    assert isinstance(whole, SceneRef) and isinstance(last, SceneRef)


def test_lost_and_circular_links_end_their_scene(dataset: Path) -> None:
    edit(dataset, "sample", lambda rows: rows[1].update(next="s0"))
    *_, circle = planned(dataset)
    assert isinstance(circle, Missing) and "comes twice" in circle.reason
    edit(dataset, "sample", lambda rows: rows[0].update(next="s9"))
    first, lost = planned(dataset)
    assert isinstance(first, SceneRef) and isinstance(lost, Missing) and "s9 is in no row of sample" in lost.reason


def test_scenes_without_splits_and_no_scenes_at_all(dataset: Path) -> None:
    """A part of mini whose split lists are empty, and tables without rows."""
    edit(dataset, "scene", lambda rows: rows[0].update(name="scene-8000"))
    assert [(item.scene_id, item.split) for item in planned(dataset) if isinstance(item, SceneRef)] == [
        ("scene-8000/s0", "none"),
        ("scene-8000/s1", "none"),
    ]
    for table in ("scene", "sample", "sample_data", "ego_pose", "lidarseg", "panoptic", "calibrated_sensor", "sensor"):
        edit(dataset, table, lambda rows: rows.clear())
    assert planned(dataset) == [] == planned(dataset, Options(sweeps=10))
    assert planned(dataset, Options(clips=ClipOptions())) == []


def test_no_devkit_no_maps_no_annotations(dataset: Path) -> None:
    """The test split has no boxes, and no release needs maps or the CAN bus to be converted."""
    whole = planned(dataset)
    for name in ("map", "sample_annotation", "instance", "attribute", "visibility", "log"):
        (dataset / VERSION / f"{name}.json").unlink()
    (dataset / "maps" / "m.png").unlink()
    assert planned(dataset) == whole
    script = (
        "import sys; from brickyard.ingest.nuscenes import *; from brickyard.ingest.nuscenes.plan import Options; "
        "from brickyard.shards.storage import Store; "
        "[SOURCE.read(r) for r in SOURCE.plan(Store(sys.argv[1]), Options())]; "
        "print('nuscenes' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script, str(dataset)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_table_errors_name_the_file(dataset: Path) -> None:
    with pytest.raises(RecipeError, match=r"no nuScenes v1.0-test .*found v1.0-mini"):
        planned(dataset, Options(version="v1.0-test"))
    for wrong in ({"min_range": -1}, {"cameras": ("CAM_TOP",)}, {"sweeps": 0}, {"semantic": "boxes"}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Options(**wrong)  # type: ignore[arg-type]
    edit(dataset, "category", lambda rows: rows[3].pop("index"))
    assert re.search(r"v1.0-mini/category.json: .*KeyError: 'index'", reason_of(dataset, "category"))
    file = dataset / VERSION / "sample_data.json"
    text = file.read_text()[:500]
    file.write_text(text)
    line = text.count("\n") + 1
    assert f"v1.0-mini/sample_data.json line {line}: no valid JSON" in reason_of(dataset, "sample_data")
    file.unlink()
    assert "v1.0-mini/sample_data.json: the table is missing" in reason_of(dataset, "sample_data")


def reason_of(root: Path, table: str) -> str:
    """What the plan says of a table that lost something."""
    (lost,) = [item for item in planned(root) if item.key == f"nuscenes/{VERSION}/{table}.json"]
    assert isinstance(lost, Missing)
    return lost.reason


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
        ("lidarseg/*/LIDAR_TOP0*", lambda d: d[:5] + b"\x20" + d[6:], "at byte 5: label 32 of point 5 is no index"),
        ("panoptic/*/*0_p*", lambda d: d[:-9], "no .npz with data.npy: BadZipFile"),
        ("panoptic/*/*0_p*", lambda d: npz(panoptic()[:-1]), "39 panoptic labels for 40 points"),
        ("panoptic/*/*0_p*", lambda d: npz(panoptic().astype(np.int32)), "no array of unsigned 16-bit"),
        ("panoptic/*/*0_p*", lambda d: npz(np.zeros((4000, 2), np.uint16)), "16128 bytes, too many for 40 points"),
        ("panoptic/*/*0_p*", lambda d: npz(panoptic() + 32_000), r"label \d+ of point 0 is no index"),
        ("panoptic/*/*0_p*", lambda d: npz(np.array([{}] * 40)), "no array of unsigned 16-bit"),
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
        ("ego_pose", {"translation": [0, 1e9, 0]}, "translation of global_from_ego of lidar should be 3 finite"),
        ("ego_pose", {"rotation": [0, 0, 0, 0]}, r"v1.0-mini/ego_pose.json: .*no unit quaternion"),
        (
            "calibrated_sensor",
            {"rotation": "north"},
            "rotation of ego_from_sensor of lidar should be 4 finite numbers, found north",
        ),
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


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 0.01))
def test_quaternions_are_w_first(quaternion: list[float]) -> None:
    from pyquaternion import Quaternion

    np.testing.assert_allclose(rotation_matrix(quaternion), Quaternion(quaternion).rotation_matrix, atol=1e-12)
