"""KITTI raw: drives of synchronised, rectified frames at 10 Hz, with GPS/IMU poses.

    <root>/<date>/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
    <root>/<date>/<date>_drive_NNNN_sync/{velodyne_points,image_0x,oxts}/{timestamps.txt,data/%010d.*}

Planning lists each drive's folders once, reads its timestamps and, once a date, the calibration; scans, images and
poses stay closed. Frames are matched by number: drives do lack single scans (2011_09_26_drive_0009 lacks four).

What counts as a promised scene
  * A frame with a scan, an image or a timestamp is promised. Without its scan or its pose (oxts) it is `Missing`; with
    `require_pose: false` its pose may be absent: the world is then the frame's own lidar, counted as "no pose".
  * A scan without image keeps its other views; if the camera exists in the drive, the loss is in `Scene.dropped`.
  * A drive folder that holds neither (only tracklets or poses) promises nothing: it is passed over with a `Notice`,
    unless `drives` asks for it by name; then it is `Missing`.
  * An `_extract` drive (unrectified, unsynchronised, scans as text) is `Missing` as a whole. The drives of a date whose
    calibration is absent or damaged lose every frame, each for that reason.
  * Without a line in the timestamps a frame has no time, counted as "no time".

With `clips`, a drive's images become clips (see `ingest.kitti.clips`): every image counts, with or without scan. One
whose GPS/IMU packet is absent has no pose.

The world is the Mercator frame of the drive (see `oxts`), gravity-aligned: x east, y north, z up. Its scale is that of
the drive's first packet; where the first frames have none, it is that of the first there is, which is counted.

Pictures may also be JPEG. Scans and pictures exchanged with those of another frame cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.calibration import (
    MAX_TEXT_BYTES,
    PROJECTION,
    ROTATION,
    SIZE,
    TRANSLATION,
    inverse,
    read_calibration,
    rectified_camera,
    rigid,
)
from brickyard.ingest.kitti.clips import Frame, plan_clips, read_clip, role
from brickyard.ingest.kitti.folders import (
    DEFAULT_CAMERAS,
    LICENCE,
    PICTURES,
    Folders,
    Found,
    check_cameras,
    lost_frames,
    root_of,
)
from brickyard.ingest.kitti.images import read_view
from brickyard.ingest.kitti.oxts import parse_packet, world_from_imu
from brickyard.ingest.kitti.siblings import tell_lacks
from brickyard.ingest.kitti.timestamps import guess_seconds, list_timestamps, parse_timestamp
from brickyard.ingest.kitti.velodyne import POINT_BYTES, IntensityUnit, check_unit, read_scan
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Float64, Identity, Scene, View
from brickyard.shards.storage import Store

DATASET = "kitti_raw"
VERSION = "2013"
_DATE = re.compile(r"\d{4}_\d\d_\d\d/")
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_(sync|extract)/")
_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of the raw recordings.

    Attributes:
        cameras: views to keep.
        drives: names of the drives to read, such as "2011_09_26_drive_0052_sync"; empty for all.
        every: keep the frames whose number is a multiple of this (10 Hz: every=5 keeps two a second).
        require_pose: whether a frame without GPS/IMU packet (oxts) is `Missing`, or kept without a pose.
        clips: yield clips of each camera instead of single frames.
        intensity_unit: of scans that are not KITTI's own: "unit" (0..1), "byte" (0..255) or "raw".
    """

    cameras: tuple[str, ...] = DEFAULT_CAMERAS
    drives: tuple[str, ...] = ()
    every: int = 1
    require_pose: bool = True
    clips: ClipOptions | None = None
    intensity_unit: IntensityUnit = "unit"

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        check_unit(self.intensity_unit)
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")


