"""Counts of a segmentation as CSV: what spreadsheets and papers want of it.

    confusion.csv     a row for each true class, a column for each predicted one
    classes.csv       class, points, predicted, hits, union, iou, accuracy; the last row is the mean

Hits and unions are what is added up over folds. IoU and accuracy are empty for a class that does not occur, and the
mean is over the others (see `evaluate.metrics`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.metrics import class_iou, mean_accuracy, mean_iou
from brickyard.shards.atomic import write_whole

CONFUSION, CLASSES = "confusion.csv", "classes.csv"


def write_tables(folder: Path, names: Sequence[str], confusion: NDArray[np.int64]) -> None:
    """Write both files.

    Args:
        names: of the classes. confusion: int64 (classes, classes), truth by row.
    """
    write_whole(
        folder / CONFUSION, _csv([["", *names], *([n, *row] for n, row in zip(names, confusion.tolist(), strict=True))])
    )
    write_whole(folder / CLASSES, _csv(_class_rows(names, confusion)))


def _class_rows(names: Sequence[str], confusion: NDArray[np.int64]) -> Iterable[Sequence[object]]:
    hits, points, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    union, iou = points + predicted - hits, class_iou(confusion)
    yield "class", "points", "predicted", "hits", "union", "iou", "accuracy"
    for number, name in enumerate(names):
        share = hits[number] / points[number] if points[number] else float("nan")
        counts = (int(column[number]) for column in (points, predicted, hits, union))
        yield name, *counts, _digits(iou[number]), _digits(share)
    totals = (int(column.sum()) for column in (points, predicted, hits))
    yield "mean", *totals, "", _digits(mean_iou(confusion)), _digits(mean_accuracy(confusion))


def _digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
