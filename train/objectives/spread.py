"""How far features spread: two numbers that tell it, and a term that asks for it.

Features that say the same of everything have collapsed. `feature_rank` counts the directions they vary in. It has to be
read beside `agreement`: what a network says before training varies in many directions, but hardly any of that is about
the place it speaks of, since two views of the place do not share it. Rank is lost when such noise goes, too.

`koleo` is the regulariser of Kozachenko and Leonenko's estimate of entropy: every row is pushed away from the one most
like it (Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019; in DINOv2 with weight 0.1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def feature_rank(features: Tensor) -> Tensor:
    """The number of directions that features (n, C) vary in: the participation ratio of their covariance."""
    with torch.autocast(features.device.type, enabled=False):
        spread = features.float() - features.float().mean(0)
        gram = spread.T @ spread
        return gram.trace() ** 2 / gram.square().sum().clamp(min=1e-12)


@torch.no_grad()
def agreement(features: Tensor, others: Tensor) -> Tensor:
    """The share of their variance that two lots of features (n, C) of the same n places have in common: 1 where they
    are equal, 0 where they have nothing to do with each other. (The correlation of all channels together.)"""
    a, b = features.float(), others.float()
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum() / (a.square().sum() * b.square().sum()).clamp(min=1e-24).sqrt()


def koleo(features: Tensor, most: int = 1024) -> Tensor:
    """-mean of log d, where d is the distance of a row to the nearest other one, both of unit length; float32.

    Args:
        features: (n, C), of different places. Without two rows the result is 0.
        most: rows that are compared; of more, so many at equal distances.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = functional.normalize(features.float(), dim=1)
        if len(x) > most:
            x = x[torch.arange(most, device=x.device) * len(x) // most]
        if len(x) < 2:
            return x.sum() * 0.0
        alike = (x.detach() @ x.detach().T).fill_diagonal_(-torch.inf)
        squared = (x - x[alike.argmax(1)]).square().sum(1)
        # The root of what may be 0 has no slope there: half the logarithm of the square, kept off 0, has.
        return -0.5 * (squared + 1e-8).log().mean()
