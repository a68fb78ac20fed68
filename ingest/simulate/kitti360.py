"""Writes simulated streets the way KITTI-360 ships its drives.

Each drive is one street driven along: scans as measured while moving, a rectified stereo pair, two sideways fisheyes,
poses for some frames only (never the first), label images of camera 0, and one accumulated cloud of what stands still.
Drive 0008 is of the test split and has no labels. The GPS/IMU's axes are x forward, y right, z down, the world is
kilometres from its origin, and no camera is mounted perfectly, as in the original.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.fisheye import Fisheye, photograph
from brickyard.ingest.simulate.kitti import PERIOD, measure, numbers, scan_bytes, velo_pose, write_file
from brickyard.ingest.simulate.sensors import Camera, Picture, Sweep, anchors_at, render, visible
from brickyard.ingest.simulate.shapes import invert, pose
from brickyard.ingest.simulate.streets import Street, build_street
from brickyard.ingest.simulate.truth import write_arrays
from brickyard.ingest.simulate.world import MISS
from brickyard.shards.scene import Float64

DRIVES = ("2013_05_28_drive_0000_sync", "2013_05_28_drive_0008_sync", "2013_05_28_drive_0002_sync")
"""The second one is of the test split."""
IDS = {
    "road": 7, "sidewalk": 8, "terrain": 22, "building": 11, "fence": 13, "pole": 17, "sign": 20, "trunk": 21,
    "vegetation": 21, "car": 26, "truck": 27, "bus": 28, "bicycle": 33, "pedestrian": 24, "barrier": 44,
    "traffic_cone": 44, "ego": 1,
}  # fmt: skip
SKY = 23
_THINGS = ("car", "truck", "bus", "bicycle", "pedestrian")
_START = 0.5
_BASELINE = 0.594
_ORIGIN = (2711.0, 3832.0, 115.0)
_FORWARD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
_LEFT = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
_RIGHT = np.array([[-1, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
"""Axes of a camera (x right, y down, z ahead) that looks so, in those of the vehicle (x forward, y left, z up)."""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A calibrated vehicle. `velo_from` is the pose of each unrectified camera, `rectify` the turn of the first two."""

    velo_from: tuple[Float64, ...]
    rectify: tuple[Float64, Float64]
    imu_from_velo: Float64
    pinhole: Camera
    fisheyes: tuple[Fisheye, Fisheye]

    def velo_from_image(self, number: int) -> Float64:
        """Pose of the camera that the image `image_0<number>` belongs to, in the lidar frame."""
        place = self.velo_from[number]
        return place @ invert(self.rectify[number]) if number < 2 else place


def build_rig(config: SimulationConfig, rng: np.random.Generator) -> Rig:
    """A rig whose angles and offsets are those of a carefully mounted, not a perfect, vehicle."""
    width, height = config.kitti360_image_size
    focal = 0.3924 * width * (1 + rng.normal(0, 0.003))
    intrinsics = np.array([[focal, 0, 0.4844 * width], [0, focal, 0.635 * height], [0, 0, 1]])
    tilt = [pose(0, 0, 0, *np.radians(rng.normal(0, 0.6, 3)).tolist()) for _ in range(6)]
    rectified = pose(0.8, 0.3, -0.18) @ _FORWARD @ tilt[0]
    rectify = tilt[1], tilt[2]
    beside = rectified @ pose(_BASELINE, 0, 0)
    return Rig(
        velo_from=(
            rectified @ rectify[0],
            beside @ rectify[1],
            pose(-0.05, 0.45, 0.25) @ _LEFT @ tilt[3],
            pose(-0.07, -0.44, 0.26) @ _RIGHT @ tilt[4],
        ),
        rectify=rectify,
        imu_from_velo=pose(0.77, -0.30, -0.83, 0, 0, np.pi) @ tilt[5],
        pinhole=Camera(width=width, height=height, intrinsics=intrinsics),
        fisheyes=(_fisheye(config, 2.2134, 0.0168, 1.6549, gamma=1336), _fisheye(config, 2.5535, 0.0494, 4.5068)),
    )


def _fisheye(config: SimulationConfig, xi: float, k1: float, k2: float, *, gamma: float = 1485) -> Fisheye:
    size = config.kitti360_fisheye_size
    return Fisheye(
        size=size, xi=xi, k1=k1, k2=k2, p1=4.2e-4, p2=4.3e-4, gamma1=gamma * size / 1400,
        gamma2=1.0004 * gamma * size / 1400, u0=0.5121 * size, v0=0.5041 * size,
    )  # fmt: skip


