"""What the official tools call mIoU: for the same predictions, seven different numbers.

They agree on one thing: counts are summed over the whole split, and a class's IoU is hits / (truth + predicted - hits),
where points without a true class count nowhere. They differ in what a class counts that neither occurs nor was
predicted, in whether an unknown class may be predicted, and in what a point weighs:

    tool           absent class   unknown predicted   read from
    scannet        (no mean)      false negative      ScanNet, BenchmarkScripts/3d_evaluation/evaluate_semantic_label.py
    semantickitti  0              false negative      semantic-kitti-api, auxiliary/np_ioueval.py
    nuscenes       left out       refused             nuscenes-devkit, eval/lidarseg/utils.py
    waymo          1              false negative      waymo-open-dataset, metrics/segmentation_metrics.cc
    kitti360       left out       false negative      kitti360Scripts, evaluation/semantic_3d (points weigh)
    scannetpp      left out       refused             scannetpp, semantic/utils/confmat.py (top-1)
    pointcept      0              refused             Pointcept, engines/test.py; S3DIS has no tool of its own

ScanNet's tool prints the classes, and stops where one is absent: their mean is the reader's, here over those there are.
Our own `metrics.mean_iou` differs from "left out" in one case: a class that was predicted and does not occur is left
out as well, and counts 0 in all the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What makes a tool's mIoU.

    Attributes:
        absent: IoU of a class that neither occurs nor was predicted; NaN leaves it out of the mean.
        takes_unknown: whether a point may be predicted to have no class.
    """

    absent: float
    takes_unknown: bool


_NAN = float("nan")
CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "scannet": Convention(absent=_NAN, takes_unknown=True),
        "semantickitti": Convention(absent=0.0, takes_unknown=True),
        "nuscenes": Convention(absent=_NAN, takes_unknown=False),
        "waymo": Convention(absent=1.0, takes_unknown=True),
        "kitti360": Convention(absent=_NAN, takes_unknown=True),
        "scannetpp": Convention(absent=_NAN, takes_unknown=False),
        "pointcept": Convention(absent=0.0, takes_unknown=False),
    }
)


def tool_counts(
    tool: str,
    truth: NDArray[Any],
    predicted: NDArray[Any],
    classes: int,
    weights: NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """int64 (classes, classes + 1), truth by row: how often each class was predicted, and last, that it is unknown.

    Counts of scenes are added. Points whose truth is UNLABELLED are left out.

    Args:
        truth, predicted: integers (N,), UNLABELLED or 0..classes-1.
        weights: (N,), such as confidences of the truth; their sums are cut to integers, as KITTI-360's tool does.

    Raises:
        ValueError: shapes that differ, other values, or an unknown class that the tool refuses, be it where nobody
            knows the truth.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, predictions have {predicted.shape}")
    for name, values in (("truth", truth), ("predictions", predicted)):
        if len(values) and not UNLABELLED <= values.min() <= values.max() < classes:
            raise ValueError(f"{name} leave {UNLABELLED}..{classes - 1}: found {values.min()}..{values.max()}")
    if not CONVENTIONS[tool].takes_unknown and (predicted == UNLABELLED).any():
        raise ValueError(f"{tool} refuses {int((predicted == UNLABELLED).sum())} predictions without a class")
    known = truth != UNLABELLED
    columns = np.where(predicted == UNLABELLED, classes, predicted)[known].astype(np.int64)
    place = truth[known].astype(np.int64) * (classes + 1) + columns
    chosen = None if weights is None else weights[known]
    sums = np.bincount(place, weights=chosen, minlength=classes * (classes + 1))
    return sums.astype(np.int64).reshape(classes, classes + 1)


def tool_iou(tool: str, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 (classes,): the IoU of every class as the tool counts it, NaN where it leaves the class out.

    Args:
        counts: see `tool_counts`, summed over the split.
    """
    hits = np.diagonal(counts).astype(np.float64)
    union = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), CONVENTIONS[tool].absent)


def tool_miou(tool: str, counts: NDArray[np.int64]) -> float:
    """The mean of `tool_iou` over what the tool does not leave out; NaN where that is nothing."""
    iou = tool_iou(tool, counts)
    kept = iou[~np.isnan(iou)]
    return float(kept.mean()) if len(kept) else _NAN


def semantickitti_accuracy(counts: NDArray[np.int64]) -> float:
    """What SemanticKITTI's tool calls accuracy: hits among the points that were predicted to have a class, so unknown
    predictions raise it. NaN where there are none."""
    total = int(counts[:, :-1].sum())
    return float(np.diagonal(counts).sum() / total) if total else _NAN
