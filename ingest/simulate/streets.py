"""A random street and what happens on it: the world of the driving datasets.

The street follows a smooth curve; everything is placed by (s, left): metres along the centre line and to its left.
From the middle outwards: lanes, parked cars, kerb, pavement with poles and people, a strip of grass or soil with trees,
hedges, then buildings, fences and bushes. Layout, colours, sun and traffic are drawn from the seed, so no two agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brickyard.ingest.simulate import objects, shapes
from brickyard.ingest.simulate.objects import Thing
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.world import Light, Part, Trajectory, World, WorldBuilder
from brickyard.shards.scene import Float64

Rng = np.random.Generator
REACH = 110.0
"""Metres of street behind and ahead of the start."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Something an annotator draws a box around. `trajectory` gives the pose of its bottom centre, x forward."""

    instance: int
    label: str
    size: tuple[float, float, float]
    trajectory: Trajectory
    moving: bool


@dataclass(frozen=True, kw_only=True)
class Street:
    """A world with its actors and the ego vehicle's motion (pose of the rear axle's ground point)."""

    world: World
    actors: tuple[Actor, ...]
    ego: Trajectory


class Curve:
    """The centre line: a slowly bending curve, sampled finely and interpolated. `at(s, left)` is a pose on it."""

    def __init__(self, rng: Rng) -> None:
        self._s = np.arange(-REACH - 40, REACH + 41, 1.0)
        bend, wave = rng.normal(0, 0.004), rng.uniform(0.002, 0.006)
        curvature = bend + wave * np.sin(self._s / rng.uniform(25, 45) + rng.uniform(0, 2 * np.pi))
        curvature *= np.clip((np.abs(self._s) + 40) / 60, 0, 1)
        self._heading = np.cumsum(curvature)
        self._heading -= np.interp(0, self._s, self._heading)
        x, y = np.cumsum(np.cos(self._heading)), np.cumsum(np.sin(self._heading))
        self._x, self._y = x - np.interp(0, self._s, x), y - np.interp(0, self._s, y)

    def at(self, s: float, left: float = 0.0, turn: float = 0.0, z: float = 0.0) -> Float64:
        heading = float(np.interp(s, self._s, self._heading))
        x, y = np.interp(s, self._s, self._x), np.interp(s, self._s, self._y)
        return pose(float(x) - left * np.sin(heading), float(y) + left * np.cos(heading), z, heading + turn)

    def line(self, s: Float64, left: float, z: float) -> Float64:
        """Points (K, 3) at offset l."""
        heading = np.interp(s, self._s, self._heading)
        x, y = np.interp(s, self._s, self._x), np.interp(s, self._s, self._y)
        return np.stack([x - left * np.sin(heading), y + left * np.cos(heading), np.full(len(s), z)], 1)


