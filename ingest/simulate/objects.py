"""Models of what stands and moves in streets: vehicles, people, barriers, signs, trees, buildings.

Every model is built from a few shapes in object coordinates: x forward, y left, z up, origin on the ground below the
centre. `size` of a model is (length, width, height) in metres, the box an annotator would draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brickyard.ingest.simulate import shapes
from brickyard.ingest.simulate.shapes import box, cylinder, frustum, pose
from brickyard.ingest.simulate.world import Colour, Model, Part

Rng = np.random.Generator

_PAINTS: tuple[Colour, ...] = (
    (0.95, 0.95, 0.95), (0.7, 0.71, 0.73), (0.16, 0.16, 0.18), (0.62, 0.1, 0.1), (0.12, 0.22, 0.45), (0.35, 0.38, 0.4),
    (0.75, 0.65, 0.4), (0.1, 0.3, 0.25), (0.85, 0.6, 0.1),
)  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A model with the size of its box, (length, width, height)."""

    label: str
    model: Model
    size: tuple[float, float, float]


def _wheels(label: str, length: float, width: float, radius: float, axles: tuple[float, ...]) -> Model:
    turn = pose(roll=np.pi / 2)
    wheel = cylinder(radius, radius, 0.22, base=(0, 0, -0.11), sides=12).moved(turn)
    places = [(a * length, side * (width / 2 - 0.12)) for a in axles for side in (-1, 1)]
    return tuple(Part(wheel.moved(pose(x, y, radius)), label, "tyre") for x, y in places)


def _lamps(label: str, length: float, width: float, height: float) -> Model:
    def pair(x: float) -> shapes.Shape:
        return shapes.join(*(box((0.06, 0.32, 0.14), (x, s * (width / 2 - 0.22), height)) for s in (-1, 1)))

    return Part(pair(length / 2), label, "lamp"), Part(pair(-length / 2), label, "tail lamp")


def car(rng: Rng, kind: int | None = None) -> Thing:
    """A saloon, an estate or a small van."""
    kind = int(rng.integers(3)) if kind is None else kind
    length, width = rng.uniform(3.9, 4.8), rng.uniform(1.72, 1.92)
    height = (rng.uniform(1.4, 1.5), rng.uniform(1.5, 1.7), rng.uniform(1.8, 2.0))[kind]
    tint = _PAINTS[rng.integers(len(_PAINTS))]
    waist = 0.62 * height
    cabin, roof, shift = ((0.55, 0.36, -0.02), (0.68, 0.55, -0.1), (0.8, 0.68, -0.08))[kind]
    lower = frustum((length, width), (length * 0.97, width * 0.97), waist - 0.28, base=(0, 0, 0.28))
    glass = frustum(
        (length * cabin, width * 0.92),
        (length * roof, width * 0.74),
        height - waist - 0.05,
        base=(shift * length, 0, waist),
    )
    top = box((length * roof, width * 0.74, 0.05), (shift * length, 0, height - 0.05))
    model = (
        Part(lower, "car", "car paint", tint), Part(glass, "car", "car glass"), Part(top, "car", "car paint", tint),
        *_lamps("car", length, width, waist - 0.25),
        *_wheels("car", length, width, 0.33, (-0.31, 0.31)),
    )  # fmt: skip
    return Thing("car", model, (length + 0.06, width, height))


def truck(rng: Rng) -> Thing:
    """A lorry: cab and box body."""
    length, width, height = rng.uniform(6.5, 9), rng.uniform(2.3, 2.6), rng.uniform(2.9, 3.6)
    tint = _PAINTS[rng.integers(len(_PAINTS))]
    cab_length, cab = 1.9, height * 0.78
    front = length / 2 - cab_length / 2
    bed = length - cab_length - 0.15
    model = (
        Part(frustum((cab_length, width * 0.95), (cab_length * 0.85, width * 0.9), cab - 0.5, base=(front, 0, 0.5)),
             "truck", "car paint", tint),
        Part(box((0.08, width * 0.84, cab * 0.3), (length / 2 - 0.08, 0, cab * 0.6)), "truck", "car glass"),
        Part(box((bed, width, height - 0.9), (-(length - bed) / 2, 0, 0.9)), "truck", "cargo",
             tuple(rng.uniform(0.55, 1, 3).tolist())),
        Part(box((length * 0.95, 0.9, 0.3), (0, 0, 0.6)), "truck", "tyre"), *_lamps("truck", length, width, 0.7),
        *_wheels("truck", length, width, 0.48, (-0.36, -0.22, 0.36)),
    )  # fmt: skip
    return Thing("truck", model, (length + 0.06, width, height))


