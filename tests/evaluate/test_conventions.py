"""mIoU by the rules of the official tools: published arithmetic on one small example, and on files that they ship."""

from __future__ import annotations

import numpy as np
import pytest

from brickyard.evaluate.conventions import (
    CONVENTIONS,
    semantickitti_accuracy,
    tool_counts,
    tool_iou,
    tool_miou,
)
from brickyard.evaluate.metrics import confusion_matrix, mean_iou

TRUTH = np.array([0, 0, 1, 1, -1, -1])  # learned labels 1 1 2 2 0 0, less one
PREDICTED = np.array([0, 1, 1, 1, 0, 2])  # 1 2 2 2 1 3
GOLDEN = {
    "semantickitti": 0.388889, "pointcept": 0.388889, "nuscenes": 0.583333, "kitti360": 0.583333,
    "scannetpp": 0.583333, "scannet": 0.583333, "waymo": 0.722222,
}  # fmt: skip


@pytest.mark.parametrize("tool", CONVENTIONS)
def test_one_example_by_the_rules_of_each_tool(tool: str) -> None:
    counts = tool_counts(tool, TRUTH, PREDICTED, 3)
    assert tool_iou(tool, counts)[:2] == pytest.approx([1 / 2, 2 / 3])
    assert tool_miou(tool, counts) == pytest.approx(GOLDEN[tool], abs=5e-7)
    more = tool_counts(tool, np.full(9, -1), np.arange(9) % 3, 3)  # on ignored truth no prediction costs anything
    assert tool_miou(tool, counts + more) == tool_miou(tool, counts)


@pytest.mark.parametrize("tool", CONVENTIONS)
def test_a_class_that_is_only_predicted_counts_zero_in_every_tool(tool: str) -> None:
    counts = tool_counts(tool, np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), 3)
    assert tool_iou(tool, counts).tolist() == [0.5, 1.0, 0.0] and tool_miou(tool, counts) == 0.5
    assert mean_iou(counts[:, :-1]) == 0.75  # ours leaves it out


@pytest.mark.parametrize("tool", CONVENTIONS)
def test_an_unknown_prediction_is_a_miss_or_refused(tool: str) -> None:
    truth, predicted = np.array([0, 0, 1, -1]), np.array([0, -1, 1, -1])
    if CONVENTIONS[tool].takes_unknown:
        counts = tool_counts(tool, truth, predicted, 2)
        assert tool_iou(tool, counts).tolist() == [0.5, 1.0]
        assert semantickitti_accuracy(counts) == 1.0  # the unknown one left its denominator
    else:
        with pytest.raises(ValueError, match="refuses 2 predictions without a class"):
            tool_counts(tool, truth, predicted, 2)


def test_confidences_are_summed_and_cut() -> None:
    weights = np.array([0.5, 0.25, 0.75, 0.5, 1.0, 1.0])
    counts = tool_counts("kitti360", TRUTH, PREDICTED, 3, weights)
    assert counts[:2, :2].tolist() == [[0, 0], [0, 1]]  # of 0.5, 0.25 and 1.25


def test_six_folds_are_added_before_they_are_divided() -> None:
    folds = [
        tool_counts("pointcept", np.zeros(n, int), np.arange(n) // hits, 2) for n, hits in ((4, 3), (100, 50))
    ]  # fmt: skip
    added = tool_iou("pointcept", np.sum(folds, axis=0))[0]
    assert added == pytest.approx(53 / 104)
    assert np.mean([tool_iou("pointcept", fold)[0] for fold in folds]) == pytest.approx((3 / 4 + 50 / 100) / 2)


def test_counts_are_the_confusion_matrix_and_a_column() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(-1, 5, 200), rng.integers(0, 5, 200)
    counts = tool_counts("waymo", truth, predicted, 5)
    assert np.array_equal(counts[:, :-1], confusion_matrix(truth, predicted, 5)) and not counts[:, -1].any()
    for wrong in (np.full(200, 5), np.full(200, -2)):
        with pytest.raises(ValueError, match=r"leave -1\.\.4"):
            tool_counts("waymo", truth, wrong, 5)