class _Planner:
    """Places things along a street; each gets an instance number in turn."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.curve, self.builder = rng, Curve(rng), WorldBuilder()
        self.actors: list[Actor] = []

    def stand(self, thing: Thing, s: float, left: float, turn: float = 0.0, z: float = 0.0) -> None:
        place = self.curve.at(s, left, turn, z)
        self.builder.add(thing.model, place, len(self.actors) + 1)
        self._note(thing, lambda _: place, False)

    def drive(self, thing: Thing, s: float, left: float, speed: float, z: float = 0.0) -> None:
        """Along the street at metres a second; against the direction if negative."""
        turn = 0.0 if speed > 0 else np.pi
        curve = self.curve

        def trajectory(time: float) -> Float64:
            return curve.at(s + speed * time, left, turn, z)

        self.builder.add_mover(thing.model, trajectory, len(self.actors) + 1)
        self._note(thing, trajectory, True)

    def _note(self, thing: Thing, trajectory: Trajectory, moving: bool) -> None:
        number = len(self.actors) + 1
        self.actors.append(
            Actor(instance=number, label=thing.label, size=thing.size, trajectory=trajectory, moving=moving)
        )

    def strip(self, l_right: float, l_left: float, z_right: float, z_left: float, *, label: str, material: str) -> None:
        s = np.arange(-REACH - 30, REACH + 31, 2.0)
        sheet = shapes.ribbon(self.curve.line(s, l_left, z_left), self.curve.line(s, l_right, z_right))
        self.builder.add((Part(sheet, label, material),), np.eye(4))


def build_street(rng: Rng, *, ego_roof: float | None, moving: bool = True) -> Street:
    """A street world.

    Args:
        ego_roof: height of the ego vehicle's roof that its lidar meets; None if it sees nothing of the vehicle.
        moving: whether traffic moves.
    """
    plan = _Planner(rng)
    half = rng.uniform(6.6, 8.5)
    pavement, verge = rng.uniform(1.8, 3.2), rng.uniform(2.0, 5.5)
    _ground(plan, half, pavement, verge)
    for side in (-1, 1):
        _parked(plan, half, side)
        _furniture(plan, half, pavement, verge, side)
        _skyline(plan, half + pavement + verge, side)
    _works(plan, half)
    speed = rng.uniform(4, 11)
    if moving:
        _traffic(plan, half, pavement, speed)
    ego = _ego_motion(plan.curve, speed, -half * 0.28, rng)
    if ego_roof is not None:
        plan.builder.add_mover(objects.ego(ego_roof), ego, 0, hidden=True)
    world = plan.builder.build(_daylight(rng), rng)
    return Street(world=world, actors=tuple(plan.actors), ego=ego)


def _ego_motion(curve: Curve, speed: float, lane: float, rng: Rng) -> Trajectory:
    surge, rock, phase = rng.uniform(0.1, 0.5), np.radians(rng.uniform(0.2, 0.6)), rng.uniform(0, 6)

    def trajectory(time: float) -> Float64:
        along = speed * time + surge * np.sin(1.3 * time + phase)
        tilt = pose(pitch=rock * np.sin(2.1 * time + phase), roll=rock * np.sin(1.7 * time))
        return np.asarray(curve.at(along, lane + 0.15 * np.sin(0.9 * time + phase)) @ tilt)

    return trajectory


def _ground(plan: _Planner, half: float, pavement: float, verge: float) -> None:
    rng = plan.rng
    plan.strip(-half, half, 0, 0, label="road", material="asphalt")
    soft = ("grass", "grass", "soil")[rng.integers(3)]
    for side in (-1, 1):
        edges = [half, half + 0.15, half + pavement, half + pavement + verge, half + pavement + verge + 45]
        heights = [0.13, 0.13, 0.14, 0.16, 0.2]
        kinds = [
            ("sidewalk", "kerb"),
            ("sidewalk", "slabs"),
            ("terrain", soft),
            ("terrain", ("grass", "soil")[rng.integers(2)]),
        ]
        walls = shapes.ribbon(
            *(plan.curve.line(np.arange(-140, 141, 2.0), side * half, z) for z in (0.13, 0.0)[::side])
        )
        plan.builder.add((Part(walls, "sidewalk", "kerb"),), np.eye(4))
        for (label, material), inner, outer, low, high in zip(
            kinds, edges[:-1], edges[1:], heights[:-1], heights[1:], strict=True
        ):
            near, far = (inner, low), (outer, high)
            right, left = (near, far) if side > 0 else ((-far[0], far[1]), (-near[0], near[1]))
            plan.strip(right[0], left[0], right[1], left[1], label=label, material=material)
    dash = shapes.box((2.5, 0.14, 0.006), sides="Z")
    for s in np.arange(-REACH, REACH, 6.0):
        plan.builder.add((Part(dash, "road", "paint"),), plan.curve.at(float(s)))
    crossing = rng.uniform(12, 40)
    for left in np.arange(-half + 0.5, half - 0.3, 1.0):
        bar = shapes.box((3.0, 0.5, 0.006), sides="Z")
        plan.builder.add((Part(bar, "road", "paint"),), plan.curve.at(crossing, float(left)))


def _parked(plan: _Planner, half: float, side: int) -> None:
    rng = plan.rng
    density, s = rng.uniform(0.15, 0.75), -60.0
    while s < 70:
        if rng.random() < density:
            thing = objects.car(rng) if rng.random() < 0.93 else objects.truck(rng)
            s += thing.size[0] / 2
            turn = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.03)
            plan.stand(thing, s, side * (half - thing.size[1] / 2 - 0.25), turn)
            s += thing.size[0] / 2 + rng.uniform(0.6, 2)
        else:
            s += 6.0


def _furniture(plan: _Planner, half: float, pavement: float, verge: float, side: int) -> None:
    """Poles and signs at the kerb, bicycles, trees, hedges and bushes behind the pavement."""
    rng, curve = plan.rng, plan.curve
    for s in np.arange(-70, 75, rng.uniform(16, 28)) + rng.uniform(0, 10):
        plan.builder.add(objects.lamp_post(rng), curve.at(float(s), side * (half + 0.5), -side * np.pi / 2, 0.13))
        if rng.random() < 0.6:
            plan.builder.add(
                objects.sign(rng), curve.at(float(s) + 5, side * (half + 0.45), rng.choice([0, np.pi]), 0.13)
            )
        if rng.random() < 0.5:
            left = side * (half + pavement - 0.4)
            plan.stand(objects.bicycle(rng), float(s) + rng.uniform(-4, 4), left, rng.normal(0, 0.3), 0.14)
    trees = rng.uniform(6, 14)
    for s in np.arange(-75, 85, trees):
        left = side * (half + pavement + verge * rng.uniform(0.3, 0.7))
        if rng.random() < 0.8:
            plan.builder.add(objects.tree(rng), curve.at(float(s) + rng.normal(0, 1), left, rng.uniform(0, 6), 0.14))
        if rng.random() < 0.5:
            plan.builder.add(objects.bush(rng), curve.at(float(s) + rng.uniform(2, 4), left, 0, 0.14))
    if rng.random() < 0.6:
        for s in np.arange(-60, 70, 7.0):
            if rng.random() < 0.6:
                left = side * (half + pavement + 0.7)
                plan.builder.add(objects.hedge(6.0, rng), curve.at(float(s), left, 0, 0.14))


def _skyline(plan: _Planner, edge: float, side: int) -> None:
    """Buildings of changing width, depth and height, with gaps that show fences, trees and grass."""
    rng, s = plan.rng, -100.0
    density, tall = rng.uniform(0.45, 0.95), rng.uniform(7, 22)
    while s < 110:
        width = rng.uniform(9, 22)
        middle = plan.curve.at(s + width / 2, side * (edge + 0.3), 0, 0.1)
        if rng.random() < density:
            depth, height = rng.uniform(9, 14), max(6.5, tall * rng.uniform(0.6, 1.3))
            model = objects.building(width, depth, height, rng)
            back = rng.uniform(0.5, 3)
            plan.builder.add(model, middle @ pose(0, side * (depth / 2 + back)))
        else:
            plan.builder.add(objects.fence(width - 0.5, rng), middle @ pose(0, side * 0.2))
            for _ in range(4):
                place = pose(rng.uniform(-width / 2, width / 2), side * rng.uniform(4, 20), 0, rng.uniform(0, 6))
                plan.builder.add(objects.tree(rng), middle @ place)
        s += width + rng.uniform(0.5, 4)


def _works(plan: _Planner, half: float) -> None:
    """Road works: barriers and cones on one side."""
    rng = plan.rng
    start, side = rng.uniform(6, 22), rng.choice([-1, 1])
    spots = [start + 3.0 * k for k in range(int(rng.integers(3, 6)))]
    taken = [a.trajectory(0)[:2, 3] for a in plan.actors]
    for k, s in enumerate(spots):
        for left, thing in ((half - 0.6, objects.barrier(rng)), (half - 2.4, objects.cone(rng))):
            spot = plan.curve.at(s, side * left)[:2, 3]
            free = all(np.linalg.norm(spot - other) > 3.6 for other in taken)
            if free or thing.label == "traffic_cone":
                plan.stand(thing, s + 0.2 * k, side * left, np.pi / 2 if thing.label == "barrier" else 0.0)


def _traffic(plan: _Planner, half: float, pavement: float, ego_speed: float) -> None:
    """Oncoming and leading vehicles, and people walking on the pavements and crossing."""
    rng = plan.rng
    lane = half * 0.28
    s = rng.uniform(11, 22)
    for _ in range(3):
        kind = rng.random()
        thing = objects.bus(rng) if kind < 0.3 else objects.truck(rng) if kind < 0.5 else objects.car(rng)
        plan.drive(thing, s, -lane, ego_speed * rng.uniform(0.95, 1.1))
        s += rng.uniform(14, 30)
    plan.drive(objects.car(rng), rng.uniform(-16, -11), -lane, ego_speed * rng.uniform(0.9, 1.0))
    s = rng.uniform(-40, 5)
    for _ in range(4):
        kind = rng.random()
        thing = objects.bus(rng) if kind < 0.2 else objects.truck(rng) if kind < 0.4 else objects.car(rng)
        plan.drive(thing, s, lane, -rng.uniform(5, 12))
        s += rng.uniform(22, 40)
    for _ in range(int(rng.integers(8, 16))):
        left = rng.choice([-1, 1]) * (half + rng.uniform(0.8, pavement - 0.4))
        speed = rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
        plan.drive(objects.pedestrian(rng), rng.uniform(-25, 45), left, speed, 0.14)


def _daylight(rng: Rng) -> Light:
    """Noon, a low warm sun or an overcast sky."""
    kind, azimuth = int(rng.integers(3)), rng.uniform(0, 2 * np.pi)
    elevation = np.radians((rng.uniform(45, 65), rng.uniform(18, 30), rng.uniform(50, 80))[kind])
    towards = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    sun, ambient, zenith, horizon = (
        ((0.75, 0.72, 0.66), (0.6, 0.62, 0.66), (70, 120, 205), (190, 212, 235)),
        ((0.8, 0.62, 0.42), (0.56, 0.57, 0.64), (95, 120, 175), (240, 205, 165)),
        ((0.16, 0.16, 0.16), (0.85, 0.86, 0.88), (168, 174, 182), (208, 212, 216)),
    )[kind]
    return Light(
        towards_sun=towards, sun=sun, ambient=ambient, zenith=zenith, horizon=horizon, haze=float(rng.uniform(180, 500))
    )
