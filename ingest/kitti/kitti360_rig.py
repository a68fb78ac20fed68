"""KITTI-360's sensor rig: where the lidar and the four cameras sit on the car, and the cameras' optics.

    calib_cam_to_pose.txt        imu_from_cam of each unrectified camera ("pose" is the GPS/IMU's frame)
    calib_cam_to_velo.txt        velo_from_cam0, of the unrectified camera 0; one line without a key
    perspective.txt              P_rect, R_rect, S_rect of the rectified pair
    image_02.yaml, image_03.yaml optics of the fisheyes

The scene's frame is the velodyne's (x forward, y left, z up), so (the chain of kitti360scripts):

    imu_from_velo     = imu_from_cam0 velo_from_cam0^-1
    scene_from_camera = imu_from_velo^-1 imu_from_cam R_rect^-1        (no R_rect for the fisheyes)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from brickyard.ingest.kitti.calibration import (
    PROJECTION,
    ROTATION,
    SIZE,
    TRANSFORM,
    inverse,
    parse_calibration,
    read_calibration,
    read_text,
    rigid,
)
from brickyard.ingest.kitti.fisheye_yaml import parse_fisheye
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Float64
from brickyard.shards.storage import Store

_PERSPECTIVE = ("image_00", "image_01")


def read_rig(store: Store, cameras: tuple[str, ...], dataset: str) -> dict[str, Any]:
    """The calibration of a few cameras and the lidar, JSON-like for `SceneRef.details`.

    Returns:
        "imu_from_velo" (4x4 lists) and "cameras": name -> intrinsics, distortion, model, size, scene_from_camera.

    Raises:
        RawDataError: a calibration file that these cameras need is missing or damaged.
    """
    wanted = dict.fromkeys(sorted({"image_00", *cameras}), TRANSFORM)
    found = read_calibration(store, "calibration/calib_cam_to_pose.txt", wanted, dataset)
    imu_from_cam = {camera: _rigid(matrix) for camera, matrix in found.items()}
    imu_from_velo = imu_from_cam["image_00"] @ inverse(_velo_from_cam0(store, dataset))
    details = {}
    for camera in cameras:
        read_optics = _perspective if camera in _PERSPECTIVE else _fisheye
        optics, rectify = read_optics(store, camera, dataset)
        scene_from_camera = inverse(imu_from_velo) @ imu_from_cam[camera] @ inverse(rectify)
        details[camera] = optics | {"scene_from_camera": scene_from_camera.tolist()}
    return {"imu_from_velo": imu_from_velo.tolist(), "cameras": details}


def _velo_from_cam0(store: Store, dataset: str) -> Float64:
    """`calib_cam_to_velo.txt` is one line of 12 numbers without a key: it gets one."""
    path = "calibration/calib_cam_to_velo.txt"
    data = read_text(store, path, dataset)
    fail = partial(RawDataError, dataset=dataset, path=path)
    return _rigid(parse_calibration(b"cam_to_velo: " + data.lstrip(), {"cam_to_velo": TRANSFORM}, fail)["cam_to_velo"])


def _perspective(store: Store, camera: str, dataset: str) -> tuple[dict[str, Any], Float64]:
    """Optics of a rectified camera and its rectifying rotation (4, 4).

    The stereo baseline in the fourth column of P_rect is for points of camera 0. Here each camera has its own pose
    from the calibration, so only P_rect's left 3x3 part is used; the two agree to a micrometre.
    """
    entries = {f"P_rect_{camera[-2:]}": PROJECTION, f"R_rect_{camera[-2:]}": ROTATION, f"S_rect_{camera[-2:]}": SIZE}
    found = read_calibration(store, "calibration/perspective.txt", entries, dataset)
    projection, rotation, size = (found[key] for key in entries)
    optics = {
        "model": "pinhole",
        "intrinsics": projection[:, :3].tolist(),
        "distortion": [],
        "size": [int(pixels) for pixels in size],
    }
    return optics, rigid(rotation)


def _fisheye(store: Store, camera: str, dataset: str) -> tuple[dict[str, Any], Float64]:
    """Optics of a fisheye; nothing is rectified, so its rotation is the identity (4, 4)."""
    path = f"calibration/{camera}.yaml"
    fail = partial(RawDataError, dataset=dataset, path=path)
    found = parse_fisheye(read_text(store, path, dataset), camera, fail)
    optics = {
        "model": "mei",
        "intrinsics": found.intrinsics.tolist(),
        "distortion": list(found.distortion),
        "size": list(found.size),
    }
    return optics, np.eye(4)


def _rigid(matrix: Float64) -> Float64:
    return rigid(matrix[:, :3], matrix[:, 3])
