"""From signed distances along rays to how much each sample shows: NeuS (Wang et al., NeurIPS 2021, arXiv 2106.10689).

The density of a ray has its peak where the distance crosses zero. A section of length d around a sample, whose distance
changes at the rate c along the ray (never counted as growing), is opaque by

  alpha = clip((S(f - c d/2) - S(f + c d/2) + 1e-5) / (S(f - c d/2) + 1e-5), 0, 1),   S(x) = 1 / (1 + exp(-x inv_s)),

and a sample shows by its alpha times what the samples before it let through. Whatever inv_s, the weights are largest at
the surface; the larger it is, the sharper. The 1e-5 keep the quotient finite deep inside, where both S vanish, and make
empty space opaque by 1e-5 a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-5
_LEAST = 1e-7


def alphas(sdf: Tensor, slope: Tensor, lengths: Tensor, inv_s: Tensor, anneal: float = 1.0) -> Tensor:
    """Opacity of each sample's section, in [0, 1].

    Args:
        sdf: (R, S).
        slope: (R, S), <direction, gradient of the sdf>: negative where the ray goes towards the surface.
        lengths: (R, S) of the sections.
        inv_s: scalar, sharpness.
        anneal: 1 counts slopes towards the surface and no others; 0 counts 0.5 - 0.5 slope, so that rays that leave a
            surface learn, too, at the beginning of a training; between 0 and 1 a mixture.
    """
    falling = torch.relu(-slope)
    if anneal < 1:
        falling = falling * anneal + torch.relu(0.5 - 0.5 * slope) * (1 - anneal)
    half = falling * lengths / 2
    before, after = torch.sigmoid((sdf + half) * inv_s), torch.sigmoid((sdf - half) * inv_s)
    return ((before - after + _EPSILON) / (before + _EPSILON)).clamp(0, 1)


def weights(alpha: Tensor) -> Tensor:
    """How much of a ray's colour each sample makes, (R, S) >= 0; they add up to 1 at most."""
    passed = torch.cumprod((1 - alpha[:, :-1]).clamp(min=_LEAST), 1)
    return alpha * torch.cat((torch.ones_like(alpha[:, :1]), passed), 1)


def composite(weight: Tensor, values: Tensor) -> Tensor:
    """Sum over samples: (R, S) and (R, S, C) -> (R, C)."""
    return torch.bmm(weight[:, None], values)[:, 0]


def expected_depth(weight: Tensor, distance: Tensor) -> Tensor:
    """Mean distance (R,) of the samples (R, S), by weight."""
    return (weight * distance).sum(1) / (weight.sum(1) + 1e-10)
