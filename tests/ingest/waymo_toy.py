"""A small Waymo drive, written in both releases by an encoder of its own: protobuf and TFRecord by hand, Parquet.

The vehicle drives and turns, TOP carries a pose per pixel, second returns have a few pixels, lists are out of order.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SEGMENT = "77_100_000_120_000"
START = 1_553_735_853_000_000  # us
SPEED, TURN = 12.0, 0.4  # m/s along the world's x, rad/s about z
WORLD = np.array([-25_000.0, 41_000.0, 12.0])
SIZE = (64, 48)
SHAPES = {1: (6, 20), 2: (3, 8), 3: (3, 8), 4: (3, 8), 5: (3, 8)}


def pose_at(seconds: float) -> np.ndarray:
    """World from vehicle."""
    c, s = np.cos(0.3 + TURN * seconds), np.sin(0.3 + TURN * seconds)
    pose = np.eye(4)
    pose[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    pose[:3, 3] = WORLD
    pose[0, 3] += SPEED * seconds
    return pose


def mount(yaw: float, x: float, z: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, 0.1], [0, 0, 1, z], [0, 0, 0, 1]])


@dataclass
class ToyFrame:
    """All that a frame holds; tests change it before it is written."""

    time: float
    segment: str = SEGMENT
    images: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    labels: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    pixel_pose: np.ndarray | None = None
    cameras: tuple[int, ...] = (4, 1)
    panoptic: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def timestamp(self) -> int:
        return START + round(self.time * 1e6)


EXTRINSICS = {1: mount(2.5, 1.4, 2.1), 2: mount(0.0, 4.0, 0.6), 3: mount(1.5, 3.0, 0.9), 4: mount(-1.5, 3.0, 0.9),
              5: mount(3.1, -1.0, 0.5)}  # fmt: skip
INCLINATIONS = {1: np.array([-0.3, -0.2, -0.12, -0.05, 0.0, 0.04])}
RANGES = {1: (-0.31, 0.045), **dict.fromkeys((2, 3, 4, 5), (-1.57, 0.52))}
INTRINSIC = [50.0, 51.0, 32.0, 24.0, 0.04, -0.33, 0.001, -0.0015, 0.0]
CAMERA_MOUNTS = {1: mount(0.0, 1.5, 2.0), 4: mount(1.6, 1.4, 2.0)}
DIVISOR = 1000
DIRECTIONS = {1: 2, 4: 3}
"""Of the read-out: the front camera's from left to right, the left one's from bottom to top."""
SHUTTER, READOUT, LATE = 0.002, 0.044, 0.003
"""Seconds; LATE is how long after the middle of its read-out a camera's pose was taken."""


def toy_frame(number: int = 0, labelled: bool = True) -> ToyFrame:
    rng = np.random.default_rng(number)
    frame = ToyFrame(time=0.1 * number)
    for laser, (height, width) in SHAPES.items():
        for echo in (1, 2):
            image = np.full((height, width, 4), -1, np.float32)
            filled = rng.random((height, width)) < (0.8 if echo == 1 else 0.2)
            filled[0, 0] = True
            image[filled, 0] = rng.uniform(2, 60, filled.sum())
            image[filled, 1] = rng.exponential(0.5, filled.sum())
            image[filled, 2] = rng.exponential(0.2, filled.sum())
            image[filled, 3] = 0.25
            frame.images[laser, echo] = image
    height, width = SHAPES[1]
    pixel_pose = np.zeros((height, width, 6), np.float32)
    for column in range(width):
        seconds = frame.time + 0.1 * (column / width - 0.5)
        pixel_pose[:, column] = [0.01, -0.02, 0.3 + TURN * seconds, *(pose_at(seconds)[:3, 3])]
    frame.pixel_pose = pixel_pose
    if labelled:
        for echo in (1, 2):
            frame.labels[1, echo] = rng.integers(0, (500, 23), (height, width, 2)).astype(np.int32)
        frame.panoptic[4] = rng.integers(0, 29, SIZE[::-1]) * DIVISOR + rng.integers(0, 40, SIZE[::-1])
    return frame