@tell_lacks
def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all drives in order of date, drive and frame.

    Raises:
        RecipeError: no drive under the root, or a drive asked for is not there.
    """
    dates = [name.rstrip("/") for name in store.list() if _DATE.fullmatch(name)]
    drives = {name.rstrip("/"): date for date in dates for name in store.list(date) if _DRIVE.fullmatch(name)}
    if not drives:
        raise RecipeError(f"no KITTI raw drives in {store.uri}: expected <date>/<date>_drive_0001_sync/ and so on")
    unknown = sorted(set(options.drives) - set(drives))
    if unknown:
        raise RecipeError(f"no such drive in {store.uri}: {', '.join(unknown)}; found {', '.join(drives)}")
    calibrations: dict[str, dict[str, Any] | str] = {}
    for drive, date in drives.items():
        if options.drives and drive not in options.drives:
            continue
        if drive.endswith("_extract"):
            reason = "unsynchronised, unrectified drive with scans as text; download the _sync archive instead"
            yield Missing(dataset=DATASET, scene_id=drive, reason=reason)
            continue
        folders = Folders(store, DATASET)
        yield from _plan_drive(folders, date, drive, options, calibrations)
        yield from folders.notices()


def _plan_drive(
    folders: Folders, date: str, drive: str, options: Options, calibrations: dict[str, dict[str, Any] | str]
) -> Iterator[SceneRef | Missing]:
    """The frames of a drive; a date's calibration, or what is wrong with it, is kept for its other drives."""
    try:
        listing = _list_drive(folders, f"{date}/{drive}", options)
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=drive, reason=str(problem))
        return
    promised = [frame for frame in listing.promised if frame % options.every == 0]
    if not listing.promised:
        yield _nothing_promised(folders, f"{date}/{drive}", asked=drive in options.drives)
        return
    if date not in calibrations:
        try:
            calibrations[date] = _date_calibration(folders.store, date, options)
        except RawDataError as problem:
            calibrations[date] = str(problem)
    calibration = calibrations[date]
    if isinstance(calibration, str):
        yield from lost_frames(DATASET, drive, promised, _DIGITS, calibration)
    elif options.clips:
        yield from _plan_drive_clips(folders.store, drive, listing, calibration, options)
    elif options.require_pose and not listing.poses:
        lost = "no frame has a pose (oxts is absent: download it, or read without poses by require_pose: false)"
        yield from lost_frames(DATASET, drive, promised, _DIGITS, lost)
    else:
        yield from _plan_frames(folders.store, drive, listing, calibration, options)


@dataclass(frozen=True)
class _Listing:
    """What a drive's folders hold, by frame number; cameras that were not downloaded are left out."""

    scans: dict[int, Found]
    poses: dict[int, Found]
    images: dict[str, dict[int, Found]]
    scan_times: dict[int, str]
    image_times: dict[str, dict[int, str]]

    @property
    def promised(self) -> list[int]:
        return sorted(set().union(self.scans, self.scan_times, *self.images.values(), *self.image_times.values()))


def _list_drive(folders: Folders, folder: str, options: Options) -> _Listing:
    images = {c: folders.numbered(f"{folder}/{c}/data", PICTURES, _DIGITS) for c in options.cameras}
    images = {camera: found for camera, found in images.items() if found}
    store = folders.store
    return _Listing(
        scans=folders.numbered(f"{folder}/velodyne_points/data", (".bin",), _DIGITS),
        poses=folders.numbered(f"{folder}/oxts/data", (".txt",), _DIGITS),
        images=images,
        scan_times=list_timestamps(store, f"{folder}/velodyne_points/timestamps.txt", DATASET),
        image_times={c: list_timestamps(store, f"{folder}/{c}/timestamps.txt", DATASET) for c in images},
    )


def _nothing_promised(folders: Folders, folder: str, asked: bool) -> Missing:
    why = folders.unused(f"{folder}/velodyne_points/data", *(f"{folder}/{camera}/data" for camera in DEFAULT_CAMERAS))
    reason = f"the drive has no scans and no images (only labels or poses){why}; download its synced archive"
    if asked:
        return Missing(dataset=DATASET, scene_id=folder.rpartition("/")[2], reason=reason)
    return Notice(dataset=DATASET, scene_id=folder, reason=f"passed over: {reason}")


def _date_calibration(store: Store, date: str, options: Options) -> dict[str, Any]:
    """Cameras and IMU of a date, ready for `SceneRef.details`."""
    pair = {"R": ROTATION, "T": TRANSLATION}
    velo = read_calibration(store, f"{date}/calib_velo_to_cam.txt", pair, DATASET)
    imu = read_calibration(store, f"{date}/calib_imu_to_velo.txt", pair, DATASET)
    wanted = {"R_rect_00": ROTATION}
    for camera in options.cameras:
        wanted |= {f"P_rect_{camera[-2:]}": PROJECTION, f"S_rect_{camera[-2:]}": SIZE}
    cams = read_calibration(store, f"{date}/calib_cam_to_cam.txt", wanted, DATASET)
    cameras = {}
    for camera in options.cameras:
        intrinsics, scene_from_camera = rectified_camera(
            cams[f"P_rect_{camera[-2:]}"], cams["R_rect_00"], rigid(velo["R"], velo["T"])
        )
        cameras[camera] = {
            "intrinsics": intrinsics.tolist(),
            "scene_from_camera": scene_from_camera.tolist(),
            "size": [int(pixels) for pixels in cams[f"S_rect_{camera[-2:]}"]],
        }
    return {"cameras": cameras, "velo_from_imu": rigid(imu["R"], imu["T"]).tolist()}


