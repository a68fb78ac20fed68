"""Writes simulated walks as Aria Synthetic Environments ships its own: one folder a walk, images on their side.

    <walk>/rgb/vignette%07d.jpg  depth/depth%07d.png  instances/instance%07d.png
           trajectory.csv  ase_scene_language.txt  object_instances_to_classes.json
           semidense_points.csv.gz  semidense_observations.csv.gz

A walk goes through one room. The camera is that of the release: its formula is inverted here by a table of the angle
and fixed-point steps for what is tangential, not by the reader's Newton steps. Depth is along the ray, in millimetres;
the near plane reads 100, what a ray does not meet 65535.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.sensors import Picture, look
from brickyard.ingest.simulate.truth import write_arrays
from brickyard.ingest.simulate.world import MISS
from brickyard.shards.scene import Float32, Float64

Rng = np.random.Generator
SIZE, FOCAL, CENTRE = 704, 297.6375381033778, (357.6599197217746, 349.1922497127481)
RADIAL = (0.3650890375644368, -0.1738082418112771, -0.7534945484033189, 2.434788882752295, -2.57786220300886,
          0.8788483538598834)  # fmt: skip
TANGENTIAL = (0.0008005198595407136, -0.000294237814554143)
TURN = (0.9441858687689326, 0.326409343828490850, 0.029274992008313648, 0.033361059956531547)
SHIFT = (-0.007530096566173914, -0.010908549841580260, -0.003598063315542823)
"""Of the camera in the device's frame; the quaternion's scalar comes first here, last in a trajectory."""
DARK, NEAR, FAR = 390, 100, 65535
NAMES = {
    "bed": "bed", "couch": "sofa", "chair": "chair", "office chair": "chair", "table": "table", "desk": "table",
    "cabinet": "cabinet", "kitchen cabinet": "cabinet", "bookshelf": "shelf", "dresser": "dresser", "lamp": "lamp",
    "picture": "picture_frame_or_painting", "pillow": "pillow", "mirror": "mirror", "window": "window",
    "door": "door", "rug": "rug", "plant": "plant_or_flower_pot", "wall": "wall", "floor": "floor",
    "ceiling": "ceiling",
}  # fmt: skip
"""Label of the simulated world -> class; all else is a "container"."""
WALKS = (0, 7, 11, 80920, 42, 99900)
TRUTH_EVERY = 8


def write_ase(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.ase_walks` walks below `out`; returns counts."""
    frames = 0
    for index in range(config.ase_walks):
        rng = np.random.default_rng((seed, 11, index))
        walk = WALKS[index % len(WALKS)] + index // len(WALKS)
        room = build_room(rng, list(ROOMS)[index % len(ROOMS)], spacing=0.3)
        offset = np.array([rng.uniform(-4, 4), rng.uniform(-4, 4), 0.0])
        _write_walk((out / str(walk), truth / str(walk)), room, offset, config.ase_frames, rng)
        frames += config.ase_frames
        tick(index + 1, config.ase_walks)
    return {"walks": config.ase_walks, "frames": frames}


def _write_walk(folders: tuple[Path, Path], room: Room, offset: Float64, count: int, rng: Rng) -> None:
    out, truth = folders
    for name in ("rgb", "depth", "instances"):
        (out / name).mkdir(parents=True, exist_ok=True)
    rays = _rays()
    rows, arrays = [], {}
    names = {0: "empty_space", 1: "background"} | {
        k + 1: NAMES.get(n, "container") for k, n in enumerate(room.instances, 1)
    }
    for frame in range(count):
        camera = _walked(room, frame, count, rng)
        directions = np.ascontiguousarray(rays @ camera[:3, :3].T, np.float32)
        picture = look(room.world, camera[:3, 3], directions, (SIZE, SIZE), time=0.0, focal=FOCAL, rng=rng)
        color, depth, instance = _images(room, picture)
        number = f"{frame:07d}"
        _save(out / "rgb" / f"vignette{number}.jpg", color)
        _save(out / "depth" / f"depth{number}.png", depth)
        _save(out / "instances" / f"instance{number}.png", instance)
        camera[:3, 3] += offset
        arrays[f"pose_{number}"] = camera
        few = picture.depth[::TRUTH_EVERY, ::TRUTH_EVERY]
        arrays[f"depth_{number}"] = few.astype(np.float32)
        arrays[f"instance_{number}"] = instance[::TRUTH_EVERY, ::TRUTH_EVERY]
        rows.append(_row(frame, camera))
    head = "graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx_world_device,ty_world_device,tz_world_device,"
    head += "qx_world_device,qy_world_device,qz_world_device,qw_world_device"
    (out / "trajectory.csv").write_text("\n".join([head, *rows]) + "\n")
    (out / "object_instances_to_classes.json").write_text(json.dumps({str(k): name for k, name in names.items()}))
    width, depth_, height = room.size
    x, y, _ = offset
    walls = [(0, 0, width, 0), (width, 0, width, depth_), (width, depth_, 0, depth_), (0, depth_, 0, 0)]
    (out / "ase_scene_language.txt").write_text("".join(
        f"make_wall, id={k}, a_x={a + x}, a_y={b + y}, a_z=0.0, b_x={c + x}, b_y={d + y}, b_z=0.0, height={height},"
        " thickness=0.0\n" for k, (a, b, c, d) in enumerate(walls)
    ))  # fmt: skip
    _semidense(out, room, offset, rng)
    write_arrays(truth, arrays)


