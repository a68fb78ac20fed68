"""How well points and one picture lie on each other, as numbers that are largest where the camera is right.

Three ways, each a function of the view so that a turned one can be asked, too:
* depth images: how near points lie to the surface that was measured (1 on it, 0 at 5 cm and 1 % and beyond);
* brightness: what a laser gets back from a surface tells something of what a camera sees of it, as bits of mutual
  information between the ranks of both (Pandey et al., AAAI 2012);
* edges: where a beam leaves one surface for another behind it, pictures have an edge (Levinson and Thrun, RSS 2013);
  its strength is read between the last point of one and the first of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.curate.describe.images import Pixels
from brickyard.shards.cameras import Projection, depth_camera, project
from brickyard.shards.scene import Float32, Float64, Points, View

Fit = Callable[[View], float]
LEAST_PLACES = 40
_DEPTH_POINTS, _BRIGHT_POINTS, _EDGES = 3000, 6000, 1000
_NEAR_M, _NEAR_SHARE = 0.05, 0.01
_LEVELS = 16
_NEIGHBOURS, _STEP_SHARE, _STEP_M, _BETWEEN = 8, 0.1, 0.5, 7


def depth_fit(points: Points, view: View) -> Fit | None:
    """0 to 1; None without a depth image."""
    depth = view.depth
    if depth is None:
        return None
    metres, xyz = depth.values * depth.scale, _few(points.xyz, _DEPTH_POINTS)

    def fit(turned: View) -> float:
        camera = depth_camera(turned, depth)
        seen = project(xyz, camera)
        inside = _inside(seen, camera)
        column, row = np.rint(seen.uv[inside]).astype(int).T
        measured, wanted = metres[row, column], seen.along(depth.along)[inside]
        known = measured > 0
        if known.sum() < LEAST_PLACES:
            return 0.0
        off = np.abs(measured - wanted) / (_NEAR_M + _NEAR_SHARE * wanted)
        return float(np.maximum(0, 1 - off[known]).mean())

    return fit


def brightness_fit(points: Points, view: View, picture: Pixels) -> Fit | None:
    """Nats; None for points without intensity."""
    if points.intensity is None:
        return None
    near = _few(np.flatnonzero(_inside(project(points.xyz, view), view)), _BRIGHT_POINTS)
    xyz, power = points.xyz[near], points.intensity[near]
    grey = np.asarray(Image.fromarray(picture).convert("L"))

    def fit(turned: View) -> float:
        seen = project(xyz, turned)
        inside = _inside(seen, turned)
        if inside.sum() < LEAST_PLACES:
            return 0.0
        return _shared(_ranks(power[inside]), _ranks(_read(grey, seen.uv[inside], turned)))

    return fit


def edge_fit(points: Points, view: View, picture: Pixels) -> Fit | None:
    """0 to 1, the picture's upright edges at those of the cloud; None where the cloud has too few."""
    near, far = _edge_points(points.xyz, view)
    if len(near) < LEAST_PLACES:
        return None
    strength = _upright_edges(picture)

    def fit(turned: View) -> float:
        one, other = project(near, turned), project(far, turned)
        inside = _inside(one, turned) & _inside(other, turned)
        if inside.sum() < LEAST_PLACES:
            return 0.0
        along = np.linspace(0, 1, _BETWEEN)[:, None, None] * (other.uv - one.uv)[inside]
        return float(_read(strength, one.uv[inside] + along, turned).max(axis=0).mean())

    return fit


def _few(values: NDArray[Any], most: int) -> NDArray[Any]:
    return values[:: max(1, len(values) // most)]


def _inside(seen: Projection, view: View) -> NDArray[np.bool_]:
    column, row = seen.uv.T
    with np.errstate(invalid="ignore"):
        return np.asarray((column >= 0) & (column <= view.width - 1) & (row >= 0) & (row <= view.height - 1))


def _read(values: NDArray[Any], uv: Float64, view: View) -> NDArray[Any]:
    """The nearest pixels of a picture that may be smaller than its view."""
    last = np.array(values.shape[::-1]) - 1
    places = np.minimum(np.rint(uv * (values.shape[1] / view.width)).astype(int), last)
    return np.asarray(values[places[..., 1], places[..., 0]])


def _ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """Each in one of 16 classes that hold as many."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) * _LEVELS // len(values)
    return found


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Mutual information of two rows of classes."""
    joint = np.bincount(one * _LEVELS + other, minlength=_LEVELS**2).reshape(_LEVELS, _LEVELS) / len(one)
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    held = joint > 0
    return float((joint[held] * np.log(joint[held] / alone[held])).sum())


def _edge_points(xyz: Float32, view: View) -> tuple[Float32, Float32]:
    """Neighbours (E, 3) and (E, 3) in the image, side by side, of which the second lies a step behind the first."""
    from scipy.spatial import KDTree

    seen = project(xyz, view)
    inside = np.flatnonzero(_inside(seen, view))
    if len(inside) <= _NEIGHBOURS:
        return xyz[:0], xyz[:0]
    uv, reach = seen.uv[inside], seen.distance[inside]
    found = KDTree(uv).query(uv, _NEIGHBOURS + 1)[1][:, 1:]
    across, along = np.moveaxis(np.abs(uv[found] - uv[:, None]), 2, 0)
    step = reach[found] > (reach + np.maximum(_STEP_M, _STEP_SHARE * reach))[:, None]
    near, which = np.nonzero(step & (across > 2 * along))
    far = found[near, which]
    few = slice(None, None, max(1, len(near) // _EDGES))
    return xyz[inside[near[few]]], xyz[inside[far[few]]]


def _upright_edges(picture: Pixels) -> Float32:
    """float32 (h, w), 0 to 1: the horizontal gradient over its 95th percentile."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
    gradient = np.zeros_like(grey)
    gradient[:, 1:-1] = np.abs(grey[:, 2:] - grey[:, :-2])
    ceiling = float(np.percentile(gradient, 95)) or 1.0
    return np.minimum(gradient / ceiling, 1)
