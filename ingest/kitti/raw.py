"""KITTI raw: drives of synchronised, rectified frames at 10 Hz, with GPS/IMU poses.

    <root>/<date>/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
    <root>/<date>/<date>_drive_NNNN_sync/{velodyne_points,image_0x,oxts}/{timestamps.txt,data/%010d.*}

Planning lists each drive's folders once, reads its timestamps and, once a date, the calibration; scans, images and
poses stay closed. Frames are matched by number: drives do lack single scans (2011_09_26_drive_0009 lacks four).

What counts as a promised scene
  * A frame with a scan, an image or a timestamp is promised. Without its scan or its pose (oxts) it is `Missing`.
  * A scan without image keeps its other views; if the camera exists in the drive, the loss is in `Scene.dropped`.
  * A drive folder that holds neither (only tracklets or poses) promises nothing: it is passed over with a warning in
    the log, unless `drives` asks for it by name; then it is `Missing`.
  * An `_extract` drive (unrectified, unsynchronised, scans as text) is `Missing` as a whole, and so are the drives of
    a date whose calibration is absent or damaged.

With `clips`, a drive's images become clips (see `ingest.kitti.clips`): every image counts, with or without scan. One
whose GPS/IMU packet is absent has no pose.

The world is the Mercator frame of the drive (see `oxts`), gravity-aligned: x east, y north, z up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ingest.clips import ClipOptions
from ingest.kitti.calibration import (
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
from ingest.kitti.clips import Frame, plan_clips, read_clip, role
from ingest.kitti.folders import DEFAULT_CAMERAS, LICENCE, Found, check_cameras, numbered, root_of
from ingest.kitti.images import read_view
from ingest.kitti.oxts import parse_packet, world_from_imu
from ingest.kitti.timestamps import guess_seconds, list_timestamps, parse_timestamp
from ingest.kitti.velodyne import POINT_BYTES, read_scan
from ingest.source import Missing, RawFiles, SceneRef, Source
from shards.errors import RawDataError, RecipeError
from shards.scene import Float64, Identity, Scene, View
from shards.storage import Store

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
        clips: yield clips of each camera instead of single frames.
    """

    cameras: tuple[str, ...] = DEFAULT_CAMERAS
    drives: tuple[str, ...] = ()
    every: int = 1
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")


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
    calibrations: dict[str, dict[str, Any]] = {}
    for drive, date in drives.items():
        if options.drives and drive not in options.drives:
            continue
        if drive.endswith("_extract"):
            reason = "unsynchronised, unrectified drive with scans as text; download the _sync archive instead"
            yield Missing(dataset=DATASET, scene_id=drive, reason=reason)
            continue
        try:
            listing = _list_drive(store, f"{date}/{drive}", options)
            if listing.promised and date not in calibrations:
                calibrations[date] = _date_calibration(store, date, options)
        except RawDataError as problem:
            yield Missing(dataset=DATASET, scene_id=drive, reason=str(problem))
            continue
        if listing.promised and options.clips:
            yield from _plan_drive_clips(store, drive, listing, calibrations[date], options)
        elif listing.promised:
            yield from _plan_frames(store, drive, listing, calibrations[date], options)
        else:
            yield from _nothing_promised(drive, asked=drive in options.drives)


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


def _list_drive(store: Store, folder: str, options: Options) -> _Listing:
    images = {c: numbered(store, f"{folder}/{c}/data", ".png", _DIGITS) for c in options.cameras}
    images = {camera: found for camera, found in images.items() if found}
    return _Listing(
        scans=numbered(store, f"{folder}/velodyne_points/data", ".bin", _DIGITS),
        poses=numbered(store, f"{folder}/oxts/data", ".txt", _DIGITS),
        images=images,
        scan_times=list_timestamps(store, f"{folder}/velodyne_points/timestamps.txt", DATASET),
        image_times={c: list_timestamps(store, f"{folder}/{c}/timestamps.txt", DATASET) for c in images},
    )


def _nothing_promised(drive: str, asked: bool) -> Iterator[Missing]:
    reason = "the drive has no scans and no images (only labels or poses); download its synced archive"
    if asked:
        yield Missing(dataset=DATASET, scene_id=drive, reason=reason)
    else:
        logging.getLogger(__name__).warning("%s: %s: passed over: %s", DATASET, drive, reason)


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
    root = root_of(store)
    for frame in listing.promised:
        if frame % options.every:
            continue
        scene_id = f"{drive}/{frame:0{_DIGITS}d}"
        if frame not in listing.scans or frame not in listing.poses:
            what = "scan (velodyne_points)" if frame not in listing.scans else "pose (oxts)"
            reason = f"frame {frame} was recorded (timestamp, image or scan) but its {what} is absent"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
            continue
        used = {"points": listing.scans[frame], "pose": listing.poses[frame]}
        used["first_pose"] = listing.poses[min(listing.poses)]
        used |= {camera: found[frame] for camera, found in listing.images.items() if frame in found}
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
                "dropped": {f"missing image {camera}": 1 for camera in listing.images if camera not in used},
            },
            points_estimate=listing.scans[frame].size // POINT_BYTES,
            bytes_estimate=sum(found.size for found in used.values()),
        )


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
        more = {"velo_from_imu": calibration["velo_from_imu"], "camera": calibration["cameras"][camera]}
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
    world_from_scene = _read_pose(files, ref.files["pose"]) @ imu_from_velo
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
