"""Figures of point clouds: how many points, over what, and whether somebody said what they are.

Sizes are between the 1st and the 99th percentile, so a few stray points do not stretch a room.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from brickyard.shards.scene import UNLABELLED, Float32, Scene

FIGURES: Mapping[str, tuple[str, str, int]] = {
    "width_m": ("m", "larger side of the cloud seen from above (1st to 99th percentile)", 1),
    "height_m": ("m", "height of the cloud (1st to 99th percentile)", 1),
    "points_per_m2": ("1/m2", "points over the floor's cells of 0.25 m that hold any; not outdoors", 1),
    "points_per_sr": ("1/sr", "points over the cells of 2 degrees, seen from the scene's origin, that hold any; only "
                      "outdoors, for clouds with beams or a time of each point", 1),
    "repeated_share": ("share", "points that lie where another point lies, to a tenth of a millimetre", 1),
    "labelled_share": ("share", "points with a class, in the taxonomy that has most; only with labels", 1),
}  # fmt: skip
"""Name -> unit, meaning, version."""
CELL_M, CELL_DEGREES, SAME_M = 0.25, 2.0, 1e-4


def describe_points(scene: Scene) -> dict[str, float]:
    """The figures of a scene's points; none without points."""
    points = scene.points
    if points is None or not len(points):
        return {}
    low, high = np.percentile(points.xyz, (1, 99), axis=0)
    size = high - low
    found = {"width_m": float(size[:2].max()), "height_m": float(size[2]), "repeated_share": _repeated(points.xyz)}
    if scene.identity.domain != "outdoor":
        found["points_per_m2"] = len(points) / (_cells(points.xyz[:, :2] / CELL_M) * CELL_M**2)
    elif points.ring is not None or points.time_offset is not None:
        found["points_per_sr"] = _per_steradian(points.xyz)
    if points.semantic:
        found["labelled_share"] = max(float((labels != UNLABELLED).mean()) for labels in points.semantic.values())
    return found


def _cells(places: Float32) -> int:
    """How many squares of side 1 hold a place (N, 2)."""
    cells = np.floor(places).astype(np.int64)
    cells -= cells.min(axis=0)
    return len(np.unique(cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]))


def _per_steradian(xyz: Float32) -> float:
    flat = np.hypot(xyz[:, 0], xyz[:, 1])
    step = np.radians(CELL_DEGREES)
    around = np.floor((np.arctan2(xyz[:, 1], xyz[:, 0]) + np.pi) / step).astype(np.int64)
    rows = round(180 / CELL_DEGREES)
    up = np.floor((np.arctan2(xyz[:, 2], flat) + np.pi / 2) / step).astype(np.int64).clip(0, rows - 1)
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, rows + 1))
    area = step * np.diff(edges)
    return float(len(xyz) / area[np.unique(around * rows + up) % rows].sum())


def _repeated(xyz: Float32) -> float:
    same = np.round(xyz / SAME_M).astype(np.int64)
    key = same[:, 0] * 0x9E3779B1 + same[:, 1] * 0x85EBCA77 + same[:, 2] * 0xC2B2AE3D  # wraps around: only a hash
    return 1.0 - len(np.unique(key)) / len(xyz)
