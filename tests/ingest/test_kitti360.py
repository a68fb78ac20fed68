"""KITTI-360: generated drives for the rules, the real calibration for the numbers."""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.fisheye_yaml import parse_fisheye
from brickyard.ingest.kitti.kitti360 import SOURCE, Options
from brickyard.ingest.kitti.kitti360_rig import read_rig
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.cameras import project
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

DRIVE = "2013_05_28_drive_0000_sync"
TURN = 0.1  # of the rectified camera 0 about its y
C, S = math.cos(TURN), math.sin(TURN)
FISHEYE = """%YAML:1.0
---
model_type: MEI
camera_name: image_02
image_width: 70
image_height: 72
mirror_parameters:
   xi: 2.2134047507854890e+00
distortion_parameters:
   k1: 1.6798235660113681e-02
   k2: 1.6548773243373522e+00
   p1: 4.2223943394772046e-04
   p2: 4.2462134260997584e-04
projection_parameters:
   gamma1: 6.6e+01
   gamma2: 6.5e+01
   u0: 3.5e+01
   v0: 3.6e+01
"""
CALIBRATION = {
    "calib_cam_to_pose.txt": "image_00: 0 0 1 1.5 1 0 0 0 0 1 0 -0.6\nimage_01: 0 0 1 1.5 1 0 0 0.6 0 1 0 -0.6\n"
    "image_02: 1 0 0 0.7 0 0 -1 -0.15 0 1 0 -1.07\nimage_03: -1 0 0 0.7 0 0 1 0.75 0 1 0 -1.07\n",
    "calib_cam_to_velo.txt": "0 0 1 0.8 -1 0 0 0.3 0 -1 0 -0.2",
    "perspective.txt": f"calib_time: 09-Jan-2014\nS_rect_00: 124 37\nR_rect_00: {C} 0 {S} 0 1 0 {-S} 0 {C}\n"
    "P_rect_00: 70 0 60 0 0 70 20 0 0 0 1 0\nS_rect_01: 124 37\nR_rect_01: 1 0 0 0 1 0 0 0 1\n"
    "P_rect_01: 70 0 60 -42 0 70 20 0 0 0 1 0\n",
    "image_02.yaml": FISHEYE,
    "image_03.yaml": FISHEYE.replace("image_02", "image_03"),
}
FAIL = partial(RawDataError, dataset="kitti360", path="image_02.yaml")


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform((-40, -40, -2, 0), (40, 40, 2, 1), (30, 4)).astype("<f4")


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def write_drive(root: Path, frames: int = 4, leave_out: tuple[str, ...] = (), drive: str = DRIVE) -> None:
    """A drive with poses for all frames but the first; files (from the root on) in `leave_out` are not written."""
    rows = [f"{frame} 1 0 0 {1000 + frame} 0 -1 0 2000 0 0 -1 115\n" for frame in range(1, frames)]
    payloads: dict[str, bytes] = {f"calibration/{name}": text.encode() for name, text in CALIBRATION.items()}
    payloads[f"data_poses/{drive}/poses.txt"] = "".join(rows).encode()
    times = "".join(f"2013-05-28 08:46:02.{100 * frame:03d}000001\n" for frame in range(frames)).encode()
    payloads[f"data_3d_raw/{drive}/velodyne_points/timestamps.txt"] = times
    for camera, folder, size in (("image_00", "data_rect", (124, 37)), ("image_02", "data_rgb", (70, 72))):
        payloads[f"data_2d_raw/{drive}/{camera}/timestamps.txt"] = times
        for frame in range(frames):
            payloads[f"data_2d_raw/{drive}/{camera}/{folder}/{frame:010d}.png"] = png(*size)
    for frame in range(frames):
        payloads[f"data_3d_raw/{drive}/velodyne_points/data/{frame:010d}.bin"] = scan(frame).tobytes()
    for path, data in payloads.items():
        if path not in leave_out:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read(item: SceneRef | Missing) -> Scene:
    assert isinstance(item, SceneRef), item
    return SOURCE.read(item)