def write_kitti360(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write all folders of the dataset; returns counts."""
    rig = build_rig(config, np.random.default_rng((seed, 9)))
    _write_calibration(out / "calibration", rig)
    counts, names = {"frames": 0, "points": 0}, DRIVES[: config.kitti360_drives]
    for number, name in enumerate(names):
        rng = np.random.default_rng((seed, 10, number))
        drive = _Drive(
            out=out, truth=truth / name, name=name, rig=rig, config=config, rng=rng,
            street=build_street(rng, ego_roof=None),
            world_from_street=pose(*_ORIGIN, float(rng.uniform(-np.pi, np.pi))),
        )  # fmt: skip
        for frame in range(config.kitti360_frames):
            counts["points"] += drive.write_frame(frame)
            counts["frames"] += 1
            tick(counts["frames"], len(names) * config.kitti360_frames)
        drive.write_tables()
        drive.write_window()
    return counts


def _write_calibration(folder: Path, rig: Rig) -> None:
    imu = rig.imu_from_velo
    places = "".join(f"image_{k:02d}: {numbers((imu @ place)[:3])}\n" for k, place in enumerate(rig.velo_from))
    write_file(folder / "calib_cam_to_pose.txt", places)
    write_file(folder / "calib_cam_to_velo.txt", numbers(rig.velo_from[0][:3]) + "\n")
    write_file(folder / "calib_sick_to_velo.txt", numbers(pose(-0.397, -0.009, -0.071)[:3]) + "\n")
    lines, intrinsics = ["calib_time: 09-Jan-2014 13:57:47", "corner_dist: 9.950000e-02"], rig.pinhole.intrinsics
    for k in range(2):
        projection = np.column_stack([intrinsics, intrinsics @ (-_BASELINE * k, 0, 0)])
        size = np.array([rig.pinhole.width, rig.pinhole.height], float)
        rows = {"S_rect": size, "R_rect": rig.rectify[k][:3, :3], "P_rect": projection}
        lines += [f"{key}_{k:02d}: {numbers(value)}" for key, value in rows.items()]
    write_file(folder / "perspective.txt", "\n".join(lines) + "\n")
    for k, lens in enumerate(rig.fisheyes, start=2):
        sections = {"mirror": ("xi",), "distortion": ("k1", "k2", "p1", "p2"), "projection": _PROJECTION}
        text = f"%YAML:1.0\n---\nmodel_type: MEI\ncamera_name: image_{k:02d}\n"
        text += f"image_width: {lens.size}\nimage_height: {lens.size}\n"
        for section, keys in sections.items():
            text += f"{section}_parameters:\n" + "".join(f"   {key}: {getattr(lens, key):.16e}\n" for key in keys)
        write_file(folder / f"image_{k:02d}.yaml", text)


_PROJECTION = ("gamma1", "gamma2", "u0", "v0")


@dataclass(kw_only=True)
class _Drive:
    """Writes one drive."""

    out: Path
    truth: Path
    name: str
    rig: Rig
    config: SimulationConfig
    rng: np.random.Generator
    street: Street
    world_from_street: Float64
    cloud: list[NDArray[np.void]] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        return self.name != DRIVES[1]

    @property
    def posed(self) -> list[int]:
        """Frames with a pose: never the first one, and not the third of a longer drive."""
        return [frame for frame in range(1, self.config.kitti360_frames) if frame != 2 or frame == self._last]

    @property
    def _last(self) -> int:
        return self.config.kitti360_frames - 1

    def _ids(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Class and global instance id of each triangle."""
        world = self.street.world
        label = np.array([IDS[name] for name in world.labels], np.int32)[world.label]
        thing = np.array([name in _THINGS for name in world.labels])[world.label]
        return label, label * 1000 + np.where(thing, world.instance, 0).astype(np.int32)

    def write_frame(self, frame: int) -> int:
        """Scan, images, label images and truth of a frame; returns the number of points."""
        time, name = _START + frame * PERIOD, f"{frame:010d}"
        sweep = measure(self.street, self.config, time, self.rng)
        path = self.out / "data_3d_raw" / self.name / "velodyne_points" / "data" / f"{name}.bin"
        write_file(path, scan_bytes(sweep.xyz_raw, sweep))
        label, instance = self._ids()
        velo = velo_pose(self.street, time)
        arrays: dict[str, NDArray[np.generic]] = {"label": label[sweep.face].astype(np.uint8)}
        arrays |= {"instance": instance[sweep.face], "world_from_velo": self.world_from_street @ velo}
        pictures = [self._picture(number, velo @ self.rig.velo_from_image(number), time) for number in range(4)]
        for number, picture in enumerate(pictures):
            image, folder = f"image_{number:02d}", "data_rect" if number < 2 else "data_rgb"
            write_file(self.out / "data_2d_raw" / self.name / image / folder / f"{name}.png", _png(picture.color))
            classes = np.where(picture.face == MISS, SKY, label[picture.face])
            arrays |= {f"{image}_label": classes.astype(np.uint8), f"{image}_depth": picture.depth.astype(np.float16)}
            if number < 2:
                place = velo @ self.rig.velo_from_image(number)
                spots = anchors_at(self.street.world, sweep, time)
                arrays[f"visible_{image}"] = visible(self.street.world, self.rig.pinhole, place, time, spots)
        if self.labelled:
            self._write_labels(name, pictures[0], label, instance)
        if frame in self.posed:
            self._accumulate(sweep, velo, arrays["visible_image_00"], pictures[0])
        write_arrays(self.truth / name, arrays)
        return len(sweep.face)

    def _picture(self, number: int, place: Float64, time: float) -> Picture:
        if number < 2:
            return render(self.street.world, self.rig.pinhole, place, time, self.rng)
        return photograph(self.street.world, self.rig.fisheyes[number - 2], place, time, self.rng)

    def _write_labels(self, name: str, picture: Picture, label: NDArray[np.int32], instance: NDArray[np.int32]) -> None:
        folder = self.out / "data_2d_semantics" / "train" / self.name / "image_00"
        classes = np.where(picture.face == MISS, SKY, label[picture.face]).astype(np.uint8)
        objects = np.where(picture.face == MISS, SKY * 1000, instance[picture.face]).astype(np.uint16)
        write_file(folder / "semantic" / f"{name}.png", _png(classes))
        write_file(folder / "instance" / f"{name}.png", _png(objects))

    def _accumulate(self, sweep: Sweep, velo: Float64, seen: NDArray[np.generic], picture: Picture) -> None:
        """Add what stands still, with the colour that camera 0 saw there."""
        label, instance = self._ids()
        still = self.street.world.owner[sweep.face] == MISS
        xyz, face, seen = sweep.xyz[still].astype(np.float64), sweep.face[still], seen[still].astype(np.bool_)
        world_from_velo = self.world_from_street @ velo
        part = np.zeros(len(face), _POINT)
        for k, axis in enumerate("xyz"):
            part[axis] = xyz @ world_from_velo[k, :3] + world_from_velo[k, 3]
        local = invert(self.rig.velo_from_image(0))
        pixel = (xyz[seen] @ local[:3, :3].T + local[:3, 3]) @ self.rig.pinhole.intrinsics.T
        column, row = np.rint(pixel[:, :2] / pixel[:, 2:]).astype(int).T
        height, width = picture.face.shape
        for k, channel in enumerate(("red", "green", "blue")):
            part[channel] = 128
            part[channel][seen] = picture.color[row.clip(0, height - 1), column.clip(0, width - 1), k]
        part["semantic"], part["instance"], part["visible"], part["confidence"] = (
            label[face], instance[face], seen, 1.0,
        )  # fmt: skip
        self.cloud.append(part)

    def write_tables(self) -> None:
        """Timestamps and poses."""
        frames = range(self.config.kitti360_frames)
        lines = "".join(f"2013-05-28 08:46:{2 + _START + frame * PERIOD:012.9f}\n" for frame in frames)
        photos = self.out / "data_2d_raw" / self.name
        for folder in (
            self.out / "data_3d_raw" / self.name / "velodyne_points",
            *(photos / f"image_0{k}" for k in range(4)),
        ):
            write_file(folder / "timestamps.txt", lines)
        imu, camera = "", ""
        for frame in self.posed:
            velo = self.world_from_street @ velo_pose(self.street, _START + frame * PERIOD)
            imu += f"{frame} {numbers((velo @ invert(self.rig.imu_from_velo))[:3])}\n"
            camera += f"{frame} {numbers(velo @ self.rig.velo_from_image(0))}\n"
        write_file(self.out / "data_poses" / self.name / "poses.txt", imu)
        write_file(self.out / "data_poses" / self.name / "cam0_to_world.txt", camera)

    def write_window(self) -> None:
        """The accumulated cloud of the whole drive; without labels for the test split."""
        if not self.posed:
            return
        split, kind = ("train", _POINT) if self.labelled else ("test", _UNLABELLED_POINT)
        cloud = np.concatenate(self.cloud)
        kept = np.zeros(len(cloud), kind)
        for name in kind.names or ():
            kept[name] = cloud[name]
        names = {"f4": "float", "u1": "uchar", "i4": "int"}
        properties = "".join(f"property {names[kind[name].str[1:]]} {name}\n" for name in kind.names or ())
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(kept)}\n{properties}end_header\n"
        path = f"data_3d_semantics/{split}/{self.name}/static/{self.posed[0]:010d}_{self.posed[-1]:010d}.ply"
        write_file(self.out / path, header.encode() + kept.tobytes())


_PLACE = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
_POINT = np.dtype([*_PLACE, ("semantic", "<i4"), ("instance", "<i4"), ("visible", "u1"), ("confidence", "<f4")])
_UNLABELLED_POINT = np.dtype([*_PLACE, ("visible", "u1")])


def _png(pixels: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
