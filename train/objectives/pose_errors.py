"""Poses as a reconstruction would have them, from exact ones: to ask how good labels must be to be worth having.

Every camera is turned about an axis of its own by a normally distributed angle, and moved by the same angle's share of
the window's extent; the extent itself is off by a factor, as monocular reconstructions do not know it (LVSM is told
poses in a unit of their own, so this alone does not reach it); and of some clips every pose is nonsense. Errors belong
to a clip and a frame, not to a step: who trains on wrong labels sees the same ones in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PoseErrors:
    """How far off poses are; all 0 leaves them as they are.

    Attributes:
        degrees: standard deviation of the angle that a camera is turned by.
        scale: standard deviation of the logarithm of the factor that a clip's extent is off by.
        gross: share of clips whose cameras look anywhere from anywhere.
        seed: of the errors.
    """

    degrees: float = 0.0
    scale: float = 0.0
    gross: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.degrees <= 180 and 0 <= self.scale <= 2 and 0 <= self.gross <= 1):
            raise ValueError("degrees must be 0..180, scale 0..2, gross a share")

    @property
    def any(self) -> bool:
        return max(self.degrees, self.scale, self.gross) > 0


def disturbed(poses: Float64, key: str, frames: tuple[int, ...], config: PoseErrors) -> Float64:
    """Poses float64 (V, 4, 4), scene from camera, of frames of the clip `key`, with their errors."""
    if not config.any:
        return poses
    clip = _chance(f"{config.seed} {key}")
    factor, is_gross = np.exp(clip.normal(0, config.scale)), clip.random() < config.gross
    middle = poses[:, :3, 3].mean(0)
    extent = float(np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0)))
    result = poses.copy()
    for number, frame in enumerate(frames):
        rng = _chance(f"{config.seed} {key} {frame}")
        axis = rng.standard_normal(3)
        angle = np.radians(rng.normal(0, config.degrees))
        turn = (
            Rotation.random(random_state=rng) if is_gross else Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle)
        )
        shift = rng.standard_normal(3) * extent * (1.0 if is_gross else np.radians(config.degrees))
        result[number, :3, :3] = turn.as_matrix() @ poses[number, :3, :3]
        result[number, :3, 3] = middle + factor * (poses[number, :3, 3] - middle) + shift
    return result


def _chance(text: str) -> np.random.Generator:
    return np.random.default_rng(xxhash.xxh3_64_intdigest(text.encode()))
