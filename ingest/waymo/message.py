"""The v1 record: a serialised `Frame` message -> `ingest.waymo.frame.Frame`.

Field numbers are those of the dataset's published proto files; they are named where they are used. Lists come in any
order and are joined by sensor number. Only lasers and cameras that were asked for are inflated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from brickyard.ingest.waymo.frame import (
    CAMERAS,
    LASERS,
    MAX_PIXELS,
    TOP,
    Camera,
    Echo,
    Fail,
    Frame,
    Laser,
    matrix3,
    numbers,
    transform,
    unique,
)
from brickyard.ingest.waymo.wire import Message, inflate
from brickyard.shards.scene import Float64

_MAX_MATRIX_BYTES = MAX_PIXELS * 6 * 4 + 64
CONTEXT_NAME = re.compile(r"\d+_\d+_\d{3}_\d+_\d{3}")
"""Of a segment: a number, and from where to where of the recording in seconds and milliseconds."""
_CONTEXT, _TIMESTAMP, _POSE, _IMAGES, _LASERS = 1, 2, 3, 4, 5  # Frame
_CAMERA_CALIBRATIONS, _LASER_CALIBRATIONS = 2, 3  # Context


def parse_frame(payload: bytes, segment: str, wanted: Mapping[str, Any], fail: Fail) -> Frame:
    """Parse what `Options.details` asks for.

    Raises:
        WireError: bytes that are no such message.
        RawDataError: through `fail`, values that are not what they should be.
    """
    frame = Message(memoryview(payload), "Frame")
    context = frame.message(_CONTEXT, "Context")
    check_segment(context, segment, fail)
    timestamp = frame.integer(_TIMESTAMP)
    if not 0 < timestamp < 1 << 53:
        raise fail(f"the frame has the timestamp {timestamp} us")
    dropped: dict[str, int] = {}
    lasers, cameras = [], []
    calibrations = _by_number(context.messages(_LASER_CALIBRATIONS, "LaserCalibration"), fail)
    found = _by_number(frame.messages(_LASERS, "Laser"), fail)
    for name in sorted(wanted["lasers"], key=LASERS.__getitem__):
        number = LASERS[name]
        if number in found and number in calibrations:
            laser = _laser(number, found[number], calibrations[number], wanted["returns"], fail)
            if laser is not None:
                lasers.append(laser)
                continue
        dropped[f"missing laser {name}"] = 1
    calibrations = _by_number(context.messages(_CAMERA_CALIBRATIONS, "CameraCalibration"), fail)
    found = _by_number(frame.messages(_IMAGES, "CameraImage"), fail)
    for name in sorted(wanted["cameras"], key=CAMERAS.__getitem__):
        number = CAMERAS[name]
        if number in found and number in calibrations and len(found[number].data(2)):
            cameras.append(_camera(number, found[number], calibrations[number], fail))
        else:
            dropped[f"missing image {name}"] = 1
    return Frame(
        timestamp_us=timestamp,
        pose=_transform(frame, _POSE, "the vehicle's pose", fail),
        lasers=tuple(lasers),
        cameras=tuple(cameras),
        dropped=dropped,
    )


def check_segment(context: Message, segment: str, fail: Fail) -> None:
    """Raises through `fail` where a frame says that it is of another segment than its file is called after."""
    name = bytes(context.data(1)).decode("utf-8", "replace")
    if CONTEXT_NAME.fullmatch(segment) and CONTEXT_NAME.fullmatch(name) and name != segment:
        raise fail(f"the frame is of the segment {name}: the file was exchanged with another")


def parse_camera(payload: bytes, segment: str, name: str, fail: Fail) -> Camera | None:
    """One camera's picture of a frame without its label, or None where the frame has none; nothing else is decoded.

    Raises:
        WireError, RawDataError: as `parse_frame`.
    """
    frame = Message(memoryview(payload), "Frame")
    context = frame.message(_CONTEXT, "Context")
    check_segment(context, segment, fail)
    calibrations = context.messages(_CAMERA_CALIBRATIONS, "CameraCalibration")
    calibration = _by_number(calibrations, fail).get(CAMERAS[name])
    image = _by_number(frame.messages(_IMAGES, "CameraImage"), fail).get(CAMERAS[name])
    if calibration is None or image is None or not len(image.data(2)):
        return None
    return replace(_camera(CAMERAS[name], image, calibration, fail), panoptic=None)


def _by_number(messages: list[Message], fail: Fail) -> dict[int, Message]:
    """Sensor number (field 1 of all four messages) -> message; those without any field are nobody's."""
    found: dict[int, Message] = {}
    for message in messages:
        number = message.integer(1)
        if number:
            found[unique(number, found, message.name, fail)] = message
    return found


