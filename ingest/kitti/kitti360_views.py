"""A picture of KITTI-360 at its place: the calibrated camera, the car's pose and the time of its own frame.

Scans, clips and accumulated windows share these three; what they need was written to `SceneRef.details` by the plan.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from brickyard.ingest.kitti.images import read_view
from brickyard.ingest.kitti.kitti360_labels import read_image_labels
from brickyard.ingest.kitti.poses import read_pose
from brickyard.ingest.kitti.timestamps import parse_timestamp
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64, View


def read_posed_view(
    files: RawFiles, name: str, key: str, camera: dict[str, Any], *, timestamp: str | None, frame: int
) -> View:
    """The view of an image at its calibrated place in the velodyne frame, with its labels where they were planned.

    Args:
        name: of the camera, such as "image_00".
        key: role of the image in `SceneRef.files`.
        camera: its entry of `kitti360_rig.read_rig`.
        timestamp: the image's line of timestamps.txt; None where it is lost.

    Raises:
        RawDataError: an image, a label image or the timestamp is damaged.
    """
    width, height = camera["size"]
    view = read_view(
        files,
        name,
        files.ref.files[key],
        intrinsics=np.array(camera["intrinsics"], np.float64),
        scene_from_camera=np.array(camera["scene_from_camera"], np.float64),
        size=(width, height),
        timestamp_ns=timestamp_of(files, f"data_2d_raw/{files.ref.sequence}/{name}", timestamp, frame),
        camera_model=camera["model"],
        distortion=tuple(camera["distortion"]),
    )
    return replace(view, **read_image_labels(files, key, (width, height)))


def world_from_velo(files: RawFiles, place: dict[str, Any] | None) -> Float64 | None:
    """Pose (4, 4) of the lidar, float64, metres, where `place` says the car's pose stands; None where it has none."""
    if place is None:
        return None
    imu_from_velo = np.array(files.ref.details["imu_from_velo"], np.float64)
    return np.asarray(read_pose(files, files.ref.files["pose"], place) @ imu_from_velo)


def timestamp_of(files: RawFiles, folder: str, text: str | None, frame: int) -> int | None:
    """Nanoseconds since 1970 of a line of `folder`/timestamps.txt; None where the plan found no line for the frame."""
    if text is None:
        return None
    return parse_timestamp(text, frame, partial(files.error, f"{folder}/timestamps.txt"))
