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
absent image is counted in `Scene.dropped`. A drive whose calibration or poses are absent or damaged loses every frame,
each for that reason; one without any scan is `Missing` as a whole. Where a block of the poses is lost or their end is
cut off, the frames that may have had a pose there are `Missing`. Pictures may also be JPEG. A scan or picture exchanged
with that of another frame cannot be told; an exchanged picture of another camera has another size.

The world is the dataset's own (metric, z up): world_from_scene = pose imu_from_velo, see `kitti360_rig`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.clips import Frame, plan_clips, read_clip
from brickyard.ingest.kitti.folders import LICENCE, Folders, check_cameras, lost_frames, root_of
from brickyard.ingest.kitti.kitti360_labels import label_roles
from brickyard.ingest.kitti.kitti360_listing import (
    CAMERA_FOLDERS,
    DATASET,
    DIGITS,
    VERSION,
    Listing,
    list_drive,
    pose_files,
    pose_path,
)
from brickyard.ingest.kitti.kitti360_rig import read_rig
from brickyard.ingest.kitti.kitti360_views import read_posed_view, timestamp_of, world_from_velo
from brickyard.ingest.kitti.kitti360_windows import plan_windows, read_window_scene
from brickyard.ingest.kitti.siblings import tell_lacks
from brickyard.ingest.kitti.timestamps import guess_seconds
from brickyard.ingest.kitti.velodyne import POINT_BYTES, IntensityUnit, check_unit, read_scan
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Identity, Scene
from brickyard.shards.storage import Store

_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_(\d{4})_sync/", re.ASCII)
_TRAIN = {"0000", "0002", "0003", "0004", "0005", "0006", "0007", "0009", "0010"}
_TEST = {"0008", "0018"}
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
        intensity_unit: of scans that are not KITTI's own: "unit" (0..1), "byte" (0..255) or "raw".
    """

    cameras: tuple[str, ...] = tuple(CAMERA_FOLDERS)
    drives: tuple[str, ...] = ()
    every: int = 1
    require_pose: bool = True
    interpolate: int = 0
    labels: bool = True
    scenes: Literal["scans", "windows"] = "scans"
    window_views: int = 8
    clips: ClipOptions | None = None
    intensity_unit: IntensityUnit = "unit"

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        check_unit(self.intensity_unit)
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


@tell_lacks
def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the scenes of all drives in order of drive and frame.

    Raises:
        RecipeError: no drive (for windows: no accumulated cloud) under the root, or a drive asked for is not there.
    """
    names = [name for kind in ("3d_raw", "2d_raw", *_WINDOW_FOLDERS) for name in store.list(f"data_{kind}")]
    drives = sorted({name.rstrip("/") for name in names if _DRIVE.fullmatch(name)})
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
        folders = Folders(store, DATASET)
        yield from _plan_drive(folders, drive, options)
        yield from folders.notices()


def _plan_drive(folders: Folders, drive: str, options: Options) -> Iterator[SceneRef | Missing]:
    windows = options.scenes == "windows"
    try:
        listing = list_drive(
            folders, drive, cameras=options.cameras, require_pose=options.require_pose,
            interpolate=options.interpolate, labels=options.labels and not options.clips,
        )  # fmt: skip
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=drive, reason=str(problem))
        return
    if not windows and not (listing.images if options.clips else listing.scans):
        yield _without_payload(folders, drive, listing, options)
        return
    wrong = listing.without_poses
    try:
        calibration = read_rig(folders.store, tuple(listing.images), DATASET)
    except RawDataError as problem:
        wrong = str(problem)
    if wrong is not None and windows:
        yield Missing(dataset=DATASET, scene_id=drive, reason=wrong)
        return
    if wrong is not None:
        lost = [frame for frame in listing.promised if frame % options.every == 0]
        yield from lost_frames(DATASET, drive, lost, DIGITS, wrong)
        return
    if windows:
        asked, views = drive in options.drives, options.window_views
        yield from plan_windows(folders.store, drive, listing, calibration, asked=asked, views=views)
    else:
        plan_items = _plan_drive_clips if options.clips else _plan_frames
        yield from plan_items(folders.store, drive, listing, calibration, options)
    if listing.trajectory.problem:
        yield Notice(dataset=DATASET, scene_id=pose_path(drive), reason=listing.trajectory.problem)


