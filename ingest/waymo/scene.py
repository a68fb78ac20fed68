"""Frame -> Scene: points of all lasers in the vehicle frame, with labels of the taxonomy; views as `view` makes them.

Points come laser by laser in the order of their numbers (TOP first), return 1 before return 2, pixels row by row; ring
is the row of the range image. Intensity is raw and may exceed 1 by far. How many echoes a pulse had is known only if
both returns are read.

Parquet pages have no checksum as a rule, so what they hold is held against what a lidar can measure, for both releases
alike: a few impossible pixels are counted, more of them are a damaged image, of whose other pixels nobody knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE, blank_records
from brickyard.ingest.source import RawFiles
from brickyard.ingest.waymo.frame import LASERS, LICENCE, Echo, Frame, Laser
from brickyard.ingest.waymo.range_image import pixel_points
from brickyard.ingest.waymo.view import build_view
from brickyard.shards.scene import UNLABELLED, Float32, Float64, Identity, Points, Scene
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "waymo22"
_RAW_CLASSES = 23
_MAX_RANGE = 100.0  # metres; TOP reaches 75, the others 20
_MAX_COORDINATE = 150.0  # metres; the vehicle moves some between a pixel and the frame
_MAX_IMPOSSIBLE = 0.01  # share of the measured pixels of a return ...
_BLOCK = 128  # pixels that are judged together
_FEW = 16  # ... where it is more than so many
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
                part["count"] = _echo_count(laser, part.pop("place"))
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
    # Planes of their own: numpy is quick on long runs, not on pixels of four.
    distance, intensity, elongation = (np.ascontiguousarray(echo.image[..., channel]) for channel in range(3))
    finite = np.isfinite(distance) & np.isfinite(intensity) & np.isfinite(elongation)
    if laser.pixel_pose is not None and not _all_finite(laser.pixel_pose):
        finite &= np.isfinite(laser.pixel_pose).all(axis=2)
    lost = _lost_pixels(laser, echo, distance)
    filled = ~(distance <= 0) & ~lost
    coarse = np.zeros(shape, np.bool_)
    coarse[filled] = _coarse(distance[filled])
    filled &= ~coarse
    near = filled & finite & ~(distance > _MAX_RANGE)
    rows, columns = np.nonzero(near)
    places = rows * shape[1] + columns
    far = distance.take(places).astype(np.float64)
    xyz = pixel_points(laser, far, (rows, columns), (shape[0], shape[1]), pose)
    possible = _possible(xyz)
    counts = {
        "non-finite points": int((filled & ~finite).sum()),
        "impossible points": int((filled & finite & ~near).sum()) + len(xyz) - int(np.count_nonzero(possible)),
        "pixels in a block of zeros": int(lost.sum()),
        "pixels in a block that lost digits": int(coarse.sum()),
    }
    bad, measured = sum(counts.values()), int((filled | lost | coarse).sum())
    if bad > max(_FEW, _MAX_IMPOSSIBLE * measured):
        found = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        raise ValueError(f"{found} among {measured} measured pixels: the range image is damaged")
    for reason, count in counts.items():
        _count(dropped, reason, count)
    if not possible.all():
        rows, places, xyz = rows[possible], places[possible], xyz[possible]
    classes, instance, unlabelled = _labels(echo, places)
    _count(dropped, "labels 0 in an unbroken run: perhaps a lost block", _lost_labels(echo, places, unlabelled))
    return {
        "xyz": xyz.astype(np.float32),
        "intensity": intensity.take(places),
        "elongation": elongation.take(places),
        "row": rows.astype(np.int32),
        "place": places,
        "class": classes,
        "instance": instance,
    }


def _all_finite(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))  # NaN is the least and the greatest


def _possible(xyz: Float64) -> NDArray[np.bool_]:
    """Which of the points (N, 3) lie where a lidar may see them."""
    if len(xyz) and xyz.max() <= _MAX_COORDINATE and xyz.min() >= -_MAX_COORDINATE:
        return np.ones(len(xyz), np.bool_)
    possible: NDArray[np.bool_] = (np.abs(xyz) <= _MAX_COORDINATE).all(axis=1)
    return possible


def _lost_pixels(laser: Laser, echo: Echo, distance: Float32) -> NDArray[np.bool_]:
    """Pixels (H, W) whose values or pose stand in a block of zero bytes. Where nothing came back the range is -1."""
    lost = np.zeros(echo.image.shape[:2], np.bool_)
    if (distance < 0).any():  # else zero may be how this file says that nothing came back
        lost |= blank_records(echo.image, 4 * echo.image.shape[2]).reshape(lost.shape)
    if laser.pixel_pose is not None:
        lost |= blank_records(laser.pixel_pose, 4 * laser.pixel_pose.shape[2]).reshape(lost.shape)
        lost &= distance >= 0
    return lost


def _coarse(distance: Float32) -> NDArray[np.bool_]:
    """Which of the distances (N,) of an image stand in a block where most lack their low bits.

    Zeros in the middle of compressed bytes take the low bytes of floats and leave the high ones: distances that are
    possible and wrong. Of true ones every 256th ends in eight zero bits, unless a file's are all rounded.
    """
    short = distance.view(np.uint32) & np.uint32(0xFF) == 0
    coarse = np.zeros(len(distance), np.bool_)
    if len(short) >= _BLOCK and short.mean() < 0.5:
        whole = len(short) // _BLOCK * _BLOCK
        blocks = short[:whole].reshape(-1, _BLOCK).mean(axis=1) > 0.5
        coarse[:whole] = np.repeat(blocks, _BLOCK)
    return coarse


def _lost_labels(echo: Echo, places: NDArray[Any], unlabelled: NDArray[np.bool_]) -> int:
    """Points without instance and class in a run of such pixels of a page or more; every labelled frame seen so far
    has a class for each of its points."""
    if echo.labels is None or not unlabelled.any():
        return 0
    return int((blank_records(echo.labels, 8, PAGE).take(places) & unlabelled).sum())


def _echo_count(laser: Laser, places: NDArray[Any]) -> NDArray[np.uint8]:
    """How many echoes the pulses of pixels had; 0 (unknown) where the laser has no second range image."""
    if len(laser.echoes) < 2:
        return np.zeros(len(places), np.uint8)
    second = laser.echoes[1].image[..., 0]
    if second.shape != laser.echoes[0].image.shape[:2]:
        raise ValueError(f"{laser.echoes[0].image.shape[:2]} pixels in return 1, {second.shape} in return 2")
    return (second > 0).take(places) + np.uint8(1)


def _count(dropped: dict[str, int], reason: str, count: int) -> None:
    if count:
        dropped[reason] = dropped.get(reason, 0) + count


def _labels(echo: Echo, places: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.int32], NDArray[np.bool_]]:
    """Class of the taxonomy, instance id, and whether both are 0, of pixels at these places in the order of the file;
    UNLABELLED and 0 where this return was not labelled."""
    if echo.labels is None:
        count = len(places)
        return np.full(count, UNLABELLED, np.int16), np.zeros(count, np.int32), np.ones(count, np.bool_)
    instance, raw = (np.ascontiguousarray(echo.labels[..., channel]).take(places) for channel in range(2))
    if len(raw) and not (raw.min() >= 0 and raw.max() < _RAW_CLASSES):
        raise ValueError(f"a class of {raw.min()}..{raw.max()}, expected 0..{_RAW_CLASSES - 1}")
    table = np.full(_RAW_CLASSES, UNLABELLED, np.int16)
    for number, ident in taxonomy(TAXONOMY).from_raw.items():
        table[number] = ident
    return table.take(raw), instance, (raw | instance) == 0
