"""What a scene is known by when it comes again: hashes of its pictures, a signature of its shape, and its place.

A hash is 64 bits of the picture's lowest frequencies (the perceptual hash of Zauner, 2010): another compression, size
or a little noise changes few bits. The signature is of the cloud alone and stays nearly the same when a room is scanned
again, from other places and in another frame: it does not change with a turn about the vertical, a shift, or the number
of points. Both say "look closer", neither is a proof.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from brickyard.curate.describe.images import BLANK, Pixels
from brickyard.shards.scene import Float32, Float64, Scene

SIDE, LOWEST = 32, 8
DISTANCES, HEIGHTS, RINGS = 24, 16, 16
SIGNATURE = DISTANCES + HEIGHTS + 2 * RINGS
"""Numbers of a signature: distances of points to each other, heights, floor covered and height above it by rings."""
_PAIRS = 20_000
_SIZES = {"outdoor": (0.5, 60.0, 10.0), "object": (0.02, 2.0, 2.0)}
"""Metres by domain: side of a voxel, reach of the rings, top of the heights."""
_ROOM = (0.1, 10.0, 4.0)
_COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(LOWEST), np.arange(SIDE) + 0.5))


def picture_hashes(pictures: Sequence[Pixels]) -> list[int]:
    """One 64-bit hash for each picture that shows anything."""
    found = []
    for one in pictures:
        grey = np.asarray(Image.fromarray(one).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
        if grey.std() < BLANK:
            continue
        waves = (_COSINES @ grey @ _COSINES.T).ravel()
        bits = waves > np.median(waves[1:])
        bits[0] = grey.mean() > 127  # the mean itself says little
        found.append(int.from_bytes(np.packbits(bits).tobytes(), "big"))
    return found


def shape_signature(scene: Scene) -> Float32 | None:
    """float32 (SIGNATURE,), of length 1; None without points."""
    points, domain = scene.points, scene.identity.domain
    if points is None or len(points) < 2:
        return None
    voxel, reach, top = _SIZES.get(domain, _ROOM)
    xyz = _thinned(points.xyz, voxel)
    floor = np.percentile(xyz[:, 2], 2)
    height = np.clip(xyz[:, 2] - floor, 0, top)
    centre = (np.percentile(xyz[:, :2], 1, axis=0) + np.percentile(xyz[:, :2], 99, axis=0)) / 2
    if domain == "outdoor":
        centre = np.zeros(2)  # where the vehicle stood
    out = np.hypot(*(xyz[:, :2] - centre).T)
    rng = np.random.default_rng(0)  # which pairs is no matter; the same ones in every run
    one, other = rng.integers(0, len(xyz), (2, _PAIRS))
    apart = np.linalg.norm(xyz[one] - xyz[other], axis=1)
    ring = np.minimum((out / reach * RINGS).astype(int), RINGS - 1)
    count = np.bincount(ring, minlength=RINGS)
    blocks: list[Float64] = [
        np.histogram(np.minimum(apart, 2 * reach - 1e-6), DISTANCES, (0, 2 * reach))[0].astype(np.float64),
        np.histogram(height, HEIGHTS, (0, top))[0].astype(np.float64),
        count.astype(np.float64),
        np.bincount(ring, height, RINGS) / np.maximum(count, 1),
    ]
    whole = np.concatenate([np.sqrt(block / max(block.sum(), 1e-9)) for block in blocks])  # Hellinger: cosines compare
    return np.asarray(whole / np.linalg.norm(whole), np.float32)


def world_place(scene: Scene) -> list[float] | None:
    """Where a scene lies in its dataset's world, metres: a sweep's origin, the middle of a room, a clip's first camera.

    Rooms of most datasets have a world each: places compare within a sequence only.
    """
    local = np.zeros(3)
    if scene.identity.domain != "outdoor":
        if scene.points is not None and len(scene.points):
            local = np.median(scene.points.xyz, axis=0).astype(np.float64)
        elif scene.views and (pose := scene.views[0].scene_from_camera) is not None:
            local = pose[:3, 3]
        else:
            return None
    world = scene.world_from_scene
    return [float(v) for v in world[:3, :3] @ local + world[:3, 3]]


def _thinned(xyz: Float32, voxel: float) -> Float32:
    """One point of every voxel, the first; so that a cloud twice as dense has the same signature."""
    cells = np.floor(xyz / voxel).astype(np.int64)
    cells -= cells.min(axis=0)
    width, depth = cells[:, 0].max() + 1, cells[:, 1].max() + 1
    _, first = np.unique((cells[:, 2] * depth + cells[:, 1]) * width + cells[:, 0], return_index=True)
    thin: Float32 = xyz[np.sort(first)]
    return thin


def compact(values: Float32) -> list[float]:
    """As float16, in which descriptors are kept."""
    return [float(v) for v in np.asarray(values, np.float16)]
