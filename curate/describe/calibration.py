"""Whether points and pictures lie on each other: the same scene with its cameras turned by small angles fits worse.

The cameras are turned about each of their own axes by up to 3 degrees, all by the same angle, and asked how well points
and pictures fit (`fits`). The angle that fits best is 0 where all is well. One sweep of a lidar says it to some tenths
of a degree: judge the median over its drive, which is why the angles have a sign. A depth image says it to a twentieth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from brickyard.curate.describe.fits import Fit, brightness_fit, depth_fit, edge_fit
from brickyard.curate.describe.images import Pixels
from brickyard.shards.scene import Float64, Points, Scene, View

FIGURES: Mapping[str, tuple[str, str, int]] = {
    "pitch_off_degrees": ("degrees", "by how much cameras are turned about their x axis from where points fit best; "
                          "not for points with neither intensity nor depth images", 1),
    "yaw_off_degrees": ("degrees", "the same about the y axis; only where points are seen by posed cameras", 1),
    "roll_off_degrees": ("degrees", "the same about the z axis, along which they look", 1),
    "fit_gain": ("1", "by how much cameras as they are fit better than those turned by 1 to 3 degrees, about the axis "
                 "for which that is least; at 0 and below points and pictures do not belong to each other", 1),
}  # fmt: skip
TURNS = np.arange(-6, 7) / 2
"""Degrees."""
_FAR = np.abs(TURNS) >= 1
_HERE = len(TURNS) // 2
_NAMES = ("pitch", "yaw", "roll")
_AXES = ((1, 2), (2, 0), (0, 1))
_SIDEWAYS = np.array([[0.0], [1], [1]])  # upright edges say nothing of the pitch


def describe_calibration(scene: Scene, seen: Sequence[tuple[View, Pixels]]) -> dict[str, float]:
    """The figures of some views with their decoded pictures; none without points, or where no view has a pose."""
    points = scene.points
    if points is None or not len(points):
        return {}
    curves: dict[str, list[Float64]] = {}
    for view, picture in seen:
        if view.scene_from_camera is not None:
            for name, fit in _fits(points, view, picture, outdoor=scene.identity.domain == "outdoor"):
                curves.setdefault(name, []).append(_curves(fit, view))
    whole = {name: _relative(np.mean(each, axis=0)) for name, each in curves.items()}
    if "edges" in whole:
        whole["edges"] = whole["edges"] * _SIDEWAYS
    if not whole:
        return {}
    told = np.sum(list(whole.values()), axis=0)
    known = [axis for axis in range(3) if told[axis].any()]
    gains = [float(told[axis, _HERE] - told[axis, _FAR].mean()) for axis in known]
    return {f"{_NAMES[axis]}_off_degrees": _best(told[axis]) for axis in known} | {"fit_gain": min(gains, default=0.0)}


def _fits(points: Points, view: View, picture: Pixels, *, outdoor: bool) -> Iterator[tuple[str, Fit]]:
    """Depth images where there are any; outdoors, where points are a laser's, brightness and edges."""
    if (fit := depth_fit(points, view)) is not None:
        yield "depth", fit
    elif outdoor:
        if (fit := brightness_fit(points, view, picture)) is not None:
            yield "brightness", fit
        if (fit := edge_fit(points, view, picture)) is not None:
            yield "edges", fit


def _curves(fit: Fit, view: View) -> Float64:
    """float64 (3, T): about each axis, by every angle."""
    here = fit(view)
    return np.array([
        [here if degrees == 0 else fit(_turned(view, axis, degrees)) for degrees in TURNS.tolist()] for axis in range(3)
    ])  # fmt: skip


def _turned(view: View, axis: int, degrees: float) -> View:
    """The camera turned about an axis of its own."""
    assert view.scene_from_camera is not None
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn, (i, j) = np.eye(4), _AXES[axis]
    turn[[i, j], [i, j]], turn[i, j], turn[j, i] = c, -s, s
    return replace(view, scene_from_camera=view.scene_from_camera @ turn)


def _relative(curves: Float64) -> Float64:
    """Each over its mean, less one."""
    mean = curves.mean(axis=1, keepdims=True)
    return np.where(mean > 0, curves / np.where(mean > 0, mean, 1) - 1, 0.0)


def _best(curve: Float64) -> float:
    """Degrees that the cameras are off by: the turn that fits best, taken back; by a parabola through the largest value
    and its neighbours."""
    k = int(curve.argmax())
    if k in (0, len(curve) - 1):
        return float(-TURNS[k])
    before, top, after = curve[k - 1 : k + 2]
    bend = before - 2 * top + after
    return float(-(TURNS[k] + (TURNS[1] - TURNS[0]) / 2 * ((before - after) / bend if bend < 0 else 0)))