def _transform(message: Message, field: int, what: str, fail: Fail) -> Float64:
    return transform(message.message(field, "Transform").doubles(1), what, fail)


def _laser(number: int, laser: Message, calibration: Message, returns: int, fail: Fail) -> Laser | None:
    """None for a laser whose first return is empty, as in records made for camera tasks."""
    first = laser.message(2, "RangeImage")
    echoes = []
    for image in (first, laser.message(3, "RangeImage"))[:returns]:
        if len(image.data(2)):
            pixels = _floats(image, 2, 4, f"range image of laser {number}", fail)
            labels = None
            if len(image.data(6)):
                labels = _labels(image, f"segmentation of laser {number}", fail)
            echoes.append(Echo(image=pixels, labels=labels))
    if not len(first.data(2)):
        return None
    pose = None
    if number == TOP:
        if not len(first.data(4)):
            raise fail("the range image of TOP has no poses: its points cannot be placed")
        pose = _floats(first, 4, 6, "pose image of TOP", fail)
    inclinations = calibration.doubles(2)
    return Laser(
        number=number,
        extrinsic=_transform(calibration, 5, f"extrinsic of laser {number}", fail),
        inclinations=numbers(inclinations, len(inclinations), f"beam inclinations of laser {number}", fail),
        lowest=float(numbers(calibration.double(3), 1, f"lowest inclination of laser {number}", fail)[0]),
        highest=float(numbers(calibration.double(4), 1, f"highest inclination of laser {number}", fail)[0]),
        echoes=tuple(echoes),
        pixel_pose=pose,
    )


def _floats(image: Message, field: int, channels: int, what: str, fail: Fail) -> Any:
    """A compressed MatrixFloat -> float32 (H, W, channels)."""
    matrix = Message(inflate(image.data(field), _MAX_MATRIX_BYTES, what), what)
    return matrix3(matrix.floats(1), matrix.message(2, "MatrixShape").integers(1), channels, what, fail)


def _labels(image: Message, what: str, fail: Fail) -> Any:
    """A compressed MatrixInt32 -> int32 (H, W, 2)."""
    matrix = Message(inflate(image.data(6), _MAX_MATRIX_BYTES, what), what)
    return matrix3(matrix.integers(1), matrix.message(2, "MatrixShape").integers(1), 2, what, fail)


def _camera(number: int, image: Message, calibration: Message, fail: Fail) -> Camera:
    velocity = image.message(4, "Velocity")
    linear = [velocity.float(field) for field in (1, 2, 3)]
    angular = [velocity.double(field) for field in (4, 5, 6)]
    times = numbers([image.double(field) for field in (5, 6, 7, 8)], 4, f"times of camera {number}", fail)
    label = image.message(10, "CameraSegmentationLabel")
    return Camera(
        number=number,
        jpeg=bytes(image.data(2)),
        width=calibration.integer(4),
        height=calibration.integer(5),
        intrinsic=numbers(calibration.doubles(2), 9, f"intrinsic of camera {number}", fail),
        extrinsic=_transform(calibration, 3, f"extrinsic of camera {number}", fail),
        pose=_transform(image, 3, f"pose of camera {number}", fail),
        velocity=numbers(np.array(linear + angular), 6, f"velocity of camera {number}", fail),
        pose_time=float(times[0]),
        shutter=float(times[1]),
        trigger=float(times[2]),
        done=float(times[3]),
        direction=calibration.integer(6),
        panoptic=(label.integer(1), bytes(label.data(2))) if len(label.data(2)) else None,
    )