def _plan_frames(
    store: Store, drive: str, listing: _Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    root, dropped_of_all = root_of(store), _late_scale(listing)
    for frame in listing.promised:
        if frame % options.every:
            continue
        scene_id = f"{drive}/{frame:0{_DIGITS}d}"
        posed = frame in listing.poses
        if frame not in listing.scans or (options.require_pose and not posed):
            what = "scan (velodyne_points)" if frame not in listing.scans else "pose (oxts)"
            reason = f"frame {frame} was recorded (timestamp, image or scan) but its {what} is absent"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
            continue
        used = {"points": listing.scans[frame]}
        if posed:
            used |= {"pose": listing.poses[frame], "first_pose": listing.poses[min(listing.poses)]}
        used |= {camera: found[frame] for camera, found in listing.images.items() if frame in found}
        dropped = {f"missing image {camera}": 1 for camera in listing.images if camera not in used}
        dropped |= dropped_of_all if posed else {"no pose": 1}
        dropped |= {} if frame in listing.scan_times else {"no time": 1}
        yield SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split="none",
            sequence=drive,
            root=root,
            files={role: found.path for role, found in used.items()},
            details={
                "frame": frame,
                "timestamp": listing.scan_times.get(frame),
                "velo_from_imu": calibration["velo_from_imu"],
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


def _late_scale(listing: _Listing) -> dict[str, int]:
    """The count for scenes whose world has the scale of a later packet, because that of the first frame is absent."""
    late = listing.poses and min(listing.poses) > listing.promised[0]
    return {"world of a later first packet (oxts)": 1} if late else {}


def _plan_drive_clips(
    store: Store, drive: str, listing: _Listing, calibration: dict[str, Any], options: Options
) -> Iterator[SceneRef | Missing]:
    first = {"first_pose": listing.poses[min(listing.poses)].path} if listing.poses else {}
    ref = SceneRef(
        dataset=DATASET, scene_id=drive, split="none", sequence=drive, root=root_of(store), files=first
    )  # fmt: skip
    for camera in options.cameras:
        times = listing.image_times.get(camera, {})
        frames = [
            Frame(
                number=number,
                image=image,
                seconds=guess_seconds(times.get(number)),
                details={"timestamp": times.get(number)},
                files={"pose": listing.poses[number]} if number in listing.poses else {},
            )
            for number, image in sorted(listing.images.get(camera, {}).items())
            if number % options.every == 0
        ]
        more = {
            "velo_from_imu": calibration["velo_from_imu"],
            "camera": calibration["cameras"][camera],
            "dropped": _late_scale(listing),
        }
        yield from plan_clips(ref, camera, frames, options.clips or ClipOptions(), more=more)


def read(ref: SceneRef) -> Scene:
    """One frame or clip; the scene frame is the velodyne's, the world the drive's Mercator frame.

    Raises:
        RawDataError: a file is missing or not what the format says.
    """
    files = RawFiles(ref)
    imu_from_velo = inverse(np.array(ref.details["velo_from_imu"], np.float64))
    if "clip" in ref.details:
        return _read_drive_clip(files, imu_from_velo)
    points, dropped = read_scan(files, ref.files["points"])
    views = tuple(_read_camera(files, name, camera) for name, camera in ref.details["cameras"].items())
    posed = "pose" in ref.files
    world_from_scene = _read_pose(files, ref.files["pose"]) @ imu_from_velo if posed else np.eye(4)
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=_timestamp(files, ref.files["points"], ref.details["timestamp"], ref.details["frame"]),
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
        timestamp_ns=_timestamp(files, files.ref.files[name], camera["timestamp"], files.ref.details["frame"]),
    )


def _read_drive_clip(files: RawFiles, imu_from_velo: Float64) -> Scene:
    camera = files.ref.details["clip"]

    def world_from_velo(frame: dict[str, Any]) -> Float64 | None:
        path = files.ref.files.get(role(frame["frame"], "pose"))
        return None if path is None else _read_pose(files, path) @ imu_from_velo

    def timestamp(frame: dict[str, Any]) -> int | None:
        return _timestamp(files, files.ref.files[role(frame["frame"], camera)], frame["timestamp"], frame["frame"])

    return read_clip(
        files, files.ref.details["camera"], version=VERSION, world_from_velo=world_from_velo, timestamp=timestamp
    )


def _read_pose(files: RawFiles, path: str) -> Float64:
    """world_from_imu; the drive's first packet sets the scale of its Mercator frame."""
    first_path = files.ref.files["first_pose"]
    packet = parse_packet(files.read(path, limit=MAX_TEXT_BYTES), partial(files.error, path))
    if first_path == path:
        return world_from_imu(packet, packet)
    first = parse_packet(files.read(first_path, limit=MAX_TEXT_BYTES), partial(files.error, first_path))
    return world_from_imu(packet, first)


def _timestamp(files: RawFiles, payload: str, text: str | None, frame: int) -> int | None:
    """Time of a frame, given the line of the timestamps that lie above the payload's folder."""
    if text is None:
        return None
    path = payload.rpartition("/data/")[0] + "/timestamps.txt"
    return parse_timestamp(text, frame, partial(files.error, path))


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