def test_scene(tmp_path: Path) -> None:
    """Poses and cameras worked out by hand for a rig of right angles (IMU: x forward, y right, z down)."""
    write_drive(tmp_path)
    item = planned(tmp_path)[1]
    assert isinstance(item, SceneRef) and item.scene_id == f"{DRIVE}/0000000002"
    scene = SOURCE.read(item)
    assert scene.points is not None and not scene.dropped
    np.testing.assert_array_equal(scene.points.xyz, scan(2)[:, :3])
    expected = np.eye(4)
    expected[:3, 3] = (1002.7, 1999.7, 115.8)
    np.testing.assert_allclose(scene.world_from_scene, expected, rtol=0, atol=1e-9)
    ahead, left = scene.views
    assert (ahead.name, ahead.camera_model, ahead.distortion) == ("image_00", "pinhole", ())
    assert (left.name, left.camera_model, left.width, left.height) == ("image_02", "mei", 70, 72)
    xi_k1_k2 = (2.213404750785489, 1.6798235660113681e-02, 1.6548773243373522)
    assert left.distortion == (*xi_k1_k2, 4.2223943394772046e-04, 4.2462134260997584e-04)
    np.testing.assert_array_equal(left.intrinsics, [[66, 0, 35], [0, 65, 36], [0, 0, 1]])
    assert ahead.scene_from_camera is not None and left.scene_from_camera is not None
    np.testing.assert_allclose(ahead.scene_from_camera[:3, 2:], [[C, 0.8], [S, 0.3], [0, -0.2]], rtol=0, atol=1e-12)
    fisheye = [[1, 0, 0, 0], [0, 0, 1, 0.45], [0, -1, 0, 0.27]]
    np.testing.assert_allclose(left.scene_from_camera[:3], fisheye, rtol=0, atol=1e-12)
    assert scene.identity.timestamp_ns == 1_369_730_762_200_000_001 == left.timestamp_ns
    assert (scene.identity.sequence, scene.identity.split) == (DRIVE, "train")
    assert [s.path for s in scene.identity.sources] == sorted(item.files.values())


def test_frames_without_a_pose(tmp_path: Path) -> None:
    write_drive(tmp_path)
    assert [item.scene_id[-1] for item in planned(tmp_path)] == ["1", "2", "3"]
    items = planned(tmp_path, Options(require_pose=False))
    assert [item.scene_id[-1] for item in items] == ["0", "1", "2", "3"]
    scene = read(items[0])
    assert scene.dropped == {"no pose": 1}
    np.testing.assert_array_equal(scene.world_from_scene, np.eye(4))
    assert not read(items[1]).dropped
    (tmp_path / "data_poses" / DRIVE / "poses.txt").unlink()
    assert len(planned(tmp_path, Options(require_pose=False))) == 4
    lost = planned(tmp_path)
    assert [item.scene_id for item in lost] == [f"{DRIVE}/{frame:010d}" for frame in range(4)]
    assert all(isinstance(item, Missing) and "poses.txt: the poses are missing" in item.reason for item in lost)


def test_poses_are_joined_by_number_not_by_line(tmp_path: Path) -> None:
    write_drive(tmp_path)
    file = tmp_path / "data_poses" / DRIVE / "poses.txt"
    first, second, third = file.read_text().splitlines(keepends=True)
    file.write_text(third + first)
    found = {item.scene_id[-1]: read(item).world_from_scene[0, 3] for item in planned(tmp_path)}
    assert found == {"1": pytest.approx(1001.7), "3": pytest.approx(1003.7)}
    items = planned(tmp_path)
    file.write_text(first + third)
    with pytest.raises(RawDataError, match=r"not the pose of frame 1"):
        read(items[0])
    for text, problem in ((first + first, "line 2: frame 1 is given twice"), ("one" + second, "no frame number")):
        file.write_text(text)
        lost = planned(tmp_path)
        assert len(lost) == 4 and all(isinstance(item, Missing) and problem in item.reason for item in lost)
    file.write_text(first + second.replace("-1 0", "1 0", 1))
    good, bad = planned(tmp_path)
    read(good)
    with pytest.raises(RawDataError, match=r"poses.txt line 2: the rotation of the pose is not orthonormal"):
        read(bad)


