"""A simulated world: one static mesh, rigid movers, a light, and the rays that ask it what is where.

Every triangle knows its class, instance, material and tint. `WorldBuilder` collects models (tuples of `Part`) into a
`World`; `World.at(time)` puts the movers in place and gives a `Snapshot` that casts rays with Embree: about 10 million
rays a second for a camera on one core. Static geometry is built once per world, movers anew for every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from brickyard.ingest.simulate.materials import MATERIALS, Atlas, build_atlas
from brickyard.ingest.simulate.shapes import Int32, Shape
from brickyard.shards.scene import Float32, Float64

Trajectory = Callable[[float], Float64]
"""Time in seconds -> world_from_object, float64 (4, 4)."""
Colour = tuple[float, float, float]
MISS = -1


@dataclass(frozen=True)
class Part:
    """A shape of one class and material; a model of an object is a tuple of parts in object coordinates."""

    shape: Shape
    label: str
    material: str
    tint: Colour = (1.0, 1.0, 1.0)


Model = tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Light:
    """Daylight.

    Attributes:
        towards_sun: unit vector.
        sun, ambient: RGB strengths; a white wall facing the sun shows sun + ambient.
        zenith, horizon: sky colours 0..255.
        haze: metres after which 63 % of a colour has become the horizon's.
    """

    towards_sun: Float64
    sun: Colour
    ambient: Colour
    zenith: Colour
    horizon: Colour
    haze: float


@dataclass(frozen=True, kw_only=True)
class Mover:
    """A rigid object on a trajectory; `vertices` are in object coordinates. Cameras do not see a `hidden` one."""

    vertices: Float32
    trajectory: Trajectory
    hidden: bool = False


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What N rays met: `face` int32 (N,) or MISS, `distance` float32 (N,) in lengths of the direction (inf: none),
    `bary` float32 (N, 2) barycentric coordinates of the second and third corner."""

    face: Int32
    distance: Float32
    bary: Float32


class WorldBuilder:
    """Collects placed models; `build` turns them into a `World`."""

    def __init__(self) -> None:
        self._static: list[tuple[Part, Float64, int]] = []
        self._moving: list[tuple[Model, Trajectory, int, bool]] = []

    def add(self, model: Model, pose: Float64, instance: int = 0) -> None:
        """A static object; `instance` 0 stands for stuff."""
        self._static.extend((part, pose, instance) for part in model)

    def add_mover(self, model: Model, trajectory: Trajectory, instance: int, hidden: bool = False) -> None:
        """A moving object; hidden ones (the ego vehicle) are met by lasers only and must be added last."""
        self._moving.append((model, trajectory, instance, hidden))

    def build(self, light: Light, rng: np.random.Generator) -> World:
        moving = [(part, np.eye(4), instance) for model, _, instance, _ in self._moving for part in model]
        parts = self._static + moving
        labels = tuple(sorted({part.label for part, _, _ in parts}))
        materials = tuple(m for m in MATERIALS if any(part.material == m for part, _, _ in parts))
        sizes = [len(part.shape.faces) for part, _, _ in parts]
        vertex_counts = [len(part.shape.vertices) for part, _, _ in parts]
        shapes = [part.shape.moved(pose) for part, pose, _ in parts]
        starts = np.cumsum([0, *vertex_counts])
        patches = np.cumsum([0, *(int(s.patch.max()) + 1 for s in shapes)])
        vertices = np.concatenate([s.vertices for s in shapes])
        movers, cursor, owner = [], int(starts[len(self._static)]), [np.full(sum(sizes[: len(self._static)]), MISS)]
        for number, (model, trajectory, _, hidden) in enumerate(self._moving):
            count = sum(len(part.shape.vertices) for part in model)
            movers.append(Mover(vertices=vertices[cursor : cursor + count], trajectory=trajectory, hidden=hidden))
            owner.append(np.full(sum(len(part.shape.faces) for part in model), number))
            cursor += count
        return World(
            vertices=vertices,
            faces=np.concatenate([s.faces + n for s, n in zip(shapes, starts, strict=False)]).astype(np.int32),
            texture=np.concatenate([s.texture for s in shapes]).astype(np.float32),
            patch=np.concatenate([s.patch + n for s, n in zip(shapes, patches, strict=False)]).astype(np.int32),
            label=np.repeat([labels.index(p.label) for p, _, _ in parts], sizes).astype(np.uint8),
            instance=np.repeat([i for _, _, i in parts], sizes).astype(np.int32),
            material=np.repeat([materials.index(p.material) for p, _, _ in parts], sizes).astype(np.int32),
            tint=np.repeat(np.array([p.tint for p, _, _ in parts], np.float32), sizes, axis=0),
            owner=np.concatenate(owner).astype(np.int32),
            movers=tuple(movers),
            labels=labels,
            atlas=build_atlas(materials, rng),
            light=light,
        )


@dataclass(frozen=True, kw_only=True)
class World:
    """V vertices and F triangles: first the static ones in world coordinates, then each mover's in its own.

    Attributes:
        vertices: float32 (V, 3); faces: int32 (F, 3); texture: float32 (F, 3, 2); patch: int32 (V,).
        label: uint8 (F,), index into `labels`; instance, material: int32 (F,); tint: float32 (F, 3).
        owner: int32 (F,), the mover a triangle belongs to, MISS for static ones.
    """

    vertices: Float32
    faces: Int32
    texture: Float32
    patch: Int32
    label: NDArray[np.uint8]
    instance: Int32
    material: Int32
    tint: Float32
    owner: Int32
    movers: tuple[Mover, ...]
    labels: tuple[str, ...]
    atlas: Atlas
    light: Light

    @cached_property
    def still(self) -> int:
        """Number of static triangles."""
        return int((self.owner == MISS).sum())

    @cached_property
    def texture_map(self) -> Float32:
        """float32 (F, 6): texture coordinates of the first corner, and the edges to the second and the third."""
        edges = self.texture[:, 1:] - self.texture[:, :1]
        return np.asarray(np.concatenate([self.texture[:, :1], edges], 1).reshape(-1, 6), dtype=np.float32)

    @cached_property
    def _static(self) -> tuple[Any, Float32]:
        faces = self.faces[: self.still]
        return _embree(self.vertices, faces), _normals(self.vertices, faces)

    def at(self, time: float, *, with_hidden: bool = False) -> Snapshot:
        """The world at a time in seconds; `with_hidden` adds what only lasers meet. The latest one is kept."""
        if (time, with_hidden) not in self._latest:
            self._latest.clear()
            self._latest[time, with_hidden] = self._place(time, with_hidden)
        return self._latest[time, with_hidden]

    @cached_property
    def _latest(self) -> dict[tuple[float, bool], Snapshot]:
        return {}

    def _place(self, time: float, with_hidden: bool) -> Snapshot:
        still, (static, normal) = self.still, self._static
        active = [m for m in self.movers if with_hidden or not m.hidden]
        if not active:
            return Snapshot(world=self, scenes=(static,), still=still, normal=normal)
        first = len(self.vertices) - sum(len(m.vertices) for m in self.movers)
        placed = [_move(m.vertices, m.trajectory(time)) for m in active]
        faces = self.faces[still:][self.owner[still:] < len(active)] - first
        vertices = np.concatenate(placed)
        normal = np.concatenate([normal, _normals(vertices, faces)])
        return Snapshot(world=self, scenes=(static, _embree(vertices, faces)), still=still, normal=normal)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A world at one time. `normal` is float32 (F', 3) for the triangles that are present."""

    world: World
    scenes: tuple[Any, ...]
    still: int
    normal: Float32

    def cast(self, origins: Float32, directions: Float32) -> Hits:
        """Nearest hits of rays float32 (N, 3), (N, 3); directions need not be unit vectors."""
        first = self.scenes[0].run(origins, directions, output=True)
        face, distance = first["primID"], first["tfar"]
        bary = np.stack([first["u"], first["v"]], 1)
        for scene in self.scenes[1:]:
            other = scene.run(origins, directions, output=True)
            nearer = np.flatnonzero((other["primID"] >= 0) & (other["tfar"] < distance))
            face[nearer] = other["primID"][nearer] + self.still
            distance[nearer] = other["tfar"][nearer]
            bary[nearer, 0], bary[nearer, 1] = other["u"][nearer], other["v"][nearer]
        distance[face == MISS] = np.inf
        return Hits(face=face, distance=distance, bary=bary)

    def blocked(self, origins: Float32, directions: Float32) -> NDArray[np.bool_]:
        """Whether anything lies on the rays, bool (N,)."""
        result = np.zeros(len(origins), np.bool_)
        for scene in self.scenes:
            result |= scene.run(origins, directions, query="OCCLUDED") == 0
        return result


def _embree(vertices: Float32, faces: Int32) -> Any:
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(vertices), np.ascontiguousarray(faces))
    return scene


def _move(points: Float32, pose: Float64) -> Float32:
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3], dtype=np.float32)


def _normals(vertices: Float32, faces: Int32) -> Float32:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return np.asarray(normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12), dtype=np.float32)
