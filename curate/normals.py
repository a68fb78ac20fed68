"""Normals of points that came without: a plane through each point's neighbours, turned to the side it was seen from.

The normal is the axis of least variance of the k nearest neighbours (Hoppe et al., "Surface Reconstruction from
Unorganized Points", 1992); a point whose neighbours lie on a line or at one spot gets none (0, 0, 0). A plane has two
sides, and the rule for choosing one depends on how the scene was recorded:

  outdoor, object   towards the origin of the scene, where a sweep's lidar stands (for a vehicle's frame: below it)
  indoor            towards the inside of the room: of the two spots 0.3 m before and behind a point, the one that is
                    above some point of its column of the room (so above a floor) and below the room's top. Where both
                    are or neither is (tables, thin partitions), towards the nearest camera, or, without posed views,
                    towards the middle of the room 1.5 m above its floor.

One core estimates 100,000 points a second with 16 neighbours, half of it the search; blocks of 65,536 points bound
the memory to some 100 MB beyond the k-d tree. Deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Float32, Float64, Scene

BLOCK = 65_536
FLAT = 1e-4
"""Neighbours span a plane if their second variance is at least this share of the first."""
PROBE_M = 0.3
COLUMN_M = 0.2
EYE_M = 1.5


@dataclass(frozen=True, kw_only=True)
class NormalsConfig:
    """How normals are estimated.

    Attributes:
        neighbours: points that a plane is laid through, the point itself included.
        radius_m: neighbours farther away do not count; None takes them wherever they are. A point left with fewer
            than three gets no normal.
        replace: estimate also where the dataset brings normals of its own.
    """

    neighbours: int = 16
    radius_m: float | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        if not (3 <= self.neighbours <= 512 and (self.radius_m is None or self.radius_m > 0)):
            raise RecipeError(f"normals need neighbours in 3..512 and radius_m above 0, found {self}")


def add_normals(scene: Scene, config: NormalsConfig) -> Scene:
    """The scene with estimated normals, their provenance in `normal_source`; unchanged if it has normals or no points.

    Orientation depends on the scene's domain as described above.
    """
    points = scene.points
    if points is None or not len(points) or (points.normal is not None and not config.replace):
        return scene
    normal = estimate_normals(points.xyz, config.neighbours, config.radius_m)
    if scene.identity.domain == "indoor":
        places = [view.scene_from_camera[:3, 3] for view in scene.views if view.scene_from_camera is not None]
        rule = "inside, then nearest camera" if places else "inside, then middle"
        oriented = orient_inside(points.xyz, normal, np.array(places) if places else _middle(points.xyz))
    else:
        rule = "origin"
        oriented = orient_towards(points.xyz, normal, np.zeros((1, 3)))
    radius = "" if config.radius_m is None else f" radius={config.radius_m:g}"
    source = f"estimated pca k={config.neighbours}{radius} towards {rule}"
    return replace(scene, points=replace(points, normal=oriented, normal_source=source)).validate()


def estimate_normals(xyz: Float32, neighbours: int, radius_m: float | None = None) -> Float32:
    """Unit normals float32 (N, 3) of points float32 (N, 3), sign arbitrary; (0, 0, 0) where there is no plane."""
    from scipy.spatial import cKDTree

    # Doubles once: the search compares squared distances, and far from the origin float32 would round them away.
    wide = xyz.astype(np.float64)
    tree = cKDTree(wide, balanced_tree=False, compact_nodes=False)
    limit = np.inf if radius_m is None else radius_m
    normal = np.zeros_like(xyz)
    for begin in range(0, len(xyz), BLOCK):
        block = wide[begin : begin + BLOCK]
        distance, index = tree.query(block, k=min(neighbours, len(xyz)), distance_upper_bound=limit)
        distance, index = distance.reshape(len(block), -1), index.reshape(len(block), -1)
        near = np.isfinite(distance)
        offset = wide[np.where(near, index, 0)] - block[:, None]
        normal[begin : begin + BLOCK] = _plane(offset, near)
    return normal


def _plane(offset: Float64, near: NDArray[np.bool_]) -> Float32:
    """Least axis (B, 3) of neighbours (B, k, 3) that count where `near` (B, k)."""
    weight = near[..., None].astype(np.float64)
    count = np.maximum(weight.sum(axis=1), 1)
    centred = (offset - ((offset * weight).sum(axis=1) / count)[:, None]) * weight
    variance, axes = np.linalg.eigh(np.matmul(centred.transpose(0, 2, 1), centred))
    flat = (near.sum(axis=1) >= 3) & (variance[:, 1] > FLAT * variance[:, 2]) & (variance[:, 2] > 0)
    return np.where(flat[:, None], axes[:, :, 0], 0).astype(np.float32)


def orient_towards(xyz: Float32, normal: Float32, eyes: Float64) -> Float32:
    """Normals (N, 3) turned to the side of the nearest of some places float64 (E, 3)."""
    from scipy.spatial import cKDTree

    nearest = cKDTree(eyes).query(xyz)[1] if len(eyes) > 1 else np.zeros(len(xyz), np.intp)
    away = np.einsum("ij,ij->i", eyes[nearest] - xyz, normal) < 0
    return np.where(away[:, None], -normal, normal)


def orient_inside(xyz: Float32, normal: Float32, eyes: Float64) -> Float32:
    """Normals (N, 3) of a room turned to its inside; where that does not decide, towards the nearest eye (E, 3)."""
    low = xyz.min(axis=0)
    top = float(xyz[:, 2].max()) - COLUMN_M / 2
    shape = (np.ptp(xyz[:, :2], axis=0) / COLUMN_M).astype(np.int64) + 1
    floor = np.full(int(shape.prod()), np.inf)
    np.minimum.at(floor, _column(xyz, low, shape), xyz[:, 2])

    def is_inside(place: Float32) -> NDArray[np.bool_]:
        cell = _column(place, low, shape)
        above_floor = (cell >= 0) & (place[:, 2] > floor[cell] + COLUMN_M / 2)
        return np.asarray(above_floor & (place[:, 2] < top))

    before, behind = is_inside(xyz + PROBE_M * normal), is_inside(xyz - PROBE_M * normal)
    result = orient_towards(xyz, normal, eyes)
    result[before & ~behind] = normal[before & ~behind]
    result[behind & ~before] = -normal[behind & ~before]
    return result


def _column(place: Float32, low: Float32, shape: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the column each place stands in, int64 (N,); -1 outside of the room's box."""
    cell = np.floor((place[:, :2] - low[:2]) / COLUMN_M).astype(np.int64)
    inside = ((cell >= 0) & (cell < shape)).all(axis=1)
    return np.where(inside, cell[:, 0] * shape[1] + cell[:, 1], -1)


def _middle(xyz: Float32) -> Float64:
    """The middle of a room's box, at eye height above its floor; float64 (1, 3)."""
    low, high = xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)
    x, y, _ = (low + high) / 2
    return np.array([[x, y, min(low[2] + EYE_M, (low[2] + high[2]) / 2)]])