def test_what_is_absent(tmp_path: Path) -> None:
    velodyne, photos = f"data_3d_raw/{DRIVE}/velodyne_points/data", f"data_2d_raw/{DRIVE}"
    write_drive(tmp_path, leave_out=(f"{velodyne}/0000000001.bin", f"{photos}/image_02/data_rgb/0000000002.png"))
    missing, partly, whole = planned(tmp_path)
    assert isinstance(missing, Missing) and missing.scene_id == f"{DRIVE}/0000000001" and "scan" in missing.reason
    scene = read(partly)
    assert scene.dropped == {"missing image image_02": 1} and [v.name for v in scene.views] == ["image_00"]
    assert len(read(whole).views) == 2
    other = "2013_05_28_drive_0002_sync"
    (tmp_path / "data_2d_raw" / other).mkdir()
    *_, scanless = planned(tmp_path)
    assert isinstance(scanless, Missing) and scanless.scene_id == other and "no scans" in scanless.reason


def test_damaged_calibration_costs_the_drives_that_need_it(tmp_path: Path) -> None:
    write_drive(tmp_path)
    (tmp_path / "calibration" / "image_03.yaml").unlink()
    assert len(planned(tmp_path)) == 3  # no drive has images of that camera
    (tmp_path / "calibration" / "image_02.yaml").write_text(FISHEYE.replace("MEI", "PINHOLE"))
    lost = planned(tmp_path)
    assert len(lost) == 4  # a count of quarantined scenes is one of frames
    assert all(isinstance(i, Missing) and "image_02.yaml line 3: model_type is PINHOLE" in i.reason for i in lost)
    assert "this costs all 4 frames" in getattr(lost[0], "reason", "")
    assert len(planned(tmp_path, Options(cameras=("image_00",)))) == 3
    (tmp_path / "calibration" / "calib_cam_to_velo.txt").write_text("0 0 1 0.8 1 0 0 0.3 0 -1 0 -0.2")
    first, *_ = planned(tmp_path, Options(cameras=("image_00",)))
    assert isinstance(first, Missing) and "calib_cam_to_velo.txt line 1" in first.reason


def test_splits_and_options(tmp_path: Path) -> None:
    for number in ("0000", "0008", "0018", "0010", "0001"):
        write_drive(tmp_path, frames=2, drive=f"2013_05_28_drive_{number}_sync")
    found = {item.sequence[17:21]: item.split for item in planned(tmp_path) if isinstance(item, SceneRef)}
    assert found == {"0000": "train", "0001": "none", "0008": "test", "0010": "train", "0018": "test"}
    write_drive(tmp_path, frames=7)
    chosen = planned(tmp_path, Options(drives=(DRIVE,), cameras=("image_02",), every=3))
    assert [item.scene_id for item in chosen] == [f"{DRIVE}/0000000003", f"{DRIVE}/0000000006"]
    assert [view.name for view in read(chosen[0]).views] == ["image_02"]
    with pytest.raises(RecipeError, match=r"no such drive .*0099"):
        planned(tmp_path, Options(drives=("2013_05_28_drive_0099_sync",)))
    with pytest.raises(RecipeError, match="no KITTI-360 drives"):
        planned(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="at least 1"):
        Options(every=0)


def test_references_survive_alone(tmp_path: Path) -> None:
    write_drive(tmp_path)
    data = pickle.dumps(planned(tmp_path)[0])
    for table in (tmp_path / "calibration").iterdir():
        table.unlink()
    assert len(SOURCE.read(pickle.loads(data)).views) == 2  # noqa: S301 - our own bytes


