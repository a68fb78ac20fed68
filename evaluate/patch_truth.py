"""What is true of the patches of a clip's views: how far their surface is, and what it is of.

Networks of views see the middle square of an image, in patches; depth and label images are cut likewise. A patch's
depth is the median of what was measured in it, its class the most frequent one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.errors import UnfitSceneError
from brickyard.shards.scene import UNLABELLED
from brickyard.train.objectives.clips import Draw

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample

Float64 = NDArray[np.float64]
ASPECT = 0.02
"""By how much the shape of a depth image may differ from its picture's: else they do not show the same."""


@dataclass(frozen=True, eq=False)
class PatchTruth:
    """Of T views of n x n patches: logarithm of metres float64 (T, n, n), NaN where nothing was measured; class ids
    int64 (T, n, n), UNLABELLED where unknown, or None without labels."""

    log_depth: Float64
    label: NDArray[np.int64] | None


def read_truth(sample: Sample, drawn: Draw, patches: int, taxonomy: str | None) -> PatchTruth:
    """Of the targets of a draw; raises `UnfitSceneError` for a clip without depth, or of another shape."""
    depth, label = [], []
    for frame in drawn.frames[drawn.inputs :]:
        view, name = sample.header.views[frame], f"views/{frame}/depth"
        if name not in sample:
            raise UnfitSceneError("the clip has no depth images, which the probe of depth needs")
        values = sample[name]
        height, width = values.shape
        if abs(height * view["width"] / (width * view["height"]) - 1) > ASPECT:
            raise UnfitSceneError(f"depth of {width}x{height} beside a picture of {view['width']}x{view['height']}")
        metres = np.where(values > 0, values * float(view["depth"]["scale"]), np.nan)
        depth.append(np.log(per_patch(metres, patches, _median)))
        if taxonomy is not None and (labels := f"views/{frame}/semantic.{taxonomy}") in sample:
            label.append(per_patch(sample[labels], patches, _mode).astype(np.int64))
    known = len(label) == len(depth)
    return PatchTruth(np.array(depth), np.array(label) if known else None)


def per_patch(values: NDArray[Any], patches: int, measure: Callable[[NDArray[Any]], float]) -> Float64:
    """A number for each of the patches of the middle square of an image (H, W)."""
    height, width = values.shape
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    ends = np.linspace(0, edge, patches + 1).round().astype(int)
    return np.array([
        [measure(values[top + a : top + b, left + c : left + d]) for c, d in pairwise(ends)] for a, b in pairwise(ends)
    ])  # fmt: skip


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if 2 * len(known) > values.size else np.nan


def _mode(values: NDArray[Any]) -> float:
    ids, counts = np.unique(values, return_counts=True)
    return float(ids[counts.argmax()]) if len(ids) else UNLABELLED
