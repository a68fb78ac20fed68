"""nuScenes against its devkit: the plan, ten sweeps, panoptic labels, clips, and the projection into six cameras.

The devkit plans here the way it was meant to: with all its tables in memory. What it gives must equal our references
field by field, on the toy, on a simulated world with sweeps at 20 Hz and images at 12 Hz, and on the real sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.ingest.clips import ClipOptions, cut
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import UNLABELLED, Scene
from tests.ingest.nuscenes_toy import POINTS, ROAD, VERSION, planned, read, write_dataset

WORLD = SimulationConfig(
    nuscenes_scenes=2, nuscenes_keyframes=2, nuscenes_sweeps=9, nuscenes_camera_sweeps=5, nuscenes_panoptic=True,
    nuscenes_image_size=(64, 36), nuscenes_columns=60,
)  # fmt: skip
CLIPS = ClipOptions(frames=6, overlap=1)
MODES = {
    "keyframes": Options(),
    "ten sweeps": Options(sweeps=10, min_range=1.0),
    "panoptic": Options(semantic="panoptic", cameras=CAMERAS[:2]),
    "clips": Options(clips=ClipOptions(frames=4, overlap=1, rate_hz=6)),
}


def devkit(root: Path) -> Any:
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(root), verbose=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    simulate(out, datasets=("nuscenes",), seed=11, config=WORLD)
    return out / "nuscenes"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_dataset(root, keyframes=4, between=3)
    return root


@pytest.fixture(params=["toy", "world", pytest.param("sample", marks=pytest.mark.real)])
def root(request: pytest.FixtureRequest) -> Path:
    if request.param == "sample":
        samples: Path = request.getfixturevalue("samples")
        return samples / "nuscenes"
    found: Path = request.getfixturevalue(request.param)
    return found


def sensor(tables: Any, token: str) -> dict[str, Any]:
    row = tables.get("sample_data", token)
    mount = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
    ego = tables.get("ego_pose", row["ego_pose_token"])
    return {
        "timestamp_ns": row["timestamp"] * 1000, "size": [row["width"], row["height"]],
        "intrinsics": mount["camera_intrinsic"],
        "ego_from_sensor": {"rotation": mount["rotation"], "translation": mount["translation"]},
        "global_from_ego": {"rotation": ego["rotation"], "translation": ego["translation"]},
    }  # fmt: skip


def split(name: str) -> str:
    from nuscenes.utils import splits

    return {n: s for s in ("train", "val") for n in getattr(splits, f"mini_{s}")}[name]


def devkit_plan(tables: Any, options: Options) -> Iterator[SceneRef]:
    """The keyframes by the devkit's tables and shortcuts (`sample["data"]`), all files being there."""
    root = Path(tables.dataroot)
    for scene in tables.scene:
        token = scene["first_sample_token"]
        while token:
            sample = tables.get("sample", token)
            lidar = tables.get("sample_data", sample["data"]["LIDAR_TOP"])
            files = {"points": lidar["filename"]}
            cameras = {name: sample["data"][name] for name in options.cameras if name in sample["data"]}
            files |= {name: tables.get("sample_data", camera)["filename"] for name, camera in cameras.items()}
            sweeps, row = [], lidar
            for number in range(1, options.sweeps):
                if not row["prev"]:
                    break
                row = tables.get("sample_data", row["prev"])
                role = f"sweep-{number:02d}"
                sweeps.append({"number": number, "role": role} | sensor(tables, row["token"]))
                files[role] = row["filename"]
            for table in ("lidarseg", "panoptic"):
                files[table] = tables.get(table, lidar["token"])["filename"]
            sizes = {role: (root / path).stat().st_size for role, path in files.items()}
            yield SceneRef(
                dataset="nuscenes", scene_id=f"{scene['name']}/{token}", split=split(scene["name"]),
                sequence=scene["name"], root=str(root), files=files,
                details={
                    "version": tables.version, "min_range": 0.0, "semantic": "lidarseg", "several": options.sweeps > 1,
                    "lidar": sensor(tables, lidar["token"]), "sweeps": sweeps,
                    "cameras": {name: sensor(tables, camera) for name, camera in cameras.items()},
                    "label_ids": [category["index"] for category in tables.category], "dropped": {},
                },
                points_estimate=sum(n for r, n in sizes.items() if r == "points" or r.startswith("sweep")) // 20,
                bytes_estimate=sum(sizes.values()),
            )  # fmt: skip
            token = sample["next"]


@pytest.mark.parametrize("sweeps", [1, 4, 10])
def test_plan_equals_the_devkits(root: Path, sweeps: int) -> None:
    options = Options(sweeps=sweeps)
    ours, theirs = planned(root, options), list(devkit_plan(devkit(root), options))
    assert [item.scene_id for item in ours] == [ref.scene_id for ref in theirs] and ours
    for one, two in zip(ours, theirs, strict=True):
        assert isinstance(one, SceneRef)
        # That a world is simulated, its folder says, which the devkit does not know.
        one = replace(one, details={name: value for name, value in one.details.items() if name != "simulated"})
        assert one == two
        assert list(one.files) != [] and list(one.details) == list(two.details)


@pytest.mark.parametrize("mode", list(MODES))
def test_every_mode_keeps_the_promises(world: Path, mode: str) -> None:
    assert_source_ok(SOURCE, str(world), MODES[mode])


