"""Waymo v2: joins by key, older types, absent components, how much is read, damaged Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tests.ingest.waymo_toy as toy
from brickyard.ingest.source import Missing
from brickyard.ingest.waymo import v2
from brickyard.ingest.waymo.frame import LASERS, Options
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.waymo_reading import planned, refs, scene_of


def test_rows_are_joined_by_key(tmp_path: Path) -> None:
    """Rows shuffled, another segment's rows with the same timestamps in the same files, pandas' index column."""
    frames = [toy.toy_frame(n) for n in range(2)]
    strangers = [replace(toy.toy_frame(n + 7), time=frame.time, segment="other") for n, frame in enumerate(frames)]
    expected = scene_of("v2", tmp_path / "a", frames)
    rng = np.random.default_rng(3)
    for component, rows in toy.tables([*strangers, *frames]).items():
        mixed = [rows[i] | {"index": int(i)} for i in rng.permutation(len(rows))]
        file = tmp_path / "b" / "training" / component / f"{toy.SEGMENT}.parquet"
        toy.write_table(file, mixed, component, row_group_size=3)
    found = v2.read(refs("v2", tmp_path / "b")[-1])
    assert found.points is not None and expected.points is not None
    np.testing.assert_array_equal(found.points.xyz, expected.points.xyz)
    assert [view.image for view in found.views] == [view.image for view in expected.views]


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def column_as(name: str, kind: pa.DataType, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        array = pa.array(values(table.column(name).to_pylist()), kind)
        return table.set_column(table.column_names.index(name), name, array)

    return change


def test_types_of_older_files(tmp_path: Path) -> None:
    frames = [toy.toy_frame(0)]
    expected = scene_of("v2", tmp_path, frames)
    names = {number: name for name, number in LASERS.items()}
    cameras = {1: "FRONT", 4: "SIDE_LEFT"}
    root = tmp_path / "training"
    for component in ("lidar", "lidar_calibration", "lidar_pose", "lidar_segmentation"):
        as_text = column_as("key.laser_name", pa.string(), lambda values: [names[v] for v in values])
        rewrite(root / component / f"{toy.SEGMENT}.parquet", as_text)
    for component in ("camera_image", "camera_calibration"):
        as_text = column_as("key.camera_name", pa.string(), lambda values: [cameras[v] for v in values])
        rewrite(root / component / f"{toy.SEGMENT}.parquet", as_text)
    name = "[VehiclePoseComponent].world_from_vehicle.transform"
    as_float = column_as(name, pa.list_(pa.float32(), 16), lambda values: values)
    rewrite(root / "vehicle_pose" / f"{toy.SEGMENT}.parquet", as_float)
    found = v2.read(refs("v2", tmp_path)[0])
    assert found.points is not None and expected.points is not None and len(found.views) == 2
    step = 0.5 * np.spacing(np.float32(41_000)) + 1e-4  # the vehicle's place was rounded to float32
    np.testing.assert_allclose(found.points.xyz, expected.points.xyz, atol=float(step))
    np.testing.assert_allclose(found.world_from_scene, expected.world_from_scene, atol=float(step))


def test_absent_components(tmp_path: Path) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(n) for n in range(2)])
    (root / "camera_image" / f"{toy.SEGMENT}.parquet").unlink()
    (root / "lidar_segmentation" / f"{toy.SEGMENT}.parquet").unlink()
    scene = v2.read(refs("v2", tmp_path)[0])
    assert scene.points is not None and not scene.points.semantic and not scene.views
    assert scene.dropped == {"missing image FRONT": 1, "missing image SIDE_LEFT": 1}
    (root / "lidar_pose" / f"{toy.SEGMENT}.parquet").unlink()
    (missing,) = planned("v2", tmp_path)
    assert isinstance(missing, Missing) and f"lidar_pose/{toy.SEGMENT}.parquet is not there" in missing.reason
    (root / "vehicle_pose" / f"{toy.SEGMENT}.parquet").write_bytes(b"PAR1")
    (missing,) = planned("v2", tmp_path)
    assert isinstance(missing, Missing)


def test_rows_that_are_absent_or_there_twice(tmp_path: Path) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(n) for n in range(2)])
    (first, _) = refs("v2", tmp_path)
    file = root / "lidar" / f"{toy.SEGMENT}.parquet"
    whole = file.read_bytes()
    rewrite(file, lambda table: pa.concat_tables([table, table.slice(9, 1)]))
    with pytest.raises(RawDataError, match=r"key.laser_name 1 is there twice"):
        v2.read(first)
    file.write_bytes(whole)
    rewrite(file, lambda table: table.drop_columns(["[LiDARComponent].range_image_return1.shape"]))
    with pytest.raises(RawDataError, match="no column"):
        v2.read(first)
    file.write_bytes(whole)
    rewrite(root / "vehicle_pose" / f"{toy.SEGMENT}.parquet", lambda table: table.slice(1))
    with pytest.raises(RawDataError, match="0 rows for the frame"):
        v2.read(first)


def bytes_read(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    original = Store.read_range

    def counting(store: Store, name: str, offset: int, length: int) -> bytes:
        counts[name.split("/")[1]] = counts.get(name.split("/")[1], 0) + length
        return original(store, name, offset, length)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_range", counting)
        work()
    return counts


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(n) for n in range(40)], row_group_size=5, compression="none")
    assert set(bytes_read(monkeypatch, lambda: refs("v2", tmp_path))) == {"vehicle_pose"}
    items = refs("v2", tmp_path, Options(cameras=()))
    counts = bytes_read(monkeypatch, lambda: v2.read(items[20]))
    assert "camera_image" not in counts
    file = root / "lidar" / f"{toy.SEGMENT}.parquet"
    footer = 8 + int.from_bytes(file.read_bytes()[-8:-4], "little")
    assert counts["lidar"] - footer < 0.3 * file.stat().st_size  # keys of all groups, pixels of one of forty


@pytest.mark.parametrize("component", v2._REQUIRED + v2._OPTIONAL)
def test_files_that_vanish(tmp_path: Path, component: str) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(n) for n in range(2)])
    (ref, _) = refs("v2", tmp_path)
    (root / component / f"{toy.SEGMENT}.parquet").unlink()
    with pytest.raises(RawDataError, match="file is missing"):
        v2.read(ref)


def test_a_split_without_its_poses_is_missing(tmp_path: Path) -> None:
    scene_of("v2", tmp_path, [toy.toy_frame(0)])
    for file in (tmp_path / "training" / "vehicle_pose").iterdir():
        file.unlink()
    (tmp_path / "training" / "vehicle_pose").rmdir()
    (item,) = planned("v2", tmp_path)
    assert isinstance(item, Missing) and "vehicle_pose" in item.reason
