"""Frame -> Scene: points of all lasers in the vehicle frame, views with OpenCV axes, labels of the taxonomy.

Points come laser by laser in the order of their numbers (TOP first), return 1 before return 2, pixels row by row; ring
is the row of the range image. Intensity is raw and may exceed 1 by far.

Cameras have rolling shutters. A view has one pose, so the one of its middle column (or line) is taken: the recorded
pose, moved with the recorded velocity from its own time to the middle of the read-out. What is left is the motion
within one read-out (22 ms to either side: nothing for a parked car, up to some ten pixels for close points at speed).
Waymo counts pixels from the corner of the top left one, a Scene from its centre: principal points lose half a pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.jpeg import jpeg_size
from ingest.source import RawFiles
from ingest.waymo.frame import CAMERAS, LASERS, LICENCE, Camera, Echo, Frame, Laser
from ingest.waymo.range_image import pixel_points
from shards.scene import UNLABELLED, Float64, Identity, Points, Scene, View
from shards.taxonomy import taxonomy

TAXONOMY = "waymo22"
_RAW_CLASSES = 23
_MAX_RANGE = 1000.0  # metres; TOP reaches 75
_FASTEST = (200.0,) * 3 + (10.0,) * 3  # m/s and rad/s of a car
_LONGEST_EXPOSURE = 0.2  # seconds between a recorded pose and the middle of its read-out: two frames
_LASER_NAMES = {number: name for name, number in LASERS.items()}
_CAMERA_NAMES = {number: name for name, number in CAMERAS.items()}

WAYMO_FROM_OPENCV = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)
"""Camera axes: OpenCV's x right, y down, z forward -> Waymo's x forward, y left, z up."""


def build_scene(files: RawFiles, lidar_path: str, image_path: str, frame: Frame, version: str) -> Scene:
    """The validated Scene of a frame; the paths are for errors only.

    Raises:
        RawDataError: range images, labels or pictures that are not what the format says, or no usable point.
    """
    points, dropped = _points(files, lidar_path, frame)
    views = tuple(_view(files, image_path, camera, frame.pose) for camera in frame.cameras)
    identity = Identity(
        dataset=files.ref.dataset, version=version, split=files.ref.split, sequence=files.ref.sequence,
        scene_id=files.ref.scene_id, timestamp_ns=frame.timestamp_us * 1000, domain="outdoor", licence=LICENCE,
        sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity, world_from_scene=frame.pose, points=points, views=views, dropped=dropped | frame.dropped
    ).validate()


def _points(files: RawFiles, path: str, frame: Frame) -> tuple[Points, dict[str, int]]:
    dropped: dict[str, int] = {}
    parts = []
    for laser in frame.lasers:
        for number, echo in enumerate(laser.echoes, 1):
            what = f"return {number} of laser {_LASER_NAMES[laser.number]}"
            try:
                parts.append(_echo_points(laser, echo, frame.pose, dropped))
            except ValueError as problem:
                raise files.error(path, f"{what}: {problem}") from None
    if not sum(len(part["xyz"]) for part in parts):
        hint = "records made for camera tasks have empty lasers" if not parts else "download it again"
        raise files.error(path, f"no usable point in the {len(parts)} range images of this frame", hint=hint)
    xyz, intensity, row, classes, instance = (
        np.concatenate([part[name] for part in parts]) for name in ("xyz", "intensity", "row", "class", "instance")
    )
    labelled = any(echo.labels is not None for laser in frame.lasers for echo in laser.echoes)
    points = Points(
        xyz=xyz,
        intensity=intensity,
        intensity_unit="raw",
        ring=row.astype(np.uint8 if row.max() < 256 else np.uint16),
        semantic={TAXONOMY: classes} if labelled else {},
        instance=instance if labelled else None,
    )
    return points, dropped


def _echo_points(laser: Laser, echo: Echo, pose: Float64, dropped: dict[str, int]) -> dict[str, NDArray[Any]]:
    """Columns of one return's points; counts in `dropped` the pixels that cannot be measurements."""
    shape = echo.image.shape[:2]
    if laser.pixel_pose is not None and laser.pixel_pose.shape[:2] != shape:
        raise ValueError(f"{shape} pixels but poses for {laser.pixel_pose.shape[:2]}")
    if echo.labels is not None and echo.labels.shape[:2] != shape:
        raise ValueError(f"{shape} pixels but labels for {echo.labels.shape[:2]}")
    distance, intensity = echo.image[..., 0], echo.image[..., 1]
    finite = np.isfinite(distance) & np.isfinite(intensity)
    if laser.pixel_pose is not None:
        finite &= np.isfinite(laser.pixel_pose).all(axis=2)
    filled = ~(distance <= 0)
    rows, columns = np.nonzero(filled & finite)
    xyz = pixel_points(laser, distance[rows, columns].astype(np.float64), (rows, columns), (shape[0], shape[1]), pose)
    possible = (np.abs(xyz) <= _MAX_RANGE).all(axis=1)
    _count(dropped, "non-finite points", int((filled & ~finite).sum()))
    _count(dropped, "impossible points", int((~possible).sum()))
    rows, columns = rows[possible], columns[possible]
    classes, instance = _labels(echo, rows, columns)
    return {
        "xyz": xyz[possible].astype(np.float32),
        "intensity": intensity[rows, columns],
        "row": rows,
        "class": classes,
        "instance": instance,
    }


