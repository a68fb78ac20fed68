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
`Scene.dropped` says {"no pose": 1}. Nothing is interpolated unless `interpolate` asks for it.

With `clips`, the images become clips of each camera, fisheyes included (see `ingest.kitti.clips`); scans need not be
there. Images of `data_2d_semantics` label the views where they are. With `scenes: windows` the scenes are the
accumulated clouds, which alone have 3D labels (see `ingest.kitti.kitti360_windows`), each with some posed views.

Other than that, a frame with a scan, an image or a timestamp is promised, and `Missing` without its scan; a camera's
absent image is counted in `Scene.dropped`. A drive whose calibration, poses or all scans are absent or damaged is
`Missing` as a whole.

The world is the dataset's own (metric, z up): world_from_scene = pose imu_from_velo, see `kitti360_rig`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ingest.clips import ClipOptions
from ingest.kitti.calibration import inverse
from ingest.kitti.clips import Frame, plan_clips, read_clip, role
from ingest.kitti.folders import LICENCE, Found, check_cameras, numbered, root_of
from ingest.kitti.images import read_view
from ingest.kitti.kitti360_labels import label_roles, list_image_labels, read_image_labels
from ingest.kitti.kitti360_rig import read_rig
from ingest.kitti.kitti360_windows import Window, list_windows, read_window, window_points
from ingest.kitti.poses import fill_gaps, indexed_poses, read_pose
from ingest.kitti.timestamps import guess_seconds, list_timestamps, parse_timestamp
from ingest.kitti.velodyne import POINT_BYTES, read_scan
from ingest.source import Missing, RawFiles, SceneRef, Source
from shards.errors import RawDataError, RecipeError
from shards.scene import Float64, Identity, Scene, View
from shards.storage import Store

DATASET = "kitti360"
VERSION = "2021"
_FOLDERS = {"image_00": "data_rect", "image_01": "data_rect", "image_02": "data_rgb", "image_03": "data_rgb"}
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_(\d{4})_sync/", re.ASCII)
_TRAIN = {"0000", "0002", "0003", "0004", "0005", "0006", "0007", "0009", "0010"}
_TEST = {"0008", "0018"}
_DIGITS = 10
_WINDOW_FOLDERS = ("3d_semantics/train", "3d_semantics/test")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of KITTI-360.

    Attributes:
        cameras: views to keep; image_00 and image_01 look ahead, image_02 (left) and image_03 (right) are fisheyes.
        drives: names of the drives to read, such as "2013_05_28_drive_0000_sync"; empty for all.
        every: keep the frames whose number is a multiple of this (10 Hz: every=5 keeps two a second).
        require_pose: leave out the frames without a world pose.
        interpolate: give the frames in gaps of at most so many frames between two posed ones an interpolated pose,
            counted as "interpolated pose" in `Scene.dropped`.
        labels: read the label images of views that have them (clips stay without).
        scenes: "scans", or "windows" for the accumulated clouds with 3D labels.
        window_views: frames whose views a window gets, evenly chosen among its posed ones.
        clips: yield clips of each camera instead of scans.
    """

    cameras: tuple[str, ...] = tuple(_FOLDERS)
    drives: tuple[str, ...] = ()
    every: int = 1
    require_pose: bool = True
    interpolate: int = 0
    labels: bool = True
    scenes: Literal["scans", "windows"] = "scans"
    window_views: int = 8
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        if self.scenes not in ("scans", "windows"):
            raise RecipeError(f"scenes must be scans or windows, found {self.scenes!r}")
        if self.scenes == "windows" and self.clips:
            raise RecipeError("clips are cut from images: they do not go with scenes: windows")
        if not 0 <= self.window_views <= 1000:
            raise RecipeError(f"window_views must be 0 to 1000, found {self.window_views}")
        if not 0 <= self.interpolate <= 100:
            raise RecipeError(f"interpolate must be 0 to 100 frames, found {self.interpolate}")
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the scenes of all drives in order of drive and frame.

    Raises:
        RecipeError: no drive (for windows: no accumulated cloud) under the root, or a drive asked for is not there.
    """
    folders = [name for kind in ("3d_raw", "2d_raw", *_WINDOW_FOLDERS) for name in store.list(f"data_{kind}")]
    drives = sorted({name.rstrip("/") for name in folders if _DRIVE.fullmatch(name)})
    if not drives:
        expected = "data_3d_raw/2013_05_28_drive_0000_sync/velodyne_points/data/0000000000.bin"
        raise RecipeError(f"no KITTI-360 drives in {store.uri}: expected {expected} and so on")
    unknown = sorted(set(options.drives) - set(drives))
    if unknown:
        raise RecipeError(f"no such drive in {store.uri}: {', '.join(unknown)}; found {', '.join(drives)}")
    if options.scenes == "windows" and not any(store.list(f"data_{kind}") for kind in _WINDOW_FOLDERS):
        raise RecipeError(
            f"no accumulated clouds in {store.uri}: expected data_3d_semantics/train/<drive>/static/*.ply"
        )
    for drive in drives:
        if options.drives and drive not in options.drives:
            continue
        try:
            listing = _list_drive(store, drive, options)
            calibration = read_rig(store, tuple(listing.images), DATASET)
        except RawDataError as problem:
            yield Missing(dataset=DATASET, scene_id=drive, reason=str(problem))
            continue
        if options.scenes == "windows":
            yield from _plan_windows(store, drive, listing, calibration, options)
        elif options.clips:
            yield from _plan_drive_clips(store, drive, listing, calibration, options)
        else:
            yield from _plan_frames(store, drive, listing, calibration, options)


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a drive's folders hold, by frame number; cameras that were not downloaded are left out."""

    scans: dict[int, Found]
    images: dict[str, dict[int, Found]]
    scan_times: dict[int, str]
    image_times: dict[str, dict[int, str]]
    poses: dict[int, dict[str, Any]]
    labels: dict[str, dict[int, dict[str, Found]]]


