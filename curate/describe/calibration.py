"""Whether points and pictures lie on each other: the same scene with its cameras turned by small angles fits worse.

Where a beam leaves one surface for another behind it, pictures have an edge (Levinson and Thrun, RSS 2013). The nearer
points of such places are projected, and the strength of the picture's edges is read where they fall, for the cameras as
they are and turned about their vertical axis by up to 3 degrees. Where there are depth images, distances say it better:
the share of points that lie where the depth image has a surface. `gain` compares the cameras as they are with the
turned ones; `off_degrees` is the angle that fits best, 0 where all is well.

One scene says it faintly, some dozen of one vehicle say it well: the median over a sequence is what one should judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.curate.describe.images import Pixels
from brickyard.shards.cameras import depth_camera, project
from brickyard.shards.scene import Float32, Float64, Scene, View

FIGURES: Mapping[str, tuple[str, str, int]] = {
    "edge_gain": ("1", "edges of pictures at edges of the cloud, over those with cameras turned by 1 to 3 degrees, "
                  "less one; 0 and below: they do not belong to each other", 1),
    "edge_off_degrees": ("degrees", "the turn of the cameras about their vertical axis that fits edges best", 1),
    "depth_gain": ("1", "share of points on the surfaces of depth images, over that with cameras turned by 1 to 3 "
                   "degrees, less one", 1),
    "depth_off_degrees": ("degrees", "the turn of the cameras that fits depth images best", 1),
    "depth_agreement": ("share", "points in sight of a depth image that lie on its surface, to 5 cm and 2 %", 1),
}  # fmt: skip
TURNS = np.arange(-12, 13) / 4
FAR = np.abs(TURNS) >= 1
NEIGHBOURS, STEP_SHARE, STEP_M, BETWEEN = 8, 0.1, 0.5, 7
LEAST_EDGES, MOST_POINTS = 40, 3000
NEAR_M, NEAR_SHARE = 0.05, 0.02


def describe_calibration(scene: Scene, seen: Sequence[tuple[View, Pixels]]) -> dict[str, float]:
    """The figures of some views with their decoded pictures; none without points, or where no view has a pose."""
    if scene.points is None or not len(scene.points):
        return {}
    posed = [(view, one) for view, one in seen if view.scene_from_camera is not None]
    found: dict[str, float] = {}
    depths = [curve for view, _ in posed if (curve := _depth_curve(scene.points.xyz, view)) is not None]
    if depths:
        found |= _told("depth", depths) | {"depth_agreement": float(np.mean(depths, axis=0)[len(TURNS) // 2])}
    elif scene.identity.domain == "outdoor":
        edges = [curve for view, one in posed if (curve := _edge_curve(scene.points.xyz, view, one)) is not None]
        found |= _told("edge", edges) if edges else {}
    return found


def _told(name: str, curves: Sequence[Float64]) -> dict[str, float]:
    curve = np.mean(curves, axis=0)
    elsewhere = float(curve[FAR].mean())
    gain = float(curve[len(TURNS) // 2] / elsewhere - 1) if elsewhere > 0 else 0.0
    return {f"{name}_gain": gain, f"{name}_off_degrees": float(abs(TURNS[int(curve.argmax())]))}


def _turned(view: View, degrees: float) -> View:
    assert view.scene_from_camera is not None
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])
    return replace(view, scene_from_camera=view.scene_from_camera @ turn)


def _curve(score: Callable[[View], float], view: View) -> Float64:
    return np.array([score(_turned(view, degrees)) for degrees in TURNS])


def _depth_curve(xyz: Float32, view: View) -> Float64 | None:
    """Share of points on the surface of the depth image, for every turn."""
    depth = view.depth
    if depth is None:
        return None
    metres = depth.values * depth.scale
    thin = xyz[:: max(1, len(xyz) // MOST_POINTS)]

    def score(turned: View) -> float:
        seen = project(thin, turned)
        places = np.rint(seen.uv)
        inside = _inside(places, turned.width, turned.height)
        column, row = places[inside].astype(int).T
        measured, wanted = metres[row, column], seen.along(depth.along)[inside]
        known = measured > 0
        if known.sum() < LEAST_EDGES:
            return 0.0
        return float((np.abs(measured - wanted) < NEAR_M + NEAR_SHARE * wanted)[known].mean())

    curve = _curve(score, depth_camera(view, depth))
    return curve if curve.max() > 0 else None


def _edge_curve(xyz: Float32, view: View, picture: Pixels) -> Float64 | None:
    """Strength of the picture's upright edges at the edges of the cloud, for every turn."""
    near, far = _edge_points(xyz, view)
    if len(near) < LEAST_EDGES:
        return None
    strength, scale = _edges(picture), picture.shape[1] / view.width
    last = np.array(strength.shape[::-1]) - 1

    def score(turned: View) -> float:
        """The picture's edge lies somewhere between the last point of one surface and the first of the other."""
        one, other = project(near, turned).uv, project(far, turned).uv
        inside = _inside(one, view.width, view.height) & _inside(other, view.width, view.height)
        if inside.sum() < LEAST_EDGES:
            return 0.0
        between = one[inside] + np.linspace(0, 1, BETWEEN)[:, None, None] * (other - one)[inside]
        column, row = np.moveaxis(np.minimum(np.rint(between * scale).astype(int), last), 2, 0)
        return float(strength[row, column].max(axis=0).mean())

    return _curve(score, view)


def _inside(uv: Float64, width: int, height: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(((uv >= 0) & (uv <= np.array([width - 1, height - 1]))).all(axis=1))


def _edge_points(xyz: Float32, view: View) -> tuple[Float32, Float32]:
    """Neighbours (E, 3) and (E, 3) in the image, side by side, of which the second lies a step behind the first."""
    from scipy.spatial import KDTree

    seen = project(xyz, view)
    inside = np.flatnonzero(_inside(seen.uv, view.width, view.height))
    if len(inside) <= NEIGHBOURS:
        return xyz[:0], xyz[:0]
    uv, reach = seen.uv[inside], seen.distance[inside]
    found = KDTree(uv).query(uv, NEIGHBOURS + 1)[1][:, 1:]
    across, along = np.moveaxis(np.abs(uv[found] - uv[:, None]), 2, 0)
    step = reach[found] > (reach + np.maximum(STEP_M, STEP_SHARE * reach))[:, None]
    near, which = np.nonzero(step & (across > 2 * along))
    far = found[near, which]
    few = slice(None, None, max(1, len(near) // MOST_POINTS))
    return xyz[inside[near[few]]], xyz[inside[far[few]]]


def _edges(picture: Pixels) -> Float32:
    """float32 (h, w), 0 to 1: the horizontal gradient against its surroundings."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
    gradient = np.zeros_like(grey)
    gradient[:, 1:-1] = np.abs(grey[:, 2:] - grey[:, :-2])
    ceiling = float(np.percentile(gradient, 95)) or 1.0
    return np.minimum(gradient / ceiling, 1)
