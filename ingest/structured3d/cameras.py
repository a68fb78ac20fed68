"""Where the pictures of Structured3D were taken from, in its world: here metres, right-handed, z up.

  panorama      `camera_xyz.txt`: x y z in millimetres. The whole sphere, upright. The middle of the picture looks along
                +y and its right half along +x: longitude a and latitude e of a pixel give (sin a cos e, cos a cos e,
                sin e). The release's own documents say -y; its code that textures walls, and its rooms, say +y (see
                `frame`, which holds every room's layout against it). Depth is the distance along the ray.
  perspective   `camera_pose.txt`: eye in millimetres, direction of view, up, half the angles of view in radians, 1.
                The axes of a camera that looks along t with up u are right = t x u, down = -u, forward = t. Depth is
                taken along the optical axis.

Pixels are counted from corners (W / 2 is the middle of the picture), so half of one is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brickyard.ingest.structured3d.files import REPORT, RoomFiles
from brickyard.shards.scene import CameraModel, DepthAxis, Float64

MILLIMETRE = 0.001
MAX_M = 1000.0
"""Of a house."""
LEVEL = 0.02
"""How far the length of a unit vector may be off."""
UPRIGHT = 0.9
"""Cosine of view and up, beyond which up says nothing. What is not at a right angle to the view is taken off."""
SQUARE = 0.02
"""How far the sides of a pixel may differ."""
PANORAMA_AXES: Float64 = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""World from camera (x right, y down, z forward)."""


@dataclass(frozen=True)
class Camera:
    """`world_from_camera` float64 (4, 4) in metres, `intrinsics` float64 (3, 3); which way the depth image measures."""

    model: CameraModel
    along: DepthAxis
    intrinsics: Float64
    world_from_camera: Float64


def read_camera(files: RoomFiles, picture: str, size: tuple[int, int]) -> Camera:
    """The camera of a picture ("panorama", "perspective/3") of a size (width, height).

    Raises:
        RawDataError: a damaged file, or numbers that are no camera's.
    """
    return _panorama(files, picture, size) if picture == "panorama" else _perspective(files, picture, size)


def _panorama(files: RoomFiles, picture: str, size: tuple[int, int]) -> Camera:
    width, height = size
    role = f"{picture}/camera"
    if width != 2 * height:
        raise files.error(f"{picture}/color", f"a panorama is twice as wide as high, this has {width}x{height}", REPORT)
    place = _place(files, role, files.numbers(role, 3))
    across, up = width / (2 * np.pi), height / np.pi
    intrinsics = np.array([[across, 0, (width - 1) / 2], [0, up, (height - 1) / 2], [0, 0, 1]])
    return Camera("equirectangular", "ray", intrinsics, _pose(PANORAMA_AXES, place))


def _perspective(files: RoomFiles, picture: str, size: tuple[int, int]) -> Camera:
    role = f"{picture}/camera"
    values = files.numbers(role, 12)
    forward, up = np.array(values[3:6]), np.array(values[6:9])
    lengths = np.linalg.norm([forward, up], axis=1)
    if abs(lengths - 1).max() > LEVEL or abs(forward @ up) > UPRIGHT or values[11] != 1:
        expected = "expected an eye, unit vectors of view and up, two angles and 1"
        raise files.error(role, f"{expected}; found {' '.join(f'{value:g}' for value in values)}", REPORT)
    half = np.array(values[9:11])
    if not ((half > 0.01) & (half < 1.5)).all():
        raise files.error(role, f"half angles of view of {half[0]:g} and {half[1]:g} radians", REPORT)
    focal = np.array(size) / 2 / np.tan(half)
    if abs(focal[0] / focal[1] - 1) > SQUARE:
        found = f"{half[0]:g} and {half[1]:g} radians for {size[0]}x{size[1]} pixels make no square ones"
        raise files.error(role, f"half angles of view: {found}", REPORT)
    intrinsics = np.array([[focal[0], 0, (size[0] - 1) / 2], [0, focal[1], (size[1] - 1) / 2], [0, 0, 1]])
    forward = forward / lengths[0]
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward], axis=1)
    return Camera("pinhole", "z", intrinsics, _pose(axes, _place(files, role, values[:3])))


def _place(files: RoomFiles, role: str, millimetres: list[float]) -> Float64:
    place = np.array(millimetres) * MILLIMETRE
    if np.abs(place).max() > MAX_M:
        raise files.error(role, f"the camera stands {np.abs(place).max():g} m from the origin of its house", REPORT)
    return place


def _pose(axes: Float64, place: Float64) -> Float64:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes, place
    return pose
