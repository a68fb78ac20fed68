"""Textured ellipsoids, boxes, cylinders and cones, and what a pinhole sees of them: ray casting by formula, no meshes.

Every solid is a unit shape (within -1..1) under an affine map, so a ray is taken into the shape's own frame and met
there. Its colour comes from where it was hit in that frame. The world is a large box seen from inside. One lamp that is
far away and one that is near shade by Lambert's law and Blinn's highlight; nothing casts shadows.

A picture of 128 x 128 pixels and a dozen solids takes some 20 ms of a core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float64

Rng = np.random.Generator
_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Two colours, and a pattern in the frame of the solid that chooses between them.

    Attributes:
        kind: "plain", "checks", "stripes", "rings", or "clouds" (sums of waves).
        colors: float64 (2, 3) in [0, 1].
        waves: float64 (W, 3), radians per unit; phases: float64 (W,).
    """

    kind: str
    colors: Float64
    waves: Float64
    phases: Float64

    def at(self, place: Float64) -> Float64:
        """Colours (N, 3) at places (N, 3)."""
        along = place @ self.waves.T + self.phases
        if self.kind == "checks":
            share = np.floor(along[:, :3] / np.pi).sum(1) % 2
        elif self.kind == "stripes":
            share = (np.sin(along[:, 0]) > 0).astype(float)
        elif self.kind == "rings":
            share = 0.5 + 0.5 * np.sin(2 * np.linalg.norm(place * self.waves[0], axis=1) + self.phases[0])
        elif self.kind == "clouds":
            share = 1 / (1 + np.exp(-3 * np.sin(along).sum(1) / np.sqrt(len(self.phases))))
        else:
            share = np.zeros(len(place))
        color: Float64 = self.colors[0] + share[:, None] * (self.colors[1] - self.colors[0])
        return color


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A shape in the world.

    Attributes:
        kind: name in `SHAPES`.
        world_from_shape: float64 (4, 4), affine.
        shine: weight of the highlight.
    """

    kind: str
    world_from_shape: Float64
    texture: Texture
    shine: float


@dataclass(frozen=True, kw_only=True)
class Lamps:
    """`sun` float64 (3,), unit, towards it; `bulb` float64 (3,), a place; `ambient` in [0, 1]."""

    sun: Float64
    bulb: Float64
    ambient: float


Hits = tuple[Float64, Float64]
"""Distance (N,), in lengths of the direction, inf where nothing is met; normal (N, 3) in the shape's frame."""


def _ball(eye: Float64, way: Float64) -> Hits:
    a, b, c = (way**2).sum(1), (way * eye).sum(1), (eye**2).sum() - 1
    root = b**2 - a * c
    near = (-b - np.sqrt(np.maximum(root, 0))) / a
    distance = np.where((root > 0) & (near > _EPSILON), near, np.inf)
    return distance, _there(eye, way, distance)


def _box(eye: Float64, way: Float64) -> Hits:
    safe = np.where(np.abs(way) < _EPSILON, _EPSILON, way)
    one, two = (-1 - eye) / safe, (1 - eye) / safe
    first, last = np.minimum(one, two), np.maximum(one, two)
    near, far = first.max(1), last.min(1)
    distance = np.where((near < far) & (near > _EPSILON), near, np.inf)
    axis = first.argmax(1)
    normal = np.zeros_like(way)
    rows = np.arange(len(way))
    normal[rows, axis] = -np.sign(safe[rows, axis])
    return distance, normal


def _inside(eye: Float64, way: Float64) -> Hits:
    """The box, seen from within."""
    safe = np.where(np.abs(way) < _EPSILON, _EPSILON, way)
    last = np.maximum((-1 - eye) / safe, (1 - eye) / safe)
    axis, rows = last.argmin(1), np.arange(len(way))
    normal = np.zeros_like(way)
    normal[rows, axis] = -np.sign(safe[rows, axis])
    return last[rows, axis], normal


def _cylinder(eye: Float64, way: Float64) -> Hits:
    return _round(eye, way, slope=0.0)


def _cone(eye: Float64, way: Float64) -> Hits:
    return _round(eye, way, slope=0.5)