def jpeg(number: int, size: tuple[int, int] = SIZE) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30 * number, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def png16(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def exposure(frame: ToyFrame, number: int) -> dict[str, float]:
    """Times of a camera: its read-out is centred on 10 ms a number after the frame."""
    middle = START * 1e-6 + frame.time + 0.01 * number
    trigger = middle - READOUT / 2 - SHUTTER / 2
    return {"pose_timestamp": middle + LATE, "shutter": SHUTTER, "trigger": trigger,
            "done": trigger + SHUTTER + READOUT}  # fmt: skip


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def put(number: int, value: Any) -> bytes:
    """A field: int as varint, float as double, np.float32 as 32 bits, everything else length-delimited."""
    if isinstance(value, np.float32):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def repeat(number: int, values: Iterable[Any]) -> bytes:
    return b"".join(put(number, value) for value in values)


def transform(matrix: np.ndarray) -> bytes:
    """Unpacked, as the dataset has it."""
    return repeat(1, (float(v) for v in matrix.reshape(-1)))


def matrix(values: np.ndarray) -> bytes:
    """A zlib stream of MatrixFloat or MatrixInt32, data packed, shape not."""
    packed = (
        values.astype("<f4").tobytes() if values.dtype.kind == "f" else b"".join(varint(int(v)) for v in values.flat)
    )
    shape = repeat(1, (int(n) for n in values.shape))
    return zlib.compress(put(1, packed) + put(2, shape))


def payload(frame: ToyFrame) -> bytes:
    """The Frame message."""
    context = put(1, frame.segment.encode())
    for number in (4, 1):
        context += put(2, put(1, number) + repeat(2, INTRINSIC) + put(3, transform(CAMERA_MOUNTS[number]))
                       + put(4, SIZE[0]) + put(5, SIZE[1]) + put(6, DIRECTIONS[number]))  # fmt: skip
    for number in (2, 5, 3, 4, 1):
        beams = repeat(2, (float(v) for v in INCLINATIONS.get(number, ())))
        low, high = RANGES[number]
        context += put(3, put(1, number) + beams + put(3, low) + put(4, high) + put(5, transform(EXTRINSICS[number])))
    data = put(1, context) + put(2, frame.timestamp) + put(3, transform(pose_at(frame.time)))
    for number in frame.cameras:
        times = exposure(frame, number)
        velocity = repeat(1, [np.float32(SPEED)]) + put(2, np.float32(0)) + put(3, np.float32(0)) + put(6, TURN)
        label = b""
        if number in frame.panoptic:
            label = put(10, put(1, DIVISOR) + put(2, png16(frame.panoptic[number])))
        data += put(4, label + put(1, number) + put(2, jpeg(number))
                    + put(3, transform(pose_at(times["pose_timestamp"] - START * 1e-6))) + put(4, velocity)
                    + put(5, times["pose_timestamp"]) + put(6, times["shutter"]) + put(7, times["trigger"])
                    + put(8, times["done"]))  # fmt: skip
    for number in (2, 5, 3, 4, 1):
        laser = put(1, number)
        for echo in (1, 2):
            if (number, echo) in frame.images:
                image = put(2, matrix(frame.images[number, echo]))
                if number == 1 and echo == 1 and frame.pixel_pose is not None:
                    image += put(4, matrix(frame.pixel_pose))
                if (number, echo) in frame.labels:
                    image += put(6, matrix(frame.labels[number, echo]))
                laser += put(1 + echo, image)
        data += put(5, laser)
    return data


def slow_crc(data: bytes) -> int:
    """CRC-32C bit by bit, from its definition, masked."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", slow_crc(length)) + data + struct.pack("<I", slow_crc(data))


def write_v1(root: Path, frames: Iterable[ToyFrame], split: str = "training") -> Path:
    file = root / split / f"segment-{SEGMENT}_with_camera_labels.tfrecord"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(record(payload(frame)) for frame in frames))
    return file


FIXED16 = pa.list_(pa.float64(), 16)
TYPES = {"transform": FIXED16, "shape": pa.list_(pa.int32(), 3), "camera_name": pa.int8(), "laser_name": pa.int8()}


def tables(frames: Iterable[ToyFrame]) -> dict[str, list[dict[str, Any]]]:
    """Component -> rows; rows of the components are in different orders."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (
        "vehicle_pose", "camera_calibration", "lidar_calibration", "camera_image", "lidar", "lidar_pose",
        "lidar_segmentation", "camera_segmentation")}  # fmt: skip
    frames = list(frames)
    segments = sorted({frame.segment for frame in frames})
    for segment in segments:
        for number, place in CAMERA_MOUNTS.items():
            names = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
            intrinsic = {
                f"[CameraCalibrationComponent].intrinsic.{n}": v for n, v in zip(names, INTRINSIC, strict=True)
            }
            rows["camera_calibration"].append({
                "key.segment_context_name": segment, "key.camera_name": number, **intrinsic,
                "[CameraCalibrationComponent].extrinsic.transform": place.reshape(-1).tolist(),
                "[CameraCalibrationComponent].rolling_shutter_direction": DIRECTIONS[number],
                "[CameraCalibrationComponent].width": SIZE[0], "[CameraCalibrationComponent].height": SIZE[1],
            })  # fmt: skip
        for number, place in EXTRINSICS.items():
            made = "[LiDARCalibrationComponent]."
            beams = INCLINATIONS.get(number)
            rows["lidar_calibration"].append({
                "key.segment_context_name": segment, "key.laser_name": number,
                f"{made}extrinsic.transform": place.reshape(-1).tolist(),
                f"{made}beam_inclination.min": RANGES[number][0], f"{made}beam_inclination.max": RANGES[number][1],
                f"{made}beam_inclination.values": None if beams is None else beams.tolist(),
            })  # fmt: skip
    for frame in frames:
        for component, row in frame_rows(frame):
            rows[component].append(row)
    rows["lidar"].reverse()
    rows["camera_image"].sort(key=lambda row: row["key.camera_name"])
    return rows


