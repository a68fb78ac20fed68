"""The losses of PPKT, SLidR and ST-SLidR, as pure functions. M is the number of units (points, superpixels).

All are InfoNCE over the rows of one batch: row i of the keys (3D) belongs to row i of the queries (2D), every other row
is a negative. ST-SLidR (Mahmoud et al., CVPR 2023, arXiv 2301.05709) observes that many negatives show the same thing
as the anchor, and lets a similarity of frozen image descriptors decide: near neighbours are left out as negatives, or
count less, and anchors that resemble many others (road, vegetation) weigh less. Rows may be fewer than columns, where
a rank has its own anchors and everybody's negatives; `own` then says which column is a row's own.

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
Balance = Literal["none", "votes", "effective", "clusters"]


def row_losses(
    keys: Tensor,
    queries: Tensor,
    target: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    exclusion: Exclusion = "masked",
) -> Tensor:
    """(K,) cross-entropies over j of (weights_ij * keys_i . queries_j / temperature) with target_i.

    Args:
        keys: (K, D). queries: (M, D).
        target: int64 (K,), the query of each key; several keys may share one.
        weights: (K, M) factors of the logits, one for the own query, or None for ones.
        exclusion: what a weight of 0 means. "masked": the negative is left out of the denominator, as ST-SLidR's paper
            says. "code-compatible": its logit is 0, so it adds exp(0) = 1, as the published code does.
    """
    logits = keys @ queries.T / temperature
    if weights is not None:
        logits = logits * weights
        if exclusion == "masked":
            logits = logits.masked_fill(weights == 0, -torch.inf)
    return functional.cross_entropy(logits, target, reduction="none")


def pool(features: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean of the rows of each group: sum / (count + 1e-6), as SLidR; not normalised again.

    Args:
        features: (P, D).
        group: int64 (P,), values 0..groups-1.

    Returns:
        (groups, D) means, zero where a group is empty; int64 (groups,) counts.
    """
    sums = features.new_zeros(groups, features.shape[1]).index_add(0, group, features)
    counts = group.new_zeros(groups).index_add_(0, group, torch.ones_like(group))  # bincount makes a GPU wait
    return sums / (counts[:, None] + 1e-6), counts


def similarity(descriptors: Tensor, others: Tensor | None = None) -> Tensor:
    """Cosine similarity (M, N) of descriptors (M, C) to others (N, C), or to each other; negative values are clipped to
    0, so in [0, 1].

    A zero descriptor has similarity 0 to everything; callers leave such rows out (see `described`).
    """
    unit = functional.normalize(descriptors.float(), dim=1)
    columns = unit if others is None else functional.normalize(others.float(), dim=1)
    return (unit @ columns.T).clamp_(0, 1)


def described(descriptors: Tensor) -> Tensor:
    """bool (M,), True where a descriptor is not all zero."""
    return descriptors.abs().amax(1) > 0 if descriptors.numel() else descriptors.new_zeros(len(descriptors)).bool()


def similarity_weights(similar: Tensor, own: Tensor | None = None) -> Tensor:
    """ST-SLidR's similarity weighting: 1 - similarity as real factors, 1 for the own column (`with_own`)."""
    return with_own(1 - similar, own)


def neighbour_weights(similar: Tensor, share: float = 0.01, own: Tensor | None = None) -> Tensor:
    """ST-SLidR's kNN exclusion: per row 0 for the most similar `share` (self counted), else 1; 1 for the own column.

    "Most similar" is below the `share` quantile (linear interpolation) of the row of 1 - similarity.
    """
    distance = 1 - similar
    return with_own((distance >= row_quantile(distance, share)[:, None]).to(similar.dtype), own)


def adaptive_weights(alike: Tensor, own: Tensor | None = None) -> Tensor:
    """Exclusion of what each anchor itself finds alike (see `objectives.alike`): 0 for it, else 1; 1 for the own
    column."""
    return with_own((~alike).float(), own)


def with_own(weights: Tensor, own: Tensor | None = None) -> Tensor:
    """Weights (M, N) with 1 in column `own` of each row, int64 (M,); in the diagonal where there is none."""
    if own is None:
        return weights.fill_diagonal_(1)
    return weights.scatter_(1, own[:, None], 1.0)


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


def votes(similar: Tensor, *, threshold: float = 0.5) -> Tensor:
    """(M,): the sum of each row's similarities that reach the threshold."""
    return torch.where(similar < threshold, 0.0, similar).sum(1)


def balance_by_votes(votes: Tensor) -> Tensor:
    """ST-SLidR's anchor weights (M,) in [0, 1]: 1 - v, v the votes of all anchors, scaled to 0..1.

    The anchor with the most votes gets exactly 0. Where all have equal votes nothing tells them apart: all get 1.
    """
    if len(votes) == 0:
        return votes
    above = votes - votes.min()
    most = above.max()
    return torch.where(most == 0, 1.0, 1 - above / most)


def balance_by_size(sizes: Tensor, among: int, kind: Literal["effective", "clusters"]) -> Tensor:
    """Anchor weights (M,) in (0, 1] from how many of `among` anchors look alike, each itself included.

    "clusters": 1 / n, so that every cluster weighs the same, be it road or one pedestrian. "effective": the inverse of
    the effective number of samples, (1 - b) / (1 - b^n) with b = 1 - 1 / among (Cui et al., "Class-Balanced Loss", CVPR
    2019): as 1 / n where clusters are small, and flatter where they make up much of the batch.
    """
    n = sizes.float()
    if kind == "clusters":
        return 1 / n
    if among < 2:
        return torch.ones_like(n)
    decay = math.log1p(-1 / among)
    return (1 / among) / -torch.expm1(n * decay)
