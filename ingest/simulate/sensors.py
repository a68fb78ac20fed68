"""The sensors: pinhole cameras, spinning lidars, and the truth of who sees what.

A camera picture of 480x270 costs about 50 ms with shadows, a 32-beam sweep of 13,000 beams about 20 ms. A sweep is
fired beam by beam while the vehicle moves; each slice of it meets the world (and fires from the pose) of its own time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.shapes import Int32, invert
from brickyard.ingest.simulate.world import MISS, Hits, Snapshot, Trajectory, World
from brickyard.shards.scene import Float32, Float64

NOTHING = 255
"""Class of a pixel that shows the sky, in every truth image."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera with pixel centres at whole numbers; `intrinsics` float64 (3, 3)."""

    width: int
    height: int
    intrinsics: Float64


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`color` uint8 (H, W, 3); `face` int32 (H, W), MISS for the sky; `depth` float32 (H, W) along z, inf: sky."""

    color: NDArray[np.uint8]
    face: Int32
    depth: Float32


@dataclass(frozen=True, kw_only=True)
class LidarModel:
    """A spinning lidar.

    Attributes:
        elevations: degrees of each beam, ring order.
        columns: firings per turn (each fires every beam once).
        period: seconds per turn.
        start: azimuth in degrees of the first firing, counter-clockwise from x of the *vehicle*; it turns clockwise.
        near, far: metres; returns outside are lost.
        noise: metres, deviation of the measured range.
        dropout: share of returns that are lost by chance.
    """

    elevations: tuple[float, ...]
    columns: int
    period: float
    start: float
    near: float = 0.4
    far: float = 80.0
    noise: float = 0.02
    dropout: float = 0.03


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """N returns in firing order.

    Attributes:
        xyz: float32 (N, 3) in the sensor frame of the reference time (motion of the vehicle taken out).
        xyz_raw: float32 (N, 3) in the sensor frame of each return's own time.
        intensity: float32 (N,) 0..1; ring: uint8 (N,); offset: float32 (N,) seconds relative to the reference time.
        face: int32 (N,), the triangle that was hit.
        anchor: float64 (N, 3), the hit without noise: world coordinates, or object coordinates on a mover.
    """

    xyz: Float32
    xyz_raw: Float32
    intensity: Float32
    ring: NDArray[np.uint8]
    offset: Float32
    face: Int32
    anchor: Float64


def render(world: World, camera: Camera, world_from_camera: Float64, time: float, rng: np.random.Generator) -> Picture:
    """What a camera sees; `world_from_camera` with OpenCV axes. Depth is along z."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    rotation = world_from_camera[:3, :3] @ np.linalg.inv(camera.intrinsics)
    directions = np.ascontiguousarray((rotation @ pixels).T, np.float32)
    eye, focal = world_from_camera[:3, 3], float(camera.intrinsics[0, 0])
    return look(world, eye, directions, (camera.height, camera.width), time=time, focal=focal, rng=rng)


def look(
    world: World, eye: Float64, directions: Float32, shape: tuple[int, int], *, time: float, focal: float,
    rng: np.random.Generator,
) -> Picture:  # fmt: skip
    """What an eye sees along a ray for each pixel of any camera.

    Args:
        eye: float64 (3,), world coordinates.
        directions: float32 (height * width, 3), row by row; the picture's depth is in lengths of them.
        focal: pixels per radian, for the sharpness of textures.
    """
    origins = np.broadcast_to(eye.astype(np.float32), directions.shape)
    snapshot = world.at(time)
    hits = snapshot.cast(np.ascontiguousarray(origins), directions)
    color = np.empty(directions.shape, np.float32)
    hit, missed = np.flatnonzero(hits.face != MISS), np.flatnonzero(hits.face == MISS)
    color[missed] = _sky(world, directions[missed])
    color[hit] = _shade(snapshot, hits, hit, origins, directions, focal=focal)
    grain = _film_grain(color.size, rng)
    return Picture(
        color=np.clip(color.ravel() + grain, 0, 255).astype(np.uint8).reshape(*shape, 3),
        face=hits.face.reshape(shape),
        depth=hits.distance.reshape(shape),
    )


def _film_grain(count: int, rng: np.random.Generator) -> Float32:
    """Sensor noise of about 2 grey levels; a short table repeated from a random start, which is ten times faster."""
    table = rng.normal(0, 2, 8191).astype(np.float32)
    return np.resize(table, count)


