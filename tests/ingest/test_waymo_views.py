"""Waymo's cameras and echoes in both releases: rolling shutters, panoptic labels, returns, splits; and clips."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tests.ingest.waymo_toy as toy
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok, scene_digest
from brickyard.ingest.source import Missing
from brickyard.ingest.waymo import v1
from brickyard.ingest.waymo.frame import Options
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import UNLABELLED, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.waymo_reading import SOURCES, planned, refs, scene_of, write

BOTH = pytest.mark.parametrize("release", ["v1", "v2"])
CAMERAS = ("FRONT", "SIDE_LEFT")


def same(one: Scene, two: Scene) -> bool:
    """Equal in every value but who they are."""
    return scene_digest(replace(one, identity=two.identity)) == scene_digest(two)


@BOTH
def test_lines_are_exposed_from_where_the_camera_was(tmp_path: Path, release: str) -> None:
    """The drive is a steady one, so the pose of any line is known: that of the vehicle at the line's time."""
    frame = toy.toy_frame(3)
    scene = scene_of(release, tmp_path, [frame])
    for view, number, direction in zip(scene.views, (1, 4), ("right", "up"), strict=True):
        shutter = view.rolling_shutter
        assert shutter is not None and view.scene_from_camera is not None
        assert shutter.direction == direction and abs(shutter.readout_s - toy.READOUT) < 1e-6
        middle, late = frame.time + 0.01 * number, 0.02
        before, after = (
            np.linalg.inv(scene.world_from_scene) @ toy.pose_at(middle + t) @ toy.CAMERA_MOUNTS[number]
            for t in (-late, late)
        )
        np.testing.assert_allclose((after - before)[:3, 3] / (2 * late), shutter.velocity, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(shutter.angular_velocity), toy.TURN, atol=1e-9)
        x, y, z = shutter.angular_velocity
        slope = (after - before)[:3, :3] / (2 * late)
        turning = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ (after + before)[:3, :3] / 2
        np.testing.assert_allclose(slope, turning, atol=1e-4)
        still = np.linalg.norm(shutter.velocity - scene.world_from_scene[:3, :3].T @ (toy.SPEED, 0, 0))
        assert still > 0.3  # the mounting's lever arm adds its part of the turn


