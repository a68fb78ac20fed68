"""Writes simulated streets the way KITTI ships its object benchmark and its raw recordings.

Each object frame is a street of its own, compensated for the vehicle's motion and annotated with boxes; each raw drive
is one street driven along, its scans as measured while moving, with GPS/IMU packets and timestamps. Calibrations have
what real ones have: a lidar slightly out of the camera's axes, a rectifying rotation, cameras beside the reference one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.boxes import box_corners, points_inside, seen_share
from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.sensors import Camera, LidarModel, Sweep, anchors_at, fire, render, visible
from brickyard.ingest.simulate.shapes import invert, pose
from brickyard.ingest.simulate.streets import Actor, Street, build_street
from brickyard.ingest.simulate.truth import picture_truth, raw_labels, write_arrays
from brickyard.shards.scene import Float64

RAW_IDS = {
    "road": 40, "sidewalk": 48, "terrain": 72, "building": 50, "fence": 51, "pole": 80, "sign": 81, "trunk": 71,
    "vegetation": 70, "car": 10, "truck": 18, "bus": 13, "bicycle": 11, "pedestrian": 30, "barrier": 52,
    "traffic_cone": 99, "ego": 1,
}  # fmt: skip
"""SemanticKITTI's raw ids without the moving ones, for the truth alone: these datasets ship no point labels."""
OBJECT_TYPES = {"car": "Car", "truck": "Truck", "bus": "Misc", "pedestrian": "Pedestrian"}
DATE = "2011_09_26"
PERIOD = 0.1
EARTH_RADIUS = 6378137.0
ORIGIN = (49.0112, 8.4228, 114.7)
"""Latitude, longitude (degrees) and altitude (metres) of every drive's start."""
_AXES: Float64 = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""Camera (OpenCV axes) from body (x forward, y left, z up)."""
_BESIDE = ((0.0, 0.0, 0.0), (-0.537, 0.0, 0.0), (0.0604, -0.0004, 0.0028), (-0.4718, 0.0031, 0.0027))
"""Added to a point of rectified camera 0 to reach rectified camera k, metres."""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A calibrated vehicle: `projection` float64 (4, 3, 4); the others rigid (4, 4), named target_from_source."""

    size: tuple[int, int]
    projection: Float64
    rectify: Float64
    camera_from_velo: Float64
    velo_from_imu: Float64

    def camera(self) -> Camera:
        return Camera(width=self.size[0], height=self.size[1], intrinsics=self.projection[0][:, :3])

    def velo_from_rectified(self, number: int) -> Float64:
        """Pose of rectified camera `number` in the lidar frame."""
        beside = pose(*_BESIDE[number])
        return invert(beside @ self.rectify @ self.camera_from_velo)


def build_rig(size: tuple[int, int], rng: np.random.Generator) -> Rig:
    """A rig whose angles and offsets are those of a carefully mounted, not a perfect, vehicle."""
    focal = 0.581 * size[0] * (1 + rng.normal(0, 0.003))
    intrinsics = np.array([[focal, 0, 0.4908 * size[0]], [0, focal, 0.461 * size[1]], [0, 0, 1]])
    turn = np.radians(rng.normal(0, 0.5, (3, 3)))
    return Rig(
        size=size,
        projection=np.stack([np.column_stack([intrinsics, intrinsics @ beside]) for beside in _BESIDE]),
        rectify=pose(0, 0, 0, *turn[0].tolist()),
        camera_from_velo=pose(-0.0045, -0.075, -0.2735) @ _AXES @ pose(0, 0, 0, *turn[1].tolist()),
        velo_from_imu=pose(-0.81, 0.32, -0.80, *turn[2].tolist()),
    )