def _sky(world: World, directions: Float32) -> Float32:
    light = world.light
    norm = np.sqrt(np.einsum("ij,ij->i", directions, directions))
    up = np.clip(directions[:, 2] / norm, 0, 1)[:, None] ** 0.6
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    return np.asarray(horizon + up * (zenith - horizon), dtype=np.float32)


def _shade(
    snapshot: Snapshot, hits: Hits, hit: NDArray[np.intp], origins: Float32, directions: Float32, *, focal: float
) -> Float32:
    """Colours float32 (K, 3) in 0..255 of the rays that hit something."""
    world, light = snapshot.world, snapshot.world.light
    face, distance, ray = hits.face[hit], hits.distance[hit], directions[hit]
    mapping, bary, normal = world.texture_map[face], hits.bary[hit], snapshot.normal[face]
    texture = mapping[:, :2] + bary[:, :1] * mapping[:, 2:4] + bary[:, 1:] * mapping[:, 4:]
    facing = np.abs(np.einsum("ij,ij->i", normal, ray)) / np.sqrt(np.einsum("ij,ij->i", ray, ray))
    footprint = distance / (focal * np.sqrt(np.maximum(facing, 0.05)))
    color = world.atlas.look_up(world.material[face], texture, footprint)
    ambient, direct = shading(snapshot)
    strength = ambient[face]
    lit = np.flatnonzero(direct.any(1)[face])
    if len(lit):
        start = origins[hit[lit]] + ray[lit] * distance[lit, None] + normal[lit] * 0.02
        sun = np.broadcast_to(light.towards_sun.astype(np.float32), start.shape)
        lit = lit[~snapshot.blocked(start, np.ascontiguousarray(sun))]
        strength[lit] += direct[face[lit]]
    color *= strength
    clear = np.exp(-distance / np.float32(light.haze))[:, None]
    color *= clear
    color += np.array(light.horizon, np.float32) * (1 - clear)
    return color


def shading(snapshot: Snapshot) -> tuple[Float32, Float32]:
    """What each triangle's texture is multiplied by, float32 (F, 3) each: in shadow, and added to that in the sun.

    Ambient light is a little stronger on faces that look up; the sun's share follows Lambert's cosine.
    """
    light, normal = snapshot.world.light, snapshot.normal
    tint = snapshot.world.tint[: len(normal)]
    up = 0.75 + 0.25 * normal[:, 2] + 0.06 * normal[:, 0]
    cosine = np.maximum(normal @ light.towards_sun.astype(np.float32), 0)
    ambient, sun = (np.array(c, np.float32) for c in (light.ambient, light.sun))
    return tint * ambient * up[:, None], tint * sun * cosine[:, None]


