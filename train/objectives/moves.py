"""Moves of a whole scene: turns, tilts, scale, flips and a shift, as one matrix for its points and its cameras alike.

A scene that is to be rendered must look the same from its cameras after it was augmented, so only similarities will do,
and they must reach the cameras, too. Nothing here bends a scene or shakes single points: no camera could follow that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.train.clouds import Cloud

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MoveConfig:
    """How scenes are moved; the defaults are those published for PonderV2 indoors.

    Attributes:
        turn: probability of a turn about z, by up to `angle` radians either way.
        tilt: largest angle of the turns about x and y, radians; each with probability `tilt_chance`.
        scale: (least, most) factor.
        flip: probability of x -> -x, and of y -> -y.
        shift: largest shift along each axis, metres.
    """

    turn: float = 0.5
    angle: float = math.pi
    tilt: float = math.pi / 64
    tilt_chance: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    flip: float = 0.5
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= chance <= 1 for chance in (self.turn, self.tilt_chance, self.flip)):
            raise ValueError("turn, tilt_chance and flip are probabilities")
        if not 0 < self.scale[0] <= self.scale[1] or min(self.angle, self.tilt, self.shift) < 0:
            raise ValueError("scale must be a range of positive numbers, and no angle or shift negative")


def draw_move(rng: np.random.Generator, config: MoveConfig) -> Float64:
    """A similarity float64 (4, 4), about the origin: turns about z, x, y, then scale, flips, shift."""
    chance, place = rng.random(3), rng.uniform(-1, 1, 3)
    largest = np.array([config.angle, config.tilt, config.tilt])
    angles = place * largest * (chance < (config.turn, config.tilt_chance, config.tilt_chance))
    signs = np.where(rng.random(2) < config.flip, -1.0, 1.0)
    move = np.eye(4)
    move[:3, :3] = _about(1, angles[2]) @ _about(0, angles[1]) @ _about(2, angles[0])
    move[:3, :3] *= rng.uniform(*config.scale) * np.array([*signs, 1.0])[:, None]
    move[:3, 3] = rng.uniform(-config.shift, config.shift, 3)
    return move


def about(move: Float64, place: Float64) -> Float64:
    """The same with `place` (3,) brought to the origin first."""
    first = np.eye(4)
    first[:3, 3] = -place
    return move @ first


def moved_places(xyz: Float64, move: Float64) -> Float64:
    """Places (N, 3) moved."""
    moved: Float64 = xyz @ move[:3, :3].T + move[:3, 3]
    return moved


def moved_cloud(cloud: Cloud, move: Float64) -> Cloud:
    """The points moved, with their normals."""
    xyz = moved_places(cloud.xyz.numpy().astype(np.float64), move).astype(np.float32)
    values = dict(cloud.values)
    if "normal" in values:
        turn = torch.from_numpy(move[:3, :3] / np.cbrt(abs(np.linalg.det(move[:3, :3])))).float()
        values["normal"] = values["normal"] @ turn.T
    return replace(cloud, xyz=torch.from_numpy(xyz), values=values)


def _about(axis: int, angle: float) -> Float64:
    """Right-handed turn (3, 3) about an axis."""
    matrix, a, b = np.eye(3), (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[b, a], matrix[a, b] = math.sin(angle), -math.sin(angle)
    return matrix
