"""The losses of PPKT, SLidR and ST-SLidR, as pure functions. M is the number of units (points, superpixels).

All are InfoNCE over the rows of one batch: row i of the keys (3D) belongs to row i of the queries (2D), every other row
is a negative. ST-SLidR (Mahmoud et al., CVPR 2023, arXiv 2301.05709) observes that many negatives show the same thing
as the anchor, and lets a similarity of frozen image descriptors decide: near neighbours are left out as negatives, or
count less, and anchors that resemble many others (road, vegetation) weigh less.

Memory is M x M floats for the logits; neighbours are found in chunks of rows, because torch.quantile refuses inputs of
more than 16 million elements (M > 4096).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Exclusion = Literal["masked", "code-compatible"]


def info_nce(
    keys: Tensor,
    queries: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    exclusion: Exclusion = "masked",
    anchor_weights: Tensor | None = None,
) -> Tensor:
    """Mean over i of cross-entropy over j of (weights_ij * keys_i . queries_j / temperature) with target i.

    Args:
        keys, queries: (M, D).
        weights: (M, M) factors of the logits with ones on the diagonal, or None for ones.
        exclusion: what a weight of 0 means. "masked": the negative is left out of the denominator, as ST-SLidR's paper
            says. "code-compatible": its logit is 0, so it adds exp(0) = 1, as the published code does.
        anchor_weights: (M,), not negative; the mean over i is weighted by them.

    Returns:
        Scalar; 0 (with gradient 0) where M is 0 or all anchor weights are.
    """
    if len(keys) == 0:
        return (keys.sum() + queries.sum()) * 0
    logits = keys @ queries.T / temperature
    if weights is not None:
        logits = logits * weights
        if exclusion == "masked":
            logits = logits.masked_fill(weights == 0, -torch.inf)
    target = torch.arange(len(keys), device=keys.device)
    losses = functional.cross_entropy(logits, target, reduction="none")
    if anchor_weights is None:
        return losses.mean()
    total = anchor_weights.sum()
    return (losses * anchor_weights).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)


def pool(features: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean of the rows of each group: sum / (count + 1e-6), as SLidR; not normalised again.

    Args:
        features: (P, D).
        group: int64 (P,), values 0..groups-1.

    Returns:
        (groups, D) means, zero where a group is empty; int64 (groups,) counts.
    """
    sums = features.new_zeros(groups, features.shape[1]).index_add(0, group, features)
    counts = torch.bincount(group, minlength=groups)
    return sums / (counts[:, None] + 1e-6), counts


def similarity(descriptors: Tensor) -> Tensor:
    """Cosine similarity (M, M) of descriptors (M, C), negative values clipped to 0, so in [0, 1].

    A zero descriptor has similarity 0 to everything; callers leave such rows out (see `described`).
    """
    unit = functional.normalize(descriptors.float(), dim=1)
    return (unit @ unit.T).clamp_(0, 1)


def described(descriptors: Tensor) -> Tensor:
    """bool (M,), True where a descriptor is not all zero."""
    return descriptors.abs().amax(1) > 0 if descriptors.numel() else descriptors.new_zeros(len(descriptors)).bool()


def similarity_weights(similar: Tensor) -> Tensor:
    """ST-SLidR's similarity weighting: 1 - similarity as real factors, 1 on the diagonal."""
    return (1 - similar).fill_diagonal_(1)


def neighbour_weights(similar: Tensor, share: float = 0.01) -> Tensor:
    """ST-SLidR's kNN exclusion: per row 0 for the most similar `share` (self counted), else 1; 1 on the diagonal.

    "Most similar" is below the `share` quantile (linear interpolation) of the row of 1 - similarity.
    """
    distance = 1 - similar
    return (distance >= row_quantile(distance, share)[:, None]).to(similar.dtype).fill_diagonal_(1)


def row_quantile(values: Tensor, share: float, *, chunk: int = 1 << 22) -> Tensor:
    """`torch.quantile(values, share, dim=1)` of (M, N) for any size, `chunk` elements at a time."""
    columns = values.shape[1]
    place = share * (columns - 1)
    below = min(math.floor(place), columns - 1)
    above = min(below + 1, columns - 1)
    parts = []
    step = max(1, chunk // max(columns, 1))
    for start in range(0, len(values), step):
        smallest = values[start : start + step].topk(above + 1, dim=1, largest=False, sorted=True).values
        parts.append(torch.lerp(smallest[:, below], smallest[:, above], place - below))
    return torch.cat(parts) if parts else values.new_zeros(0)


def balance_weights(similar: Tensor, *, threshold: float = 0.5) -> Tensor:
    """ST-SLidR's anchor weights (M,) in [0, 1]: 1 - v, v the row sums of similarities >= threshold, scaled to 0..1.

    The anchor with the most votes gets exactly 0. Where all have equal votes nothing tells them apart: all get 1.
    """
    if len(similar) == 0:
        return similar.new_zeros(0)
    votes = torch.where(similar < threshold, 0.0, similar).sum(1)
    votes = votes - votes.min()
    most = votes.max()
    return torch.ones_like(votes) if most == 0 else 1 - votes / most
