"""Lenses: directions in the camera's frame -> the plane that the intrinsics K turn into pixels, and back.

  pinhole          (x/z, y/z)
  opencv           the same after Brown's distortion k1 k2 p1 p2 k3
                   (OpenCV, "Camera Calibration and 3D Reconstruction", without the rational terms)
  mei              projection onto the unit sphere, then from a point xi behind its centre, then k1 k2 p1 p2; gamma in K
                   (Mei and Rives, "Single View Point Omnidirectional Camera Calibration from Planar Grids", ICRA 2007)
  fisheye          the angle t to the axis becomes the radius t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8)
                   (Kannala and Brandt, TPAMI 2006; OpenCV's fisheye module, COLMAP's OPENCV_FISHEYE)
  fisheye624       the same with k0..k5 up to t^12, then p0 p1 and s0..s3 as in Project Aria's FisheyeRadTanThinPrism
  equirectangular  (longitude, latitude) in radians: 0 ahead, to the right and down; the whole sphere

A lens images a direction where its formula is one to one: within the angle at which the radius stops growing. The way
back is Newton's method, for plane points with differences for derivatives; who is not reached is no ray.

Run once beside them (not part of the tests): OpenCV's fisheye module and Project Aria's own projection agree to 1e-12
pixels, Aria's way back to 1e-13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import CameraModel, Float64

Distortion = tuple[float, ...]
Plane = tuple[Float64, NDArray[np.bool_]]
"""Places (N, 2) in the plane, and whether the lens images them."""
_STEPS = 30
_STEP = 1e-6
_STILL = 1e-13


@dataclass(frozen=True)
class Lens:
    """A camera model.

    Attributes:
        values: how many numbers its distortion has; None for as many as one likes up to five.
        wide: whether it may see more than what lies ahead, so that "near" is a distance, not a depth along z.
        plane: (points (N, 3), their distances (N,), distortion) -> `Plane`.
        direction: (plane (N, 2), distortion) -> directions (N, 3) of any length; where there is none, anything.
    """

    values: int | None
    wide: bool
    plane: Callable[[Float64, Float64, Distortion], Plane]
    direction: Callable[[Float64, Distortion], Float64]


def _pinhole(camera: Float64, distance: Float64, distortion: tuple[float, ...]) -> tuple[Float64, NDArray[np.bool_]]:
    return camera[:, :2] / camera[:, 2:], camera[:, 2] > 0


def _opencv(camera: Float64, distance: Float64, distortion: tuple[float, ...]) -> tuple[Float64, NDArray[np.bool_]]:
    k1, k2, p1, p2, k3 = (*distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    plane = camera[:, :2] / camera[:, 2:]
    return _distort(plane, (k1, k2, k3), (p1, p2)), (camera[:, 2] > 0) & _unfolded(plane, (k1, k2, k3))


def _mei(camera: Float64, distance: Float64, distortion: tuple[float, ...]) -> tuple[Float64, NDArray[np.bool_]]:
    xi, k1, k2, p1, p2 = distortion
    sphere = camera / distance[:, None]
    plane = sphere[:, :2] / (sphere[:, 2:] + xi)
    # One pixel sees one ray only on the part of the sphere that the second centre of projection sees from inside:
    # up to the plane through it for xi <= 1, up to the tangent cone (cosine -1/xi) for xi > 1.
    one_to_one = sphere[:, 2] > -(xi if xi <= 1 else 1 / xi)
    return _distort(plane, (k1, k2), (p1, p2)), one_to_one & _unfolded(plane, (k1, k2))


def _distort(plane: Float64, radial: tuple[float, ...], tangential: tuple[float, float]) -> Float64:
    """Brown's model: radial factor 1 + k1 r^2 + k2 r^4 + ..., plus the decentring terms."""
    x, y = plane[:, 0], plane[:, 1]
    p1, p2 = tangential
    r2 = x * x + y * y
    factor = np.polyval((*reversed(radial), 1.0), r2)
    return np.stack(
        [
            x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=1,
    )


def _unfolded(plane: Float64, radial: tuple[float, ...]) -> NDArray[np.bool_]:
    """True where the distorted radius r (1 + k1 r^2 + ...) still grows with r: inside the first root of its slope."""
    slope = np.array([(2 * i + 1) * k for i, k in enumerate((1.0, *radial))])
    roots = np.roots(slope[::-1])
    turning = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    r2 = (plane * plane).sum(axis=1)
    inside: NDArray[np.bool_] = r2 < turning.min(initial=np.inf)
    return inside


def _fisheye(camera: Float64, distance: Float64, distortion: Distortion) -> Plane:
    """`distance` is not needed: the angle is that between the point and the axis."""
    across = np.hypot(camera[:, 0], camera[:, 1])
    angle = np.arctan2(across, camera[:, 2])
    factor = np.where(across > 0, _radius(angle, distortion) / np.where(across > 0, across, 1), 1 / camera[:, 2])
    return camera[:, :2] * factor[:, None], (distance > 0) & (angle < _turning_angle(distortion))


def _fisheye624(camera: Float64, distance: Float64, distortion: Distortion) -> Plane:
    plane, imaged = _fisheye(camera, distance, distortion[:6])
    straight = np.hypot(plane[:, 0], plane[:, 1]) < _prism_reach(distortion[6:])
    return _thin_prism(plane, distortion[6:]), imaged & straight & (camera[:, 2] > 0)


def _equirectangular(camera: Float64, distance: Float64, distortion: Distortion) -> Plane:
    longitude = np.arctan2(camera[:, 0], camera[:, 2])
    latitude = np.arcsin(np.clip(camera[:, 1] / distance, -1, 1))
    return np.stack([longitude, latitude], axis=1), distance > 0


def _radius(angle: Float64, radial: Distortion) -> Float64:
    """t (1 + k1 t^2 + k2 t^4 + ...)."""
    radius: Float64 = angle * np.polyval((*reversed(radial), 1.0), angle**2)
    return radius


def _turning_angle(radial: Distortion) -> float:
    """Angle at which the radius stops growing, at most half a turn."""
    slope = np.array([(2 * i + 1) * k for i, k in enumerate((1.0, *radial))])
    roots = np.roots(slope[::-1])
    turning = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    return float(min(np.sqrt(turning.min(initial=np.inf)), np.pi))


def _thin_prism(plane: Float64, values: Distortion) -> Float64:
    p, s = np.array(values[:2]), values[2:]
    r2 = (plane * plane).sum(axis=1)
    tangential = 2 * (plane @ p)[:, None] * plane + r2[:, None] * p
    prism = np.stack([s[0] * r2 + s[1] * r2**2, s[2] * r2 + s[3] * r2**2], axis=1)
    bent: Float64 = plane + tangential + prism
    return bent


def _prism_reach(values: Distortion) -> float:
    """Radius within which `_thin_prism` is one to one: its change has a slope of at most 6 |p| r + 2 |(s0, s2)| r +
    4 |(s1, s3)| r^3 there, and adds to the identity without folds while that is less than 1."""
    p, first, second = (float(np.hypot(values[i], values[j])) for i, j in ((0, 1), (2, 4), (3, 5)))
    roots = np.roots([4 * second, 0.0, 6 * p + 2 * first, -1.0])
    positive = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    return float(positive.min(initial=np.inf))


# The way back


def _ahead(plane: Float64, distortion: Distortion) -> Float64:
    return np.concatenate([plane, np.ones((len(plane), 1))], axis=1)


def _from_opencv(plane: Float64, distortion: Distortion) -> Float64:
    k1, k2, p1, p2, k3 = (*distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    return _ahead(_solve(lambda place: _distort(place, (k1, k2, k3), (p1, p2)), plane), ())


def _from_mei(plane: Float64, distortion: Distortion) -> Float64:
    xi, k1, k2, p1, p2 = distortion
    plane = _solve(lambda place: _distort(place, (k1, k2), (p1, p2)), plane)
    r2 = (plane * plane).sum(axis=1)
    scale = (xi + np.sqrt(1 + (1 - xi * xi) * r2)) / (1 + r2)
    return np.concatenate([plane * scale[:, None], (scale - xi)[:, None]], axis=1)


def _from_fisheye(plane: Float64, distortion: Distortion) -> Float64:
    radius = np.hypot(plane[:, 0], plane[:, 1])
    slope = [(2 * i + 1) * k for i, k in enumerate((1.0, *distortion))]
    turning = _turning_angle(distortion)
    angle = np.minimum(radius, turning)
    for _ in range(_STEPS):
        step = (_radius(angle, distortion) - radius) / np.polyval(slope[::-1], angle**2)
        last, angle = angle, np.clip(angle - step, 0, turning)
        if _settled(angle - last):
            break
    share = np.where(radius > 0, np.sin(angle) / np.where(radius > 0, radius, 1), 1.0)
    return np.concatenate([plane * share[:, None], np.cos(angle)[:, None]], axis=1)


def _from_fisheye624(plane: Float64, distortion: Distortion) -> Float64:
    return _from_fisheye(_solve(lambda place: _thin_prism(place, distortion[6:]), plane), distortion[:6])


def _from_equirectangular(plane: Float64, distortion: Distortion) -> Float64:
    longitude, latitude = plane.T
    level = np.cos(latitude)
    return np.stack([level * np.sin(longitude), np.sin(latitude), level * np.cos(longitude)], axis=1)


def _solve(bend: Callable[[Float64], Float64], wanted: Float64) -> Float64:
    """Places (N, 2) that are bent to the wanted ones, by Newton's method from where they are."""
    place = wanted.copy()
    for _ in range(_STEPS):
        missing = wanted - bend(place)
        a, c = ((bend(place + np.array([_STEP, 0])) - bend(place - np.array([_STEP, 0]))) / (2 * _STEP)).T
        b, d = ((bend(place + np.array([0, _STEP])) - bend(place - np.array([0, _STEP]))) / (2 * _STEP)).T
        determinant = a * d - b * c
        x = (d * missing[:, 0] - b * missing[:, 1]) / determinant
        y = (a * missing[:, 1] - c * missing[:, 0]) / determinant
        step = np.stack([x, y], axis=1)
        place = place + step
        if _settled(step):
            break
    return place


def _settled(step: Float64) -> bool:
    """Whether nothing moves any more, but for what is no number."""
    return not bool((np.abs(step) > _STILL).any())


LENSES: dict[CameraModel | str, Lens] = {
    "pinhole": Lens(0, False, _pinhole, _ahead),
    "opencv": Lens(None, False, _opencv, _from_opencv),
    "mei": Lens(5, True, _mei, _from_mei),
    "fisheye": Lens(4, True, _fisheye, _from_fisheye),
    "fisheye624": Lens(12, True, _fisheye624, _from_fisheye624),
    "equirectangular": Lens(0, True, _equirectangular, _from_equirectangular),
}
"""By the name of the camera model."""
