"""KITTI-360: eleven suburban drives with a turning lidar, a rectified stereo pair and two sideways fisheye cameras.

    <root>/calibration/{calib_cam_to_pose,calib_cam_to_velo,perspective}.txt, image_02.yaml, image_03.yaml
    <root>/data_3d_raw/<drive>/velodyne_points/{timestamps.txt,data/%010d.bin}
    <root>/data_2d_raw/<drive>/{image_00,image_01}/{timestamps.txt,data_rect/%010d.png}     perspective
    <root>/data_2d_raw/<drive>/{image_02,image_03}/{timestamps.txt,data_rgb/%010d.png}      fisheye
    <root>/data_poses/<drive>/poses.txt                                                     frame number + imu pose

Planning reads the calibration once and per drive two to six listings, its timestamps and its poses. Raw scans carry no
labels (the dataset's lie on accumulated clouds) and are not motion-compensated.

Poses are sparse by design: a frame in which the car hardly moved, and often the first ones, have none. Such a frame is
not missing: it is left out while `require_pose` holds; otherwise its world is its own lidar frame (the identity) and
`Scene.dropped` says {"no pose": 1}.

Other than that, a frame with a scan, an image or a timestamp is promised, and `Missing` without its scan; a camera's
absent image is counted in `Scene.dropped`. A drive whose calibration, poses or all scans are absent or damaged is
`Missing` as a whole.

The world is the dataset's own (metric, z up): world_from_scene = pose imu_from_velo, see `kitti360_rig`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ingest.kitti.folders import LICENCE, Found, check_cameras, numbered, root_of
from ingest.kitti.images import read_view
from ingest.kitti.kitti360_rig import read_rig
from ingest.kitti.poses import indexed_poses, read_pose
from ingest.kitti.timestamps import list_timestamps, parse_timestamp
from ingest.kitti.velodyne import POINT_BYTES, read_scan
from ingest.source import Missing, RawFiles, SceneRef, Source
from shards.errors import RawDataError, RecipeError
from shards.scene import Identity, Scene, View
from shards.storage import Store

DATASET = "kitti360"
VERSION = "2021"
_FOLDERS = {"image_00": "data_rect", "image_01": "data_rect", "image_02": "data_rgb", "image_03": "data_rgb"}
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_(\d{4})_sync/", re.ASCII)
_TRAIN = {"0000", "0002", "0003", "0004", "0005", "0006", "0007", "0009", "0010"}
_TEST = {"0008", "0018"}
_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of KITTI-360.

    Attributes:
        cameras: views to keep; image_00 and image_01 look ahead, image_02 (left) and image_03 (right) are fisheyes.
        drives: names of the drives to read, such as "2013_05_28_drive_0000_sync"; empty for all.
        every: keep the frames whose number is a multiple of this (10 Hz: every=5 keeps two a second).
        require_pose: leave out the frames without a world pose.
    """

    cameras: tuple[str, ...] = tuple(_FOLDERS)
    drives: tuple[str, ...] = ()
    every: int = 1
    require_pose: bool = True

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all drives in order of drive and frame.

    Raises:
        RecipeError: no drive under the root, or a drive asked for is not there.
    """
    folders = [*store.list("data_3d_raw"), *store.list("data_2d_raw")]
    drives = sorted({name.rstrip("/") for name in folders if _DRIVE.fullmatch(name)})
    if not drives:
        expected = "data_3d_raw/2013_05_28_drive_0000_sync/velodyne_points/data/0000000000.bin"
        raise RecipeError(f"no KITTI-360 drives in {store.uri}: expected {expected} and so on")
    unknown = sorted(set(options.drives) - set(drives))
    if unknown:
        raise RecipeError(f"no such drive in {store.uri}: {', '.join(unknown)}; found {', '.join(drives)}")
    for drive in drives:
        if options.drives and drive not in options.drives:
            continue
        try:
            listing = _list_drive(store, drive, options)
            calibration = read_rig(store, tuple(listing.images), DATASET)
        except RawDataError as problem:
            yield Missing(dataset=DATASET, scene_id=drive, reason=str(problem))
            continue
        yield from _plan_frames(store, drive, listing, calibration, options)


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a drive's folders hold, by frame number; cameras that were not downloaded are left out."""

    scans: dict[int, Found]
    images: dict[str, dict[int, Found]]
    scan_times: dict[int, str]
    image_times: dict[str, dict[int, str]]
    poses: dict[int, dict[str, Any]]