def _without_payload(folders: Folders, drive: str, listing: Listing, options: Options) -> Missing:
    velodyne, photos = f"data_3d_raw/{drive}/velodyne_points/data", f"data_2d_raw/{drive}"
    wanted = [f"{photos}/{camera}/{CAMERA_FOLDERS[camera]}" for camera in options.cameras]
    lost, where = ("images", wanted) if options.clips else ("scans", [velodyne])
    count = f" for its {len(listing.promised)} frames" if listing.promised else ""
    hint = "download its raw archive, or leave it out with the option drives"
    problem = f"{where[0]}: the drive has no {lost}{count}{folders.unused(*where)} ({hint})"
    return Missing(dataset=DATASET, scene_id=drive, reason=problem)


def _split(drive: str) -> str:
    number = drive.split("_drive_")[1][:4]
    return "train" if number in _TRAIN else "test" if number in _TEST else "none"


def _plan_frames(
    store: Store, drive: str, listing: Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    root, poses = root_of(store), listing.trajectory
    for frame in listing.promised:
        lost = options.require_pose and poses.lost(frame)
        if frame % options.every or (options.require_pose and frame not in poses.places and not lost):
            continue
        scene_id = f"{drive}/{frame:0{DIGITS}d}"
        if lost or frame not in listing.scans:
            reason = f"frame {frame} was recorded (timestamp or image) but its scan (velodyne_points) is absent"
            if lost:
                reason = f"its pose may have stood in a damaged part of {pose_path(drive)}: {poses.problem}"
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
        if frame in poses.places:
            files |= pose_files(listing, drive)
            dropped |= {"interpolated pose": 1} if "before" in poses.places[frame] else {}
        else:
            dropped["no pose"] = 1
        dropped |= {} if frame in listing.scan_times else {"no time": 1}
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
                "pose": poses.places.get(frame),
                "imu_from_velo": calibration["imu_from_velo"],
                "cameras": {
                    camera: calibration["cameras"][camera] | {"timestamp": listing.image_times[camera].get(frame)}
                    for camera in listing.images
                    if camera in used
                },
                "dropped": dropped,
                "intensity_unit": options.intensity_unit,
            },
            points_estimate=listing.scans[frame].size // POINT_BYTES,
            bytes_estimate=sum(found.size for found in used.values()),
        )


def _plan_drive_clips(
    store: Store, drive: str, listing: Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    ref = SceneRef(
        dataset=DATASET, scene_id=drive, split=_split(drive), sequence=drive, root=root_of(store),
        files=pose_files(listing, drive),
    )  # fmt: skip
    poses = listing.trajectory
    for camera in options.cameras:
        times = listing.image_times.get(camera, {})
        images = {n: image for n, image in sorted(listing.images.get(camera, {}).items()) if n % options.every == 0}
        frames = [
            Frame(
                number=number,
                image=image,
                seconds=guess_seconds(times.get(number)),
                details={"timestamp": times.get(number), "pose": poses.places.get(number)},
                files={},
            )
            for number, image in images.items()
            if number in poses.places or not options.require_pose
        ]
        lost = sum(map(poses.lost, images)) if options.require_pose else 0
        more = {
            "imu_from_velo": calibration["imu_from_velo"],
            "camera": calibration["cameras"].get(camera),
            "dropped": {"images whose pose is in a damaged part of poses.txt": lost} if lost else {},
        }
        yield from plan_clips(ref, camera, frames, options.clips or ClipOptions(), more=more)


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
            world_from_velo=lambda frame: world_from_velo(files, frame["pose"]),
            timestamp=lambda frame: timestamp_of(files, folder, frame["timestamp"], frame["frame"]),
        )
    if "window" in ref.details:
        return read_window_scene(files)
    points, dropped = read_scan(files, ref.files["points"])
    views = tuple(
        read_posed_view(files, name, name, camera, timestamp=camera["timestamp"], frame=ref.details["frame"])
        for name, camera in ref.details["cameras"].items()
    )
    world_from_scene = world_from_velo(files, ref.details["pose"])
    folder = f"data_3d_raw/{ref.sequence}/velodyne_points"
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=timestamp_of(files, folder, ref.details["timestamp"], ref.details["frame"]),
        domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=np.eye(4) if world_from_scene is None else world_from_scene,
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
