"""What annotators draw: which points lie in a box, and how much of an object the recording vehicle can see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.shapes import invert
from brickyard.ingest.simulate.streets import Actor
from brickyard.ingest.simulate.world import World
from brickyard.shards.scene import Float64


def box_corners(actor: Actor, time: float) -> Float64:
    """The eight corners of an actor's box in world coordinates, float64 (8, 3)."""
    length, width, height = actor.size
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 2)]) / 2
    pose = actor.trajectory(time)
    return np.asarray((signs * (length, width, height)) @ pose[:3, :3].T + pose[:3, 3])


def points_inside(actor: Actor, time: float, points: Float64) -> int:
    """How many world points (N, 3) lie in the actor's box."""
    pose = invert(actor.trajectory(time))
    local = points @ pose[:3, :3].T + pose[:3, 3]
    length, width, height = actor.size
    inside = (np.abs(local[:, :2]) <= (length / 2, width / 2)).all(1) & (local[:, 2] >= 0) & (local[:, 2] <= height)
    return int(inside.sum())


def seen_share(world: World, actors: tuple[Actor, ...], time: float, eye: Float64) -> Float64:
    """Share 0..1 of each actor that an eye sees: of a grid of rays towards its box, those not stopped by others."""
    grid = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (0.25, 0.5, 0.75)]) * (0.4, 0.4, 1)
    if not actors:
        return np.zeros(0)
    poses = [actor.trajectory(time) for actor in actors]
    targets = np.concatenate([(grid * a.size) @ p[:3, :3].T + p[:3, 3] for a, p in zip(actors, poses, strict=True)])
    rays = targets - eye
    origins = np.ascontiguousarray(np.broadcast_to(eye, rays.shape), np.float32)
    hits = world.at(time).cast(origins, rays.astype(np.float32))
    own = world.instance[hits.face] == np.repeat([a.instance for a in actors], len(grid))
    stopped: NDArray[np.bool_] = (hits.distance < 0.98) & ~own
    own &= np.isfinite(hits.distance)
    shape = (len(actors), len(grid))
    seen, hidden = own.reshape(shape).sum(1), stopped.reshape(shape).sum(1)
    return np.asarray(seen / np.maximum(seen + hidden, 1))