@BOTH
@pytest.mark.parametrize(("number", "expected"), [(5, None), (0, None), (1, "down"), (4, "left")])
def test_directions(
    tmp_path: Path, release: str, number: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(toy.DIRECTIONS, 1, number)
    shutter = scene_of(release, tmp_path, [toy.toy_frame(0)]).views[0].rolling_shutter
    assert (None if shutter is None else shutter.direction) == expected


@BOTH
def test_panoptic_labels(tmp_path: Path, release: str) -> None:
    frame = toy.toy_frame(1)
    front, left = scene_of(release, tmp_path, [frame]).views
    assert not front.semantic and front.instance is None
    raw = frame.panoptic[4] // toy.DIVISOR
    np.testing.assert_array_equal(left.semantic["waymo_camera28"], np.where(raw == 0, UNLABELLED, raw - 1))
    np.testing.assert_array_equal(left.instance, frame.panoptic[4] % toy.DIVISOR)
    found = taxonomy("waymo_camera28")
    assert found.from_raw == {raw: raw - 1 for raw in range(1, 29)}
    assert [found.classes[n] for n in (0, 1, 8, 19, 24, 27)] == [
        "ego_vehicle", "car", "pedestrian", "road", "sky", "static",
    ]  # fmt: skip


def wrong_label(how: str) -> bytes:
    buffer = io.BytesIO()
    if how == "size":
        return toy.png16(np.zeros((3, 3)))
    if how == "class":
        return toy.png16(np.full(toy.SIZE[::-1], 29 * toy.DIVISOR))
    if how == "mode":
        Image.new("RGB", toy.SIZE).save(buffer, "PNG")
        return buffer.getvalue()
    return toy.png16(np.ones(toy.SIZE[::-1]))[:-40] if how == "cut" else b"no picture"


@BOTH
@pytest.mark.parametrize("how", ["size", "class", "mode", "cut", "text"])
def test_labels_that_are_none(tmp_path: Path, release: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = wrong_label(how)
    monkeypatch.setattr(toy, "png16", lambda values: data)
    with pytest.raises(RawDataError, match="panoptic label of SIDE_LEFT"):
        scene_of(release, tmp_path, [toy.toy_frame(1)])


@BOTH
def test_echoes(tmp_path: Path, release: str) -> None:
    frame = toy.toy_frame(1)
    frame.images.pop((5, 2))  # REAR has no second range image: how many echoes there were is unknown
    points = scene_of(release, tmp_path / "both", [frame]).points
    assert points is not None and points.elongation is not None
    order = [key for laser in toy.SHAPES for key in ((laser, 1), (laser, 2)) if key in frame.images]
    filled = {key: frame.images[key][..., 0] > 0 for key in order}
    number = np.concatenate([np.full(filled[key].sum(), key[1]) for key in order])
    count = np.concatenate([
        np.where(filled[laser, 2][filled[laser, echo]], 2, 1) if (laser, 2) in filled
        else np.zeros(filled[laser, echo].sum())
        for laser, echo in order
    ])  # fmt: skip
    np.testing.assert_array_equal(points.return_number, number)
    np.testing.assert_array_equal(points.return_count, count)
    assert {(1, 0), (1, 1), (1, 2), (2, 2)} == set(zip(number.tolist(), count.tolist(), strict=True))
    np.testing.assert_array_equal(points.elongation, np.concatenate([frame.images[k][filled[k], 2] for k in order]))
    first = scene_of(release, tmp_path / "first", [frame], Options(returns=1)).points
    assert first is not None and first.return_count is None and set(np.unique(first.return_number)) == {1}


def test_both_releases_give_the_same_values(tmp_path: Path) -> None:
    frames = [toy.toy_frame(n) for n in range(3)]
    for options in (None, Options(cameras=("SIDE_LEFT",), clips=ClipOptions(frames=3))):
        one, two = (scene_of(release, tmp_path / release, frames, options) for release in ("v1", "v2"))
        assert same(one, two)


FOLDERS = {"training": "train", "validation": "val", "testing": "test", "domain_adaptation": "none",
           "domain_adaptation/validation": "none", "testing_3d_camera_only_detection": "test"}  # fmt: skip


@BOTH
@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_official_splits(tmp_path: Path, release: str, folder: str) -> None:
    (toy.write_v1 if release == "v1" else toy.write_v2)(tmp_path, [toy.toy_frame(0)], split=folder)
    (ref,) = refs(release, tmp_path)
    assert ref.split == FOLDERS[folder] and SOURCES[release].read(ref).identity.split == FOLDERS[folder]


@BOTH
def test_clips(tmp_path: Path, release: str) -> None:
    frames = [toy.toy_frame(n) for n in range(10)]
    frames[4].cameras = (4,)  # the front camera's picture is missing
    write(release, tmp_path, frames)
    items = refs(release, tmp_path, Options(cameras=CAMERAS, clips=ClipOptions(frames=6, overlap=2)))
    assert [item.scene_id.removeprefix(f"{toy.SEGMENT}/") for item in items] == [
        f"{camera}/clip-{n:03d}" for camera in CAMERAS for n in (0, 1)
    ]
    for item, number, first in zip(items, (1, 1, 4, 4), (0, 4, 0, 4), strict=True):
        scene = SOURCES[release].read(item)
        shown = [n for n in range(first, first + 6) if number in frames[n].cameras]
        assert scene.points is None and len(scene.views) == len(shown)
        assert scene.dropped == ({"missing image FRONT": 1} if number == 1 else {})
        mount = toy.CAMERA_MOUNTS[number] @ np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
        for view, n in zip(scene.views, shown, strict=True):
            middle = frames[n].time + 0.01 * number
            assert view.scene_from_camera is not None and view.rolling_shutter is not None
            found = scene.world_from_scene @ view.scene_from_camera
            np.testing.assert_allclose(found, toy.pose_at(middle) @ mount, atol=2e-5)
        start = scene.world_from_scene
        np.testing.assert_allclose(start, toy.pose_at(frames[shown[0]].time + 0.01 * number), atol=2e-5)
    every = refs(release, tmp_path, Options(cameras=CAMERAS[:1], clips=ClipOptions(rate_hz=5.0)))
    times = [view.timestamp_ns for view in SOURCES[release].read(every[0]).views]
    assert (np.diff(np.array(times)) // 10_000_000).tolist() == [20, 40, 20]  # frames 0 2 6 8; 4 has no picture


@BOTH
def test_too_short_for_a_clip(tmp_path: Path, release: str) -> None:
    write(release, tmp_path, [toy.toy_frame(0)])
    items = planned(release, tmp_path, Options(cameras=CAMERAS, clips=ClipOptions()))
    assert [type(item) for item in items] == [Missing, Missing] and "a clip needs 2" in str(items[0])
    with pytest.raises(RecipeError, match="at least one camera"):
        Options(cameras=(), clips=ClipOptions())
    frames = [toy.toy_frame(0), toy.toy_frame(1)]
    frames[1].cameras = (1,)
    write(release, tmp_path, frames)
    (ref,) = refs(release, tmp_path, Options(cameras=("SIDE_LEFT",), clips=ClipOptions()))
    with pytest.raises(RawDataError, match="1 of 2 frames have a picture of SIDE_LEFT"):
        SOURCES[release].read(ref)


def test_a_clip_holds_one_record_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 records of 1 MB each, of which the lasers are not looked at: far less than all of them is ever in memory."""
    monkeypatch.setattr(toy, "slow_crc", v1.masked_crc)
    message = toy.payload(toy.toy_frame(0)) + toy.put(5, toy.put(1, 7) + toy.put(2, bytes(1 << 20)))
    file = tmp_path / "training" / "segment-1_with_camera_labels.tfrecord"
    file.parent.mkdir()
    with file.open("wb") as out:
        for _ in range(40):
            out.write(toy.record(message))
    (ref,) = refs("v1", tmp_path, Options(cameras=("FRONT",), clips=ClipOptions()))
    v1.read(ref)
    tracemalloc.start()
    scene = v1.read(ref)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(scene.views) == 40 and peak < 12 << 20


def test_a_clip_of_v2_opens_only_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("v2", tmp_path, [toy.toy_frame(n) for n in range(4)])
    opened: set[str] = set()
    original = Store.read_range

    def watching(store: Store, name: str, *place: Any, **more: Any) -> bytes:
        opened.add(name.split("/")[1])
        return original(store, name, *place, **more)

    options = Options(cameras=("SIDE_LEFT",), clips=ClipOptions())
    monkeypatch.setattr(Store, "read_range", watching)
    (ref,) = refs("v2", tmp_path, options)
    assert opened == {"vehicle_pose"}
    opened.clear()
    scene = SOURCES["v2"].read(ref)
    assert opened == {"camera_image", "camera_calibration"}
    assert [file.path.split("/")[1] for file in scene.identity.sources] == ["camera_calibration", "camera_image"]


@BOTH
@pytest.mark.parametrize(
    "options",
    [Options(cameras=CAMERAS), Options(cameras=(), returns=1), Options(cameras=CAMERAS, clips=ClipOptions(frames=4))],
    ids=["frames", "points", "clips"],
)
def test_sources_keep_their_promises(tmp_path: Path, release: str, options: Any) -> None:
    write(release, tmp_path, [toy.toy_frame(n) for n in range(5)])
    assert_source_ok(SOURCES[release], str(tmp_path), options, scenes=2)


def test_planning_a_long_drive_opens_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 frames: 12 bytes a record in v1; one column of one small component in v2."""
    frame = toy.toy_frame(0, labelled=False)
    frames = [replace(frame, time=0.1 * n) for n in range(200)]
    monkeypatch.setattr(toy, "slow_crc", v1.masked_crc)
    read: dict[str, int] = {}
    original = Store.read_range

    def counting(store: Store, name: str, *place: Any, **more: Any) -> bytes:
        data = original(store, name, *place, **more)
        read[name] = read.get(name, 0) + len(data)
        return data

    for release in ("v1", "v2"):
        write(release, tmp_path / release, frames)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "read_range", counting)
            read.clear()
            assert len(refs(release, tmp_path / release)) == 200
        assert 0 < sum(read.values()) <= (12 * 200 if release == "v1" else 64 << 10), read
        assert release == "v1" or all("/vehicle_pose/" in name for name in read)
