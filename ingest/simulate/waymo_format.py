"""Both forms of the Waymo Open Dataset, written: protocol buffers in TFRecords by hand, and Parquet components.

Lists in a v1 frame come in the order of the real ones, which is not by number; rows of two v2 components are in
different orders, as in the release.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.waymo_rig import READOUT, SHUTTER, Echoes, RigCamera, RigLidar
from brickyard.ingest.waymo.tfrecord import masked_crc
from brickyard.shards.scene import Float64

DIVISOR = 1000
CAMERA_ORDER, LASER_ORDER = (1, 2, 4, 3, 5), (2, 5, 3, 4, 1)
_INTRINSIC = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture: JPEG, panoptic PNG (None: not labelled), the vehicle's pose and velocity at `pose_time`, trigger."""

    jpeg: bytes
    panoptic: bytes | None
    pose: Float64
    velocity: Float64
    pose_time: float
    trigger: float


@dataclass(frozen=True, kw_only=True)
class FrameData:
    """All that both forms tell of a frame.

    Attributes:
        shots: camera number -> picture.
        echoes: laser number -> range images.
        links: laser number -> int32 (H, W, 6) of both returns.
        labels: int32 (H, W, 2) of both returns of TOP, None where nobody labelled the frame.
    """

    segment: str
    timestamp_us: int
    pose: Float64
    shots: dict[int, Shot]
    echoes: dict[int, Echoes]
    links: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]]
    labels: tuple[NDArray[np.int32], NDArray[np.int32]] | None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _doubles(field: int, values: Iterable[float]) -> bytes:
    return b"".join(_double(field, float(value)) for value in values)


def _matrix(values: NDArray[Any]) -> bytes:
    """A zlib stream of a MatrixFloat or MatrixInt32 (not negative), data packed."""
    if values.dtype.kind == "f":
        data = values.astype("<f4").tobytes()
    else:
        flat = values.ravel().astype(np.int64)
        sevens = np.stack([flat >> 7 * k & 127 for k in range(5)], 1)
        last = np.maximum(4 - (sevens[:, ::-1] > 0).argmax(1), 0) * (flat > 0)
        used = np.arange(5) <= last[:, None]
        sevens[np.arange(5) < last[:, None]] |= 128
        data = sevens[used].astype(np.uint8).tobytes()
    shape = b"".join(_int(1, size) for size in values.shape)
    return zlib.compress(_bytes(1, data) + _bytes(2, shape), 6)


def _transform(field: int, matrix: Float64) -> bytes:
    return _bytes(field, _doubles(1, matrix.ravel()))


def frame_record(frame: FrameData, cameras: tuple[RigCamera, ...], lidars: tuple[RigLidar, ...]) -> bytes:
    """The frame as one TFRecord."""
    context = _bytes(1, frame.segment.encode())
    for number in CAMERA_ORDER:
        camera = cameras[number - 1]
        context += _bytes(2, _int(1, number) + _doubles(2, camera.intrinsic) + _transform(3, camera.mount)
                          + _int(4, camera.width) + _int(5, camera.height) + _int(6, camera.direction))  # fmt: skip
    for number in LASER_ORDER:
        lidar = lidars[number - 1]
        context += _bytes(3, _int(1, number) + _doubles(2, lidar.beams) + _double(3, lidar.limits[0])
                          + _double(4, lidar.limits[1]) + _transform(5, lidar.mount))  # fmt: skip
    data = _bytes(1, context) + _int(2, frame.timestamp_us) + _transform(3, frame.pose)
    data += b"".join(_shot(number, frame.shots[number]) for number in CAMERA_ORDER)
    data += b"".join(_laser(number, frame) for number in LASER_ORDER)
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def _shot(number: int, shot: Shot) -> bytes:
    velocity = b"".join(_float(k + 1, value) for k, value in enumerate(shot.velocity[:3]))
    velocity += b"".join(_double(k + 4, value) for k, value in enumerate(shot.velocity[3:]))
    data = _int(1, number) + _bytes(2, shot.jpeg) + _transform(3, shot.pose) + _bytes(4, velocity)
    data += _double(5, shot.pose_time) + _double(6, SHUTTER) + _double(7, shot.trigger)
    data += _double(8, shot.trigger + SHUTTER + READOUT)
    if shot.panoptic is not None:
        data += _bytes(10, _int(1, DIVISOR) + _bytes(2, shot.panoptic))
    return _bytes(4, data)


def _laser(number: int, frame: FrameData) -> bytes:
    echoes, data = frame.echoes[number], _int(1, number)
    for k in range(2):
        image = _bytes(2, _matrix(echoes.images[k])) + _bytes(3, _matrix(frame.links[number][k]))
        if k == 0 and echoes.pixel_pose is not None:
            image += _bytes(4, _matrix(echoes.pixel_pose))
        if number == 1 and frame.labels is not None:
            image += _bytes(6, _matrix(frame.labels[k]))
        data += _bytes(2 + k, image)
    return _bytes(5, data)


