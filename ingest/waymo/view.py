"""Camera -> View: OpenCV axes, a rolling shutter, and the panoptic label where the picture has one.

A view has one pose, the one of its middle column (or line): the recorded pose, moved with the recorded velocity from
its own time to the middle of the read-out. How it moves within the read-out (44 ms: nothing for a parked car, up to
tens of pixels for close points at speed) is `View.rolling_shutter`. Of the recorded velocity the linear part has the
axes of the world and belongs to the vehicle's origin, the angular part has the axes of the vehicle; the camera sits
some metres from that origin, so a turn adds to its speed.

Waymo counts pixels from the corner of the top left one, a Scene from its centre: principal points lose half a pixel.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.images import jpeg_size
from brickyard.ingest.source import RawFiles
from brickyard.ingest.waymo.frame import CAMERAS, DIRECTIONS, Camera
from brickyard.shards.errors import NONSENSE, ImageError
from brickyard.shards.png import walk_png
from brickyard.shards.scene import UNLABELLED, Float64, RollingShutter, View
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "waymo_camera28"
_RAW_CLASSES = 29
_FASTEST = (200.0,) * 3 + (10.0,) * 3  # m/s and rad/s of a car
_LONGEST_EXPOSURE = 0.2  # seconds between a recorded pose and the middle of its read-out: two frames
_LONGEST_READOUT = 0.2
_NAMES = {number: name for name, number in CAMERAS.items()}

WAYMO_FROM_OPENCV = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)
"""Camera axes: OpenCV's x right, y down, z forward -> Waymo's x forward, y left, z up."""


def build_view(files: RawFiles, path: str, camera: Camera, vehicle: Float64) -> View:
    """The view in the frame of a vehicle that stands at `vehicle` (float64 (4, 4), world from vehicle).

    Raises:
        RawDataError: a picture, label, time or velocity that cannot be.
    """
    name = _NAMES[camera.number]
    width, height = jpeg_size(files, path, camera.jpeg)
    if (width, height) != (camera.width, camera.height):
        problem = f"the image of {name} is {width}x{height}, its calibration says {camera.width}x{camera.height}"
        raise files.error(path, problem)
    f_u, f_v, c_u, c_v, *distortion = camera.intrinsic.tolist()
    if min(f_u, f_v) <= 0:
        raise files.error(path, f"the camera {name} has no positive focal length")
    if (np.abs(camera.velocity) > _FASTEST).any():
        raise files.error(path, f"the camera {name} has an impossible velocity {camera.velocity.tolist()}")
    pose = exposed_pose(files, path, camera)
    try:
        classes, instance = _panoptic(camera)
    except (ImageError, OSError, *NONSENSE) as problem:
        raise files.error(path, f"the panoptic label of {name}: {problem}") from None
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
        timestamp_ns=round(_middle(camera) * 1e6) * 1000,  # float64 seconds hold no more than microseconds
        rolling_shutter=_shutter(files, path, camera, vehicle, pose),
        semantic={} if classes is None else {TAXONOMY: classes},
        instance=instance,
    )


def exposed_pose(files: RawFiles, path: str, camera: Camera) -> Float64:
    """World from vehicle in the middle of the read-out; raises `RawDataError` for impossible times."""
    time, name = _middle(camera), _NAMES[camera.number]
    if not (0 < time < 1e10 and abs(time - camera.pose_time) < _LONGEST_EXPOSURE):
        raise files.error(path, f"the camera {name} was exposed at {time} s but its pose is of {camera.pose_time} s")
    return _moved(camera.pose, camera.velocity, time - camera.pose_time)


def _middle(camera: Camera) -> float:
    return camera.trigger + camera.shutter / 2 + (camera.done - camera.trigger - camera.shutter) / 2


def _shutter(files: RawFiles, path: str, camera: Camera, vehicle: Float64, pose: Float64) -> RollingShutter | None:
    if camera.direction not in DIRECTIONS:
        return None
    readout = camera.done - camera.trigger - camera.shutter
    if not 0 < readout < _LONGEST_READOUT:
        raise files.error(path, f"the camera {_NAMES[camera.number]} was read out in {readout:g} s")
    turn: Float64 = pose[:3, :3] @ camera.velocity[3:]
    speed = camera.velocity[:3] + np.cross(turn, pose[:3, :3] @ camera.extrinsic[:3, 3])
    scene_from_world: Float64 = np.linalg.inv(vehicle[:3, :3])
    return RollingShutter(
        direction=DIRECTIONS[camera.direction],
        readout_s=float(readout),
        velocity=scene_from_world @ speed,
        angular_velocity=scene_from_world @ turn,
    )


def _panoptic(camera: Camera) -> tuple[NDArray[np.int16] | None, NDArray[np.int32] | None]:
    """(classes, instances) of the picture; None for both where nobody labelled it. Raises for impossible ones."""
    if camera.panoptic is None:
        return None, None
    from PIL import Image

    divisor, png = camera.panoptic
    if not 0 < divisor < 1 << 16:
        raise ValueError(f"the divisor is {divisor}")
    walk_png(png)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:  # reads the header only
        if picture.size != (camera.width, camera.height) or picture.mode not in ("I;16", "I", "L"):
            raise ValueError(f"{picture.size} pixels of mode {picture.mode}, expected 16 bits for each of the picture")
        values = np.asarray(picture).astype(np.uint16, copy=False)
    raw = values // np.uint16(divisor)  # of 16 bits it is quick; a remainder never is
    if raw.max() >= _RAW_CLASSES:
        raise ValueError(f"a class of {raw.max()}, expected 0..{_RAW_CLASSES - 1}")
    table = np.full(256, UNLABELLED, np.int8)
    for number, ident in taxonomy(TAXONOMY).from_raw.items():
        table[number] = ident
    classes = np.frombuffer(raw.astype(np.uint8).tobytes().translate(table.tobytes()), np.int8)
    return classes.astype(np.int16).reshape(raw.shape), (values - raw * np.uint16(divisor)).astype(np.int32)


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
