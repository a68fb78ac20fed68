"""nerfstudio/transforms.json of a scene: which photographs are blurred or held out, and poses in a world of its own.

`transform_matrix` leads from a camera with OpenGL's axes (x right, y up, z backward) to a world that is not the mesh's:
world = (y, x, -z) of it, a turn that undoes itself. COLMAP's files have the same poses in the mesh's world and are
taken where they are there. Where they are not, the vertices tell which world the poses are in: a photographer stands
inside of the room, and one of the two readings puts every camera below its floor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brickyard.ingest.scannetpp.colmap import REPORT, Camera, pinhole_intrinsics
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import CameraModel, Float32, Float64

MAX_JSON = 64 << 20
WORLDS: dict[str, Float64] = {
    "nerfstudio's": np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]),
    "the mesh's": np.eye(4),
}
"""Name -> scene from world, float64 (4, 4)."""
OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
INSIDE_M = 0.5
"""Metres that a camera may stand outside of the box of the vertices."""
LEAST_INSIDE = 0.8
MODELS: dict[str, CameraModel] = {"OPENCV_FISHEYE": "fisheye", "PINHOLE": "pinhole", "OPENCV": "opencv"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A photograph: world_from_camera float64 (4, 4) with OpenCV axes in the file's world, None where it is no pose."""

    bad: bool
    held_out: bool
    world_from_camera: Float64 | None


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Photographs by their names without suffix, and their camera, None where the file gives none that is known."""

    frames: Mapping[str, Frame]
    camera: Camera | None


def read_transforms(files: RawFiles, path: str) -> Transforms:
    """Parse the file; raises `RawDataError` where it is damaged."""
    try:
        content = json.loads(files.read(path, MAX_JSON))
        entries = [(entry, False) for entry in content["frames"]]
        entries += [(entry, True) for entry in content.get("test_frames", [])]
        frames = {_name(entry["file_path"]): _frame(entry, held_out) for entry, held_out in entries}
        camera = _camera(content)
    except NONSENSE as problem:
        what = f"no object with a list of frames that have file_path and transform_matrix: {problem}"
        raise files.error(path, what[:200], hint=REPORT) from problem
    return Transforms(frames=frames, camera=camera)


def _name(path: str) -> str:
    base = path.replace("\\", "/").rpartition("/")[2]
    return base.rpartition(".")[0] or base


def _frame(entry: Mapping[str, Any], held_out: bool) -> Frame:
    bad = entry.get("is_bad", False)
    if not isinstance(bad, bool):
        raise ValueError("is_bad is true or false")
    return Frame(bad=bad, held_out=held_out, world_from_camera=rigid(entry.get("transform_matrix"), OPENGL_AXES))


def rigid(matrix: object, axes: Float64) -> Float64 | None:
    """float64 (4, 4) `matrix @ axes`; None if the matrix is no rigid motion within 100 km."""
    try:
        pose = np.array(matrix, np.float64)
    except NONSENSE:
        return None
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or np.abs(pose).max() > 1e5:
        return None
    rotation = pose[:3, :3]
    turned = np.abs(rotation @ rotation.T - np.eye(3)).max() < 5e-4 and np.linalg.det(rotation) > 0
    if not (turned and np.allclose(pose[3], (0, 0, 0, 1))):
        return None
    product: Float64 = pose @ axes
    return product


def _camera(content: Mapping[str, Any]) -> Camera | None:
    """None where a value is missing; pixels are counted from the corner of the image, as COLMAP does."""
    model = MODELS.get(content.get("camera_model", ""))
    bent = {"fisheye": ("k1", "k2", "k3", "k4"), "opencv": ("k1", "k2", "p1", "p2")}.get(model or "", ())
    values: list[Any] = [content.get(name) for name in ("fl_x", "fl_y", "cx", "cy", "w", "h", *bent)]
    if model is None or not all(type(value) in (int, float) and abs(value) < 1e6 for value in values):
        return None
    fx, fy, cx, cy, width, height, *distortion = map(float, values)
    if not (fx > 0 and fy > 0 and width == int(width) > 0 and height == int(height) > 0):
        return None
    return Camera(
        model=model, width=int(width), height=int(height), intrinsics=pinhole_intrinsics(fx, fy, cx, cy),
        distortion=tuple(distortion),
    )  # fmt: skip


def inside_share(places: Float64, xyz: Float32) -> float:
    """Share of the places (N, 3) that lie in the box of the vertices, or less than `INSIDE_M` outside; 0 of none."""
    return float(inside(places, xyz).mean()) if len(places) else 0.0


def inside(places: Float64, xyz: Float32) -> Any:
    """Which of the places (N, 3) lie in the box of the vertices, or less than `INSIDE_M` outside, bool (N,)."""
    low, high = xyz.min(axis=0) - INSIDE_M, xyz.max(axis=0) + INSIDE_M
    return ((places >= low) & (places <= high)).all(axis=1)


def find_world(transforms: Transforms, xyz: Float32) -> str | None:
    """The one of `WORLDS` that puts the cameras among the vertices (N, 3); None if none does, or more than one."""
    poses = [frame.world_from_camera for frame in transforms.frames.values()]
    centres = np.array([pose[:3, 3] for pose in poses if pose is not None]).reshape(-1, 3)
    shares = {name: inside_share(centres @ matrix[:3, :3].T + matrix[:3, 3], xyz) for name, matrix in WORLDS.items()}
    fitting = [name for name, share in shares.items() if share >= LEAST_INSIDE]
    return fitting[0] if len(fitting) == 1 else None
