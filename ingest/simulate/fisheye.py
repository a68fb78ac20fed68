"""A simulated fisheye camera: the rays of its pixels by the model of Mei and Rives, solved backwards.

Forward, a ray goes onto the unit sphere, from there to a plane as seen from xi behind the centre, is distorted (k1 k2
p1 p2) and scaled into pixels. Backwards, the distortion has no formula: it is solved by fixed-point iteration, whose
error shrinks by half or more a step wherever the lens sees. Readers project forward with formulas of their own, so a
mistake here cannot hide behind the same mistake there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.sensors import Picture, look
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float64

_STEPS = 120
_EDGE = 0.02
"""Share of the outermost directions that the lens does not pass: there one pixel would see half the horizon."""


@dataclass(frozen=True, kw_only=True)
class Fisheye:
    """A square fisheye camera: `size` pixels wide and high, the other values as in KITTI-360's calibration files."""

    size: int
    xi: float
    k1: float
    k2: float
    p1: float
    p2: float
    gamma1: float
    gamma2: float
    u0: float
    v0: float

    def rays(self) -> tuple[Float64, NDArray[np.bool_]]:
        """Unit directions (size * size, 3) in the camera's frame, row by row, and whether the lens sees anything."""
        u, v = (axis.ravel().astype(np.float64) for axis in np.meshgrid(np.arange(self.size), np.arange(self.size)))
        x, y = self._undistort((u - self.u0) / self.gamma1, (v - self.v0) / self.gamma2)
        r2 = x * x + y * y
        root = 1 + (1 - self.xi**2) * r2
        with np.errstate(invalid="ignore"):
            seen = np.isfinite(root) & (root > _EDGE)
            scale = (self.xi + np.sqrt(np.maximum(root, 0))) / (r2 + 1)
            rays = np.stack([scale * x, scale * y, scale - self.xi], axis=1)
        rays[~seen] = (0, 0, 1)
        return rays, seen

    def _undistort(self, u: Float64, v: Float64) -> tuple[Float64, Float64]:
        x, y = u.copy(), v.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_STEPS):
                r2 = x * x + y * y
                factor = 1 + self.k1 * r2 + self.k2 * r2 * r2
                bend_x = 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x)
                bend_y = self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y
                x, y = (u - bend_x) / factor, (v - bend_y) / factor
        return x, y


def photograph(
    world: World, camera: Fisheye, world_from_camera: Float64, time: float, rng: np.random.Generator
) -> Picture:
    """What the fisheye sees, black outside the lens's circle. Depth is the distance along each ray."""
    rays, seen = camera.rays()
    directions = np.ascontiguousarray(rays @ world_from_camera[:3, :3].T, np.float32)
    shape, focal = (camera.size, camera.size), camera.gamma1 / (1 + camera.xi)
    picture = look(world, world_from_camera[:3, 3], directions, shape, time=time, focal=focal, rng=rng)
    dark = ~seen.reshape(shape)
    picture.color[dark] = 0
    picture.face[dark] = MISS
    picture.depth[dark] = np.inf
    return picture