def fire(
    world: World, model: LidarModel, world_from_sensor: Trajectory, start: float, *, reference: float, yaw: float,
    rng: np.random.Generator, slices: int = 6,
) -> Sweep:  # fmt: skip
    """One turn of a lidar.

    Args:
        world_from_sensor: pose of the sensor at any time.
        start: time in seconds of the first firing; the turn takes `model.period`.
        reference: time whose sensor frame `Sweep.xyz` is in.
        yaw: degrees of the vehicle's x axis in the sensor frame, counter-clockwise.
    """
    to_reference = invert(world_from_sensor(reference))
    parts = []
    for columns in np.array_split(np.arange(model.columns), slices):
        times = start + model.period * columns / model.columns
        poses = np.stack([world_from_sensor(float(t)) for t in times])
        snapshot = world.at(float(times[len(times) // 2]), with_hidden=True)
        parts.append(
            _fire_slice(
                snapshot, model, columns, poses, times, reference=reference, yaw=yaw, to_reference=to_reference, rng=rng
            )
        )
    return Sweep(**{key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def _fire_slice(
    snapshot: Snapshot, model: LidarModel, columns: NDArray[np.intp], poses: Float64, times: Float64, *,
    reference: float,
    yaw: float, to_reference: Float64, rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:  # fmt: skip
    beams = len(model.elevations)
    azimuth = np.radians(model.start + yaw - 360 * columns / model.columns)[:, None]
    elevation = np.radians(np.array(model.elevations))[None, :]
    level = np.cos(elevation)
    local = np.stack(
        [np.cos(azimuth) * level, np.sin(azimuth) * level, np.broadcast_to(np.sin(elevation), (len(columns), beams))],
        -1,
    )
    world_rays = np.einsum("cij,cbj->cbi", poses[:, :3, :3], local).reshape(-1, 3)
    origins = np.repeat(poses[:, :3, 3], beams, axis=0)
    hits = snapshot.cast(origins.astype(np.float32), world_rays.astype(np.float32))
    noisy = hits.distance + rng.normal(0, model.noise, len(hits.face)).astype(np.float32)
    kept = (hits.face != MISS) & (noisy > model.near) & (noisy < model.far) & (rng.random(len(noisy)) > model.dropout)
    index = np.flatnonzero(kept)
    face, ray = hits.face[index], world_rays[index]
    measured = origins[index] + ray * noisy[index, None]
    anchor = origins[index] + ray * hits.distance[index, None].astype(np.float64)
    _into_objects(snapshot.world, anchor, face, float(times[len(times) // 2]))
    return {
        "xyz": (measured @ to_reference[:3, :3].T + to_reference[:3, 3]).astype(np.float32),
        "xyz_raw": (local.reshape(-1, 3)[index] * noisy[index, None]).astype(np.float32),
        "intensity": _intensity(snapshot, face, ray, rng),
        "ring": np.tile(np.arange(beams, dtype=np.uint8), len(columns))[index],
        "offset": (np.repeat(times, beams)[index] - reference).astype(np.float32),
        "face": face,
        "anchor": anchor,
    }


def _intensity(snapshot: Snapshot, face: Int32, rays: Float64, rng: np.random.Generator) -> Float32:
    """Returned power 0..1: reflectance, angle of incidence and brightness of the paint, with generous speckle."""
    world = snapshot.world
    cosine = np.abs(np.einsum("ij,ij->i", snapshot.normal[face], rays))
    paint = 0.4 + 0.6 * world.tint[face].mean(1)
    power = world.atlas.reflectance[world.material[face]] * paint * (0.3 + 0.7 * cosine)
    return np.asarray(np.clip(power * rng.lognormal(0, 0.3, len(face)), 0, 1), dtype=np.float32)


def _into_objects(world: World, points: Float64, face: Int32, time: float) -> None:
    owner = world.owner[face]
    for mover in np.unique(owner[owner != MISS]):
        pose = invert(world.movers[mover].trajectory(time))
        chosen = owner == mover
        points[chosen] = points[chosen] @ pose[:3, :3].T + pose[:3, 3]


def anchors_at(world: World, sweep: Sweep, time: float) -> Float64:
    """World coordinates float64 (N, 3) at a time of the surface spots that a sweep hit: those on movers move along."""
    points, owner = sweep.anchor.copy(), world.owner[sweep.face]
    for mover in np.unique(owner[owner != MISS]):
        pose = world.movers[mover].trajectory(time)
        chosen = owner == mover
        points[chosen] = points[chosen] @ pose[:3, :3].T + pose[:3, 3]
    return points


def visible(
    world: World,
    camera: Camera,
    world_from_camera: Float64,
    time: float,
    points: Float64,
    *,
    near: float = 0.5,
    slack: float = 0.05,
) -> NDArray[np.bool_]:
    """Whether world points (N, 3) lie in the picture of a camera with nothing in front of them; bool (N,).

    A ray is cast to each point; a surface more than `slack` metres + a tenth of that per metre before it hides it.
    """
    to_camera = invert(world_from_camera)
    local = points @ to_camera[:3, :3].T + to_camera[:3, 3]
    ahead = np.flatnonzero(local[:, 2] > near)
    pixel = local[ahead] @ camera.intrinsics.T
    pixel = pixel[:, :2] / pixel[:, 2:]
    inside = ((pixel > -0.5) & (pixel < (camera.width - 0.5, camera.height - 0.5))).all(1)
    candidates = ahead[inside]
    result = np.zeros(len(points), np.bool_)
    if len(candidates):
        rays = points[candidates] - world_from_camera[:3, 3]
        origins = np.broadcast_to(world_from_camera[:3, 3], rays.shape).astype(np.float32)
        hits = world.at(time).cast(np.ascontiguousarray(origins), rays.astype(np.float32))
        length = np.linalg.norm(rays, axis=1)
        result[candidates] = hits.distance * length > length - slack * (1 + 0.1 * length)
    return result