def bus(rng: Rng) -> Thing:
    """A city bus in its livery, with a band of windows."""
    length, width, height = rng.uniform(9.5, 12), 2.55, rng.uniform(2.9, 3.2)
    model = (
        Part(box((length, width, 1.0), (0, 0, 0.35)), "bus", "livery"),
        Part(box((length * 0.99, width * 0.98, 1.05), (0, 0, 1.35)), "bus", "car glass"),
        Part(box((length, width, height - 2.4), (0, 0, 2.4)), "bus", "livery", (0.9, 0.9, 0.95)),
        *(Part(box((0.12, width * 0.995, 1.05), (x * length, 0, 1.35)), "bus", "livery") 
          for x in (-0.3, -0.1, 0.1, 0.3)),
        *_lamps("bus", length, width, 0.6), *_wheels("bus", length, width, 0.48, (-0.28, 0.33)),
    )  # fmt: skip
    return Thing("bus", model, (length + 0.06, width, height))


def bicycle(rng: Rng) -> Thing:
    """A bicycle: two wheels, a frame of bars, saddle and handlebar."""
    tint = _PAINTS[rng.integers(len(_PAINTS))]
    rim = cylinder(0.33, 0.33, 0.06, base=(0, 0, -0.03), sides=14).moved(pose(roll=np.pi / 2))
    bars = shapes.join(
        box((1.0, 0.06, 0.08), (0, 0, 0.55)),
        box((0.07, 0.06, 0.5), (-0.2, 0, 0.4)),
        box((0.07, 0.06, 0.65), (0.42, 0, 0.35)),
    )
    model = (
        *(Part(rim.moved(pose(x, 0, 0.33)), "bicycle", "tyre", (2.0, 2.0, 2.0)) for x in (-0.52, 0.52)),
        Part(bars, "bicycle", "car paint", tint), Part(box((0.28, 0.14, 0.07), (-0.2, 0, 0.9)), "bicycle", "tyre"),
        Part(box((0.08, 0.55, 0.06), (0.42, 0, 1.0)), "bicycle", "tyre"),
    )  # fmt: skip
    return Thing("bicycle", model, (1.7, 0.55, 1.07))


def pedestrian(rng: Rng) -> Thing:
    """A walking person of some height, in trousers and a coat."""
    height = rng.uniform(1.55, 1.9)
    coat, trousers = (tuple(rng.uniform(0.12, 1, 3).tolist()) for _ in range(2))
    leg = 0.47 * height
    stride = 0.16
    legs = [
        frustum((0.15, 0.15), (0.17, 0.17), leg, base=(s * stride, s * 0.09, 0), shift=(-s * stride, 0))
        for s in (-1, 1)
    ]
    arms = [
        frustum((0.1, 0.09), (0.12, 0.1), 0.36 * height, base=(-s * 0.12, s * 0.26, leg), shift=(s * 0.12, -s * 0.03))
        for s in (-1, 1)
    ]
    head = shapes.blob((0.11, 0.09, 0.13), (0, 0, height - 0.13), roughness=0, rng=rng, rings=5)
    model = (
        Part(shapes.join(*legs), "pedestrian", "cloth", trousers),
        Part(frustum((0.24, 0.34), (0.26, 0.44), 0.38 * height, base=(0, 0, leg)), "pedestrian", "cloth", coat),
        Part(shapes.join(*arms), "pedestrian", "cloth", coat), Part(head, "pedestrian", "skin"),
    )  # fmt: skip
    return Thing("pedestrian", model, (0.6, 0.65, height))


def cone(rng: Rng) -> Thing:
    """A traffic cone."""
    height = rng.uniform(0.6, 0.8)
    body = cylinder(0.19, 0.04, height - 0.05, base=(0, 0, 0.05), sides=10)
    plate = box((0.42, 0.42, 0.05))
    model = (Part(body, "traffic_cone", "cone"), Part(plate, "traffic_cone", "cone", (0.5, 0.4, 0.35)))
    return Thing("traffic_cone", model, (0.42, 0.42, height))


def barrier(rng: Rng) -> Thing:
    """A striped road barrier, long side along y as annotators draw it."""
    width = rng.uniform(1.8, 2.4)
    body = frustum((0.55, width), (0.2, width), 0.95)
    return Thing("barrier", (Part(body, "barrier", "barrier"),), (0.55, width, 0.95))


def lamp_post(rng: Rng) -> Model:
    height = rng.uniform(5, 8)
    arm = box((1.6, 0.1, 0.08), (0.8, 0, height))
    lamp = box((0.6, 0.25, 0.12), (1.5, 0, height - 0.1))
    return (
        Part(cylinder(0.11, 0.08, height, sides=10), "pole", "galvanised"),
        Part(arm, "pole", "galvanised"), Part(lamp, "pole", "lamp"),
    )  # fmt: skip


def sign(rng: Rng) -> Model:
    height = rng.uniform(2.2, 2.8)
    board = shapes.fitted(box((0.04, 0.75, 0.75), (-0.05, 0, height - 0.75)), 0.7)
    return Part(cylinder(0.05, 0.05, height, sides=8), "pole", "galvanised"), Part(board, "sign", "sign")