Rows = dict[str, list[dict[str, Any]]]


def component_rows(frames: list[FrameData], cameras: tuple[RigCamera, ...], lidars: tuple[RigLidar, ...]) -> Rows:
    """Component -> rows of a segment's frames."""
    segment = {"key.segment_context_name": frames[0].segment}
    rows: Rows = {"camera_calibration": [], "lidar_calibration": []}
    for camera in cameras:
        prefix = "[CameraCalibrationComponent]."
        row: dict[str, Any] = segment | {"key.camera_name": camera.number}
        row |= {f"{prefix}intrinsic.{name}": float(v) for name, v in zip(_INTRINSIC, camera.intrinsic, strict=True)}
        row |= {f"{prefix}extrinsic.transform": camera.mount.ravel(), f"{prefix}width": camera.width,
                f"{prefix}height": camera.height, f"{prefix}rolling_shutter_direction": camera.direction}  # fmt: skip
        rows["camera_calibration"].append(row)
    for lidar in lidars:
        prefix = "[LiDARCalibrationComponent]."
        rows["lidar_calibration"].append(segment | {
            "key.laser_name": lidar.number, f"{prefix}extrinsic.transform": lidar.mount.ravel(),
            f"{prefix}beam_inclination.min": lidar.limits[0], f"{prefix}beam_inclination.max": lidar.limits[1],
            f"{prefix}beam_inclination.values": np.array(lidar.beams) if lidar.beams else None,
        })  # fmt: skip
    for frame in frames:
        for component, row in _frame_rows(frame):
            rows.setdefault(component, []).append(segment | {"key.frame_timestamp_micros": frame.timestamp_us} | row)
    rows["lidar"].reverse()
    rows["camera_image"].sort(key=lambda row: int(row["key.camera_name"]))
    return rows


def _frame_rows(frame: FrameData) -> Iterable[tuple[str, dict[str, Any]]]:
    yield "vehicle_pose", {"[VehiclePoseComponent].world_from_vehicle.transform": frame.pose.ravel()}
    for number, shot in frame.shots.items():
        prefix, times = "[CameraImageComponent].", "[CameraImageComponent].rolling_shutter_params."
        parts = [f"{prefix}velocity.{kind}_velocity.{axis}" for kind in ("linear", "angular") for axis in "xyz"]
        yield "camera_image", {
            "key.camera_name": number, f"{prefix}image": shot.jpeg, f"{prefix}pose.transform": shot.pose.ravel(),
            **dict(zip(parts, shot.velocity.tolist(), strict=True)), f"{prefix}pose_timestamp": shot.pose_time,
            f"{times}shutter": SHUTTER, f"{times}camera_trigger_time": shot.trigger,
            f"{times}camera_readout_done_time": shot.trigger + SHUTTER + READOUT,
        }  # fmt: skip
        if shot.panoptic is not None:
            prefix = "[CameraSegmentationLabelComponent].panoptic_label"
            yield "camera_segmentation", {
                "key.camera_name": number, f"{prefix}_divisor": DIVISOR, prefix: shot.panoptic,
            }  # fmt: skip
    for number, echoes in frame.echoes.items():
        yield "lidar", {"key.laser_name": number} | _images("LiDARComponent", echoes.images)
        links = tuple(link.astype(np.float32) for link in frame.links[number])
        yield "lidar_camera_projection", {"key.laser_name": number} | _images("LiDARCameraProjectionComponent", links)
        if echoes.pixel_pose is not None:
            yield "lidar_pose", {"key.laser_name": number} | _images("LiDARPoseComponent", (echoes.pixel_pose,))
    if frame.labels is not None:
        yield "lidar_segmentation", {"key.laser_name": 1} | _images("LiDARSegmentationLabelComponent", frame.labels)


def _images(name: str, images: tuple[NDArray[Any], ...]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for k, image in enumerate(images, 1):
        row[f"[{name}].range_image_return{k}.values"] = image.ravel()
        row[f"[{name}].range_image_return{k}.shape"] = np.array(image.shape, np.int32)
    return row


def write_component(path: Path, rows: list[dict[str, Any]]) -> None:
    """One Parquet file with the types of the release."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str, value: Any) -> Any:
        last = name.rpartition(".")[2]
        if last == "transform":
            return pa.list_(pa.float64(), 16)
        if last == "shape":
            return pa.list_(pa.int32(), 3)
        if last == "values":
            return pa.list_(pa.float64() if value is None else pa.from_numpy_dtype(value.dtype))
        if "linear_velocity" in name:
            return pa.float32()
        if last in ("camera_name", "laser_name", "rolling_shutter_direction"):
            return pa.int8()
        return pa.int32() if last in ("width", "height", "panoptic_label_divisor") else None

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in rows], kind(name, value)) for name, value in rows[0].items()}
    pq.write_table(pa.table(columns), path, compression="zstd")
