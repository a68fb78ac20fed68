"""KITTI raw: generated drives for the rules, the real drive 0052 for the numbers."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.raw import SOURCE, Options
from brickyard.ingest.source import Missing, Notice, SceneRef, find_source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

DATE = "2011_09_26"
DRIVE = f"{DATE}_drive_0052_sync"
ROTATION = "0 -1 0 0 0 -1 1 0 0"
CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
R_rect_00: 1 0 0 0 1 0 0 0 1
S_rect_02: 124 37
P_rect_02: 70 0 60 4.5 0 70 20 -0.3 0 0 1 0.005
S_rect_03: 124 37
P_rect_03: 70 0 60 -33 0 70 20 2.3 0 0 1 0.003
"""


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform((1, -20, -2, 0), (40, 20, 2, 1), (30, 4)).astype("<f4")


def png(width: int = 124) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 37)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def write_drive(root: Path, frames: int = 4, leave_out: tuple[str, ...] = (), drive: str = DRIVE) -> Path:
    """A drive of `frames` frames; files whose name (from the drive on) is in `leave_out` are not written."""
    date, folder = root / DATE, root / DATE / drive
    write(date / "calib_cam_to_cam.txt", CAM_TO_CAM)
    write(date / "calib_velo_to_cam.txt", f"R: {ROTATION}\nT: -0.02 -0.06 -0.33\n")
    write(date / "calib_imu_to_velo.txt", "R: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n")
    times = "".join(f"2011-09-26 14:03:00.{100 * frame:03d}000001\n" for frame in range(frames))
    payloads: dict[str, bytes | str] = {
        f"{f}/timestamps.txt": times for f in ("velodyne_points", "image_02", "image_03")
    }
    for frame in range(frames):
        payloads[f"velodyne_points/data/{frame:010d}.bin"] = scan(frame).tobytes()
        payloads[f"oxts/data/{frame:010d}.txt"] = f"49.0 {8.4 + frame * 1e-5} 100 0 0 {0.1 * frame} " + "0 " * 24
        for camera in ("image_02", "image_03"):
            payloads[f"{camera}/data/{frame:010d}.png"] = png()
    for name, data in payloads.items():
        if name not in leave_out:
            write(folder / name, data)
    return folder


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read(item: SceneRef | Missing) -> Scene:
    assert isinstance(item, SceneRef)
    return SOURCE.read(item)


def test_entry_point() -> None:
    assert find_source("kitti_raw") is SOURCE


def test_frames_are_matched_by_number(tmp_path: Path) -> None:
    folder = write_drive(tmp_path, leave_out=("velodyne_points/data/0000000001.bin", "image_03/data/0000000002.png"))
    items = planned(tmp_path)
    assert [item.scene_id for item in items] == [f"{DRIVE}/{frame:010d}" for frame in range(4)]
    assert isinstance(items[1], Missing) and "its scan (velodyne_points) is absent" in items[1].reason
    scene = read(items[2])
    assert scene.points is not None
    np.testing.assert_array_equal(scene.points.xyz, scan(2)[:, :3])
    assert [v.name for v in scene.views] == ["image_02"] and scene.dropped == {"missing image image_03": 1}
    assert scene.identity.timestamp_ns == 1_317_045_780_200_000_001 == scene.views[0].timestamp_ns
    assert scene.identity.sequence == DRIVE and scene.identity.split == "none"
    assert scene.identity.licence == "CC-BY-NC-SA-3.0"
    assert [source.path for source in scene.identity.sources][
        -1
    ] == f"{DATE}/{DRIVE}/velodyne_points/data/0000000002.bin"
    reference = items[3]
    assert isinstance(reference, SceneRef)
    first_pose = folder / "oxts" / "data" / "0000000000.txt"
    own = [folder / f"{k}/data/{3:010d}.{s}" for k, s in (("velodyne_points", "bin"), ("image_02", "png"),
                                                         ("image_03", "png"), ("oxts", "txt"))]  # fmt: skip
    assert reference.bytes_estimate == sum(file.stat().st_size for file in [*own, first_pose])
    assert reference.points_estimate == 30