def tree(rng: Rng) -> Model:
    """A trunk under a crown of lumpy blobs, or a conifer."""
    height = rng.uniform(4.5, 9)
    tint = tuple(rng.uniform(0.75, 1.2, 3).tolist())
    trunk = height * rng.uniform(0.3, 0.45)
    if rng.random() < 0.25:
        crown = [
            cylinder(height * w, 0.05, height * 0.4, base=(0, 0, height * b), sides=11)
            for w, b in ((0.24, 0.18), (0.19, 0.38), (0.13, 0.6))
        ]
        trunk = height * 0.3
    else:
        reach = height * 0.2
        crown = []
        for _ in range(int(rng.integers(4, 7))):
            radius = rng.uniform(0.16, 0.25) * height
            centre = (rng.uniform(-reach, reach), rng.uniform(-reach, reach), trunk + rng.uniform(0.6, 1.6) * radius)
            crown.append(shapes.blob((radius, radius, radius * 0.85), centre, roughness=0.22, rng=rng))
    girth = rng.uniform(0.12, 0.25)
    stem = cylinder(girth * 1.3, girth * 0.8, trunk + height * 0.12, sides=9)
    return Part(stem, "trunk", "bark"), Part(shapes.join(*crown), "vegetation", "foliage", tint)


def hedge(length: float, rng: Rng) -> Model:
    lumps = [
        shapes.blob((0.7, 0.55, rng.uniform(0.6, 0.8)), (x, 0, 0.5), roughness=0.2, rng=rng, rings=5)
        for x in np.arange(-length / 2, length / 2, 0.7)
    ]
    core = box((length, 0.7, rng.uniform(0.8, 1.1)))
    tint = tuple(rng.uniform(0.7, 1.1, 3).tolist())
    return (Part(shapes.join(core, *lumps), "vegetation", "foliage", tint),)


def bush(rng: Rng) -> Model:
    radius = rng.uniform(0.5, 1.1)
    lump = shapes.blob((radius, radius, radius * 0.9), (0, 0, radius * 0.6), roughness=0.25, rng=rng)
    return (Part(lump, "vegetation", "foliage", tuple(rng.uniform(0.6, 1.1, 3).tolist())),)


def fence(length: float, rng: Rng) -> Model:
    """A fence of boards on posts."""
    height = rng.uniform(0.9, 1.7)
    posts = [box((0.1, 0.1, height), (x, 0, 0)) for x in np.arange(-length / 2, length / 2 + 0.1, 2.0)]
    rails = [box((length, 0.05, height * 0.38), (0, 0.04, height * b)) for b in (0.08, 0.54)]
    return (Part(shapes.join(*posts, *rails), "fence", "boards", tuple(rng.uniform(0.7, 1.1, 3).tolist())),)


def building(width: float, depth: float, height: float, rng: Rng) -> Model:
    """A block along x: shops or masonry on the ground floor, storeys of windows above, flat or pitched roof."""
    wall = ("windows", "brick windows", "curtain wall")[rng.integers(3)]
    base = ("shopfront", "brick", "concrete", "plaster")[rng.integers(4)]
    tint = tuple(np.clip(rng.uniform(0.75, 1.05) + rng.normal(0, 0.06, 3), 0.5, 1.1).tolist())
    ground = 3.4
    parts = [
        Part(box((width, depth, ground)), "building", base, tint),
        Part(box((width * 0.995, depth * 0.99, height - ground), (0, 0, ground)), "building", wall, tint),
        Part(box((width, depth, 0.3), (0, 0, ground - 0.15)), "building", "concrete"),
    ]
    if rng.random() < 0.5:
        pitched = frustum((width * 1.02, depth * 1.02), (width, depth * 0.1), depth * 0.3, base=(0, 0, height))
        parts.append(Part(pitched, "building", "roof", tint))
    else:
        parts.append(Part(box((width, depth, 0.5), (0, 0, height)), "building", "concrete"))
    if rng.random() < 0.6:
        floors = np.arange(ground + 0.4, height - 2, 3.4)
        slabs = [box((width * 0.3, depth + 2.2, 0.9), (width * rng.uniform(-0.3, 0.3), 0, float(z))) for z in floors]
        parts.extend(Part(s, "building", "plaster", tint) for s in slabs)
    return tuple(parts)


def ego(roof: float) -> Model:
    """The roof and bonnet of the recording vehicle, which its own laser meets; origin at the rear axle."""
    deck = box((1.4, 1.1, 0.1), (0.94, 0, roof - 0.1))
    return (Part(deck, "ego", "car paint"), Part(box((1.0, 1.5, 0.1), (3.0, 0, 0.85)), "ego", "car paint"))
