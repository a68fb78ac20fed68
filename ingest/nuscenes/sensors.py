"""Where a sensor was when it fired, and the image it took: from the plain data of a reference, checked.

Every sensor fires at a time of its own, and the car moves in between (up to 0.4 m between a keyframe's images and its
sweep). Hence the way from one sensor to another goes through the world with each sensor's own ego pose:

    world_from_sensor = global_from_ego(own time) ego_from_sensor                               all in float64
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brickyard.ingest.images import jpeg_size
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64, View

MAX_IMAGE_BYTES = 64 << 20
_MAX_WORLD = 1e7


def world_from_sensor(files: RawFiles, name: str, sensor: Mapping[str, Any]) -> Float64:
    """(4, 4) of a sensor, `global_from_ego` times `ego_from_sensor`; raises `RawDataError` for what is no pose."""
    found: Float64 = world_from_ego(files, name, sensor) @ _pose(files, name, sensor, "ego_from_sensor")
    return found


def world_from_ego(files: RawFiles, name: str, sensor: Mapping[str, Any]) -> Float64:
    """(4, 4) of the car when a sensor fired: x forward, y left, z up, on the ground below the rear axle."""
    return _pose(files, name, sensor, "global_from_ego")


def read_view(files: RawFiles, role: str, name: str, camera: Mapping[str, Any], scene_from_world: Float64) -> View:
    """The image of a role with its camera; raises `RawDataError`."""
    path = files.ref.files[role]
    image = files.read(path, limit=MAX_IMAGE_BYTES)
    width, height = jpeg_size(files, path, image)
    expected_width, expected_height = camera["size"]
    if (width, height) != (expected_width, expected_height):
        problem = f"the image is {width}x{height}, sample_data.json says {expected_width}x{expected_height}"
        raise files.error(path, problem, hint="use the original images: the intrinsics are for them")
    scene_from_camera = scene_from_world @ world_from_sensor(files, name, camera)
    scene_from_camera[3] = (0, 0, 0, 1)
    intrinsics = _numbers(files, f"camera_intrinsic of {name}", camera["intrinsics"], (3, 3))
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0 or tuple(intrinsics[2]) != (0, 0, 1):
        raise files.error(path, f"camera_intrinsic of {name} is no pinhole camera: {intrinsics.tolist()}")
    return View(
        name=name, image=image, image_format="jpeg", width=width, height=height, intrinsics=intrinsics,
        scene_from_camera=scene_from_camera, timestamp_ns=camera["timestamp_ns"],
    )  # fmt: skip


def rotation_matrix(quaternion: Sequence[float]) -> Float64:
    """(w, x, y, z), normalised here -> (3, 3) rotation."""
    length = math.hypot(*quaternion)
    w, x, y, z = (float(value) / length for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _pose(files: RawFiles, name: str, sensor: Mapping[str, Any], step: str) -> Float64:
    """One of the two poses of a sensor, (4, 4). Plain floats: numpy takes longer for seven numbers."""
    tables = files.ref.details["version"]
    values = sensor[step]["rotation"], sensor[step]["translation"]
    for what, value, count in zip(("rotation", "translation"), values, (4, 3), strict=True):
        # NaN is never smaller than anything, so it is refused here too.
        plain = isinstance(value, list) and len(value) == count
        if not plain or not all(isinstance(v, int | float) and abs(v) <= _MAX_WORLD for v in value):
            problem = f"{what} of {step} of {name} should be {count} finite numbers, found {str(value)[:60]}"
            raise files.error(tables, problem)
    length = math.hypot(*values[0])
    if not 0.5 < length < 2:
        table = "ego_pose.json" if step == "global_from_ego" else "calibrated_sensor.json"
        problem = f"rotation of {step} of {name} is no unit quaternion: length {length:g}"
        raise files.error(f"{tables}/{table}", problem)
    pose = np.eye(4)
    pose[:3, :3] = rotation_matrix(values[0])
    pose[:3, 3] = values[1]
    return pose


def _numbers(files: RawFiles, what: str, value: Any, shape: tuple[int, ...]) -> Float64:
    """A table's value as a finite float64 array of a shape; raises `RawDataError` naming what it is."""
    tables = files.ref.details["version"]
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise files.error(tables, f"{what} is not made of numbers: {str(value)[:60]}") from None
    if array.shape != shape or not np.isfinite(array).all() or np.abs(array).max() > _MAX_WORLD:
        raise files.error(tables, f"{what} should be {shape} finite numbers, found {str(value)[:60]}")
    return array
