"""Models of what stands in rooms, tessellated so that a room's mesh has evenly spread vertices.

Object coordinates: the back is at y = 0 and the front looks towards -y, origin on the floor at the middle of the back,
so that a piece is pushed against a wall by placing its origin there. Labels are the raw category names of the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brickyard.ingest.simulate import shapes
from brickyard.ingest.simulate.materials import MATERIALS
from brickyard.ingest.simulate.shapes import Shape, box, cylinder, pose
from brickyard.ingest.simulate.world import Colour, Model, Part

Rng = np.random.Generator


@dataclass(frozen=True)
class Piece:
    """A model and the floor it covers: (width along the wall, depth into the room)."""

    label: str
    model: Model
    size: tuple[float, float]


def _tint(rng: Rng, low: float = 0.6, high: float = 1.1) -> Colour:
    shade = rng.uniform(low, high)
    r, g, b = (np.clip(shade + rng.normal(0, 0.08, 3), 0.2, 1.15)).tolist()
    return r, g, b


def _front(label: str, size: tuple[float, float, float], material: str, tint: Colour, step: float) -> list[Part]:
    """A body of wood whose front shows one tile of a material."""
    width, depth, height = size
    body = box(size, (0, -depth / 2, 0), step, "xXYZ")
    face = box((width, 0.002, height), (0, -depth, 0), step, "y")
    metres = MATERIALS[material].metres
    return [Part(body, label, "lacquer", tint), Part(shapes.fitted(face, metres), label, material, tint)]


def _legs(width: float, depth: float, height: float, *, thick: float, step: float, middle: float) -> Shape:
    spots = [(x * (width / 2 - thick), middle + y * (depth / 2 - thick)) for x in (-1, 1) for y in (-1, 1)]
    return shapes.join(*(box((thick, thick, height), (x, y, 0), step, "xXyY") for x, y in spots))


def table(rng: Rng, step: float) -> Piece:
    width, depth, height = rng.uniform(1.1, 1.9), rng.uniform(0.75, 1.0), rng.uniform(0.68, 0.76)
    tint = _tint(rng, 0.8)
    top = box((width, depth, 0.05), (0, -depth / 2, height - 0.05), step)
    legs = _legs(width, depth, height - 0.05, thick=0.07, step=step, middle=-depth / 2)
    return Piece("table", (Part(top, "table", "wood", tint), Part(legs, "table", "wood", tint)), (width, depth))


def desk(rng: Rng, step: float) -> Piece:
    """A desk on a drawer block and a side panel, with a screen on it."""
    width, depth, height = rng.uniform(1.2, 1.6), rng.uniform(0.6, 0.75), 0.74
    tint = _tint(rng, 0.8)
    top = box((width, depth, 0.04), (0, -depth / 2, height - 0.04), step)
    block = [
        Part(p.shape.moved(pose(width / 2 - 0.22)), "desk", p.material, tint)
        for p in _front("desk", (0.42, depth - 0.06, height - 0.04), "drawers", tint, step)
    ]
    panel = box((0.04, depth - 0.06, height - 0.04), (-width / 2 + 0.03, -depth / 2, 0), step)
    screen = box((0.55, 0.04, 0.33), (0, -0.18, height + 0.1), step)
    foot = box((0.2, 0.16, 0.1), (0, -0.18, height), step, "xXyYZ")
    model = (
        Part(top, "desk", "wood", tint), Part(panel, "desk", "wood", tint), *block,
        Part(screen, "monitor", "screen"), Part(foot, "monitor", "screen"),
    )  # fmt: skip
    return Piece("desk", model, (width, depth))


def chair(rng: Rng, step: float) -> Piece:
    seat, height = rng.uniform(0.4, 0.48), rng.uniform(0.42, 0.48)
    material = ("upholstery", "lacquer")[rng.integers(2)]
    cloth, frame = _tint(rng, 0.4), _tint(rng, 0.4)
    pad = box((seat, seat, 0.06), (0, -seat / 2, height - 0.06), step)
    back = box((seat, 0.05, rng.uniform(0.35, 0.5)), (0, -0.03, height + 0.05), step)
    legs = _legs(seat, seat, height - 0.06, thick=0.04, step=step, middle=-seat / 2)
    model = (
        Part(shapes.join(pad, back), "chair", material, cloth), Part(legs, "chair", "steel", frame),
    )  # fmt: skip
    return Piece("chair", model, (seat, seat))


def sofa(rng: Rng, step: float) -> Piece:
    width, depth = rng.uniform(1.5, 2.3), rng.uniform(0.8, 0.95)
    tint = _tint(rng, 0.7)
    arm = 0.2
    solid = shapes.join(
        box((width, 0.25, rng.uniform(0.75, 0.9)), (0, -0.125, 0), step, "xXyZ"),
        box((arm, depth, 0.6), (-width / 2 + arm / 2, -depth / 2, 0), step, "xXyZ"),
        box((arm, depth, 0.6), (width / 2 - arm / 2, -depth / 2, 0), step, "xXyZ"),
        box((width - 2 * arm, depth - 0.27, 0.26), (0, -depth / 2 - 0.12, 0), step, "yZ"),
    )
    half = (width - 2 * arm) / 2
    seats = shapes.join(
        *(box((half - 0.02, depth - 0.3, 0.17), (s * half / 2, -depth / 2 - 0.1, 0.26), step) for s in (-1, 1))
    )
    model = (Part(solid, "couch", "upholstery", tint), Part(seats, "couch", "upholstery", tint))
    return Piece("couch", model, (width, depth))


def bed(rng: Rng, step: float) -> Piece:
    width, depth = rng.uniform(1.1, 1.8), rng.uniform(1.95, 2.1)
    frame = box((width, depth, 0.3), (0, -depth / 2, 0), step, "xXyZ")
    head = box((width, 0.06, rng.uniform(0.8, 1.1)), (0, -0.03, 0), step)
    mattress = box((width - 0.06, depth - 0.1, 0.24), (0, -depth / 2 - 0.03, 0.3), step, "xXyZ")
    count = 1 if width < 1.4 else 2
    pillows = [
        shapes.blob((0.3, 0.22, 0.1), ((k - (count - 1) / 2) * 0.75, -0.38, 0.6), roughness=0.03, rng=rng, rings=8)
        for k in range(count)
    ]
    model = (
        Part(shapes.join(frame, head), "bed", "wood", _tint(rng)), Part(mattress, "bed", "linen"),
        Part(shapes.join(*pillows), "pillow", "pillow"),
    )  # fmt: skip
    return Piece("bed", model, (width, depth))


def cabinet(rng: Rng, step: float) -> Piece:
    size = (rng.uniform(0.8, 1.4), rng.uniform(0.4, 0.6), rng.uniform(0.8, 2.0))
    return Piece("cabinet", tuple(_front("cabinet", size, "cabinet front", _tint(rng, 0.7), step)), size[:2])


def dresser(rng: Rng, step: float) -> Piece:
    size = (rng.uniform(0.7, 1.2), 0.45, rng.uniform(0.75, 1.1))
    return Piece("dresser", tuple(_front("dresser", size, "drawers", _tint(rng, 0.7), step)), size[:2])


def bookshelf(rng: Rng, step: float) -> Piece:
    """Boards around rows of books."""
    width, depth, height = rng.uniform(0.8, 1.6), 0.32, rng.uniform(1.5, 2.1)
    tint = _tint(rng, 0.7)
    frame = shapes.join(
        box((width, 0.02, height), (0, -0.01, 0), step, "yZ"),
        *(box((0.03, depth, height), (x * (width / 2 - 0.015), -depth / 2, 0), step, "xXyZ") for x in (-1, 1)),
        *(box((width - 0.06, depth, 0.03), (0, -depth / 2, z), step, "yzZ") for z in np.arange(0.05, height, 0.35)),
    )
    rows = box((width - 0.07, depth - 0.08, height - 0.12), (0, -depth / 2 + 0.02, 0.06), step, "y")
    model = (Part(frame, "bookshelf", "wood", tint), Part(rows, "bookshelf", "books"))
    return Piece("bookshelf", model, (width, depth))


def refrigerator(rng: Rng, step: float) -> Piece:
    size = (rng.uniform(0.6, 0.8), 0.65, rng.uniform(1.5, 1.85))
    body = box(size, (0, -size[1] / 2, 0), step, "xXyYZ")
    handle = box((0.03, 0.05, 0.5), (-size[0] / 2 + 0.07, -size[1] - 0.03, 0.9), step)
    model = (
        Part(body, "refrigerator", "steel", _tint(rng, 0.95, 1.15)),
        Part(handle, "refrigerator", "steel", (0.4, 0.4, 0.4)),
    )  # fmt: skip
    return Piece("refrigerator", model, size[:2])


def counter(rng: Rng, step: float) -> Piece:
    """Kitchen cabinets below a worktop with a steel basin."""
    width, depth = rng.uniform(1.6, 2.4), 0.6
    fronts = [
        Part(p.shape.moved(pose(x * width / 2)), "kitchen cabinet", p.material, p.tint)
        for x in (-0.5, 0.5)
        for p in _front("kitchen cabinet", (width / 2 - 0.01, depth, 0.84), "cabinet front", (1.0, 1.0, 1.0), step)
    ]
    top = box((width, depth + 0.04, 0.05), (0, -depth / 2, 0.84), step)
    basin = box((0.5, 0.38, 0.02), (width * 0.2, -depth / 2, 0.89), step, "xXyYZ")
    model = (*fronts, Part(top, "counter", "slabs", _tint(rng)), Part(basin, "sink", "steel"))
    return Piece("counter", model, (width, depth))


def box_pile(rng: Rng, step: float) -> Piece:
    size = (rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5))
    return Piece("box", (Part(box(size, (0, -size[1] / 2, 0), step, "xXyYZ"), "box", "cardboard"),), size[:2])


def lamp(rng: Rng, step: float) -> Piece:
    height = rng.uniform(1.3, 1.7)
    stem = shapes.join(
        cylinder(0.02, 0.02, height, base=(0, -0.2, 0), sides=8, spacing=step),
        cylinder(0.15, 0.15, 0.03, base=(0, -0.2, 0)),
    )
    shade = cylinder(0.2, 0.13, 0.28, base=(0, -0.2, height - 0.1), sides=16, spacing=step)
    return Piece("lamp", (Part(stem, "lamp", "steel", (0.5, 0.5, 0.5)), Part(shade, "lamp", "shade")), (0.4, 0.4))


def toilet(rng: Rng, step: float) -> Piece:
    tank = box((0.42, 0.2, 0.75), (0, -0.1, 0), step)
    bowl = cylinder(0.16, 0.22, 0.42, base=(0, -0.42, 0), sides=18, spacing=step)
    return Piece("toilet", (Part(shapes.join(tank, bowl), "toilet", "lacquer", (1.08, 1.08, 1.08)),), (0.45, 0.65))


def bathtub(rng: Rng, step: float) -> Piece:
    width, depth = rng.uniform(1.5, 1.7), 0.75
    rim = shapes.join(
        box((width, 0.08, 0.55), (0, -0.04, 0), step), box((width, 0.08, 0.55), (0, -depth + 0.04, 0), step),
        *(box((0.08, depth, 0.55), (s * (width / 2 - 0.04), -depth / 2, 0), step) for s in (-1, 1)),
        box((width, depth, 0.15), (0, -depth / 2, 0), step, "Z"),
    )  # fmt: skip
    return Piece("bathtub", (Part(rim, "bathtub", "lacquer", (1.0, 1.02, 1.08)),), (width, depth))


Maker = Callable[[Rng, float], Piece]

ROOMS: dict[str, tuple[tuple[Maker, ...], str]] = {
    "Bedroom / Hotel": ((bed, dresser, desk, chair, lamp, cabinet, box_pile), "parquet"),
    "Living room / Lounge": ((sofa, bookshelf, cabinet, sofa, lamp, desk, chair), "parquet"),
    "Office": ((desk, bookshelf, desk, chair, cabinet, box_pile, chair), "carpet"),
    "Kitchen": ((counter, refrigerator, cabinet, chair, box_pile), "floor tiles"),
    "Bathroom": ((bathtub, toilet, cabinet, lamp), "floor tiles"),
    "Apartment": ((bed, sofa, counter, bookshelf, refrigerator, desk), "parquet"),
}
"""Scene type -> what may stand along its walls, and its usual floor."""
