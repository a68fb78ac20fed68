"""Which others does an anchor find alike? A threshold for each anchor, read from its own similarities.

ST-SLidR leaves out the most similar 1 % of every anchor's negatives. Its authors name the limit of that: 1 % of a batch
is a small part of all its road, and more than all its pedestrians. So each anchor gets a threshold of its own. What is
not of its kind lies about some middle of its similarities, some further up, some further down; what is of its kind lies
above. The lower half therefore says what chance alone would do in the upper half:

    threshold_i = median_i + z (median_i - q16_i)

with the 16 % quantile q16, one standard deviation below the median of a normal distribution. A kind that is a large
part of the row hardly moves these two, while it would move a mean and a deviation until it never exceeded them (from a
third of the row on, at z = 1.5), and nothing has to be assumed of how many are alike, but that it is not half of all.

Two anchors are alike if their similarity reaches the thresholds of both. So an anchor that resembles everything a
little is not joined to what has closer relatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from brickyard.train.objectives.contrastive import row_quantile

ONE_BELOW = 0.1587
"""Share of a normal distribution that lies more than one standard deviation below its middle."""


def find_thresholds(similar: Tensor, deviations: float) -> Tensor:
    """(M,): what each row of similarities (M, N) must exceed; `deviations` is z."""
    if not similar.numel():
        return similar.new_zeros(len(similar))
    middle, low = (row_quantile(similar, share) for share in (0.5, ONE_BELOW))
    return middle + deviations * (middle - low)


def find_alike(similar: Tensor, thresholds: Tensor, own: Tensor, all_thresholds: Tensor | None = None) -> Tensor:
    """bool (M, N): which pairs are alike; each anchor is alike itself.

    Args:
        similar: (M, N), similarities of anchors to all units.
        thresholds: (M,), of the anchors. all_thresholds: (N,), of all units, where those are not the anchors.
        own: int64 (M,), the column that is the anchor itself.
    """
    columns = thresholds if all_thresholds is None else all_thresholds
    alike = similar >= torch.maximum(thresholds[:, None], columns[None])
    return alike.scatter_(1, own[:, None], True)
