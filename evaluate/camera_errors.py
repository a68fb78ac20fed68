"""Cameras of a clip beside the true ones, whose frame and unit nobody told: what can be compared, and how.

    rotation      of every pair of views, the angle between the two relative rotations: no frame is involved
    translation   of every pair, the angle between the directions in which the first camera sees the second: no unit
    path          centres after the similarity that brings them closest (Umeyama, "Least-Squares Estimation of
                  Transformation Parameters Between Two Point Patterns", PAMI 1991): root mean square distance

A clip whose camera hardly turns is right to a few degrees if one says that it does not turn at all, and a smooth path
is nearly a straight one. So both stand beside: `still` rotations, and a `straight` path at constant speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
_NOWHERE = 1e-9
"""Of a path's extent: two centres closer than this have no direction."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """x -> scale * rotation @ x + shift; rotation float64 (3, 3), shift (3,)."""

    scale: float
    rotation: Float64
    shift: Float64

    def __call__(self, points: Float64) -> Float64:
        """Points (N, 3)."""
        return np.asarray(self.scale * points @ self.rotation.T + self.shift)


def umeyama(source: Float64, target: Float64) -> Similarity:
    """The similarity without reflection that brings points (N, 3) closest to others, by sum of squares.

    Points that are all at one place are brought to the mean, with scale 0. With points on a line the turn around it is
    any of the equally good ones.
    """
    mean, wanted = source.mean(0), target.mean(0)
    centred, other = source - mean, target - wanted
    variance = np.square(centred).sum()
    if not variance > 0:
        return Similarity(scale=0.0, rotation=np.eye(3), shift=wanted)
    left, values, right = np.linalg.svd(other.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / variance)
    return Similarity(scale=scale, rotation=rotation, shift=wanted - scale * rotation @ mean)


def rotation_errors(found: Float64, true: Float64) -> Float64:
    """Degrees (P,), for each of the P = V (V - 1) / 2 pairs of poses (V, 4, 4), world from camera."""
    first, second = np.triu_indices(len(true), 1)
    ours, theirs = (np.einsum("pji,pjk->pik", p[first, :3, :3], p[second, :3, :3]) for p in (found, true))
    return angles_of(np.einsum("pji,pjk->pik", ours, theirs))


def translation_errors(found: Float64, true: Float64) -> Float64:
    """Degrees (P,) as `rotation_errors`; 180 where cameras were found at one place that are not, NaN where the true
    ones are."""
    first, second = np.triu_indices(len(true), 1)
    ways = []
    for poses in (found, true):
        shift = poses[second, :3, 3] - poses[first, :3, 3]
        ways.append(np.einsum("pji,pj->pi", poses[first, :3, :3], shift))
    lengths = [np.linalg.norm(way, axis=1) for way in ways]
    least = [_NOWHERE * _extent(poses) for poses in (found, true)]
    # By sine and cosine: the arc cosine loses small angles.
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(*ways), axis=1), (ways[0] * ways[1]).sum(1)))
    angle = np.where(lengths[0] > least[0], angle, 180.0)
    return np.asarray(np.where(lengths[1] > least[1], angle, np.nan))


def path_error(found: Float64, true: Float64) -> float:
    """Root mean square distance of centres (V, 3) from the true ones after alignment, in the unit of the true ones."""
    return float(np.sqrt(np.square(umeyama(found, true)(found) - true).sum(1).mean()))


def path_extent(centres: Float64) -> float:
    """Root mean square distance of centres (V, 3) from their mean: the error of a path that stays at one place."""
    return float(np.sqrt(np.square(centres - centres.mean(0)).sum(1).mean()))


def still(true: Float64) -> Float64:
    """Poses (V, 4, 4) of a camera that neither turns nor moves."""
    return np.tile(np.eye(4), (len(true), 1, 1))


def straight(times: NDArray[np.int64]) -> Float64:
    """Centres (V, 3) on a line, at constant speed."""
    return np.stack((times.astype(np.float64), np.zeros(len(times)), np.zeros(len(times))), 1)


def angles_of(rotations: Float64) -> Float64:
    """Angles in degrees of rotation matrices (..., 3, 3)."""
    skew = rotations - np.swapaxes(rotations, -1, -2)
    sine = np.sqrt(skew[..., 2, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 0] ** 2) / 2
    cosine = (np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2
    return np.asarray(np.degrees(np.arctan2(sine, cosine)))


def _extent(poses: Float64) -> float:
    return float(np.ptp(poses[:, :3, 3], axis=0).max())