def _round(eye: Float64, way: Float64, slope: float) -> Hits:
    """x² + y² = r(z)² with r = 1 - slope (z + 1) between z = -1 and 1, and the discs at both ends."""
    base = 1 - slope * (eye[2] + 1)
    a = way[:, 0] ** 2 + way[:, 1] ** 2 - (slope * way[:, 2]) ** 2
    b = way[:, 0] * eye[0] + way[:, 1] * eye[1] + slope * way[:, 2] * base
    c = eye[0] ** 2 + eye[1] ** 2 - base**2
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    distance, normal = np.full(len(way), np.inf), np.zeros_like(way)
    safe = np.where(np.abs(a) < _EPSILON, _EPSILON, a)
    for sign in (-1, 1):
        t = (-b + sign * root) / safe
        place = eye + t[:, None] * way
        radius = 1 - slope * (place[:, 2] + 1)
        good = (b**2 - a * c > 0) & (t > _EPSILON) & (np.abs(place[:, 2]) <= 1) & (radius >= 0) & (t < distance)
        distance = np.where(good, t, distance)
        side = np.stack((place[:, 0], place[:, 1], slope * radius), 1)
        normal = np.where(good[:, None], side, normal)
    down = np.where(np.abs(way[:, 2]) < _EPSILON, _EPSILON, way[:, 2])
    for end in (-1.0, 1.0):
        t = (end - eye[2]) / down
        place = eye + t[:, None] * way
        good = (t > _EPSILON) & (place[:, 0] ** 2 + place[:, 1] ** 2 <= (1 - slope * (end + 1)) ** 2) & (t < distance)
        distance = np.where(good, t, distance)
        normal = np.where(good[:, None], np.array([0.0, 0.0, end]), normal)
    return distance, normal


SHAPES: dict[str, Callable[[Float64, Float64], Hits]] = {
    "ball": _ball, "box": _box, "cylinder": _cylinder, "cone": _cone, "inside": _inside,
}  # fmt: skip
"""Name -> (eye (3,), directions (N, 3)) in the shape's frame -> hits."""


def _there(eye: Float64, way: Float64, distance: Float64) -> Float64:
    return eye + np.where(np.isfinite(distance), distance, 0)[:, None] * way


def picture(
    solids: list[Solid], lamps: Lamps, world_from_camera: Float64, intrinsics: Float64, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(colours (H, W, 3), depth along z (H, W)) of a pinhole, OpenCV axes.

    Args:
        solids: the last of them around all that is seen, so that every ray meets something.
        size: (width, height).
    """
    width, height = size
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    ahead = np.stack((column, row, np.ones_like(row)), -1).reshape(-1, 3) @ np.linalg.inv(intrinsics).T
    way, eye = ahead @ world_from_camera[:3, :3].T, world_from_camera[:3, 3]
    depth, color = np.full(len(way), np.inf), np.zeros((len(way), 3))
    for solid in solids:
        back = np.linalg.inv(solid.world_from_shape)
        local_eye, local_way = back[:3, :3] @ eye + back[:3, 3], way @ back[:3, :3].T
        distance, normal = SHAPES[solid.kind](local_eye, local_way)
        first = (distance < depth).nonzero()[0]
        if not len(first):
            continue
        depth[first] = distance[first]
        place = local_eye + distance[first, None] * local_way[first]
        outward = _unit(normal[first] @ back[:3, :3])  # normals go by the transposed inverse
        seen = place @ solid.world_from_shape[:3, :3].T + solid.world_from_shape[:3, 3]
        color[first] = _shaded(solid, place, outward, (eye, seen), lamps)
    image = (np.clip(color, 0, 1) * 255).round().astype(np.uint8)
    return image.reshape(height, width, 3), depth.reshape(height, width).astype(np.float32)


def _shaded(solid: Solid, place: Float64, normal: Float64, sight: tuple[Float64, Float64], lamps: Lamps) -> Float64:
    """Colours (N, 3): ambient light, two lamps, and highlights of white light.

    Args:
        place: (N, 3) in the frame of the solid. normal: (N, 3) in the world.
        sight: (eye (3,), what is seen (N, 3)), in the world.
    """
    eye, seen = sight
    towards, bulb = _unit(eye - seen), _unit(lamps.bulb - seen)
    light, gloss = np.full(len(seen), lamps.ambient), np.zeros(len(seen))
    for lamp in (np.broadcast_to(lamps.sun, seen.shape), bulb):
        light += 0.5 * (1 - lamps.ambient) * np.maximum((normal * lamp).sum(1), 0)
        gloss += np.maximum((normal * _unit(lamp + towards)).sum(1), 0) ** 40
    shaded: Float64 = solid.texture.at(place) * light[:, None] + solid.shine * gloss[:, None]
    return shaded


def _unit(vectors: Float64) -> Float64:
    unit: Float64 = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _EPSILON)
    return unit