def write_kitti(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `out/object` and `out/raw`; returns counts."""
    counts = {"frames": 0, "points": 0}
    total = config.kitti_frames + config.kitti_drives * config.kitti_drive_frames
    for number in range(config.kitti_frames):
        rng = np.random.default_rng((seed, 3, number))
        counts["points"] += _write_object_frame(out / "object" / "training", truth / "object", number, config, rng)
        counts["frames"] += 1
        tick(counts["frames"], total)
    rig = build_rig(config.kitti_image_size, np.random.default_rng((seed, 4)))
    if config.kitti_drives:
        _write_raw_calibration(out / "raw" / DATE, rig)
    for number in range(config.kitti_drives):
        drive = _Drive(
            out / "raw" / DATE,
            truth / "raw",
            number,
            config=config,
            rig=rig,
            rng=np.random.default_rng((seed, 5, number)),
        )
        for frame in range(config.kitti_drive_frames):
            missing = config.kitti_missing_scan and number == 0 and frame == config.kitti_drive_frames // 2
            counts["points"] += drive.write_frame(frame, missing)
            counts["frames"] += 1
            tick(counts["frames"], total)
        drive.write_timestamps()
    return counts


def _lidar(config: SimulationConfig) -> LidarModel:
    upper, lower = np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.8, 32)
    return LidarModel(
        elevations=tuple(np.concatenate([upper, lower]).tolist()), columns=config.kitti_columns,
        period=PERIOD, start=180.0, near=2.0,
    )  # fmt: skip


def velo_pose(street: Street, time: float) -> Float64:
    """Pose of the lidar in the street's world."""
    return np.asarray(street.ego(time) @ pose(0.76, 0.0, 1.73))


def measure(street: Street, config: SimulationConfig, time: float, rng: np.random.Generator) -> Sweep:
    """One turn around `time`, looking ahead at that very moment, as the cameras do."""
    return fire(
        street.world,
        _lidar(config),
        lambda t: velo_pose(street, t),
        time - PERIOD / 2,
        reference=time,
        yaw=0.0,
        rng=rng,
    )


def scan_bytes(xyz: NDArray[np.float32], sweep: Sweep) -> bytes:
    """A velodyne file: `xyz` is that of the sweep, with or without its motion."""
    reflectance = np.round(np.minimum(sweep.intensity, 0.99), 2)
    return np.column_stack([np.round(xyz, 3), reflectance]).astype("<f4").tobytes()


def write_file(path: Path, content: bytes | str) -> None:
    """Bytes or text to a file whose folder need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def photograph(
    street: Street, rig: Rig, number: int, sweep: Sweep, *, time: float, rng: np.random.Generator
) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """PNG of rectified camera `number`, and its truth."""
    place = velo_pose(street, time) @ rig.velo_from_rectified(number)
    picture = render(street.world, rig.camera(), place, time, rng)
    buffer = io.BytesIO()
    Image.fromarray(picture.color).save(buffer, "PNG", compress_level=1)
    label, depth = picture_truth(picture, raw_labels(street.world, RAW_IDS))
    seen = visible(street.world, rig.camera(), place, time, anchors_at(street.world, sweep, time))
    name = f"image_{number:02d}"
    return buffer.getvalue(), {f"{name}_label": label, f"{name}_depth": depth, f"visible_{name}": seen}


def _point_truth(street: Street, sweep: Sweep) -> dict[str, NDArray[np.generic]]:
    labels = raw_labels(street.world, RAW_IDS)
    return {"label": labels[sweep.face], "instance": street.world.instance[sweep.face]}


def numbers(values: NDArray[np.floating[Any]], digits: int = 12) -> str:
    """A line of a calibration file, row by row."""
    return " ".join(f"{float(v):.{digits}e}" for v in values.ravel())


def _write_object_frame(
    folder: Path, truth: Path, number: int, config: SimulationConfig, rng: np.random.Generator
) -> int:
    street, rig, name, time = (
        build_street(rng, ego_roof=None),
        build_rig(config.kitti_image_size, rng),
        f"{number:06d}",
        0.5,
    )
    sweep = measure(street, config, time, rng)
    write_file(folder / "velodyne" / f"{name}.bin", scan_bytes(sweep.xyz, sweep))
    arrays = _point_truth(street, sweep)
    for camera in (2, 3):
        png, more = photograph(street, rig, camera, sweep, time=time, rng=rng)
        write_file(folder / f"image_{camera}" / f"{name}.png", png)
        arrays |= more
    rows = {f"P{k}": rig.projection[k] for k in range(4)}
    rows |= {
        "R0_rect": rig.rectify[:3, :3],
        "Tr_velo_to_cam": rig.camera_from_velo[:3],
        "Tr_imu_to_velo": rig.velo_from_imu[:3],
    }
    write_file(folder / "calib" / f"{name}.txt", "".join(f"{key}: {numbers(v)}\n" for key, v in rows.items()) + "\n")
    write_file(folder / "label_2" / f"{name}.txt", _object_labels(street, rig, sweep, time))
    write_arrays(truth / name, arrays)
    return len(sweep.xyz)


def _object_labels(street: Street, rig: Rig, sweep: Sweep, time: float) -> str:
    velo = velo_pose(street, time)
    rect_from_world = rig.rectify @ rig.camera_from_velo @ invert(velo)
    points = sweep.xyz @ velo[:3, :3].T + velo[:3, 3]
    shares = seen_share(street.world, street.actors, time, velo[:3, 3])
    lines = []
    for actor, share in zip(street.actors, shares, strict=True):
        if actor.label in OBJECT_TYPES and points_inside(actor, time, points):
            line = _object_line(actor, rig, rect_from_world, time, float(share))
            lines += [line] if line else []
    return "".join(lines)


def _object_line(actor: Actor, rig: Rig, rect_from_world: Float64, time: float, share: float) -> str | None:
    """One line of a label file, or None for a box that is not in the picture of camera 2."""
    place = rect_from_world @ actor.trajectory(time)
    corners = box_corners(actor, time) @ rect_from_world[:3, :3].T + rect_from_world[:3, 3]
    if corners[:, 2].min() < 0.3:
        return None
    pixel = corners @ rig.projection[2][:, :3].T + rig.projection[2][:, 3]
    pixel = pixel[:, :2] / pixel[:, 2:]
    low, high = pixel.min(0), pixel.max(0)
    limit = np.array(rig.size, float) - 1
    inner_low, inner_high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    area = float(np.prod(inner_high - inner_low))
    truncated = 1 - area / float(np.prod(high - low))
    if area < 16 or truncated > 0.9:
        return None
    x, y, z = place[:3, 3]
    heading = float(np.arctan2(-place[2, 0], place[0, 0]))
    alpha = (heading - np.arctan2(x, z) + np.pi) % (2 * np.pi) - np.pi
    occluded = 0 if share > 0.8 else 1 if share > 0.4 else 2
    length, width, height = actor.size
    values = [alpha, *inner_low, *inner_high, height, width, length, x, y, z, heading]
    return f"{OBJECT_TYPES[actor.label]} {truncated:.2f} {occluded} " + " ".join(f"{v:.2f}" for v in values) + "\n"


def _write_raw_calibration(folder: Path, rig: Rig) -> None:
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.950000e-02"]
    for k in range(4):
        from_reference = pose(*_BESIDE[k])
        rows = {
            "S": np.array([1392.0, 512.0]), "K": rig.projection[k][:, :3], 
            "D": np.array([-0.37, 0.2, 0.001, 0.001, -0.07]),
            "R": np.eye(3), "T": from_reference[:3, 3], 
            "S_rect": np.array(rig.size, float), "R_rect": rig.rectify[:3, :3],
            "P_rect": rig.projection[k],
        }  # fmt: skip
        lines += [f"{key}_{k:02d}: {numbers(v)}" for key, v in rows.items()]
    write_file(folder / "calib_cam_to_cam.txt", "\n".join(lines) + "\n")
    tail = {"velo_to_cam": "delta_f: 0.0 0.0\ndelta_c: 0.0 0.0\n", "imu_to_velo": ""}
    for name, rigid in (("velo_to_cam", rig.camera_from_velo), ("imu_to_velo", rig.velo_from_imu)):
        text = f"calib_time: 15-Mar-2012 11:37:16\nR: {numbers(rigid[:3, :3])}\nT: {numbers(rigid[:3, 3])}\n"
        write_file(folder / f"calib_{name}.txt", text + tail[name])


class _Drive:
    """Writes one drive of KITTI raw."""

    def __init__(
        self, folder: Path, truth: Path, number: int, *, config: SimulationConfig, rig: Rig, rng: np.random.Generator
    ) -> None:
        name = f"{DATE}_drive_{9001 + number:04d}_sync"
        self.folder, self.truth, self.number, self.config = folder / name, truth / name, number, config
        self.street, self.rig, self.rng = build_street(rng, ego_roof=None), rig, rng
        self.east_from_street = pose(yaw=rng.uniform(-np.pi, np.pi))
        self.times: list[float] = []

    def _time(self, frame: int) -> float:
        return 0.5 + frame * PERIOD

    def write_frame(self, frame: int, missing: bool) -> int:
        """All files of a frame; the scan is left out if `missing`. Returns the points written."""
        time, name = self._time(frame), f"{frame:010d}"
        self.times.append(time)
        sweep = measure(self.street, self.config, time, self.rng)
        if not missing:
            write_file(self.folder / "velodyne_points" / "data" / f"{name}.bin", scan_bytes(sweep.xyz_raw, sweep))
        arrays = _point_truth(self.street, sweep)
        for camera in (2, 3):
            png, more = photograph(self.street, self.rig, camera, sweep, time=time, rng=self.rng)
            write_file(self.folder / f"image_{camera:02d}" / "data" / f"{name}.png", png)
            arrays |= more
        write_file(self.folder / "oxts" / "data" / f"{name}.txt", self._packet(time))
        write_arrays(self.truth / name, arrays)
        return 0 if missing else len(sweep.xyz)

    def _imu(self, time: float) -> Float64:
        return np.asarray(self.east_from_street @ velo_pose(self.street, time) @ self.rig.velo_from_imu)

    def _packet(self, time: float) -> str:
        """A GPS/IMU line of 30 numbers: the inverse of the official Mercator formula, with the first frame's scale."""
        imu, first = self._imu(time), self._imu(self._time(0))
        velocity = (self._imu(time + 0.005) - self._imu(time - 0.005))[:3, 3] / 0.01
        rotation, moved = imu[:3, :3], imu[:3, 3] - first[:3, 3]
        scale = np.cos(np.radians(ORIGIN[0])) * EARTH_RADIUS
        longitude = ORIGIN[1] + np.degrees(moved[0] / scale)
        mercator = np.log(np.tan(np.radians(90 + ORIGIN[0]) / 2)) + moved[1] / scale
        latitude = 2 * np.degrees(np.arctan(np.exp(mercator))) - 90
        roll, yaw = np.arctan2(rotation[2, 1], rotation[2, 2]), np.arctan2(rotation[1, 0], rotation[0, 0])
        pitch = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
        local = rotation.T @ velocity
        place = [f"{v:.13f}" for v in (latitude, longitude, ORIGIN[2] + moved[2], roll, pitch, yaw)]
        speeds = [velocity[1], velocity[0], *local]
        rest = [f"{v:.9f}" for v in (*speeds, 0, 0, 9.81, 0, 0, 9.81, 0, 0, 0, 0, 0, 0, 0.06, 0.02)]
        return " ".join([*place, *rest, "4", "9", "4", "4", "4"]) + "\n"

    def write_timestamps(self) -> None:
        def lines(offset: float) -> str:
            return "".join(f"{self._clock(time + offset)}\n" for time in self.times)

        for folder in ("oxts", "image_02", "image_03", "velodyne_points"):
            write_file(self.folder / folder / "timestamps.txt", lines(0))
        write_file(self.folder / "velodyne_points" / "timestamps_start.txt", lines(-PERIOD / 2))
        write_file(self.folder / "velodyne_points" / "timestamps_end.txt", lines(PERIOD / 2))
        write_file(self.folder / "oxts" / "dataformat.txt", "lat lon alt roll pitch yaw vn ve vf vl vu, then 19 more\n")

    def _clock(self, time: float) -> str:
        nanoseconds = round((25 + 10 * self.number + time) * 1e9)
        seconds, fraction = divmod(nanoseconds, 10**9)
        return f"{DATE.replace('_', '-')} 13:{2 + seconds // 60:02d}:{seconds % 60:02d}.{fraction:09d}"