def test_references_survive_alone(tmp_path: Path) -> None:
    folder = write_drive(tmp_path)
    data = pickle.dumps(planned(tmp_path)[3])
    for table in (folder.parent / "calib_cam_to_cam.txt", folder / "velodyne_points" / "timestamps.txt"):
        table.unlink()
    scene = SOURCE.read(pickle.loads(data))  # noqa: S301 - our own bytes
    assert len(scene.views) == 2 and scene.identity.timestamp_ns is not None


def test_options_choose_drives_cameras_and_frames(tmp_path: Path) -> None:
    write_drive(tmp_path)
    write_drive(tmp_path, drive=f"{DATE}_drive_0001_sync")
    chosen = planned(tmp_path, Options(drives=(DRIVE,), cameras=("image_03",), every=3))
    assert [item.scene_id[-1] for item in chosen] == ["0", "3"]
    assert [view.name for view in read(chosen[1]).views] == ["image_03"]
    assert len(planned(tmp_path)) == 8
    with pytest.raises(RecipeError, match=r"no such drive .*0099"):
        planned(tmp_path, Options(drives=("2011_09_26_drive_0099_sync",)))
    with pytest.raises(RecipeError, match="at least 1"):
        Options(every=0)
    with pytest.raises(RecipeError, match="no KITTI raw drives"):
        planned(tmp_path / "nowhere")


def test_what_a_drive_does_not_promise(tmp_path: Path) -> None:
    write_drive(tmp_path)
    labels = f"{DATE}_drive_0001_sync"
    write(tmp_path / DATE / labels / "tracklet_labels.xml", "<xml/>")
    write(tmp_path / DATE / f"{DATE}_drive_0002_extract" / "velodyne_points" / "data" / "0000000000.txt", "1 2 3 4")
    notice, extract, *items = planned(tmp_path)
    assert isinstance(notice, Notice) and notice.scene_id == f"{DATE}/{labels}" and "passed over" in notice.reason
    assert isinstance(extract, Missing) and not isinstance(extract, Notice) and len(items) == 4
    assert extract.scene_id.endswith("_extract") and "_sync" in extract.reason
    (asked,) = planned(tmp_path, Options(drives=(labels,)))
    assert isinstance(asked, Missing) and "no scans and no images" in asked.reason


def test_missing_pose_and_blank_timestamps(tmp_path: Path) -> None:
    folder = write_drive(tmp_path, leave_out=("oxts/data/0000000001.txt",))
    write(folder / "velodyne_points" / "timestamps.txt", "2011-09-26 14:03:00.000000001\n\n\nlate\n")
    items = planned(tmp_path)
    assert isinstance(items[1], Missing) and "pose (oxts)" in items[1].reason
    assert read(items[2]).identity.timestamp_ns is None
    with pytest.raises(RawDataError, match=r"velodyne_points/timestamps.txt line 4: bad timestamp 'late'"):
        read(items[3])


def test_poses_move_the_velodyne_not_the_imu(tmp_path: Path) -> None:
    """The lidar sits at (0.8, -0.3, 0.8) of the IMU here, so it swings around it as the car turns."""
    write_drive(tmp_path)
    poses = [read(item).world_from_scene for item in planned(tmp_path)]
    scale = math.cos(math.radians(49))
    for frame, pose in enumerate(poses):
        yaw = 0.1 * frame
        east = scale * 6378137 * math.radians(8.4 + frame * 1e-5)
        lever = (0.8 * math.cos(yaw) + 0.3 * math.sin(yaw), 0.8 * math.sin(yaw) - 0.3 * math.cos(yaw), 0.8)
        assert abs(pose[0, 3] - east - lever[0]) < 1e-6 and abs(pose[2, 3] - 100 - lever[2]) < 1e-9
        assert abs(pose[1, 3] - poses[0][1, 3] - (lever[1] + 0.3)) < 1e-6
        assert abs(math.atan2(pose[1, 0], pose[0, 0]) - yaw) < 1e-12