def _walked(room: Room, frame: int, count: int, rng: Rng) -> Float64:
    """world_from_camera of the stored image: eyes at 1.5 m on an ellipse, looking across; up points to the left."""
    width, depth, _ = room.size
    angle = 2 * np.pi * frame / max(count, 8) + 0.3
    eye = np.array([width / 2 + 0.22 * width * np.cos(angle), depth / 2 + 0.22 * depth * np.sin(angle), 1.5])
    yaw = angle + np.pi / 2 + rng.normal(0, 0.05)
    forward = np.array([np.cos(yaw), np.sin(yaw), -0.3 + rng.normal(0, 0.03)])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    upright = np.stack([right, np.cross(forward, right), forward], axis=1)  # columns: right, down, ahead
    pose = np.eye(4)
    # The stored x axis is the upright image's down turned round: up is to the left, so x points down, y to the left.
    pose[:3, :3] = np.stack([upright[:, 1], -upright[:, 0], upright[:, 2]], axis=1)
    pose[:3, 3] = eye
    return pose


@cache
def _rays() -> Float64:
    """Unit directions (704 * 704, 3) in the camera's frame, row by row."""
    angles = np.linspace(0, 1.35, 200_001)
    radii = angles * (1 + sum(k * angles ** (2 * i + 2) for i, k in enumerate(RADIAL)))
    row, column = (axis.ravel().astype(np.float64) for axis in np.indices((SIZE, SIZE)))
    u, v = (column - CENTRE[0]) / FOCAL, (row - CENTRE[1]) / FOCAL
    x, y = u.copy(), v.copy()
    p0, p1 = TANGENTIAL
    for _ in range(60):
        square, along = x * x + y * y, x * p0 + y * p1
        x, y = u - 2 * along * x - square * p0, v - 2 * along * y - square * p1
    radius = np.hypot(x, y)
    angle = np.interp(radius, radii, angles)
    share = np.where(radius > 0, np.sin(angle) / np.maximum(radius, 1e-12), 1.0)
    return np.stack([x * share, y * share, np.cos(angle)], axis=1)


def _images(room: Room, picture: Picture) -> tuple[Any, Any, Any]:
    """Colour with a dark rim, depth in millimetres, instances."""
    row, column = np.indices((SIZE, SIZE))
    beyond = np.hypot(column - (SIZE - 1) / 2, row - (SIZE - 1) / 2)
    shade = np.clip((DARK - beyond) / 40, 0, 1)[..., None]
    missed = picture.face == MISS
    millimetres = np.rint(np.where(missed, 0, picture.depth) * 1000)
    depth = np.where(missed, FAR, np.clip(millimetres, NEAR, FAR - 1)).astype(np.uint16)
    instance = np.where(missed, 0, room.world.instance[np.where(missed, 0, picture.face)] + 1).astype(np.uint16)
    return (picture.color * shade).astype(np.uint8), depth, instance


def _save(path: Path, values: Any) -> None:
    sink = io.BytesIO()
    if path.suffix == ".jpg":
        Image.fromarray(values).save(sink, "JPEG", quality=92)
    else:
        Image.fromarray(values).save(sink, "PNG", compress_level=1)
    path.write_bytes(sink.getvalue())


def _row(frame: int, world_from_camera: Float64) -> str:
    device = world_from_camera @ np.linalg.inv(_matrix(TURN, SHIFT))
    w, x, y, z = _quaternion(device[:3, :3])
    values = [*device[:3, 3], x, y, z, w]
    return ",".join(["simulated", str(frame * 100_000), "-1", *(repr(float(value)) for value in values)])


def _matrix(turn: tuple[float, ...], shift: tuple[float, ...]) -> Float64:
    from pyquaternion import Quaternion

    matrix = np.asarray(Quaternion(turn).transformation_matrix, np.float64)
    matrix[:3, 3] = shift
    return matrix


def _quaternion(rotation: Float64) -> Float64:
    from pyquaternion import Quaternion

    return np.asarray(Quaternion(matrix=rotation, rtol=1e-5, atol=1e-6).elements)


def _semidense(out: Path, room: Room, offset: Float64, rng: Rng) -> None:
    """Places on the room's surfaces with uncertainties, two thirds of them precise."""
    world = room.world
    corners = world.vertices[world.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = rng.choice(len(area), 3000, p=area / area.sum())
    share = rng.dirichlet((1, 1, 1), len(chosen))
    xyz: Float32 = ((corners[chosen] * share[..., None]).sum(axis=1) + offset).astype(np.float32)
    std = rng.uniform(0.0005, 0.0015, len(xyz)) * rng.choice([1, 1, 20], len(xyz))
    lines = ["uid,graph_uid,px_world,py_world,pz_world,inv_dist_std,dist_std"]
    lines += [
        f"{k},simulated,{p[0]:.6f},{p[1]:.6f},{p[2]:.6f},{s:.6f},{2 * s:.6f}"
        for k, (p, s) in enumerate(zip(xyz, std, strict=True))
    ]
    _pack(out / "semidense_points.csv.gz", "\n".join(lines) + "\n")
    _pack(out / "semidense_observations.csv.gz", "uid,frame_tracking_timestamp_us,camera_serial,u,v\n0,0,1,2.0,3.0\n")


def _pack(path: Path, text: str) -> None:
    with path.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(text.encode())
