"""The KITTI readers against pykitti and kitti360scripts, on simulated drives and on the real samples.

The devkits know nothing of our writers and readers, so a mistake that both of those share would show here.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pykitti
import pytest
import yaml
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti import kitti360, odometry, raw
from brickyard.ingest.kitti.kitti360_rig import read_rig
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, Source
from brickyard.shards.cameras import project
from brickyard.shards.scene import Float64, Identity, Points, Scene, View
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(
    kitti_frames=0, kitti_drives=1, kitti_drive_frames=4, kitti_missing_scan=True, kitti_columns=60,
    kitti_image_size=(248, 75), kitti_odometry_sequences=1, kitti_odometry_frames=3, kitti360_drives=1,
    kitti360_frames=3, kitti360_image_size=(282, 76), kitti360_fisheye_size=140,
)  # fmt: skip
DATE, DRIVE = "2011_09_26", "2013_05_28_drive_0000_sync"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("devkits")
    simulate(out, datasets=("kitti", "kitti_odometry", "kitti360"), seed=11, config=CONFIG)
    return out


def scenes(source: Source, root: Path, options: object = None) -> dict[int, Scene]:
    """Frame -> scene of those that are there."""
    items = source.plan(Store(root), options or source.options())
    return {int(item.details["frame"]): source.read(item) for item in items if isinstance(item, SceneRef)}


def homogeneous(points: Float64) -> Float64:
    return np.c_[points[:, :3].astype(np.float64), np.ones(len(points))]


def pixels(scene: Scene, view: View) -> tuple[Float64, Float64]:
    """K camera_from_scene X of all points, float64 (N, 3), in front of the camera or not; and X."""
    assert scene.points is not None and view.scene_from_camera is not None
    points = homogeneous(scene.points.xyz)
    return (points @ np.linalg.inv(view.scene_from_camera).T)[:, :3] @ view.intrinsics.T, points


def check_raw(root: Path, drive: str, cameras: tuple[str, ...]) -> float:
    """Everything pykitti.raw knows of a drive; returns the largest difference of a projected point, pixels."""
    devkit = pykitti.raw(str(root), DATE, drive)
    options = raw.Options(drives=(f"{DATE}_drive_{drive}_sync",), cameras=cameras)
    found = scenes(raw.SOURCE, root, options)
    files = sorted(found)
    assert len(devkit.velo_files) == len(files) < len(devkit.oxts)  # one scan is missing, and pykitti numbers by place
    worst = 0.0
    offsets = []
    for place, frame in enumerate(files):
        scene = found[frame]
        assert scene.points is not None
        velo = devkit.get_velo(place)
        np.testing.assert_array_equal(np.c_[scene.points.xyz, scene.points.intensity], velo)
        theirs = devkit.oxts[frame].T_w_imu @ np.linalg.inv(devkit.calib.T_velo_imu)
        np.testing.assert_allclose(scene.world_from_scene[:3, :3], theirs[:3, :3], rtol=0, atol=1e-12)
        offsets.append(scene.world_from_scene[:3, 3] - theirs[:3, 3])
        for view in scene.views:
            number = int(view.name[-1])
            chain = devkit.calib.R_rect_00 @ devkit.calib.T_cam0_velo_unrect
            ours, points = pixels(scene, view)
            official = points @ (getattr(devkit.calib, f"P_rect_{number}0") @ chain).T
            ahead = official[:, 2] > 1
            apart = ours[ahead, :2] / ours[ahead, 2:] - official[ahead, :2] / official[ahead, 2:]
            worst = max(worst, float(np.abs(apart).max()))
            np.testing.assert_array_equal(view.intrinsics, getattr(devkit.calib, f"K_cam{number}"))
            image = np.asarray(Image.open(io.BytesIO(view.image)).convert("RGB"))
            np.testing.assert_array_equal(image, np.asarray(getattr(devkit, f"get_cam{number}")(frame)))
    # pykitti's world begins at the drive's first fix, ours is the Mercator frame itself
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], (len(offsets), 3)), rtol=0, atol=5e-9)
    assert np.linalg.norm(offsets[0]) > 1e6
    return worst


def test_raw_against_pykitti(world: Path) -> None:
    assert check_raw(world / "kitti" / "raw", "9001", ("image_02", "image_03")) < 1e-9


@pytest.mark.real
def test_real_raw_against_pykitti(samples: Path) -> None:
    assert check_raw(samples / "kitti" / "raw", "0052", ("image_02",)) < 1e-9


def test_clips_against_pykitti(world: Path) -> None:
    """Poses of the views of a clip, the one without a scan included."""
    root = world / "kitti" / "raw"
    devkit = pykitti.raw(str(root), DATE, "9001")
    left, right = (raw.SOURCE.read(ref) for ref in raw.SOURCE.plan(Store(root), raw.Options(clips=ClipOptions())))
    for clip, velo_from in ((left, "T_cam2_velo"), (right, "T_cam3_velo")):
        assert clip.points is None and len(clip.views) == 4
        velo = [oxts.T_w_imu @ np.linalg.inv(devkit.calib.T_velo_imu) for oxts in devkit.oxts]
        for view, place in zip(clip.views, velo, strict=True):
            theirs = np.linalg.inv(velo[0]) @ place @ np.linalg.inv(getattr(devkit.calib, velo_from))
            assert view.scene_from_camera is not None
            np.testing.assert_allclose(view.scene_from_camera[:3, :3], theirs[:3, :3], rtol=0, atol=1e-9)
            # pykitti leaves out the vertical and forward parts of the baseline, 4 mm in this rig
            np.testing.assert_allclose(view.scene_from_camera[:3, 3], theirs[:3, 3], rtol=0, atol=5e-3)


def test_odometry_against_pykitti(world: Path) -> None:
    root = world / "kitti_odometry"
    devkit = pykitti.odometry(str(root), "00")
    found = scenes(odometry.SOURCE, root, odometry.Options(poses="kitti"))
    assert sorted(found) == [0, 1, 2] and len(devkit.poses) == 3
    for frame, scene in found.items():
        assert scene.points is not None
        velo = devkit.get_velo(frame)
        np.testing.assert_array_equal(np.c_[scene.points.xyz, scene.points.intensity], velo)
        assert scene.identity.timestamp_ns == round(devkit.timestamps[frame].total_seconds() * 1e9)
        tr = devkit.calib.T_cam0_velo
        np.testing.assert_allclose(scene.world_from_scene, np.linalg.inv(tr) @ devkit.poses[frame] @ tr, atol=1e-10)
        for view in scene.views:
            number = int(view.name[-1])
            ours, points = pixels(scene, view)
            official = points @ (getattr(devkit.calib, f"P_rect_{number}0") @ tr).T
            np.testing.assert_allclose(ours, official, rtol=0, atol=1e-9)
            image = np.asarray(Image.open(io.BytesIO(view.image)))
            np.testing.assert_array_equal(image, np.asarray(getattr(devkit, f"get_cam{number}")(frame)))


@pytest.fixture
def devkit360(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """kitti360scripts 1.0.0 was written for numpy < 1.24 and PyYAML < 6: it gets back the two names they took away."""
    from kitti360scripts.helpers import project as module

    monkeypatch.setitem(vars(np), "int", int)
    monkeypatch.setattr(module, "yaml", SimpleNamespace(load=yaml.safe_load))
    return module


def check_projection(devkit: Any, root: Path, frame: int, scene: Scene, view: View) -> int:
    """The devkit's camera over the dataset's folders against ours over the scene; returns how many points it images."""
    assert scene.points is not None
    xyz = scene.points.xyz.astype(np.float64)
    points = homogeneous(xyz) @ scene.world_from_scene.T
    number = int(view.name[-1])
    kind = devkit.CameraPerspective if number < 2 else devkit.CameraFisheye
    theirs = kind(str(root), DRIVE, number)
    assert (theirs.width, theirs.height) == (view.width, view.height)
    (u, v), depth = theirs.project_vertices(points[:, :3], frame)
    if number >= 2:  # the devkit leaves tangential distortion out
        view = replace(view, distortion=(*view.distortion[:3], 0.0, 0.0))
    ours = project(xyz, view)
    imaged = np.isfinite(ours.uv).all(axis=1) & (np.abs(ours.depth) > 1e-3)
    close = 0.5 + 1e-6 if number < 2 else 1e-5  # it rounds the pixels of the rectified pair
    inside = imaged & (ours.uv > -1).all(axis=1) & (ours.uv < (view.width, view.height)).all(axis=1)
    np.testing.assert_allclose(ours.uv[inside], np.c_[u, v][inside], rtol=0, atol=close)
    np.testing.assert_array_equal(np.sign(ours.depth[imaged]), np.sign(depth[imaged]))
    if number < 2:
        pose = theirs.cam2world[frame]
        local = theirs.world2cam(points[:, :3], pose[:3, :3], pose[:3, 3], True)
        exact = (theirs.K[:3, :3] @ local).T
        np.testing.assert_allclose(ours.uv[inside], (exact[:, :2] / exact[:, 2:])[inside], rtol=0, atol=1e-5)
    return int(inside.sum())


def test_kitti360_against_its_scripts(world: Path, devkit360: Any) -> None:
    from kitti360scripts.devkits.commons.loadCalibration import loadCalibrationCameraToPose, loadCalibrationRigid

    root = world / "kitti360"
    found = scenes(kitti360.SOURCE, root)
    assert sorted(found) == [1, 2]
    places = loadCalibrationCameraToPose(str(root / "calibration/calib_cam_to_pose.txt"))
    velo = loadCalibrationRigid(str(root / "calibration/calib_cam_to_velo.txt"))
    for frame, scene in found.items():
        assert [view.name for view in scene.views] == ["image_00", "image_01", "image_02", "image_03"]
        for view in scene.views:
            assert check_projection(devkit360, root, frame, scene, view) > 200
            if view.camera_model == "mei":  # the chain of its viewer of raw scans
                expected = velo @ np.linalg.inv(places["image_00"]) @ places[view.name]
                assert view.scene_from_camera is not None
                np.testing.assert_allclose(view.scene_from_camera, expected, rtol=0, atol=1e-9)
    camera = devkit360.CameraPerspective(str(root), DRIVE, 0)
    rows = np.loadtxt(root / "data_poses" / DRIVE / "cam0_to_world.txt")
    for row in rows:
        np.testing.assert_allclose(camera.cam2world[row[0]], row[1:].reshape(4, 4), rtol=0, atol=1e-8)


def test_kitti360_labels_against_its_scripts(world: Path) -> None:
    """Accumulated clouds through its PLY reader, and the classes through its table."""
    from kitti360scripts.helpers.labels import id2label
    from kitti360scripts.helpers.ply import read_ply

    from brickyard.ingest.kitti.kitti360_labels import TAXONOMY
    from brickyard.shards.taxonomy import taxonomy

    names = taxonomy(TAXONOMY).classes
    for label in id2label.values():
        known = taxonomy(TAXONOMY).from_raw.get(label.id)
        assert known == (label.trainId if 0 <= label.trainId < 255 else None), label.name
        if known is not None and not label.ignoreInEval:
            assert names[known] == label.name
    root = world / "kitti360"
    (ref,) = kitti360.SOURCE.plan(Store(root), kitti360.Options(scenes="windows"))
    assert isinstance(ref, SceneRef)
    scene = kitti360.SOURCE.read(ref)
    table = read_ply(str(root / ref.files["points"]))
    assert scene.points is not None and scene.points.color is not None and scene.points.instance is not None
    places = scene.points.xyz + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(places, np.stack([table[axis] for axis in "xyz"], 1), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(scene.points.color, np.stack([table[c] for c in ("red", "green", "blue")], 1))
    train = np.array([id2label[ident].trainId for ident in table["semantic"]])
    np.testing.assert_array_equal(scene.points.semantic[TAXONOMY], np.where(train == 255, -1, train))
    objects = np.where(table["instance"] % 1000, table["instance"], 0)
    np.testing.assert_array_equal(scene.points.instance, objects)
    assert len(np.unique(objects)) > 3


@pytest.mark.real
def test_real_calibration_against_the_scripts(samples: Path, tmp_path: Path, devkit360: Any) -> None:
    """The real rig and optics, with two made-up poses (the samples have none) and points all around the car."""
    shutil.copytree(samples / "kitti/kitti360/calibration", tmp_path / "calibration")
    (tmp_path / "data_poses" / DRIVE).mkdir(parents=True)
    imu = np.array([[0.6, -0.8, 0, 1200], [-0.8, -0.6, 0, 3400], [0, 0, -1, 115]])
    rows = [f"{frame} " + " ".join(map(str, imu.ravel().tolist())) + "\n" for frame in (1, 4)]
    (tmp_path / "data_poses" / DRIVE / "poses.txt").write_text("".join(rows))
    cameras = ("image_00", "image_01", "image_02", "image_03")
    rig = read_rig(Store(tmp_path), cameras, "kitti360")
    xyz = np.random.default_rng(0).normal(0, 15, (4000, 3)).astype(np.float32)
    scene = Scene(
        identity=Identity(
            dataset="kitti360", version="2021", split="none", sequence="0", scene_id="0", timestamp_ns=None,
            domain="outdoor", licence="-",
        ),
        world_from_scene=np.vstack([imu, (0, 0, 0, 1)]) @ np.array(rig["imu_from_velo"]),
        points=Points(xyz=xyz),
    )  # fmt: skip
    for name in cameras:
        camera = rig["cameras"][name]
        view = View(
            name=name, image=b"-", image_format="png", width=camera["size"][0], height=camera["size"][1],
            camera_model=camera["model"], intrinsics=np.array(camera["intrinsics"]),
            distortion=tuple(camera["distortion"]), scene_from_camera=np.array(camera["scene_from_camera"]),
        )  # fmt: skip
        assert check_projection(devkit360, tmp_path, 4, scene, view) > 300