def _list_drive(store: Store, drive: str, options: Options) -> _Listing:
    """Raises `RawDataError` for a drive without scans, or without poses where they are required."""
    velodyne, photos = f"data_3d_raw/{drive}/velodyne_points", f"data_2d_raw/{drive}"
    scans = numbered(store, f"{velodyne}/data", ".bin", _DIGITS)
    if not scans:
        raise RawDataError(
            "the drive has no scans", dataset=DATASET, path=f"{velodyne}/data",
            hint="download its raw velodyne archive, or leave it out with the option drives",
        )  # fmt: skip
    images = {c: numbered(store, f"{photos}/{c}/{_FOLDERS[c]}", ".png", _DIGITS) for c in options.cameras}
    images = {camera: found for camera, found in images.items() if found}
    poses = _pose_path(drive)
    return _Listing(
        scans=scans,
        images=images,
        scan_times=list_timestamps(store, f"{velodyne}/timestamps.txt", DATASET),
        image_times={c: list_timestamps(store, f"{photos}/{c}/timestamps.txt", DATASET) for c in images},
        poses=indexed_poses(store, poses, DATASET) if options.require_pose or store.size(poses) is not None else {},
    )


def _pose_path(drive: str) -> str:
    return f"data_poses/{drive}/poses.txt"


def _split(drive: str) -> str:
    number = drive.split("_drive_")[1][:4]
    return "train" if number in _TRAIN else "test" if number in _TEST else "none"


def _plan_frames(
    store: Store, drive: str, listing: _Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    root = root_of(store)
    times = listing.image_times.values()
    for frame in sorted(set().union(listing.scans, listing.scan_times, *listing.images.values(), *times)):
        if frame % options.every or (options.require_pose and frame not in listing.poses):
            continue
        scene_id = f"{drive}/{frame:0{_DIGITS}d}"
        if frame not in listing.scans:
            reason = f"frame {frame} was recorded (timestamp or image) but its scan (velodyne_points) is absent"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
            continue
        used = {"points": listing.scans[frame]}
        used |= {camera: found[frame] for camera, found in listing.images.items() if frame in found}
        files = {role: found.path for role, found in used.items()}
        dropped = {f"missing image {camera}": 1 for camera in listing.images if camera not in used}
        if frame in listing.poses:
            files["pose"] = _pose_path(drive)
        else:
            dropped["no pose"] = 1
        yield SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split=_split(drive),
            sequence=drive,
            root=root,
            files=files,
            details={
                "frame": frame,
                "timestamp": listing.scan_times.get(frame),
                "pose": listing.poses.get(frame),
                "imu_from_velo": calibration["imu_from_velo"],
                "cameras": {
                    camera: calibration["cameras"][camera] | {"timestamp": listing.image_times[camera].get(frame)}
                    for camera in listing.images
                    if camera in used
                },
                "dropped": dropped,
            },
            points_estimate=listing.scans[frame].size // POINT_BYTES,
            bytes_estimate=sum(found.size for found in used.values()),
        )


def read(ref: SceneRef) -> Scene:
    """One frame; the scene frame is the velodyne's.

    Raises:
        RawDataError: a file is missing or not what the format says.
    """
    files = RawFiles(ref)
    points, dropped = read_scan(files, ref.files["points"])
    views = tuple(_read_camera(files, name, camera) for name, camera in ref.details["cameras"].items())
    world_from_scene = np.eye(4)
    if "pose" in ref.files:
        pose = read_pose(files, ref.files["pose"], ref.details["pose"])
        world_from_scene = pose @ np.array(ref.details["imu_from_velo"], np.float64)
    folder = f"data_3d_raw/{ref.sequence}/velodyne_points"
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=_timestamp(files, folder, ref.details["timestamp"]),
        domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=world_from_scene,
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_camera(files: RawFiles, name: str, camera: dict[str, Any]) -> View:
    width, height = camera["size"]
    return read_view(
        files,
        name,
        files.ref.files[name],
        intrinsics=np.array(camera["intrinsics"], np.float64),
        scene_from_camera=np.array(camera["scene_from_camera"], np.float64),
        size=(width, height),
        timestamp_ns=_timestamp(files, f"data_2d_raw/{files.ref.sequence}/{name}", camera["timestamp"]),
        camera_model=camera["model"],
        distortion=tuple(camera["distortion"]),
    )


def _timestamp(files: RawFiles, folder: str, text: str | None) -> int | None:
    if text is None:
        return None
    return parse_timestamp(text, files.ref.details["frame"], partial(files.error, f"{folder}/timestamps.txt"))


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