def test_damaged_calibration_costs_its_date_only(tmp_path: Path) -> None:
    folder = write_drive(tmp_path)
    write_drive(tmp_path, drive=f"{DATE}_drive_0001_sync")
    other = write_drive(tmp_path / "other").parent
    other.rename(tmp_path / "2011_10_03")
    (tmp_path / "2011_10_03" / DRIVE).rename(tmp_path / "2011_10_03" / "2011_10_03_drive_0027_sync")
    file = folder.parent / "calib_velo_to_cam.txt"
    file.write_text(file.read_text().replace("0 -1 0 0", "0 1 0 0"))
    items = planned(tmp_path)
    lost, good = items[:8], items[8:]
    assert [item.scene_id for item in lost[3:5]] == [f"{DATE}_drive_0001_sync/0000000003", f"{DRIVE}/0000000000"]
    for item in lost:
        assert isinstance(item, Missing) and "this costs all 4 frames of" in item.reason
        assert f"{DATE}/calib_velo_to_cam.txt line 1: R: the rotation is not orthonormal" in item.reason
    assert len(good) == 4 and {read(item).identity.sequence for item in good} == {"2011_10_03_drive_0027_sync"}
    file.unlink()
    first, *_ = planned(tmp_path)
    assert isinstance(first, Missing)
    assert "calib_velo_to_cam.txt: the calibration is missing" in first.reason


def test_resized_images_do_not_fit_the_calibration(tmp_path: Path) -> None:
    folder = write_drive(tmp_path)
    write(folder / "image_02" / "data" / "0000000000.png", png(width=62))
    with pytest.raises(RawDataError, match="the image is 62x37, its calibration is for 124x37"):
        read(planned(tmp_path)[0])


def survivors(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(("seed", "options"), [(0, Options()), (1, Options(clips=ClipOptions()))])
def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path, seed: int, options: Options) -> None:
    write_drive(tmp_path, frames=2)
    found = assert_survives(SOURCE, tmp_path, survivors(tmp_path), options=options, count=1000, seed=seed)
    assert min(found.scenes, found.errors) > 100 and found.slowest_s < 1


def test_clips_need_no_scans_and_invent_no_poses(tmp_path: Path) -> None:
    """Seven images of which one has no pose: clips of four, the last view of one is the first of the next."""
    lost = [f"velodyne_points/data/{frame:010d}.bin" for frame in range(7)]
    write_drive(tmp_path, frames=7, leave_out=(*lost, "oxts/data/0000000002.txt", "image_03/data/0000000001.png"))
    options = Options(clips=ClipOptions(frames=4, overlap=1))
    items = planned(tmp_path, options)
    expected = [f"{DRIVE}/{camera}/clip-{k:03d}" for camera in ("image_02", "image_03") for k in (0, 1)]
    assert [item.scene_id for item in items] == expected
    first, second, third, _ = (read(item) for item in items)
    assert first.points is None and first.dropped == {"no pose": 1} and not second.dropped
    places = [None if v.scene_from_camera is None else v.scene_from_camera[0, 3] for v in first.views]
    scale = math.cos(math.radians(49)) * 6378137 * math.radians(1e-5)
    assert places[2] is None and len(first.views) == len(second.views) == 4
    assert places[3] is not None and places[0] is not None and places[3] - places[0] > 2.5 * scale
    assert [v.timestamp_ns for v in first.views][-1] == second.identity.timestamp_ns
    base = 1_317_045_780_000_000_001
    assert [v.timestamp_ns for v in third.views] == [base + k * 100_000_000 for k in (0, 2, 3, 4)][: len(third.views)]
    np.testing.assert_allclose(first.world_from_scene[:3, :3], np.eye(3), atol=1e-12)
    other = read(planned(tmp_path, Options(clips=ClipOptions(rate_hz=5.0), cameras=("image_02",)))[0])
    assert [v.timestamp_ns for v in other.views] == [base + k * 200_000_000 for k in range(4)]
    assert other.views[1].scene_from_camera is None
    (alone,) = planned(tmp_path, Options(clips=ClipOptions(), cameras=("image_03",), every=6, drives=(DRIVE,)))
    assert isinstance(alone, SceneRef) and len(read(alone).views) == 2
    (none,) = planned(tmp_path, Options(clips=ClipOptions(), cameras=("image_03",), every=7))
    assert isinstance(none, Missing) and none.scene_id == f"{DRIVE}/image_03" and "two images" in none.reason


