"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score

from brickyard.evaluate.lovasz import lovasz_softmax
from brickyard.evaluate.metrics import accuracy, class_iou, confusion_matrix, mean_iou


def test_confusion_and_iou_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, 2000), rng.integers(0, 6, 2000)
    got = confusion_matrix(truth, predicted, 6)
    assert (got == sklearn_confusion(truth, predicted, labels=range(6))).all()
    expected = jaccard_score(truth, predicted, labels=range(6), average=None)
    assert np.allclose(class_iou(got)[:5], expected[:5])
    assert accuracy(got) == pytest.approx((truth == predicted).mean())


def test_unlabelled_points_are_left_out() -> None:
    truth, predicted = np.array([0, -1, 1, -1]), np.array([0, 1, 1, 0])
    assert confusion_matrix(truth, predicted, 2).tolist() == [[1, 0], [0, 1]]


def test_classes_absent_from_the_truth_do_not_enter_the_mean() -> None:
    """Class 2 is predicted once but never true: it has no score, and the mistake costs class 1."""
    confusion = confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 3)
    assert np.isnan(class_iou(confusion)[2])
    assert mean_iou(confusion) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(mean_iou(np.zeros((3, 3), np.int64)))
    assert np.isnan(accuracy(np.zeros((3, 3), np.int64)))


def test_other_values_are_refused() -> None:
    for truth, predicted in ((np.array([3]), np.array([0])), (np.array([0]), np.array([-1]))):
        with pytest.raises(ValueError, match="leave 0"):
            confusion_matrix(truth, predicted, 3)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(np.zeros(3, int), np.zeros(2, int), 3)


def test_lovasz_of_hard_predictions_is_one_minus_the_jaccard_index() -> None:
    """On the corners of the cube the extension equals the set function it extends."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    hard = torch.nn.functional.one_hot(torch.from_numpy(predicted), 4).double()
    expected = 1 - jaccard_score(truth, predicted, average="macro", labels=np.unique(truth))
    assert float(lovasz_softmax(hard, torch.from_numpy(truth))) == pytest.approx(expected)
    perfect = torch.nn.functional.one_hot(torch.from_numpy(truth), 4).double()
    assert float(lovasz_softmax(perfect, torch.from_numpy(truth))) == 0