def test_ten_sweeps_equal_from_file_multisweep(world: Path) -> None:
    from nuscenes.utils.data_classes import LidarPointCloud

    tables = devkit(world)
    compared = 0
    for item in planned(world, Options(sweeps=10)):
        points = read(item).points
        sample = tables.get("sample", item.scene_id.split("/")[1])
        theirs, ages = LidarPointCloud.from_file_multisweep(
            tables, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=10, min_distance=0.0
        )
        assert points is not None and points.time_offset is not None and points.sweep is not None
        # The devkit computes in float64 and stores float32, as we do: one rounding apart at most.
        np.testing.assert_allclose(points.xyz, theirs.points[:3].T, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(points.intensity, theirs.points[3])
        np.testing.assert_allclose(points.time_offset, -ages[0], rtol=0, atol=1e-6)
        steps = np.unique(points.sweep)
        assert steps.tolist() == list(range(len(steps))) and len(steps) in (1, 10)
        keyframe = len(np.fromfile(world / item.files["points"], "<f4")) // 5
        assert (points.sweep == 0).sum() == keyframe and (points.sweep[:keyframe] == 0).all()
        labels = np.fromfile(world / item.files["lidarseg"], np.uint8)
        ours = points.semantic["nuscenes16"]
        assert (ours[:keyframe][labels == ROAD] == 10).all() and (ours[keyframe:] == UNLABELLED).all()
        assert points.instance is not None and not points.instance[keyframe:].any()
        compared += len(points)
    assert compared > 30_000


def test_static_surfaces_stay_in_place_when_sweeps_are_added(world: Path) -> None:
    """What no comparison of two programs can show: roads of ten sweeps coincide in space only if poses are used."""
    scene = read(planned(world, Options(sweeps=10))[-1])
    assert scene.points is not None and scene.points.sweep is not None
    travelled = read(planned(world)[-1]).world_from_scene[:2, 3] - read(planned(world)[-2]).world_from_scene[:2, 3]
    assert np.linalg.norm(travelled) > 0.5
    xyz, sweep = scene.points.xyz, scene.points.sweep
    beside = (np.abs(xyz[:, 0]) > 2) & (np.linalg.norm(xyz[:, :2], axis=1) < 15) & (xyz[:, 2] < -1.5)
    levels = [np.median(xyz[beside & (sweep == k), 2]) for k in (0, 4, 9)]
    assert np.ptp(levels) < 0.05


def test_panoptic_equals_the_devkits_loader(root: Path) -> None:
    from nuscenes.utils.data_io import load_bin_file, panoptic_to_lidarseg

    from brickyard.ingest.nuscenes.categories import class_table

    tables = devkit(root)
    classes, _ = class_table(list(range(32)))
    for item in planned(root, Options(semantic="panoptic")):
        points = read(item).points
        assert points is not None and points.instance is not None
        raw = load_bin_file(str(root / item.files["panoptic"]), type="panoptic")
        assert item.files["panoptic"] in [row["filename"] for row in tables.panoptic]
        np.testing.assert_array_equal(points.semantic["nuscenes16"], classes[panoptic_to_lidarseg(raw)])
        np.testing.assert_array_equal(points.instance, np.where(raw % 1000 > 0, raw, 0))
        assert (points.instance > 0).any() and len(points) >= POINTS


def devkit_images(tables: Any, scene: dict[str, Any], camera: str) -> list[dict[str, Any]]:
    """All images of a camera in a scene by the devkit's links."""
    first = tables.get("sample", scene["first_sample_token"])
    rows = [tables.get("sample_data", first["data"][camera])]
    while rows[-1]["next"]:
        rows.append(tables.get("sample_data", rows[-1]["next"]))
    return rows


def world_from(tables: Any, row: dict[str, Any], *steps: str) -> np.ndarray:
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion

    matrix = np.eye(4)
    for table in steps:
        pose = tables.get(table, row[f"{table}_token"])
        matrix = matrix @ transform_matrix(pose["translation"], Quaternion(pose["rotation"]))
    return matrix


@pytest.mark.parametrize("name", ["toy", "world"])
def test_clips_hold_the_devkits_images_and_poses(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(name)
    tables = devkit(root)
    cameras = CAMERAS if name == "world" else CAMERAS[:2]
    scenes = [read(item) for item in planned(root, Options(clips=CLIPS, cameras=cameras))]
    expected: list[tuple[str, list[dict[str, Any]]]] = []
    for scene in tables.scene:
        for camera in cameras:
            clips = cut(devkit_images(tables, scene, camera), CLIPS)
            expected += [(f"{scene['name']}/{camera}/clip-{n:03d}", clip) for n, clip in enumerate(clips)]
    assert [scene.identity.scene_id for scene in scenes] == [scene_id for scene_id, _ in expected]
    for clip, (_, rows) in zip(scenes, expected, strict=True):
        np.testing.assert_allclose(clip.world_from_scene, world_from(tables, rows[0], "ego_pose"), atol=1e-9)
        assert clip.points is None and clip.identity.timestamp_ns == rows[0]["timestamp"] * 1000
        for view, row in zip(clip.views, rows, strict=True):
            assert view.image == (root / row["filename"]).read_bytes() and view.timestamp_ns == row["timestamp"] * 1000
            assert view.scene_from_camera is not None
            ours = clip.world_from_scene @ view.scene_from_camera
            np.testing.assert_allclose(ours, world_from(tables, row, "ego_pose", "calibrated_sensor"), atol=1e-6)
    whole = planned(root, Options(clips=ClipOptions(frames=100), cameras=CAMERAS[:1]))
    times = [view.timestamp_ns for view in read(whole[0]).views]
    assert np.median(np.diff(np.array(times, np.int64))) == pytest.approx(1e9 / 12, rel=0.02)


@pytest.fixture(scope="module")
def real(samples: Path) -> tuple[Any, Scene]:
    """The devkit's view of the sample and ours."""
    (item,) = planned(samples / "nuscenes")
    return devkit(samples / "nuscenes"), read(item)


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