def test_resized_images_do_not_fit_the_calibration(tmp_path: Path) -> None:
    write_drive(tmp_path)
    (tmp_path / "data_2d_raw" / DRIVE / "image_02/data_rgb/0000000001.png").write_bytes(png(35, 36))
    with pytest.raises(RawDataError, match="the image is 35x36, its calibration is for 70x72"):
        read(planned(tmp_path)[0])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("   xi: 2.2", "   xi: !!python/name:os.system 2.2", "line 8: .* is neither"),
        ("   xi: 2.2", "   xi: [2.2", "line 8: .* is neither"),
        ("   xi: 2.2", "   xi: *x2.2", "line 8: .* is neither"),
        ("   xi: 2.2", "   xi: -2.2", "expected 0..100"),
        ("xi: 2.2134047507854890e+00", "xi: nan", "mirror_parameters.xi is nan, expected 0..100"),
        ("xi: 2.2134047507854890e+00", "xi: many", "'many', expected a number"),
        ("   k1", "   k2", "line 11: distortion_parameters.k2 is given twice"),
        ("mirror_parameters:\n", "", "line 7: xi is indented"),
        ("mirror_parameters:", "projection_parameters:", "no line for mirror_parameters.xi"),
        ("image_02", "image_03", "line 4: camera_name is image_03, expected image_02"),
        ("image_width: 70", "image_width: 7", "a 7x72 image"),
        ("%YAML:1.0", "#YAML:1.0", "line 1"),
    ],
)
def test_the_yaml_grammar_is_narrow(old: str, new: str, problem: str) -> None:
    assert parse_fisheye(FISHEYE.encode(), "image_02", FAIL).size == (70, 72)
    with pytest.raises(RawDataError, match=problem):
        parse_fisheye(FISHEYE.replace(old, new, 1).encode(), "image_02", FAIL)


@given(noise=st.binary(max_size=60), place=st.integers(0, len(FISHEYE)))
def test_any_yaml_parses_or_is_refused(noise: bytes, place: int) -> None:
    data = FISHEYE.encode()
    try:
        found = parse_fisheye(data[:place] + noise + data[place + len(noise) :], "image_02", FAIL)
    except RawDataError:
        return
    assert np.isfinite(found.intrinsics).all() and np.isfinite(found.distortion).all()


CLASSES = np.array([[7, 26], [23, 0]], np.uint8).repeat(19, 0)[:37].repeat(62, 1)
OBJECTS = (CLASSES.astype(np.uint16) * 1000 + (CLASSES == 26) * 7).astype(np.uint16)


def write_labels(root: Path, frames: int) -> None:
    """Label images of camera 0 and an accumulated cloud of 40 points."""
    for frame in range(1, frames):
        for kind, pixels in (("semantic", CLASSES), ("instance", OBJECTS)):
            target = root / "data_2d_semantics/train" / DRIVE / "image_00" / kind / f"{frame:010d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
    target = root / "data_3d_semantics/train" / DRIVE / "static/0000000001_0000000009.ply"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(cloud(40))


def cloud(count: int) -> bytes:
    kinds = [(a, "<f4", "float") for a in "xyz"] + [(c, "u1", "uchar") for c in ("red", "green", "blue")]
    kinds += [("semantic", "<i4", "int"), ("instance", "<i4", "int"), ("visible", "u1", "uchar")]
    table = np.zeros(count, [(name, kind) for name, kind, _ in kinds])
    table["x"], table["y"], table["z"] = 1000 + np.arange(count), 2000.25, 115
    table["semantic"], table["instance"], table["red"] = 26, 26007, np.arange(count)
    properties = "".join(f"property {word} {name}\n" for name, _, word in kinds)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, Options(require_pose=False)),
        (1, Options(clips=ClipOptions(), interpolate=3)),
        (2, Options(scenes="windows", window_views=1)),
    ],
)
def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path, seed: int, options: Options) -> None:
    write_drive(tmp_path, frames=4)
    write_labels(tmp_path, frames=4)
    poses = tmp_path / "data_poses" / DRIVE / "poses.txt"
    first, _, third = poses.read_text().splitlines(keepends=True)
    poses.write_text(first + third)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    found = assert_survives(SOURCE, tmp_path, files, options=options, count=700, seed=seed)
    assert min(found.scenes, found.errors + found.missing) > 70 and found.slowest_s < 1