def test_a_damaged_time_is_found_when_the_clip_is_read(tmp_path: Path) -> None:
    folder = write_drive(tmp_path, frames=3)
    write(folder / "image_02" / "timestamps.txt", "2011-09-26 14:03:00.1\nlate\n\n")
    left, right = planned(tmp_path, Options(clips=ClipOptions(rate_hz=10.0)))
    assert len(read(right).views) == 3
    with pytest.raises(RawDataError, match=r"image_02/timestamps.txt line 2: bad timestamp 'late'"):
        read(left)


@pytest.mark.real
def test_real_drive(samples: Path) -> None:
    root = samples / "kitti" / "raw"
    items = planned(root, Options(drives=(DRIVE,)))
    assert [type(item) for item in items] == [SceneRef, SceneRef, Missing, SceneRef]
    scene = read(items[3])
    raw = np.fromfile(root / DATE / DRIVE / "velodyne_points/data/0000000003.bin", "<f4").reshape(-1, 4)
    assert scene.points is not None
    np.testing.assert_array_equal(scene.points.xyz, raw[:, :3])

    rows: dict[str, np.ndarray] = {}
    keys = ("R", "T", "R_rect_00", "P_rect_02")
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        lines = [line.partition(":") for line in (root / DATE / name).read_text().splitlines()]
        rows |= {key: np.array(text.split(), float) for key, _, text in lines if key in keys}
    rectify, velo = np.eye(4), np.eye(4)
    rectify[:3, :3], velo[:3, :3], velo[:3, 3] = rows["R_rect_00"].reshape(3, 3), rows["R"].reshape(3, 3), rows["T"]
    homogeneous = np.c_[raw[:, :3].astype(np.float64), np.ones(len(raw))]
    official = homogeneous @ (rows["P_rect_02"].reshape(3, 4) @ rectify @ velo).T
    (view,) = scene.views
    assert view.scene_from_camera is not None and (view.name, view.width, view.height) == ("image_02", 1242, 375)
    ours = (homogeneous @ np.linalg.inv(view.scene_from_camera).T)[:, :3] @ view.intrinsics.T
    np.testing.assert_allclose(ours, official, rtol=0, atol=1e-8)
    pixel = ours[:, :2] / ours[:, 2:]
    seen = (ours[:, 2] > 0) & (pixel >= 0).all(axis=1) & (pixel < (view.width, view.height)).all(axis=1)
    assert 15_000 < seen.sum() < 25_000


@pytest.mark.real
def test_real_poses_agree_with_the_velocity(samples: Path) -> None:
    """Displacement between frames 0 and 3 against the packets' own east and north velocities."""
    root = samples / "kitti" / "raw"
    items = planned(root, Options(drives=(DRIVE,)))
    first, last = read(items[0]), read(items[3])
    packet = np.array((root / DATE / DRIVE / "oxts/data/0000000000.txt").read_text().split(), float)
    assert first.identity.timestamp_ns is not None and last.identity.timestamp_ns is not None
    seconds = (last.identity.timestamp_ns - first.identity.timestamp_ns) / 1e9
    assert seconds == pytest.approx(0.31047, abs=1e-9)
    moved = last.world_from_scene[:2, 3] - first.world_from_scene[:2, 3]
    north, east = packet[6], packet[7]
    np.testing.assert_allclose(moved, np.array((east, north)) * seconds, atol=0.05)
