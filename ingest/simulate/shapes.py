"""Triangle shapes of the simulated worlds: boxes, frustums, cylinders, blobs, sheets, with texture coordinates.

A shape lives in object coordinates (metres, z up). Texture coordinates are metres along the surface: each triangle is
mapped along the axis its normal is closest to, so that bricks and planks keep their size on every side of a box.
`spacing` tessellates the flat faces into a grid, which is how a room becomes a mesh with evenly spread vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float32, Float64

Int32 = NDArray[np.int32]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A triangle mesh in object coordinates.

    Attributes:
        vertices: float32 (V, 3), metres.
        faces: int32 (F, 3), counter-clockwise seen from outside.
        texture: float32 (F, 3, 2), texture coordinates of each corner, metres.
        patch: int32 (V,), which flat side a vertex belongs to.
    """

    vertices: Float32
    faces: Int32
    texture: Float32
    patch: Int32

    def moved(self, pose: Float64) -> Shape:
        """The shape under a rigid or affine 4x4 transform; its texture moves along."""
        vertices = (self.vertices @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
        return Shape(vertices=vertices, faces=self.faces, texture=self.texture, patch=self.patch)


def pose(  # noqa: PLR0917
    x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0
) -> Float64:
    """Rigid transform Rz(yaw) Ry(pitch) Rx(roll) with a translation; radians, metres; float64 (4, 4)."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    result = np.eye(4)
    result[:3, :3] = rz @ ry @ rx
    result[:3, 3] = (x, y, z)
    return result


def invert(rigid: Float64) -> Float64:
    """Inverse of a rigid 4x4 transform."""
    result = np.eye(4)
    result[:3, :3] = rigid[:3, :3].T
    result[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return result


def _shape(
    vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]], patch: NDArray[np.integer[Any]] | None = None
) -> Shape:
    points, triangles = vertices.astype(np.float32), faces.astype(np.int32)
    corners = points[triangles]
    normal = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    axes = np.array([[1, 2], [0, 2], [0, 1]])[np.argmax(normal * (1, 1, 1.2), axis=1)]
    texture = np.take_along_axis(corners, axes[:, None, :].repeat(3, 1), axis=2)
    side = np.zeros(len(points), np.int32) if patch is None else patch.astype(np.int32)
    return Shape(vertices=points, faces=triangles, texture=texture, patch=side)


def join(*shapes: Shape) -> Shape:
    """Several shapes as one; patches stay apart."""
    counts = np.cumsum([0] + [len(s.vertices) for s in shapes[:-1]])
    patches = np.cumsum([0] + [int(s.patch.max()) + 1 for s in shapes[:-1]])
    return Shape(
        vertices=np.concatenate([s.vertices for s in shapes]),
        faces=np.concatenate([s.faces + n for s, n in zip(shapes, counts, strict=True)]).astype(np.int32),
        texture=np.concatenate([s.texture for s in shapes]),
        patch=np.concatenate([s.patch + n for s, n in zip(shapes, patches, strict=True)]).astype(np.int32),
    )


def sheet(corners: Sequence[Triple], spacing: float = np.inf) -> Shape:
    """A flat quadrilateral; `corners` counter-clockwise seen from its front. `spacing` metres between vertices."""
    a, b, c, d = (np.asarray(p, float) for p in corners)
    length = [max(np.linalg.norm(b - a), np.linalg.norm(c - d)), max(np.linalg.norm(d - a), np.linalg.norm(c - b))]
    nu, nv = (max(1, round(float(x) / spacing)) for x in length)
    u, v = (g.ravel()[:, None] for g in np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1)))
    vertices = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)
    first = (np.arange(nv)[:, None] * (nu + 1) + np.arange(nu)).ravel()
    quads = np.stack([first, first + 1, first + nu + 2, first + nu + 1], 1)
    return _shape(vertices, quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))


def frustum(
    bottom: tuple[float, float],
    top: tuple[float, float],
    height: float,
    *,
    base: Triple = (0, 0, 0),
    shift: tuple[float, float] = (0, 0),
    spacing: float = np.inf,
    sides: str = "xXyYzZ",
) -> Shape:
    """A box whose top may be smaller or shifted. Sizes are full lengths along x and y, `base` is the bottom's centre.

    Args:
        shift: of the top's centre relative to the bottom's.
        sides: which of the six sides to build; small letters are the low side, capitals the high one.
    """
    ox, oy, oz = base
    low = [(ox + sx * bottom[0] / 2, oy + sy * bottom[1] / 2, oz) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    high = [
        (ox + shift[0] + sx * top[0] / 2, oy + shift[1] + sy * top[1] / 2, oz + height)
        for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    quads = {
        "x": (low[3], low[0], high[0], high[3]),
        "X": (low[1], low[2], high[2], high[1]),
        "y": (low[0], low[1], high[1], high[0]),
        "Y": (low[2], low[3], high[3], high[2]),
        "z": (low[3], low[2], low[1], low[0]),
        "Z": (high[0], high[1], high[2], high[3]),
    }
    if spacing < np.inf:
        return join(*(sheet(quads[side], spacing) for side in sides))
    number = np.arange(len(sides))
    faces = (4 * number[:, None] + (0, 1, 2, 0, 2, 3)).reshape(-1, 3)
    return _shape(np.array([quads[side] for side in sides]).reshape(-1, 3), faces, number.repeat(4))


def box(size: Triple, base: Triple = (0, 0, 0), spacing: float = np.inf, sides: str = "xXyYzZ") -> Shape:
    """An upright box; `base` is the centre of its bottom."""
    return frustum(size[:2], size[:2], size[2], base=base, spacing=spacing, sides=sides)


def cylinder(
    low: float, high: float, height: float, *, base: Triple = (0, 0, 0), sides: int = 12, spacing: float = np.inf
) -> Shape:
    """An upright cylinder or cone with both caps; texture runs around it and up."""
    rows = max(1, round(height / spacing))
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    share = np.linspace(0, 1, rows + 1)
    radius = (low + (high - low) * share)[:, None]
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    z = np.broadcast_to((share * height)[:, None], x.shape)
    mantle = np.stack([x, y, z], -1).reshape(-1, 3) + base
    around = np.stack([np.broadcast_to(angle * max(low, high), x.shape), z], -1).reshape(-1, 2)
    first = (np.arange(rows)[:, None] * (sides + 1) + np.arange(sides)).ravel()
    quads = np.stack([first, first + 1, first + sides + 2, first + sides + 1], 1)
    faces = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    side = _shape(mantle, faces)
    side = Shape(vertices=side.vertices, faces=side.faces, texture=around[faces].astype(np.float32), patch=side.patch)
    return join(side, _disc(low, base, sides, -1), _disc(high, (base[0], base[1], base[2] + height), sides, 1))


def _disc(radius: float, centre: Triple, sides: int, up: int) -> Shape:
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False) * up
    rim = np.stack([max(radius, 1e-3) * np.cos(angle), max(radius, 1e-3) * np.sin(angle), np.zeros(sides)], 1)
    ring = np.arange(sides)
    faces = np.stack([np.full(sides, sides), ring, (ring + 1) % sides], 1)
    return _shape(np.concatenate([rim, np.zeros((1, 3))]) + centre, faces)


def blob(radius: Triple, centre: Triple, *, roughness: float, rng: np.random.Generator, rings: int = 6) -> Shape:
    """A lumpy ellipsoid (a tree crown, a cushion, a head): a sphere whose vertices are pushed in and out at random."""
    columns = 2 * rings
    polar = np.linspace(0, np.pi, rings + 1)[:, None]
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    lump = 1 + roughness * rng.uniform(-1, 1, (rings + 1, columns))
    lump[0], lump[-1] = lump[0, 0], lump[-1, 0]
    around = [np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.broadcast_to(np.cos(polar), lump.shape)]
    unit = np.stack(around, -1) * lump[..., None]
    row, column = (g.ravel() for g in np.meshgrid(np.arange(rings), np.arange(columns), indexing="ij"))
    a, b = row * columns + column, row * columns + (column + 1) % columns
    quads = np.stack([a, a + columns, b + columns, b], 1)
    return _shape(unit.reshape(-1, 3) * radius + centre, quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))


def ribbon(left: Float64, right: Float64) -> Shape:
    """A strip of quadrilaterals between two polylines (K, 3) of equal length, front side up when left is on the left.

    Texture runs along the mean line (first coordinate) and across (second).
    """
    count = len(left)
    middle = (left + right) / 2
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(middle, axis=0), axis=1))])
    across = np.linalg.norm(left - right, axis=1)
    first = np.arange(count - 1)
    quads = np.stack([first + count, first + count + 1, first + 1, first], 1)
    faces = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    coordinates = np.concatenate([np.stack([along, across], 1), np.stack([along, np.zeros(count)], 1)])
    mapped = coordinates[faces].astype(np.float32)
    flat = _shape(np.concatenate([left, right]), faces)
    return Shape(vertices=flat.vertices, faces=flat.faces, texture=mapped, patch=flat.patch)


def fitted(shape: Shape, metres: float) -> Shape:
    """The shape with its texture stretched so that every patch shows exactly one tile of `metres` (doors, pictures)."""
    owner = shape.patch[shape.faces[:, 0]]
    texture = shape.texture.copy()
    for patch in np.unique(owner):
        part = texture[owner == patch]
        low, high = part.min((0, 1)), part.max((0, 1))
        texture[owner == patch] = (0.002 + 0.996 * (part - low) / np.maximum(high - low, 1e-6)) * metres
    return Shape(vertices=shape.vertices, faces=shape.faces, texture=texture, patch=shape.patch)