def _count(dropped: dict[str, int], reason: str, count: int) -> None:
    if count:
        dropped[reason] = dropped.get(reason, 0) + count


def _labels(echo: Echo, rows: NDArray[Any], columns: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """Class of the taxonomy and instance id of pixels; UNLABELLED and 0 where this return was not labelled."""
    if echo.labels is None:
        return np.full(len(rows), UNLABELLED, np.int16), np.zeros(len(rows), np.int32)
    raw = echo.labels[rows, columns]  # instance first
    if len(raw) and not (raw[:, 1].min() >= 0 and raw[:, 1].max() < _RAW_CLASSES):
        raise ValueError(f"a class of {raw[:, 1].min()}..{raw[:, 1].max()}, expected 0..{_RAW_CLASSES - 1}")
    table = np.full(_RAW_CLASSES, UNLABELLED, np.int16)
    for number, ident in taxonomy(TAXONOMY).from_raw.items():
        table[number] = ident
    return table[raw[:, 1]], np.ascontiguousarray(raw[:, 0])


def _view(files: RawFiles, path: str, camera: Camera, vehicle: Float64) -> View:
    name = _CAMERA_NAMES[camera.number]
    width, height = jpeg_size(files, path, camera.jpeg)
    if (width, height) != (camera.width, camera.height):
        problem = f"the image of {name} is {width}x{height}, its calibration says {camera.width}x{camera.height}"
        raise files.error(path, problem)
    f_u, f_v, c_u, c_v, *distortion = camera.intrinsic.tolist()
    if min(f_u, f_v) <= 0:
        raise files.error(path, f"the camera {name} has no positive focal length")
    time = camera.trigger + camera.shutter / 2 + (camera.done - camera.trigger - camera.shutter) / 2
    if not (0 < time < 1e10 and abs(time - camera.pose_time) < _LONGEST_EXPOSURE):
        raise files.error(path, f"the camera {name} was exposed at {time} s but its pose is of {camera.pose_time} s")
    if (np.abs(camera.velocity) > _FASTEST).any():
        raise files.error(path, f"the camera {name} has an impossible velocity {camera.velocity.tolist()}")
    pose = _moved(camera.pose, camera.velocity, time - camera.pose_time)
    return View(
        name=name,
        image=camera.jpeg,
        image_format="jpeg",
        width=width,
        height=height,
        camera_model="opencv",
        intrinsics=np.array([[f_u, 0, c_u - 0.5], [0, f_v, c_v - 0.5], [0, 0, 1]]),
        distortion=tuple(distortion),
        scene_from_camera=_relative(vehicle, pose) @ camera.extrinsic @ WAYMO_FROM_OPENCV,
        timestamp_ns=round(time * 1e6) * 1000,  # float64 seconds hold no more than microseconds
    )


def _moved(pose: Float64, velocity: Float64, seconds: float) -> Float64:
    """World from vehicle some seconds later, at constant velocity (Rodrigues' formula for the rotation)."""
    turn = velocity[3:] * seconds
    angle = float(np.linalg.norm(turn))
    moved = pose.copy()
    moved[:3, 3] += velocity[:3] * seconds
    if angle:
        x, y, z = turn / angle
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        moved[:3, :3] = pose[:3, :3] @ (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
    return moved


def _relative(vehicle: Float64, pose: Float64) -> Float64:
    """vehicle^-1 pose, subtracting the positions before rotating them."""
    inverse = np.linalg.inv(vehicle[:3, :3])
    relative = np.eye(4)
    relative[:3, :3] = inverse @ pose[:3, :3]
    relative[:3, 3] = inverse @ (pose[:3, 3] - vehicle[:3, 3])
    return relative
