"""Range image -> points of the vehicle at the time of the frame, in float64 (0.15 s for half a million points).

A pixel is a beam: its row gives the inclination, its column the azimuth, its first channel the distance. TOP turns once
in 0.1 s while the vehicle drives, so each of its pixels has a vehicle pose of its own, which leads through the world to
the vehicle at the time of the frame. World coordinates are tens of kilometres, where float32 steps by 4 mm: hence
positions are subtracted from each other in float64 before anything is rotated.

Formulas: the dataset's public description of range images (proto comments of `Laser` and `RangeImage`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.waymo.frame import Laser
from brickyard.shards.scene import Float32, Float64

_PIECE = 8192
"""Points that are moved at a time: what comes in between stays in the processor's cache."""


def row_inclinations(laser: Laser, height: int) -> Float64:
    """Radians (H,), the highest beam (row 0) first; raises ValueError if the listed beams are not `height`."""
    listed = laser.inclinations
    if not len(listed):
        listed = laser.lowest + (np.arange(height) + 0.5) / height * (laser.highest - laser.lowest)
    if len(listed) != height:
        raise ValueError(f"{len(listed)} beam inclinations for a range image of {height} rows")
    return listed[::-1]


def pixel_points(
    laser: Laser, distance: Float64, pixels: tuple[NDArray[Any], NDArray[Any]], shape: tuple[int, int], pose: Float64
) -> Float64:
    """Points (N, 3) of chosen pixels in the vehicle frame at the time of `pose`.

    Args:
        distance: float64 (N,), metres.
        pixels: rows (N,) and columns (N,).
        shape: height and width of the range image.
        pose: float64 (4, 4), world from vehicle at the time of the frame.
    """
    rows, columns = pixels
    height, width = shape
    inclination = row_inclinations(laser, height)
    mounted = np.arctan2(laser.extrinsic[1, 0], laser.extrinsic[0, 0])
    azimuth = ((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi - mounted
    level = distance * np.cos(inclination)[rows]
    seen = np.stack(
        [level * np.cos(azimuth)[columns], level * np.sin(azimuth)[columns], distance * np.sin(inclination)[rows]],
        axis=1,
    )
    points: Float64 = seen @ laser.extrinsic[:3, :3].T
    for axis in range(3):
        points[:, axis] += laser.extrinsic[axis, 3]
    if laser.pixel_pose is None:
        return points
    return _at_frame_time(points, laser.pixel_pose.reshape(-1, 6).take(rows * width + columns, axis=0), pose)


def _at_frame_time(points: Float64, pixel_pose: Float32, pose: Float64) -> Float64:
    """Points of vehicles that stood at (N, 6) roll pitch yaw x y z -> the vehicle that stands at `pose`."""
    moved = np.empty_like(points)
    for start in range(0, len(points), _PIECE):
        piece = slice(start, start + _PIECE)
        own = np.array(pixel_pose[piece].T, np.float64, order="C")
        x, y, z = points[piece].T
        for axis, (a, b, c) in enumerate(euler_rotation(own[:3])):
            moved[piece, axis] = a * x + c * z + b * y + (own[3 + axis] - pose[axis, 3])
    at_frame: Float64 = moved @ np.linalg.inv(pose[:3, :3]).T
    return at_frame


def euler_rotation(angles: Float64) -> tuple[tuple[Float64, Float64, Float64], ...]:
    """(3, N) roll, pitch, yaw -> rows of the entries (N,) of Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles), np.sin(angles)
    return (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )
