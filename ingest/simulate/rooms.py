"""A random furnished room: the world of the indoor dataset.

Walls with a door, a window with curtains and pictures; furniture of the room's type along the walls, a table and chairs
in the middle; lit by a ceiling lamp whose light falls off with distance and casts soft shadows. Room coordinates:
x and y along the walls from corner (0, 0), z up from the floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from brickyard.ingest.simulate import furniture, shapes
from brickyard.ingest.simulate.furniture import ROOMS, Piece
from brickyard.ingest.simulate.materials import MATERIALS
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.world import Light, Part, World, WorldBuilder
from brickyard.shards.scene import Float32, Float64

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Room:
    """A room's world; `size` is (x, y, height) in metres, `instances` the label of each instance from 1 on."""

    world: World
    size: tuple[float, float, float]
    kind: str
    instances: tuple[str, ...]


def build_room(rng: Rng, kind: str, *, spacing: float) -> Room:
    """A room of a type named in `furniture.ROOMS`, tessellated to about `spacing` metres."""
    width, depth = rng.uniform(3.6, 5.4), rng.uniform(3.2, 4.8)
    height = rng.uniform(2.35, 2.8)
    plan = _Plan(rng, (width, depth, height), spacing)
    plan.shell(ROOMS[kind][1])
    makers = list(ROOMS[kind][0])
    makers = [makers[k] for k in rng.permutation(len(makers))]
    plan.along_walls([make(rng, spacing) for make in makers])
    plan.centre()
    no_sky = (200, 205, 210)
    light = Light(
        towards_sun=np.array([0.0, 0.0, 1.0]), sun=(0, 0, 0), ambient=(1.0, 1.0, 1.0), zenith=no_sky, horizon=no_sky,
        haze=1e4,
    )  # fmt: skip
    world = _rough(plan.builder.build(light, rng), rng)
    warm = (1.0, rng.uniform(0.9, 0.99), rng.uniform(0.78, 0.98))
    lit = _lamp_light(world, np.array([width / 2, depth / 2, height - 0.15]), rng)
    tint = (world.tint * lit[:, None] * np.array(warm, np.float32)).astype(np.float32)
    return Room(world=replace(world, tint=tint), size=plan.size, kind=kind, instances=tuple(plan.instances))


def _rough(world: World, rng: Rng) -> World:
    """The mesh as a scanner sees it: every vertex about a millimetre off."""
    noise = rng.normal(0, 0.001, world.vertices.shape).astype(np.float32)
    return replace(world, vertices=world.vertices + noise)


def _lamp_light(world: World, lamp: Float64, rng: Rng) -> Float32:
    """Light on each triangle from a large lamp (five points of it), with shadows, plus what walls reflect."""
    snapshot = world.at(0)
    centre = world.vertices[world.faces].mean(1)
    start = centre + snapshot.normal * 0.01
    total = np.zeros(len(centre))
    for _ in range(5):
        towards = lamp + rng.uniform(-0.5, 0.5, 3) * (1, 1, 0.1) - start
        distance = np.linalg.norm(towards, axis=1)
        cosine = np.einsum("ij,ij->i", towards, snapshot.normal) / distance
        dark = snapshot.blocked(start, (towards * 0.98).astype(np.float32))
        total += np.where(dark, 0, np.maximum(cosine, 0)) / (1 + 0.12 * distance**2) / 5
    up = 0.5 + 0.16 * snapshot.normal[:, 2] + 0.07 * snapshot.normal[:, 0] + 0.04 * snapshot.normal[:, 1]
    return np.asarray(up + 0.3 + 0.6 * total, dtype=np.float32)


class _Plan:
    def __init__(self, rng: Rng, size: tuple[float, float, float], spacing: float) -> None:
        self.rng, self.size, self.step = rng, size, spacing
        self.builder = WorldBuilder()
        self.instances: list[str] = []
        width, depth, _ = size
        self.walls = (
            (pose(width / 2, depth), width), (pose(width, depth / 2, yaw=-np.pi / 2), depth),
            (pose(width / 2, 0, yaw=np.pi), width), (pose(0, depth / 2, yaw=np.pi / 2), depth),
        )  # fmt: skip
        self.floor_taken: list[tuple[float, float, float, float]] = []
        self.wall_taken: list[list[tuple[float, float]]] = [[], [], [], []]

    def put(self, model: tuple[Part, ...], place: Float64) -> None:
        """Place a model; every label in it becomes one instance."""
        for label in dict.fromkeys(part.label for part in model):
            self.instances.append(label)
            self.builder.add(tuple(p for p in model if p.label == label), place, len(self.instances))

    def shell(self, floor: str) -> None:
        rng, step, (width, depth, height) = self.rng, self.step, self.size
        material = ("wall paint", "wall paint", "wallpaper")[rng.integers(3)]
        e = 0.01
        ground = shapes.sheet([(-e, -e, 0), (width + e, -e, 0), (width + e, depth + e, 0), (-e, depth + e, 0)], step)
        self.put((Part(ground, "floor", floor),), np.eye(4))
        for place, length in self.walls:
            half = length / 2 + 0.01
            sheet = shapes.sheet([(-half, 0, -0.005), (half, 0, -0.005), (half, 0, height), (-half, 0, height)], step)
            self.put((Part(sheet, "wall", material),), place)
        if rng.random() < 0.5:
            top = shapes.sheet([(0, depth, height), (width, depth, height), (width, 0, height), (0, 0, height)], step)
            self.put((Part(top, "ceiling", "ceiling"),), np.eye(4))
        order = rng.permutation(4)
        self._door(int(order[0]))
        self._window(int(order[1]))
        for wall in order[1:]:
            self._pictures(int(wall))

    def _panel(
        self, label: str, material: str, size: tuple[float, float], x: float, z: float, *, thick: float = 0.03
    ) -> Part:
        body = shapes.box((size[0], thick, size[1]), (x, -thick / 2, z), self.step, "xXyzZ")
        return Part(shapes.fitted(body, MATERIALS[material].metres), label, material)

    def _door(self, wall: int) -> None:
        place, length = self.walls[wall]
        x = self.rng.uniform(-length / 2 + 0.6, length / 2 - 0.6)
        self.put((self._panel("door", "door", (0.9, 2.05), x, 0.0, thick=0.05),), place)
        self._stand(place @ pose(x), (1.1, 0.8))
        self._hang(wall, x, 1.0)

    def _window(self, wall: int) -> None:
        place, _ = self.walls[wall]
        width, x = self.rng.uniform(1.1, 1.8), self.rng.uniform(-0.3, 0.3)
        self.put((self._panel("window", "pane", (width, 1.2), x, 0.9),), place)
        self._hang(wall, x, width + 1.2)
        for side in (-1, 1):
            if self.rng.random() < 0.8:
                edge = x + side * (width / 2 + 0.15)
                hanging = shapes.box((0.45, 0.1, 1.9), (edge, -0.1, 0.3), self.step)
                self.put((Part(hanging, "curtain", "curtain"),), place)

    def _pictures(self, wall: int) -> None:
        place, length = self.walls[wall]
        for _ in range(int(self.rng.integers(0, 3))):
            size = (self.rng.uniform(0.4, 0.9), self.rng.uniform(0.35, 0.7))
            x = self.rng.uniform(-length / 2 + 0.5, length / 2 - 0.5)
            label, material = ("picture", "painting") if self.rng.random() < 0.75 else ("whiteboard", "lacquer")
            if self._hang(wall, x, size[0]):
                self.put((self._panel(label, material, size, x, self.rng.uniform(1.3, 1.5), thick=0.025),), place)

    def _hang(self, wall: int, x: float, width: float) -> bool:
        """Take a place on a wall; False if something hangs there."""
        return _claim(self.wall_taken[wall], x, width)

    def _stand(self, place: Float64, size: tuple[float, float]) -> bool:
        """Take the floor (width, depth) before a spot; False if something stands there or it leaves the room."""
        corners = place[:2, :2] @ np.array([[-size[0] / 2, size[0] / 2], [-size[1], 0]]) + place[:2, 3:]
        (x0, y0), (x1, y1) = corners.min(1), corners.max(1)
        taken = any(x0 < b and x1 > a and y0 < d and y1 > c for a, b, c, d in self.floor_taken)
        outside = x0 < 0 or y0 < 0 or x1 > self.size[0] or y1 > self.size[1]
        if not taken and not outside:
            self.floor_taken.append((float(x0), float(x1), float(y0), float(y1)))
        return not taken and not outside

    def along_walls(self, pieces: list[Piece]) -> None:
        """Each piece goes to the first free spot of twenty; what does not fit is left out."""
        for piece in pieces:
            for _ in range(20):
                place, length = self.walls[self.rng.integers(4)]
                spot = place @ pose(float(self.rng.uniform(-0.5, 0.5)) * (length - piece.size[0] - 0.05), -0.03)
                if self._stand(spot, (piece.size[0] + 0.04, piece.size[1] + 0.1)):
                    self.put(piece.model, spot)
                    break

    def centre(self) -> None:
        """A table with chairs around it, where the floor is free."""
        width, depth, _ = self.size
        table = furniture.table(self.rng, self.step)
        if not self._stand(pose(width / 2, depth / 2 + 0.9), (table.size[0] + 0.2, 1.8)):
            return
        middle = pose(width / 2, depth / 2, yaw=self.rng.uniform(-0.3, 0.3))
        self.put(table.model, middle @ pose(0, table.size[1] / 2))
        for x, y, turn in ((-0.3, 1, 0.0), (0.3, 1, 0.0), (-0.3, -1, np.pi), (0.3, -1, np.pi)):
            if self.rng.random() < 0.7:
                chair = furniture.chair(self.rng, self.step)
                away = table.size[1] / 2 + self.rng.uniform(0.1, 0.3)
                self.put(chair.model, middle @ pose(x * table.size[0], y * away, yaw=turn + self.rng.normal(0, 0.15)))


def _claim(taken: list[tuple[float, float]], x: float, width: float) -> bool:
    low, high = x - width / 2, x + width / 2
    if any(low < other_high and high > other_low for other_low, other_high in taken):
        return False
    taken.append((low, high))
    return True