def test_clips(tmp_path: Path) -> None:
    """Both kinds of cameras, no scans; the car drives a metre a frame, and frame 0 has no pose."""
    lost = tuple(f"data_3d_raw/{DRIVE}/velodyne_points/data/{frame:010d}.bin" for frame in range(4))
    write_drive(tmp_path, leave_out=lost)
    clips = ClipOptions()
    ahead, second, left, _ = planned(tmp_path, Options(clips=clips))
    assert isinstance(second, Missing) and second.scene_id == f"{DRIVE}/image_01"
    for item, model in ((ahead, "pinhole"), (left, "mei")):
        scene = read(item)
        assert scene.points is None and [view.camera_model for view in scene.views] == [model] * 3
        places = np.array([view.scene_from_camera[:3, 3] for view in scene.views])  # type: ignore[index] # all posed
        np.testing.assert_allclose(np.diff(places, axis=0), [[1, 0, 0]] * 2, atol=1e-9)
        assert scene.identity.split == "train" and scene.views[0].timestamp_ns == scene.identity.timestamp_ns
        np.testing.assert_allclose(scene.world_from_scene[:3, 3], (1001.7, 1999.7, 115.8), atol=1e-9)
    whole = read(planned(tmp_path, Options(clips=clips, cameras=("image_02",), require_pose=False))[0])
    assert len(whole.views) == 4 and whole.dropped == {"no pose": 1} and whole.views[0].scene_from_camera is None
    np.testing.assert_allclose(whole.world_from_scene[:3, 3], (1001.7, 1999.7, 115.8), atol=1e-9)
    (tmp_path / "data_poses" / DRIVE / "poses.txt").unlink()
    none = read(planned(tmp_path, Options(clips=clips, cameras=("image_02",), require_pose=False))[0])
    assert none.dropped == {"no pose": 4} and not any(view.scene_from_camera is not None for view in none.views)


def test_interpolation_is_asked_for_and_bounded(tmp_path: Path) -> None:
    """Halfway between two poses a metre and a right angle apart: half a metre, half the angle."""
    write_drive(tmp_path, frames=7)
    rows = (
        "1 1 0 0 1000 0 -1 0 2000 0 0 -1 115\n3 0 1 0 1002 1 0 0 2000 0 0 -1 115\n6 0 1 0 1009 1 0 0 2000 0 0 -1 115\n"
    )
    (tmp_path / "data_poses" / DRIVE / "poses.txt").write_text(rows)
    assert [item.scene_id[-1] for item in planned(tmp_path, Options(interpolate=1))] == ["1", "2", "3", "6"]
    assert [item.scene_id[-1] for item in planned(tmp_path, Options(interpolate=2))] == ["1", "2", "3", "4", "5", "6"]
    scene = read(planned(tmp_path, Options(interpolate=1))[1])
    assert scene.dropped == {"interpolated pose": 1}
    imu = scene.world_from_scene @ np.linalg.inv(read_rig(Store(tmp_path), ("image_00",), "kitti360")["imu_from_velo"])
    h = math.sqrt(0.5)
    np.testing.assert_allclose(imu[:3], [[h, h, 0, 1001], [h, -h, 0, 2000], [0, 0, -1, 115]], atol=1e-9)
    with pytest.raises(RecipeError, match="interpolate must be"):
        Options(interpolate=-1)


