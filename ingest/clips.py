"""Clips: the frames of a sequence, cut into scenes without points, for multi-view training.

Every source of sequences takes `clips: {...}` among its options and then yields clips instead of its usual scenes: one
camera, views in time order, images as shipped, poses where the dataset has them. A clip is stored contiguously, so a
trainer that draws 24 frames of a window reads one shard; long clips give it more windows.

The scene frame of a clip is the vehicle's (or lidar's, or mesh's) frame at the clip's first view: coordinates near
zero, z up, `world_from_scene` leads to the dataset's world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from brickyard.shards.errors import RecipeError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How sequences are cut.

    Attributes:
        frames: views in a clip, at most.
        overlap: views that a clip shares with the one before it.
        rate_hz: thin the frames to at most this rate; None keeps every frame.
    """

    frames: int = 96
    overlap: int = 0
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 3:  # of clips of two frames, one would be left with a single frame
            raise RecipeError(f"frames: at least 3 are needed, found {self.frames}")
        if not 0 <= self.overlap < self.frames:
            raise RecipeError(f"overlap: expected 0 to frames - 1, found {self.overlap}")
        if self.rate_hz is not None and not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise RecipeError(f"rate_hz: expected a positive number, found {self.rate_hz}")


def clip_id(sequence: str, camera: str, number: int) -> str:
    """scene_id of a clip: `<sequence>/<camera>/clip-007`."""
    return f"{sequence}/{camera}/clip-{number:03d}"


def cut(frames: Sequence[T], options: ClipOptions) -> list[list[T]]:
    """The frames in runs of at most `options.frames`, as equal in length as can be: no short rest, nothing dropped.

    Returns no clip for fewer than two frames: there is no second view.
    """
    if len(frames) < 2:
        return []
    stride = options.frames - options.overlap
    count = max(1, math.ceil((len(frames) - options.overlap) / stride))
    rest = len(frames) - options.overlap
    starts = [number * rest // count for number in range(count + 1)]
    return [list(frames[a : b + options.overlap]) for a, b in pairwise(starts)]


def thin(times_s: Sequence[float], rate_hz: float | None) -> list[int]:
    """Indices of the frames to keep at a rate: the first frame in every slot of the regular grid.

    Args:
        times_s: seconds, rising; gaps are no trouble.
        rate_hz: None keeps all; so does a rate above the recorded one.
    """
    if rate_hz is None:
        return list(range(len(times_s)))
    kept: list[int] = []
    last = -1
    for number, time in enumerate(times_s):
        # A tenth of a period early still counts: frames of exactly the wanted rate arrive with jitter.
        slot = math.floor((time - times_s[0]) * rate_hz + 0.1)
        if slot > last:
            kept.append(number)
            last = slot
    return kept


def spread_evenly(count: int, limit: int) -> list[int]:
    """At most `limit` indices of 0..count-1, evenly spread and rising; all of them if they are few enough."""
    if count <= limit:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * limit) for i in range(limit)]
