"""Scores of a segmentation, per class and in the mean: what every protocol that predicts classes measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.metrics import accuracy, class_iou, mean_accuracy, mean_iou
from brickyard.evaluate.protocols.protocol import Measured
from brickyard.evaluate.table import Column

COLUMNS = (Column(metric="miou", title="mIoU %", percent=True),)
"""What stands in the table."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores on the validation split, per point.

    Attributes:
        miou: mean over the classes that occur in it.
        iou: class name -> IoU, NaN where the class does not occur.
        confusion: int64 (classes, classes), truth by row.
        scenes: training and validation scenes.
    """

    miou: float
    iou: dict[str, float]
    confusion: NDArray[np.int64]
    scenes: tuple[int, int]

    @property
    def measured(self) -> Measured:
        """With the overall accuracy and the mean of the classes'."""
        metrics = {
            "miou": self.miou,
            "mean_accuracy": mean_accuracy(self.confusion),
            "accuracy": accuracy(self.confusion),
            "iou": self.iou,
        }
        return Measured(metrics=metrics, scenes=self.scenes, confusion=self.confusion, classes=tuple(self.iou))


def score(confusion: NDArray[np.int64], names: Sequence[str], scenes: tuple[int, int]) -> ClassScores:
    """The scores of a confusion matrix."""
    iou = dict(zip(names, class_iou(confusion).tolist(), strict=True))
    return ClassScores(miou=mean_iou(confusion), iou=iou, confusion=confusion, scenes=scenes)
