"""Reading one nuScenes keyframe from its reference: points, images and labels; no table, no devkit.

Every sensor fires at a time of its own, and the car moves in between (up to 0.4 m). Hence the way from a lidar point to
a camera goes through the world with each sensor's own ego pose (the devkit's map_pointcloud_to_image):

    world_from_scene  = global_from_ego(lidar time) ego_from_lidar
    scene_from_camera = world_from_scene^-1 global_from_ego(camera time) ego_from_camera         all in float64

The scene frame is LIDAR_TOP's: x right, y forward, z up. Images are rectified already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.jpeg import jpeg_size
from ingest.nuscenes.categories import TAXONOMY, class_table
from ingest.nuscenes.plan import DATASET, POINT_BYTES
from ingest.source import RawFiles, SceneRef
from shards.scene import Float64, Identity, Points, Scene, View

LICENCE = "CC-BY-NC-SA-4.0"
MAX_SWEEP_BYTES = 64 << 20
MAX_IMAGE_BYTES = 64 << 20
_MAX_COORDINATE = 1000.0  # metres; the HDL-32E reaches 100
_MAX_WORLD = 1e7


def read(ref: SceneRef) -> Scene:
    """The keyframe of a reference.

    Raises:
        RawDataError: a file is missing or not what the format says, or a pose is none.
    """
    files = RawFiles(ref)
    lidar = ref.details["lidar"]
    world_from_scene = _world_from_sensor(files, "lidar", lidar)
    points, dropped = _read_points(files)
    views = tuple(
        _read_view(files, name, camera, world_from_scene) for name, camera in ref.details["cameras"].items()
    )  # fmt: skip
    identity = Identity(
        dataset=DATASET, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
        scene_id=ref.scene_id, timestamp_ns=lidar["timestamp_ns"], domain="outdoor", licence=LICENCE,
        sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=world_from_scene,
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_points(files: RawFiles) -> tuple[Points, dict[str, int]]:
    """Sweep and labels in file order, joined, then without the records that cannot be used."""
    path = files.ref.files["points"]
    data = files.read(path, limit=MAX_SWEEP_BYTES)
    if not data:
        raise files.error(path, "the sweep is empty", hint="download it again")
    if len(data) % POINT_BYTES:
        problem = f"{len(data)} bytes are no multiple of {POINT_BYTES}: the last point is cut off"
        offset = len(data) - len(data) % POINT_BYTES
        raise files.error(path, problem, offset=offset, hint="the file is truncated; download it again")
    records = np.frombuffer(data, "<f4").reshape(-1, 5)
    labels = _read_labels(files, len(records))
    finite = np.isfinite(records).all(axis=1)
    possible = _possible(records)
    reach = np.linalg.norm(np.where(finite[:, None], records[:, :3], 0).astype(np.float64), axis=1)
    near = reach < files.ref.details["min_range"]
    keep = finite & possible & ~near
    if not keep.any():
        raise files.error(path, f"none of {len(records)} points is usable (finite, possible, beyond min_range)")
    counts = {
        "non-finite points": int((~finite).sum()),
        "impossible points": int((finite & ~possible).sum()),
        "points within min_range": int((finite & possible & near).sum()),
    }
    kept = records[keep]
    points = Points(
        xyz=np.ascontiguousarray(kept[:, :3], np.float32),
        intensity=np.ascontiguousarray(kept[:, 3], np.float32),
        intensity_unit="byte",
        ring=kept[:, 4].astype(np.uint8),
        semantic={} if labels is None else {TAXONOMY: labels[keep]},
    )
    return points, {reason: count for reason, count in counts.items() if count}


def _possible(records: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which records can be measurements: within reach, intensity 0..255, ring a whole number 0..255."""
    with np.errstate(invalid="ignore"):
        near_enough = (np.abs(records[:, :3]) <= _MAX_COORDINATE).all(axis=1)
        in_bytes = ((records[:, 3:] >= 0) & (records[:, 3:] <= 255)).all(axis=1)
        possible: NDArray[np.bool_] = near_enough & in_bytes & (records[:, 4] == np.floor(records[:, 4]))
    return possible


def _read_labels(files: RawFiles, count: int) -> NDArray[np.int16] | None:
    """Classes of the taxonomy, one a record in file order; None without a label file."""
    path = files.ref.files.get("lidarseg")
    if path is None:
        return None
    raw = np.frombuffer(files.read(path, limit=MAX_SWEEP_BYTES), np.uint8)
    if len(raw) != count:
        problem = f"{len(raw)} labels for {count} points"
        raise files.error(path, problem, hint="sweep and labels are of different releases or truncated")
    classes, exists = class_table(list(files.ref.details["label_ids"]))
    unknown = np.flatnonzero(~exists[raw])
    if len(unknown):
        first = int(unknown[0])
        raise files.error(path, f"label {raw[first]} is no category's index in category.json", offset=first)
    labels: NDArray[np.int16] = classes[raw]
    return labels


def _read_view(files: RawFiles, name: str, camera: Mapping[str, Any], world_from_scene: Float64) -> View:
    path = files.ref.files[name]
    image = files.read(path, limit=MAX_IMAGE_BYTES)
    width, height = jpeg_size(files, path, image)
    expected_width, expected_height = camera["size"]
    if (width, height) != (expected_width, expected_height):
        problem = f"the image is {width}x{height}, sample_data.json says {expected_width}x{expected_height}"
        raise files.error(path, problem, hint="use the original images: the intrinsics are for them")
    scene_from_world = np.linalg.inv(world_from_scene)
    scene_from_camera = scene_from_world @ _world_from_sensor(files, name, camera)
    scene_from_camera[3] = (0, 0, 0, 1)
    intrinsics = _numbers(files, f"camera_intrinsic of {name}", camera["intrinsics"], (3, 3))
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0 or tuple(intrinsics[2]) != (0, 0, 1):
        raise files.error(path, f"camera_intrinsic of {name} is no pinhole camera: {intrinsics.tolist()}")
    return View(
        name=name, image=image, image_format="jpeg", width=width, height=height, intrinsics=intrinsics,
        scene_from_camera=scene_from_camera, timestamp_ns=camera["timestamp_ns"],
    )  # fmt: skip


def _world_from_sensor(files: RawFiles, name: str, sensor: Mapping[str, Any]) -> Float64:
    """global_from_ego(own time) @ ego_from_sensor, (4, 4)."""
    poses = []
    for step in ("global_from_ego", "ego_from_sensor"):
        what = f"{step} of {name}"
        rotation = _numbers(files, f"rotation of {what}", sensor[step]["rotation"], (4,))
        translation = _numbers(files, f"translation of {what}", sensor[step]["translation"], (3,))
        length = float(np.linalg.norm(rotation))
        if not 0.5 < length < 2:
            table = "ego_pose.json" if step == "global_from_ego" else "calibrated_sensor.json"
            problem = f"rotation of {what} is no unit quaternion: length {length:g}"
            raise files.error(f"{files.ref.details['version']}/{table}", problem)
        pose = np.eye(4)
        pose[:3, :3] = rotation_matrix(rotation)
        pose[:3, 3] = translation
        poses.append(pose)
    world_from_sensor: Float64 = poses[0] @ poses[1]
    return world_from_sensor


def rotation_matrix(quaternion: Sequence[float] | Float64) -> Float64:
    """(w, x, y, z), normalised here -> (3, 3) rotation."""
    w, x, y, z = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


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