def test_label_images(tmp_path: Path) -> None:
    write_drive(tmp_path)
    write_labels(tmp_path, frames=3)
    one, two, three = planned(tmp_path)
    view = read(one).views[0]
    assert view.instance is not None and set(np.unique(view.instance)) == {0, 26007}
    assert np.unique(view.semantic["kitti360_19"]).tolist() == [-1, 0, 10, 13]
    assert read(three).dropped == {"missing labels image_00": 1}
    file = tmp_path / "data_2d_semantics/train" / DRIVE / "image_00/semantic/0000000002.png"
    coloured = np.zeros((37, 124, 3), np.uint8)
    for pixels, problem in ((CLASSES[:, :60], "a 60x37 PNG of 8 bits"), (coloured, "8 bits and kind rgb")):
        Image.fromarray(pixels).save(file)
        with pytest.raises(RawDataError, match=problem):
            read(two)
    assert not read(planned(tmp_path, Options(labels=False))[1]).views[0].semantic


def test_windows(tmp_path: Path) -> None:
    write_drive(tmp_path)
    options = Options(scenes="windows", window_views=2)
    with pytest.raises(RecipeError, match="no accumulated clouds"):
        planned(tmp_path, options)
    write_labels(tmp_path, frames=4)
    (item,) = planned(tmp_path, options)
    scene = read(item)
    assert scene.points is not None and len(scene.points) == 40 and scene.identity.split == "train"
    np.testing.assert_array_equal(scene.world_from_scene[:3, 3], (1020, 2000, 115))
    np.testing.assert_array_equal(scene.points.xyz[5], (-15, 0.25, 0))
    assert (scene.points.semantic["kitti360_19"] == 13).all() and (scene.points.instance == 26007).all()
    assert [(v.name, v.timestamp_ns) for v in scene.views[::2]] == [
        ("image_00", 1_369_730_762_100_000_001), ("image_00", 1_369_730_762_300_000_001)
    ]  # fmt: skip
    first = scene.views[0].scene_from_camera
    assert first is not None  # the rectified camera at the velodyne's (0.8, 0.3, -0.2), whose pose is known
    np.testing.assert_allclose(first[:3, 3] + (1020, 2000, 115), (1002.5, 2000.0, 115.6), atol=1e-9)
    lists = tmp_path / "data_3d_semantics/train/2013_05_28_drive_val.txt"
    assert isinstance(item, SceneRef)
    lists.write_text(item.files["points"] + "\n")
    assert read(planned(tmp_path, options)[0]).identity.split == "val"
    file = tmp_path / item.files["points"]
    good = file.read_bytes()
    for data, problem in (
        (good[:-1], "40 points of 24 bytes are declared"),
        (good.replace(b"vertex 40", b"vertex 41"), "41 points"),
        (good.replace(b"float x", b"float q"), "no usable x"),
        (good.replace(b"format binary_little", b"format binary_big"), "no binary little-endian PLY"),
        (good.replace(b"property uchar red", b"property list uchar int red"), "line 7"),
    ):
        file.write_bytes(data)
        with pytest.raises(RawDataError, match=problem):
            read(item)
    with pytest.raises(RecipeError, match="do not go with"):
        Options(scenes="windows", clips=ClipOptions())


def rows(file: Path) -> dict[str, np.ndarray]:
    """An independent reading of `key: numbers` and of numbers alone, as 4x4 where there are twelve."""
    found = {}
    for line in file.read_text().splitlines():
        key, _, text = line.rpartition(":")
        values = np.array(text.split(), float)
        found[key] = np.vstack([values.reshape(3, 4), (0, 0, 0, 1)]) if len(values) == 12 else values
    return found


def real_view(samples: Path, camera: str) -> View:
    rig = read_rig(Store(samples / "kitti" / "kitti360"), (camera,), "kitti360")["cameras"][camera]
    return View(
        name=camera, image=b"-", image_format="png", width=rig["size"][0], height=rig["size"][1],
        camera_model=rig["model"], intrinsics=np.array(rig["intrinsics"]), distortion=tuple(rig["distortion"]),
        scene_from_camera=np.array(rig["scene_from_camera"]),
    )  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("tangential", [False, True])
