"""Lovasz softmax loss (Berman et al., CVPR 2018, arXiv 1705.08790): a convex surrogate of 1 - mean IoU.

For every class that occurs, errors are sorted from largest to smallest and weighted by how much the Jaccard index falls
as each is added to the set of mistakes. Costs a sort per class.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the classes present in `labels`, in [0, 1].

    Args:
        probabilities: (T, classes), rows sum to 1.
        labels: int64 (T,), 0..classes-1.
    """
    losses = []
    for label in torch.unique(labels).tolist():
        is_class = (labels == label).to(probabilities.dtype)
        errors, order = (is_class - probabilities[:, label]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(is_class[order]))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _jaccard_steps(sorted_truth: Tensor) -> Tensor:
    """(T,): increase of the Jaccard loss as the first 1, 2, ... T points become mistakes."""
    total = sorted_truth.sum()
    intersection = total - sorted_truth.cumsum(0)
    union = total + (1 - sorted_truth).cumsum(0)
    loss = 1 - intersection / union
    return torch.cat((loss[:1], loss[1:] - loss[:-1]))
