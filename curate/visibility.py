"""Which projected points does the camera really see? Two tests, vectorised.

A depth image answers directly: the point is seen if the surface measured at its pixel is at its depth. Without one (or
where it measured nothing) the points themselves are the occluders. Lidar and camera look from different places, so a
sweep holds far points that the lidar saw past an object and that the object hides from the camera. The object is known
only by a few beams, and background shows between them in the picture; so each point is drawn into a z-buffer as a
rectangle of the size of the surface patch it stands for (surface splatting: Zwicker et al., SIGGRAPH 2001), and a
point is hidden where the buffer is nearer by more than a tolerance.

The patch of a lidar point spans half way to the neighbouring beams, which fan out from the sensor at fixed angles; the
patch of a scanned vertex spans half way to its nearest neighbours. Cost: about 10 ms a camera for a nuScenes sweep, 20
ms for its spacing, 0.2 s for the spacing of a room of 80,000 vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.cameras import Projection, depth_camera, pixels_per_radian, project
from brickyard.shards.errors import RecipeError
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import Float32, Float64, Scene, View

Bools = NDArray[np.bool_]

MAX_SPLAT_CELLS = 16
"""A splat reaches at most this many cells from its centre: bounds the work for points right before the lens."""
MAX_DRAWN = 1 << 22
"""Cells drawn at once: bounds memory."""


@dataclass(frozen=True, kw_only=True)
class VisibilityConfig:
    """Tolerances of the depth tests.

    Attributes:
        image_absolute, image_relative: a depth image agrees with a point within
            max(image_absolute metres, image_relative * depth).
        splat_absolute, splat_relative, splat_slack: a splat hides a point that lies further behind than
            max(splat_absolute metres, splat_relative * depth, splat_slack * narrow side of the point's patch). The
            slack keeps a coarsely sampled surface seen at a grazing angle from hiding itself.
        splat_scale: size of a splat in units of the point's patch; above 1 closes the gaps of irregular sampling.
    """

    image_absolute: float = 0.05
    image_relative: float = 0.02
    splat_absolute: float = 0.05
    splat_relative: float = 0.02
    splat_slack: float = 3.0
    splat_scale: float = 1.25

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise RecipeError(f"visibility: tolerances and splat_scale must not be negative, found {self}")

    def describe(self, *, with_depth_image: bool) -> str:
        """The provenance of a `visible` flag."""
        limits = f"max({self.splat_absolute:g}m, {self.splat_relative:g}*z, {self.splat_slack:g}*spacing)"
        splats = f"splats scale={self.splat_scale:g} tolerance={limits}"
        image = f"depth image tolerance=max({self.image_absolute:g}m, {self.image_relative:g}*z), unmeasured: "
        return image + splats if with_depth_image else splats


def visible_points(
    scene: Scene, view: View, chosen: NDArray[np.intp], seen: Projection, *, spacing: Float32, config: VisibilityConfig
) -> Bools:
    """The flag of each chosen point of a view.

    Args:
        chosen: (P,) indices of the points that project into the image.
        seen: their projection, P rows.
        spacing: (N, 2) of all points, from `point_spacing`.
    """
    # A fisheye sees beyond 90 degrees, where depth along z orders nothing; distance orders everywhere.
    reach = seen.along("ray" if LENSES[view.camera_model].wide else "z")
    half = 0.5 * config.splat_scale * spacing[chosen] * np.array(pixels_per_radian(view)) / reach[:, None]
    tolerance = np.maximum.reduce(
        [
            np.full(len(reach), config.splat_absolute),
            config.splat_relative * reach,
            config.splat_slack * spacing[chosen].min(axis=1),
        ]
    )
    if view.depth is None or scene.points is None:
        return splat_test(seen.uv, reach, half, tolerance, (view.width, view.height))
    agrees, measured = _depth_image_test(scene.points.xyz[chosen], view, config)
    if measured.all():
        return agrees
    return np.where(measured, agrees, splat_test(seen.uv, reach, half, tolerance, (view.width, view.height)))


def _depth_image_test(xyz: Float32, view: View, config: VisibilityConfig) -> tuple[Bools, Bools]:
    """(agrees, measured) for points (P, 3): is the surface at the point's pixel of the depth image at its depth?"""
    assert view.depth is not None
    values = view.depth.values
    seen = project(xyz, depth_camera(view, view.depth))
    pixel = np.rint(np.nan_to_num(seen.uv, nan=-1.0, posinf=-1.0, neginf=-1.0))
    inside = ((pixel >= 0) & (pixel < values.shape[::-1])).all(axis=1)
    column, row = np.where(inside[:, None], pixel, 0).astype(np.intp).T
    surface = np.where(inside, values[row, column], 0) * view.depth.scale if values.size else np.zeros(len(xyz))
    reach = seen.along(view.depth.along)
    tolerance = np.maximum(config.image_absolute, config.image_relative * reach)
    return np.abs(reach - surface) <= tolerance, surface > 0


def splat_test(uv: Float64, reach: Float64, half: Float64, tolerance: Float64, size: tuple[int, int]) -> Bools:
    """Draw all points into a z-buffer and test each against it.

    Args:
        uv: (P, 2) pixels inside the image.
        reach: (P,) metres, what the buffer orders by.
        half: (P, 2) half width and half height of the splats in pixels.
        tolerance: (P,) metres a point may lie behind the buffer.
        size: (width, height) of the image.
    """
    if len(uv) == 0:
        return np.zeros(0, np.bool_)
    # About three cells to the narrow side of a typical splat: coarse enough to be fast, fine enough to keep its shape.
    cell = float(np.clip(0.7 * np.median(half.min(axis=1)), 1.0, 16.0))
    grid = np.array([int((side + 1) / cell) + 1 for side in size])
    place = (uv + 0.5) / cell
    own = np.clip(np.floor(place).astype(np.intp), 0, grid - 1)
    first = np.ceil(place - half / cell - 0.5).clip(own - MAX_SPLAT_CELLS, own).clip(0).astype(np.intp)
    last = np.floor(place + half / cell - 0.5).clip(own, own + MAX_SPLAT_CELLS).clip(0, grid - 1).astype(np.intp)
    buffer = np.full(int(grid.prod()), np.inf)
    far_to_near = np.argsort(-reach, kind="stable")
    _draw(buffer, int(grid[0]), first[far_to_near], last[far_to_near], reach[far_to_near])
    visible: Bools = reach <= buffer[own[:, 1] * grid[0] + own[:, 0]] + tolerance
    return visible


def _draw(buffer: Float64, columns: int, first: NDArray[np.intp], last: NDArray[np.intp], reach: Float64) -> None:
    """Fill the cells first..last (column, row) of each splat; the nearest comes last, so it stays."""
    span = last - first + 1
    cells = span.prod(axis=1)
    step = max(1, MAX_DRAWN // int(cells.max()))
    for start in range(0, len(reach), step):
        part = slice(start, start + step)
        owner = np.repeat(np.arange(len(cells[part])), cells[part])
        inner = np.arange(len(owner)) - np.repeat(np.cumsum(cells[part]) - cells[part], cells[part])
        wide = span[part, 0][owner]
        row, column = first[part, 1][owner] + inner // wide, first[part, 0][owner] + inner % wide
        buffer[row * columns + column] = reach[part][owner]


def point_spacing(scene: Scene) -> Float32:
    """Size (N, 2) in metres, horizontal and vertical, of the surface patch each point stands for.

    Outdoor scenes are taken for lidar sweeps seen from the scene's origin, all others for scanned surfaces.
    """
    assert scene.points is not None
    xyz = scene.points.xyz
    if len(xyz) < 2:
        return np.zeros((len(xyz), 2), np.float32)
    return _beam_spacing(xyz) if scene.identity.domain == "outdoor" else _surface_spacing(xyz)


def _surface_spacing(xyz: Float32) -> Float32:
    """Mean distance to the (up to) four nearest other points, the same in both directions."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(xyz).query(xyz, k=min(5, len(xyz)))
    mean = distances[:, 1:].mean(axis=1, dtype=np.float64)
    return np.repeat(mean[:, None], 2, axis=1).astype(np.float32)


def _beam_spacing(xyz: Float32) -> Float32:
    """Range times the angles between neighbouring beams, which are medians over the sweep.

    Along a ring beams are dense, so the angle to the nearest neighbour is the horizontal step. In azimuth strips one
    such step wide each ring leaves about one point, so gaps in elevation are the vertical step; gaps below half a
    horizontal step are two points of one ring.
    """
    from scipy.spatial import cKDTree

    distance = np.linalg.norm(xyz.astype(np.float64), axis=1)
    direction = xyz / np.maximum(distance, 1e-6)[:, None]
    sample = direction[:: max(1, len(xyz) // 4096)]
    horizontal = float(np.median(cKDTree(direction).query(sample, k=2)[0][:, 1]))
    elevation = np.arcsin(direction[:, 2].clip(-1, 1))
    strip = np.floor(np.arctan2(direction[:, 1], direction[:, 0]) / max(horizontal, 1e-5))
    order = np.lexsort((elevation, strip))
    gap = np.diff(elevation[order])[np.diff(strip[order]) == 0]
    gap = gap[gap > horizontal / 2]
    vertical = float(np.median(gap)) if len(gap) else horizontal
    spacing: Float32 = np.stack([distance * horizontal, distance * vertical], axis=1).astype(np.float32)
    return spacing