@pytest.mark.parametrize("camera", ["image_02", "image_03"])
def test_real_fisheye_projection(samples: Path, camera: str, tangential: bool) -> None:
    """The whole chain from velodyne to fisheye pixel, written out once more from the files' text."""
    folder = samples / "kitti" / "kitti360" / "calibration"
    view = real_view(samples, camera)
    if not tangential:
        view = replace(view, distortion=(*view.distortion[:3], 0.0, 0.0))
    lines = [line.split(": ") for line in (folder / f"{camera}.yaml").read_text().splitlines() if ": " in line]
    c = {key.strip(): float(word) for key, word in lines if key not in ("model_type", "camera_name")}
    cam_to_pose = rows(folder / "calib_cam_to_pose.txt")
    cam_to_velo = rows(folder / "calib_cam_to_velo.txt")[""]
    chain = np.linalg.inv(cam_to_pose[camera]) @ cam_to_pose["image_00"] @ np.linalg.inv(cam_to_velo)

    velo = np.random.default_rng(1).uniform((-60, -60, -3), (60, 60, 5), (20_000, 3))
    x, y, z = (np.c_[velo, np.ones(len(velo))] @ chain.T)[:, :3].T
    norm = np.sqrt(x * x + y * y + z * z)
    mx, my = x / norm / (z / norm + c["xi"]), y / norm / (z / norm + c["xi"])
    r2 = mx**2 + my**2
    radial = 1 + c["k1"] * r2 + c["k2"] * r2**2
    dx, dy = mx * radial, my * radial
    if tangential:
        dx += 2 * c["p1"] * mx * my + c["p2"] * (r2 + 2 * mx**2)
        dy += c["p1"] * (r2 + 2 * my**2) + 2 * c["p2"] * mx * my
    expected = np.c_[c["gamma1"] * dx + c["u0"], c["gamma2"] * dy + c["v0"]]

    found = project(velo, view)
    imaged = np.isfinite(found.uv).all(axis=1)
    np.testing.assert_array_equal(imaged, z / norm > -1 / c["xi"])  # no fold: k1, k2 > 0
    np.testing.assert_allclose(found.uv[imaged], expected[imaged], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.depth, z, rtol=0, atol=1e-7)
    inside = ((found.uv >= 0) & (found.uv < (view.width, view.height))).all(axis=1)
    assert 0.3 < inside.mean() < 0.7  # a fisheye sees about half of what is around the car


@pytest.mark.real
def test_real_rig(samples: Path) -> None:
    """Where the cameras look, in the velodyne's frame; the rectified pair against the baseline that P_rect_01 holds."""
    poses = {}
    for camera in ("image_00", "image_01", "image_02", "image_03"):
        view = real_view(samples, camera)
        assert view.scene_from_camera is not None
        poses[camera] = view.scene_from_camera
        down = view.scene_from_camera[:3, 1]
        assert down[2] < -0.99  # image rows run down
    for camera, axis in (("image_00", (1, 0, 0)), ("image_02", (0, 1, 0)), ("image_03", (0, -1, 0))):
        assert poses[camera][:3, 2] @ axis > 0.99, camera
    pair = np.linalg.inv(poses["image_00"]) @ poses["image_01"]
    projection = rows(samples / "kitti/kitti360/calibration/perspective.txt")["P_rect_01"]
    baseline = -projection[0, 3] / projection[0, 0]
    assert baseline == pytest.approx(0.5942, abs=1e-4)
    np.testing.assert_allclose(pair[:3, 3], (baseline, 0, 0), rtol=0, atol=2e-6)
    np.testing.assert_allclose(pair[:3, :3], np.eye(3), rtol=0, atol=2e-6)


@pytest.mark.real
def test_real_folder_has_images_only(samples: Path) -> None:
    """The sample drive has one fisheye image and neither scans nor poses: it is missing as a whole."""
    (whole,) = planned(samples / "kitti" / "kitti360")
    assert isinstance(whole, Missing) and "no scans" in whole.reason
