"""Frame -> Scene: points of all lasers in the vehicle frame, with labels of the taxonomy; views as `view` makes them.

Points come laser by laser in the order of their numbers (TOP first), return 1 before return 2, pixels row by row; ring
is the row of the range image. Intensity is raw and may exceed 1 by far. How many echoes a pulse had is known only if
both returns are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.source import RawFiles
from ingest.waymo.frame import LASERS, LICENCE, Echo, Frame, Laser
from ingest.waymo.range_image import pixel_points
from ingest.waymo.view import build_view
from shards.scene import UNLABELLED, Float64, Identity, Points, Scene
from shards.taxonomy import taxonomy

TAXONOMY = "waymo22"
_RAW_CLASSES = 23
_MAX_RANGE = 1000.0  # metres; TOP reaches 75
_LASER_NAMES = {number: name for name, number in LASERS.items()}


def build_scene(files: RawFiles, lidar_path: str, image_path: str, frame: Frame, version: str) -> Scene:
    """The validated Scene of a frame; the paths are for errors only.

    Raises:
        RawDataError: range images, labels or pictures that are not what the format says, or no usable point.
    """
    points, dropped = _points(files, lidar_path, frame)
    views = tuple(build_view(files, image_path, camera, frame.pose) for camera in frame.cameras)
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
                part = _echo_points(laser, echo, frame.pose, dropped)
                part["return"] = np.full(len(part["row"]), number, np.uint8)
                part["count"] = _echo_count(laser, part["row"], part["column"])
                parts.append(part)
            except ValueError as problem:
                raise files.error(path, f"{what}: {problem}") from None
    if not sum(len(part["xyz"]) for part in parts):
        hint = "records made for camera tasks have empty lasers" if not parts else "download it again"
        raise files.error(path, f"no usable point in the {len(parts)} range images of this frame", hint=hint)
    column = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    labelled = any(echo.labels is not None for laser in frame.lasers for echo in laser.echoes)
    points = Points(
        xyz=column["xyz"],
        intensity=column["intensity"],
        intensity_unit="raw",
        ring=column["row"].astype(np.uint8 if column["row"].max() < 256 else np.uint16),
        return_number=column["return"],
        return_count=column["count"] if files.ref.details["returns"] == 2 else None,
        elongation=column["elongation"],
        semantic={TAXONOMY: column["class"]} if labelled else {},
        instance=column["instance"] if labelled else None,
    )
    return points, dropped


def _echo_points(laser: Laser, echo: Echo, pose: Float64, dropped: dict[str, int]) -> dict[str, NDArray[Any]]:
    """Columns of one return's points; counts in `dropped` the pixels that cannot be measurements."""
    shape = echo.image.shape[:2]
    if laser.pixel_pose is not None and laser.pixel_pose.shape[:2] != shape:
        raise ValueError(f"{shape} pixels but poses for {laser.pixel_pose.shape[:2]}")
    if echo.labels is not None and echo.labels.shape[:2] != shape:
        raise ValueError(f"{shape} pixels but labels for {echo.labels.shape[:2]}")
    distance, intensity, elongation = np.moveaxis(echo.image[..., :3], 2, 0)
    finite = np.isfinite(echo.image[..., :3]).all(axis=2)
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
        "elongation": elongation[rows, columns],
        "row": rows,
        "column": columns,
        "class": classes,
        "instance": instance,
    }


def _echo_count(laser: Laser, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.uint8]:
    """How many echoes the pulses of pixels had; 0 (unknown) where the laser has no second range image."""
    if len(laser.echoes) < 2:
        return np.zeros(len(rows), np.uint8)
    second = laser.echoes[1].image[..., 0]
    if second.shape != laser.echoes[0].image.shape[:2]:
        raise ValueError(f"{laser.echoes[0].image.shape[:2]} pixels in return 1, {second.shape} in return 2")
    return np.where(second[rows, columns] > 0, 2, 1).astype(np.uint8)


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
