"""Segmentation metrics from a confusion matrix, which is all that has to be added up over scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED


def confusion_matrix(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """int64 (classes, classes): how often class `row` was called `column`; points of truth UNLABELLED are left out.

    Args:
        truth, predicted: integers of one shape; truth in 0..classes-1 or UNLABELLED, predicted in 0..classes-1.

    Raises:
        ValueError: other values, or shapes that differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, predictions have {predicted.shape}")
    known = truth != UNLABELLED
    rows, columns = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    for name, values in (("truth", rows), ("predictions", columns)):
        if len(values) and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"{name} leave 0..{classes - 1}: found {values.min()}..{values.max()}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 (classes,): true positives / (truth + predicted - true positives); NaN for a class absent from the truth.

    A class that is absent but was predicted is no NaN-free zero: it has no score of its own, and its false alarms lower
    the scores of the classes they were taken from.
    """
    hits = np.diag(confusion).astype(np.float64)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return np.where(truth > 0, hits / np.maximum(truth + predicted - hits, 1), np.nan)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean of `class_iou` over the classes that occur in the truth; NaN if none does."""
    iou = class_iou(confusion)
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Share of labelled points that are right; NaN if there are none."""
    total = int(confusion.sum())
    return float(np.diag(confusion).sum() / total) if total else float("nan")


def mean_accuracy(confusion: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the share of their points that is right; NaN if none does."""
    truth = confusion.sum(axis=1)
    present = truth > 0
    return float((np.diag(confusion)[present] / truth[present]).mean()) if present.any() else float("nan")