def frame_rows(frame: ToyFrame) -> Iterable[tuple[str, dict[str, Any]]]:
    key = {"key.segment_context_name": frame.segment, "key.frame_timestamp_micros": frame.timestamp}
    flat = pose_at(frame.time).reshape(-1).tolist()
    yield "vehicle_pose", key | {"[VehiclePoseComponent].world_from_vehicle.transform": flat}
    for number in frame.cameras:
        times, shown = exposure(frame, number), "[CameraImageComponent]."
        pose = pose_at(times["pose_timestamp"] - START * 1e-6)
        velocity = dict.fromkeys((f"{k}_velocity.{axis}" for k in ("linear", "angular") for axis in "xyz"), 0.0)
        velocity |= {"linear_velocity.x": SPEED, "angular_velocity.z": TURN}
        yield "camera_image", key | {
            "key.camera_name": number,
            f"{shown}image": jpeg(number), f"{shown}pose.transform": pose.reshape(-1).tolist(),
            **{f"{shown}velocity.{name}": value for name, value in velocity.items()},
            f"{shown}pose_timestamp": times["pose_timestamp"],
            f"{shown}rolling_shutter_params.shutter": times["shutter"],
            f"{shown}rolling_shutter_params.camera_trigger_time": times["trigger"],
            f"{shown}rolling_shutter_params.camera_readout_done_time": times["done"],
        }  # fmt: skip
    for number, values in frame.panoptic.items():
        label = "[CameraSegmentationLabelComponent].panoptic_label"
        yield "camera_segmentation", key | {
            "key.camera_name": number, f"{label}_divisor": DIVISOR, label: png16(values),
        }  # fmt: skip
    for component, name, images in (
        ("lidar", "LiDARComponent", frame.images),
        ("lidar_segmentation", "LiDARSegmentationLabelComponent", frame.labels),
        ("lidar_pose", "LiDARPoseComponent", {} if frame.pixel_pose is None else {(1, 1): frame.pixel_pose}),
    ):
        for laser in sorted({laser for laser, _ in images}):
            row = key | {"key.laser_name": laser}
            for echo in (1,) if component == "lidar_pose" else (1, 2):
                image = images.get((laser, echo))
                prefix = f"[{name}].range_image_return{echo}."
                row[f"{prefix}values"] = [] if image is None else image.reshape(-1)
                row[f"{prefix}shape"] = [0, 0, 0] if image is None else list(image.shape)
            yield component, row


def write_table(file: Path, rows: list[dict[str, Any]], component: str, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        kind = TYPES.get(name.rpartition(".")[2])
        if name.endswith(".values"):
            number = {"lidar_segmentation": pa.int32(), "lidar_calibration": pa.float64()}.get(component, pa.float32())
            kind = pa.list_(number)
        columns[name] = pa.array([row[name] for row in rows], kind)
    pq.write_table(pa.table(columns), file, **options)


def write_v2(root: Path, frames: Iterable[ToyFrame], split: str = "training", **options: Any) -> Path:
    for component, rows in tables(frames).items():
        if rows:
            write_table(root / split / component / f"{SEGMENT}.parquet", rows, component, **options)
    return root / split
