"""Waymo in both releases: the geometry against scalar loops, keys and types, damage of every kind."""

from __future__ import annotations

import contextlib
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.ingest.waymo_toy as toy
from ingest.source import Missing, SceneRef
from ingest.waymo import v1, v2
from ingest.waymo.frame import LASERS, Options
from ingest.waymo.range_image import euler_rotation
from ingest.waymo.tfrecord import crc32c, masked_crc
from ingest.waymo.wire import Message, WireError, inflate, unpack_varints
from shards.errors import RawDataError, RecipeError
from shards.scene import UNLABELLED, Scene
from shards.storage import Store
from shards.taxonomy import taxonomy

BOTH = pytest.mark.parametrize("release", ["v1", "v2"])
SOURCES = {"v1": v1.SOURCE, "v2": v2.SOURCE}


def write(release: str, root: Path, frames: list[toy.ToyFrame]) -> Path:
    return (toy.write_v1 if release == "v1" else toy.write_v2)(root, frames)


def planned(release: str, root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCES[release].plan(Store(root), options or Options(cameras=("FRONT", "SIDE_LEFT"))))


def refs(release: str, root: Path, options: Options | None = None) -> list[SceneRef]:
    items = planned(release, root, options)
    assert all(isinstance(item, SceneRef) for item in items), items
    return [item for item in items if isinstance(item, SceneRef)]


def scene_of(release: str, root: Path, frames: list[toy.ToyFrame], options: Options | None = None) -> Scene:
    write(release, root, frames)
    return SOURCES[release].read(refs(release, root, options)[-1])


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
    turned = euler_rotation(np.array([[0, 0, np.pi / 2], [0, np.pi / 2, 0], [np.pi / 2, 0, 0]]))
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


# --- v1: framing, wire format -----------------------------------------------------------------------------------------


def test_crc_vector() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9000), st.integers(0, 1 << 32))
def test_crc_of_any_length(length: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(length)
    assert masked_crc(data) == toy.slow_crc(data)


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1)))
def test_packed_integers(values: list[int]) -> None:
    packed = b"".join(toy.varint(value) for value in values)
    assert unpack_varints(packed).tolist() == [value & (1 << 64) - 1 for value in values]
    for data in (toy.put(3, packed), toy.repeat(3, values)):
        assert Message(memoryview(data)).integers(3).tolist() == values


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        unpack_varints(data)
    with contextlib.suppress(WireError):
        message = Message(memoryview(data))
        for decode in (message.doubles, message.integers, message.floats, message.integer, message.double):
            for field in range(4):
                with contextlib.suppress(WireError):
                    decode(field)


def test_packed_doubles_and_bombs() -> None:
    values = [0.5, -2.25]
    assert Message(memoryview(toy.put(2, np.array(values).tobytes()))).doubles(2).tolist() == values
    assert Message(memoryview(toy.repeat(2, values))).doubles(2).tolist() == values
    with pytest.raises(WireError, match="more than 1000 bytes"):
        inflate(memoryview(toy.zlib.compress(bytes(1 << 20))), 1000, "bomb")


def test_plan_v1_reads_only_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    lengths = []
    original = Store.read_range
    monkeypatch.setattr(
        Store, "read_range", lambda s, n, o, count: (lengths.append(count), original(s, n, o, count))[1]
    )
    assert len(refs("v1", tmp_path)) == 3 and lengths == [12, 12, 12]


def test_truncated_segment(tmp_path: Path) -> None:
    file = toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    whole = file.read_bytes()
    last = refs("v1", tmp_path)[-1]
    for size in (len(whole) - 1, last.details["offset"] + 5):
        file.write_bytes(whole[:size])
        items = planned("v1", tmp_path)
        assert [type(item) for item in items] == [SceneRef, SceneRef, Missing]
        assert isinstance(items[2], Missing) and "truncated" in items[2].reason and items[2].scene_id == last.scene_id
    with pytest.raises(RawDataError, match="file ends after"):
        v1.read(last)
    file.write_bytes(b"")
    assert isinstance(planned("v1", tmp_path)[0], Missing)


def test_bad_checksums(tmp_path: Path) -> None:
    file = toy.write_v1(tmp_path, [toy.toy_frame(n) for n in range(3)])
    whole, items = file.read_bytes(), refs("v1", tmp_path)
    offset, length = items[1].details["offset"], items[1].details["length"]

    def flip(place: int) -> None:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])

    for place in (offset + 12 + length // 2, offset + 12 + length + 2):
        flip(place)
        with pytest.raises(RawDataError, match="bad checksum of the record's payload") as caught:
            v1.read(items[1])
        assert caught.value.offset == offset
        v1.read(items[2])  # the others are still there
    flip(offset + 1)
    with pytest.raises(RawDataError, match="its header has a bad checksum"):
        v1.read(items[1])
    found = planned("v1", tmp_path)
    assert [type(item) for item in found] == [SceneRef, Missing] and "later frames cannot be found" in found[1].reason


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Flipped, cut, extended, and with a run of bytes overwritten."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        place = int(rng.integers(len(data)))
        tail = int(rng.integers(1, 9))
        found.append((
            data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :],
            data[:place],
            data[:place] + rng.bytes(tail) + data[place:],
            data[:place] + rng.bytes(tail) + data[place + tail :],
            data[:place] + b"\xff" * tail + data[place + tail :],
        )[number % 5])  # fmt: skip
    return found


def survives(read: Callable[[], Scene]) -> bool:
    """Whether a read gave a Scene; any error but `RawDataError` fails the test."""
    try:
        read()
    except RawDataError:
        return False
    return True


def test_damaged_messages_with_good_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums keep damage away from the parser, so here every mutation gets a right one."""
    file = toy.write_v1(tmp_path, [toy.toy_frame(0)])
    message = toy.payload(toy.toy_frame(0))
    monkeypatch.setattr(toy, "slow_crc", masked_crc)  # proven equal above; 100 times faster
    outcomes = []
    head, tail = message[:2500], message[2500:]  # calibrations and poses, then pictures and matrices
    for data in (*mutations(message, 100, seed=5), *(part + tail for part in mutations(head, 150, seed=6)), b""):
        file.write_bytes(toy.record(data))
        outcomes.append(survives(lambda: v1.read(refs("v1", tmp_path)[0])))
    assert 20 < sum(outcomes) < len(outcomes) - 50


# --- v2: Parquet ------------------------------------------------------------------------------------------------------


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


COMPONENTS = ("vehicle_pose", "lidar", "lidar_calibration", "lidar_pose", "lidar_segmentation", "camera_image",
              "camera_calibration")  # fmt: skip


@pytest.mark.parametrize("component", COMPONENTS)
def test_damaged_parquet(tmp_path: Path, component: str) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(n) for n in range(2)], compression="zstd")
    (ref, _) = refs("v2", tmp_path)
    file = root / component / f"{toy.SEGMENT}.parquet"
    whole = file.read_bytes()
    outcomes = []
    for data in mutations(whole, 80, seed=len(component)):
        file.write_bytes(data)
        outcomes.append(survives(lambda: v2.read(ref)))
        planned("v2", tmp_path)
    assert not all(outcomes)
    file.unlink()
    with pytest.raises(RawDataError, match="file is missing"):
        v2.read(ref)
