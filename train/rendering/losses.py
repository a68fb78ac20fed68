"""How far what was rendered is from what was seen: depth, colour, and three terms on the samples.

  depth    |rendered - seen|, mean over rays with a depth
  color    |rendered - seen|, mean over rays and channels
  surface  |t + sdf - d| of samples at distances t no farther than `truncation` from the seen depth d: there the signed
           distance is about the way that is left (on rays that meet the surface at a slant, an upper bound of it)
  free     max(0, truncation - sdf) of samples farther in front of the surface: nothing is near them
  eikonal  (|gradient| - 1)^2 of all samples: a distance grows by one per unit

Lengths are box units, so the terms weigh the same in small and large rooms. Rays without a depth (0, negative, not
finite) count in none of depth, surface and free; rays that miss the box add nothing, but the mean of color counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from brickyard.train.rendering.render import Rendered


@dataclass(frozen=True, kw_only=True)
class RenderingLossConfig:
    """Weights of the terms, published for PonderV2 indoors; a term of weight 0 is not computed.

    Attributes:
        depth, color, surface, free, eikonal: weights.
        truncation: what counts as near a surface, box units.
    """

    depth: float = 1.0
    color: float = 10.0
    surface: float = 10.0
    free: float = 1.0
    eikonal: float = 0.01
    truncation: float = 0.05

    def __post_init__(self) -> None:
        if min(self.depth, self.color, self.surface, self.free, self.eikonal) < 0 or self.truncation <= 0:
            raise ValueError("weights must not be negative, and truncation must be positive")


CONFIGS = {
    "published-indoor": RenderingLossConfig(),
    "published-outdoor": RenderingLossConfig(depth=10.0, color=0.0, surface=0.0, free=0.0, eikonal=0.0),
    "published-outdoor-color": RenderingLossConfig(depth=10.0, color=10.0, surface=0.0, free=0.0, eikonal=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What R rays should show.

    Attributes:
        depth: float32 (R,), distance along the ray, box units; not positive or not finite where it is unknown.
        color: float32 (R, 3) in [0, 1], or None.
    """

    depth: Tensor
    color: Tensor | None = None


def rendering_losses(rendered: Rendered, seen: Seen, config: RenderingLossConfig) -> dict[str, Tensor]:
    """The terms with a weight, before they are weighted: name -> scalar.

    Raises:
        ValueError: a term of colour has a weight, but no colour was rendered or seen.
    """
    known = torch.isfinite(seen.depth) & (seen.depth > 0) & rendered.hit
    depth = torch.where(known, seen.depth, 0.0)
    terms = {}
    if config.depth:
        terms["depth"] = _mean((rendered.depth - depth).abs(), known)
    if config.color:
        if rendered.color is None or seen.color is None:
            raise ValueError("the colour term has a weight, but there is no colour decoder or no colour of the rays")
        terms["color"] = ((rendered.color - seen.color).abs() * rendered.hit[:, None]).mean()
    if config.surface or config.free:
        left = depth[rendered.hits, None] - rendered.distance
        of_known = known[rendered.hits, None]
        if config.surface:
            near = of_known & (left.abs() <= config.truncation)
            terms["surface"] = _mean((rendered.sdf - left).abs(), near)
        if config.free:
            terms["free"] = _mean(torch.relu(config.truncation - rendered.sdf), of_known & (left > config.truncation))
    if config.eikonal:
        terms["eikonal"] = (torch.linalg.vector_norm(rendered.gradient, dim=2) - 1).square().mean()
    return terms


def weighted(terms: dict[str, Tensor], config: RenderingLossConfig) -> Tensor:
    """Sum of the terms by their weights, scalar."""
    return torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()


def _mean(values: Tensor, which: Tensor) -> Tensor:
    """Mean of the chosen values, 0 if there are none."""
    return (values * which).sum() / which.sum().clamp(min=1)