def _list_drive(store: Store, drive: str, options: Options) -> _Listing:
    """Raises `RawDataError` for a drive without scans (images for clips), or without poses where they are required."""
    velodyne, photos = f"data_3d_raw/{drive}/velodyne_points", f"data_2d_raw/{drive}"
    scans = numbered(store, f"{velodyne}/data", ".bin", _DIGITS)
    images = {c: numbered(store, f"{photos}/{c}/{_FOLDERS[c]}", ".png", _DIGITS) for c in options.cameras}
    images = {camera: found for camera, found in images.items() if found}
    if options.scenes == "scans" and not (images if options.clips else scans):
        lost, where = ("images", photos) if options.clips else ("scans", f"{velodyne}/data")
        raise RawDataError(
            f"the drive has no {lost}", dataset=DATASET, path=where,
            hint="download its raw archive, or leave it out with the option drives",
        )  # fmt: skip
    path = _pose_path(drive)
    poses = indexed_poses(store, path, DATASET) if options.require_pose or store.size(path) is not None else {}
    frames = set().union(scans, *images.values()) if options.interpolate else set()
    wanted = options.labels and not options.clips
    return _Listing(
        scans=scans,
        images=images,
        scan_times=list_timestamps(store, f"{velodyne}/timestamps.txt", DATASET),
        image_times={c: list_timestamps(store, f"{photos}/{c}/timestamps.txt", DATASET) for c in images},
        poses=fill_gaps(poses, frames, options.interpolate),
        labels={c: found for c in images if wanted and (found := list_image_labels(store, drive, c, _DIGITS))},
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
        dropped = {f"missing image {camera}": 1 for camera in listing.images if camera not in used}
        for camera, labels in listing.labels.items():
            if camera in used and frame in labels:
                used |= label_roles(camera, labels[frame])
            elif camera in used:
                dropped[f"missing labels {camera}"] = 1
        files = {role: found.path for role, found in used.items()}
        if frame in listing.poses:
            files["pose"] = _pose_path(drive)
            dropped |= {"interpolated pose": 1} if "before" in listing.poses[frame] else {}
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


def _plan_drive_clips(
    store: Store, drive: str, listing: _Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    ref = SceneRef(
        dataset=DATASET, scene_id=drive, split=_split(drive), sequence=drive, root=root_of(store),
        files={"pose": _pose_path(drive)} if listing.poses else {},
    )  # fmt: skip
    for camera in options.cameras:
        times = listing.image_times.get(camera, {})
        frames = [
            Frame(
                number=number,
                image=image,
                seconds=guess_seconds(times.get(number)),
                details={"timestamp": times.get(number), "pose": listing.poses.get(number)},
                files={},
            )
            for number, image in sorted(listing.images.get(camera, {}).items())
            if number % options.every == 0 and (number in listing.poses or not options.require_pose)
        ]
        more = {"imu_from_velo": calibration["imu_from_velo"], "camera": calibration["cameras"].get(camera)}
        yield from plan_clips(ref, camera, frames, options.clips or ClipOptions(), more=more)


def _plan_windows(
    store: Store, drive: str, listing: _Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    windows = list(list_windows(store, drive, DATASET))
    if not windows and drive in options.drives:
        reason = "the drive has no accumulated clouds (data_3d_semantics)"
        yield Missing(dataset=DATASET, scene_id=drive, reason=reason)
    for window in windows:
        used = {"points": window.file}
        views = []
        for frame, camera in _window_views(window, listing, options.window_views):
            used[role(frame, camera)] = listing.images[camera][frame]
            if frame in listing.labels.get(camera, {}):
                used |= label_roles(role(frame, camera), listing.labels[camera][frame])
            time = listing.image_times[camera].get(frame)
            views.append({"frame": frame, "camera": camera, "timestamp": time, "pose": listing.poses[frame]})
        yield SceneRef(
            dataset=DATASET,
            scene_id=f"{drive}/static/{window.first:0{_DIGITS}d}_{window.last:0{_DIGITS}d}",
            split=window.split,
            sequence=drive,
            root=root_of(store),
            files={name: found.path for name, found in used.items()} | ({"pose": _pose_path(drive)} if views else {}),
            details={"window": views, **calibration},
            points_estimate=window_points(window),
            bytes_estimate=sum(found.size for found in used.values()),
        )


def _window_views(window: Window, listing: _Listing, count: int) -> list[tuple[int, str]]:
    """(frame, camera) of the views of a window: evenly spaced posed frames that have an image, every camera of each."""
    posed = [f for f in sorted(listing.poses) if window.first <= f <= window.last and "before" not in listing.poses[f]]
    seen = [frame for frame in posed if any(frame in found for found in listing.images.values())]
    chosen = sorted({seen[(2 * k + 1) * len(seen) // (2 * count)] for k in range(count)}) if seen else []
    return [(frame, camera) for frame in chosen for camera, found in listing.images.items() if frame in found]


def read(ref: SceneRef) -> Scene:
    """One frame, clip or window; the scene frame is the velodyne's, that of a window has the axes of the world.

    Raises:
        RawDataError: a file is missing or not what the format says.
    """
    files = RawFiles(ref)
    if "clip" in ref.details:
        folder = f"data_2d_raw/{ref.sequence}/{ref.details['clip']}"
        return read_clip(
            files,
            ref.details["camera"],
            version=VERSION,
            world_from_velo=lambda frame: _world_from_velo(files, frame["pose"]),
            timestamp=lambda frame: _timestamp(files, folder, frame["timestamp"], frame["frame"]),
        )
    if "window" in ref.details:
        return _read_window_scene(files)
    points, dropped = read_scan(files, ref.files["points"])
    views = tuple(
        _read_camera(files, name, name, camera, timestamp=camera["timestamp"], frame=ref.details["frame"])
        for name, camera in ref.details["cameras"].items()
    )
    world_from_scene = _world_from_velo(files, ref.details["pose"])
    folder = f"data_3d_raw/{ref.sequence}/velodyne_points"
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=_timestamp(files, folder, ref.details["timestamp"], ref.details["frame"]),
        domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=np.eye(4) if world_from_scene is None else world_from_scene,
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_window_scene(files: RawFiles) -> Scene:
    ref = files.ref
    points, world_from_scene, dropped = read_window(files, ref.files["points"])
    views = []
    for entry in ref.details["window"]:
        name, frame = entry["camera"], entry["frame"]
        view = _read_camera(
            files, name, role(frame, name), ref.details["cameras"][name], timestamp=entry["timestamp"], frame=frame
        )
        velo = _world_from_velo(files, entry["pose"])
        if velo is not None and view.scene_from_camera is not None:
            view = replace(view, scene_from_camera=inverse(world_from_scene) @ velo @ view.scene_from_camera)
        views.append(view)
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=None, domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity, world_from_scene=world_from_scene, points=points, views=tuple(views), dropped=dropped
    ).validate()


def _read_camera(
    files: RawFiles, name: str, key: str, camera: dict[str, Any], *, timestamp: str | None, frame: int
) -> View:
    """The view of an image at its calibrated place in the velodyne frame; `key` is its role in `SceneRef.files`."""
    width, height = camera["size"]
    view = read_view(
        files,
        name,
        files.ref.files[key],
        intrinsics=np.array(camera["intrinsics"], np.float64),
        scene_from_camera=np.array(camera["scene_from_camera"], np.float64),
        size=(width, height),
        timestamp_ns=_timestamp(files, f"data_2d_raw/{files.ref.sequence}/{name}", timestamp, frame),
        camera_model=camera["model"],
        distortion=tuple(camera["distortion"]),
    )
    return replace(view, **read_image_labels(files, key, (width, height)))


def _world_from_velo(files: RawFiles, place: dict[str, Any] | None) -> Float64 | None:
    if place is None:
        return None
    imu_from_velo = np.array(files.ref.details["imu_from_velo"], np.float64)
    return np.asarray(read_pose(files, files.ref.files["pose"], place) @ imu_from_velo)


def _timestamp(files: RawFiles, folder: str, text: str | None, frame: int) -> int | None:
    if text is None:
        return None
    return parse_timestamp(text, frame, partial(files.error, f"{folder}/timestamps.txt"))


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
