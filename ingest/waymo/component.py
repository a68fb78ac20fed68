"""The v2 components of one frame, joined by key -> `ingest.waymo.frame.Frame`.

Columns are named `[Component].field`; calibrations have one row per segment and sensor, the others one per frame and
sensor. Sensors are numbers, or their names in older files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from brickyard.ingest.source import RawFiles
from brickyard.ingest.waymo.frame import (
    CAMERAS,
    LASERS,
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
from brickyard.ingest.waymo.table import SEGMENT, TIMESTAMP, Row, Table

_LASER, _CAMERA = "key.laser_name", "key.camera_name"
_BROWN = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
_INTRINSIC = [f"[CameraCalibrationComponent].intrinsic.{k}" for k in _BROWN]
_SHUTTER = ("shutter", "camera_trigger_time", "camera_readout_done_time")
_TIMES = ("pose_timestamp", *(f"rolling_shutter_params.{time}" for time in _SHUTTER))
_VELOCITY = [
    f"[CameraImageComponent].velocity.{kind}_velocity.{axis}" for kind in ("linear", "angular") for axis in "xyz"
]
_DIRECTION = "[CameraCalibrationComponent].rolling_shutter_direction"
_CALIBRATION = [f"[CameraCalibrationComponent].{part}" for part in ("extrinsic.transform", "width", "height")]
_CALIBRATION += [*_INTRINSIC, _DIRECTION]
_PICTURE = [*(f"[CameraImageComponent].{part}" for part in ("image", "pose.transform", *_TIMES)), *_VELOCITY]
_LABEL = [f"[CameraSegmentationLabelComponent].{part}" for part in ("panoptic_label_divisor", "panoptic_label")]


Keys: TypeAlias = dict[str, Collection[Any]]


class Components:
    """The tables of a segment; reads rows by key and builds a frame, or the pictures of a clip."""

    def __init__(self, files: RawFiles) -> None:
        self.files = files
        self.segment: Keys = {SEGMENT: (files.ref.sequence,)}

    def fail(self, component: str) -> Fail:
        return partial(self.files.error, self.files.ref.files[component])

    def pictures(self, name: str, timestamps_us: list[int]) -> list[Camera]:
        """The pictures of one camera at some frames, in order of time; those that are not there are left out.

        Raises `RawDataError` as `frame`.
        """
        number, fail = CAMERAS[name], self.fail("camera_image")
        calibration = self._calibrations({name: number}).get(number)
        keys: Keys = self.segment | {TIMESTAMP: frozenset(timestamps_us), _CAMERA: (number, name)}
        found: dict[int, Camera] = {}
        for row in self._table("camera_image").rows(keys, _PICTURE):
            if calibration is not None and row[_PICTURE[0]]:
                time = unique(row[TIMESTAMP], found, f"the picture of {name} at", fail)
                found[time] = self._camera(number, row, calibration, None)
        return [found[time] for time in sorted(found)]

    def frame(self, timestamp_us: int) -> Frame:
        """The frame of a time.

        Raises:
            RawDataError: tables that are not what they should be, or that have no such frame.
        """
        wanted = self.files.ref.details
        keys: Keys = self.segment | {TIMESTAMP: (timestamp_us,)}
        column = "[VehiclePoseComponent].world_from_vehicle.transform"
        poses = list(self._table("vehicle_pose").rows(keys, [column]))
        if len(poses) != 1:
            raise self.fail("vehicle_pose")(f"{len(poses)} rows for the frame {timestamp_us}, expected one")
        lasers = self._lasers(keys, wanted["lasers"], wanted["returns"])
        cameras = self._cameras(keys, wanted["cameras"]) if "camera_image" in self.files.ref.files else {}
        dropped = {f"missing laser {name}": 1 for name in wanted["lasers"] if LASERS[name] not in lasers}
        dropped |= {f"missing image {name}": 1 for name in wanted["cameras"] if CAMERAS[name] not in cameras}
        dropped |= {f"missing component {name} of the segment": 1 for name in wanted["absent"]}
        return Frame(
            timestamp_us=timestamp_us,
            pose=transform(poses[0][column], "the vehicle's pose", self.fail("vehicle_pose")),
            lasers=tuple(lasers[number] for number in sorted(lasers)),
            cameras=tuple(cameras[number] for number in sorted(cameras)),
            dropped=dropped,
        )

    def _table(self, component: str) -> Table:
        path = self.files.ref.files[component]
        return Table(self.files.size(path), partial(self.files.read_range, path), self.fail(component))

    def _sensors(
        self, component: str, keys: Keys, sensor: str, columns: list[str], chosen: Mapping[str, int]
    ) -> dict[int, Row]:
        """Sensor number -> row, for the chosen sensors."""
        names = LASERS if sensor == _LASER else CAMERAS
        fail, table = self.fail(component), self._table(component)
        found: dict[int, Row] = {}
        empty = True
        for row in table.rows(keys, [sensor, *columns]):
            empty = False
            number = names.get(row[sensor], 0) if isinstance(row[sensor], str) else row[sensor]
            if not isinstance(number, int):
                raise fail(f"{sensor} is {row[sensor]!r}, expected a sensor's number or name")
            if number in chosen.values():
                found[unique(number, found, sensor, fail)] = row
        if empty and (others := table.segments()) and not others & set(self.segment[SEGMENT]):
            shown = ", ".join(sorted(map(str, others)))[:100]
            raise fail(f"its rows are of {shown}: the file was exchanged with another")
        return found

    def _lasers(self, keys: Keys, chosen: list[str], returns: int) -> dict[int, Laser]:
        wanted = {name: LASERS[name] for name in chosen}
        prefix = "[LiDARCalibrationComponent]."
        parts = ["extrinsic.transform", *(f"beam_inclination.{part}" for part in ("min", "max", "values"))]
        columns = [prefix + part for part in parts]
        calibrations = self._sensors("lidar_calibration", self.segment, _LASER, columns, wanted)
        images = self._images(keys, "lidar", "[LiDARComponent]", wanted, returns)
        poses: dict[int, list[Row | None]] = {}
        if TOP in images:
            poses = self._images(keys, "lidar_pose", "[LiDARPoseComponent]", {"TOP": TOP}, 1)
            if TOP not in poses:
                raise self.fail("lidar_pose")("no row for this frame: the points of TOP cannot be placed")
        labels: dict[int, list[Row | None]] = {}
        if "lidar_segmentation" in self.files.ref.files:
            labels = self._images(keys, "lidar_segmentation", "[LiDARSegmentationLabelComponent]", wanted, returns)
        fail = self.fail("lidar_calibration")
        lasers = {}
        for number in sorted(images.keys() & calibrations.keys()):
            extrinsic, lowest, highest, values = (calibrations[number][name] for name in columns)
            inclinations = np.zeros(0) if values is None else values
            lasers[number] = Laser(
                number=number,
                extrinsic=transform(extrinsic, f"extrinsic of laser {number}", fail),
                inclinations=numbers(inclinations, len(inclinations), f"inclinations of laser {number}", fail),
                lowest=float(numbers(lowest, 1, f"lowest inclination of laser {number}", fail)[0]),
                highest=float(numbers(highest, 1, f"highest inclination of laser {number}", fail)[0]),
                echoes=self._echoes(number, images[number], labels.get(number, [])),
                pixel_pose=self._matrix("lidar_pose", poses[number][0], 6, np.float32) if number in poses else None,
            )
        return lasers

    def _images(
        self, keys: Keys, component: str, prefix: str, chosen: Mapping[str, int], returns: int
    ) -> dict[int, list[Any]]:
        """Laser number -> its (values, shape) per return, or None for a return that is empty; no first, no laser."""
        columns = [f"{prefix}.range_image_return{k + 1}.{part}" for k in range(returns) for part in ("values", "shape")]
        rows = self._sensors(component, keys, _LASER, columns, chosen)
        found = {}
        for number, row in rows.items():
            pairs = [(row[columns[2 * k]], row[columns[2 * k + 1]]) for k in range(returns)]
            images = [pair if pair[0] is not None and len(pair[0]) else None for pair in pairs]
            if images[0] is not None:
                found[number] = images
        return found

    def _echoes(self, number: int, images: list[Any], labels: list[Any]) -> tuple[Echo, ...]:
        echoes = []
        for place, image in enumerate(images):
            if image is not None:
                label = labels[place] if place < len(labels) else None
                echoes.append(
                    Echo(
                        image=self._matrix("lidar", image, 4, np.float32),
                        labels=None if label is None else self._matrix("lidar_segmentation", label, 2, np.int32),
                    )
                )
        return tuple(echoes)

    def _matrix(self, component: str, image: Any, channels: int, dtype: Any) -> Any:
        """(values, shape) -> (H, W, channels)."""
        values, shape = image
        fail = self.fail(component)
        if shape is None or values.dtype.kind not in "if" or shape.dtype.kind != "i":
            raise fail(f"a range image of {values.dtype} values with the shape {shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            return matrix3(values.astype(dtype, copy=False), shape, channels, "the range image", fail)

    def _calibrations(self, wanted: Mapping[str, int]) -> dict[int, Row]:
        return self._sensors("camera_calibration", self.segment, _CAMERA, _CALIBRATION, wanted)

    def _cameras(self, keys: Keys, chosen: list[str]) -> dict[int, Camera]:
        wanted = {name: CAMERAS[name] for name in chosen}
        calibrations = self._calibrations(wanted)
        images = self._sensors("camera_image", keys, _CAMERA, _PICTURE, wanted)
        labels: dict[int, Row] = {}
        if "camera_segmentation" in self.files.ref.files:
            labels = self._sensors("camera_segmentation", keys, _CAMERA, _LABEL, wanted)
        return {n: self._camera(n, images[n], calibrations[n], labels.get(n))
                for n in sorted(images.keys() & calibrations.keys()) if images[n][_PICTURE[0]]}  # fmt: skip

    def _panoptic(self, number: int, label: Row | None) -> tuple[int, bytes] | None:
        if label is None or not label[_LABEL[1]]:
            return None
        divisor, png = (label[name] for name in _LABEL)
        if not isinstance(divisor, int) or not isinstance(png, bytes):
            raise self.fail("camera_segmentation")(f"the label of camera {number} is no picture with its divisor")
        return divisor, png

    def _camera(self, number: int, image: Row, calibration: Row, label: Row | None) -> Camera:
        image_fail, calibration_fail = self.fail("camera_image"), self.fail("camera_calibration")
        shown, made = "[CameraImageComponent].", "[CameraCalibrationComponent]."
        times = numbers([image[shown + name] for name in _TIMES], 4, f"times of camera {number}", image_fail)
        sizes = numbers([calibration[made + name] for name in ("width", "height")], 2, f"size of camera {number}",
                        calibration_fail)  # fmt: skip
        direction = calibration[_DIRECTION] or 0
        if not isinstance(direction, int):
            raise calibration_fail(f"the read-out direction of camera {number} is {direction!r}")
        if not isinstance(image[f"{shown}image"], bytes):
            raise image_fail(f"the image of camera {number} is no binary value")
        return Camera(
            number=number,
            jpeg=image[f"{shown}image"],
            width=int(sizes[0]),
            height=int(sizes[1]),
            intrinsic=numbers([calibration[name] for name in _INTRINSIC], 9, f"intrinsic of camera {number}",
                              calibration_fail),
            extrinsic=transform(calibration[f"{made}extrinsic.transform"], f"extrinsic of camera {number}",
                                calibration_fail),
            pose=transform(image[f"{shown}pose.transform"], f"pose of camera {number}", image_fail),
            velocity=numbers([image[name] for name in _VELOCITY], 6, f"velocity of camera {number}",
                             image_fail),
            pose_time=float(times[0]),
            shutter=float(times[1]),
            trigger=float(times[2]),
            done=float(times[3]),
            direction=direction,
            panoptic=self._panoptic(number, label),
        )  # fmt: skip
