"""Features as colours: the three directions in which they vary most become red, green and blue.

Principal components over the rows of one scene or several: colours can be compared between scenes that were fitted
together, not otherwise. Their order is that of the variance. The sign, which the mathematics leave open, is chosen so
that a component's largest entry is positive, hence the same features give the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1 << 16
_OUTER = 0.02
"""Share of the rows beyond either end of a colour's range."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """What turns features into colours.

    Attributes:
        mean: float64 (C,).
        axes: float64 (C, 3), orthonormal columns, by falling variance.
        share: of the whole variance along each axis, (3,).
        low, high: float64 (3,), the range of each coordinate that colours cover.
    """

    mean: Tensor
    axes: Tensor
    share: Tensor
    low: Tensor
    high: Tensor

    def project(self, features: Tensor) -> Tensor:
        """float64 (V, 3)."""
        return (features.double() - self.mean) @ self.axes

    def colours(self, features: Tensor) -> NDArray[np.uint8]:
        """uint8 (V, 3)."""
        unit = ((self.project(features) - self.low) / (self.high - self.low)).clamp(0, 1)
        return np.asarray((unit * 255).round().cpu().numpy(), np.uint8)


def principal(features: Iterable[Tensor]) -> Components:
    """The components of all rows (V, C) together, C at least 1; with fewer than three channels, the rest stays grey.

    Raises:
        ValueError: without a row.
    """
    parts = [chunk for part in features for chunk in part.split(_CHUNK)]  # type: ignore[no-untyped-call]
    count = sum(map(len, parts))
    if not count:
        raise ValueError("no features to colour")
    # float64 of one chunk at a time: features of many levels are wide
    mean = sum((part.double().sum(0) for part in parts), torch.zeros(())) / count
    centred = (part.double() - mean for part in parts)
    covariance = sum((part.T @ part for part in centred), torch.zeros(())) / count
    values, vectors = torch.linalg.eigh(covariance)
    axes = vectors.flip(1)[:, :3]
    largest = axes.abs().argmax(0)
    axes = axes * axes.gather(0, largest[None]).sign()
    values = values.flip(0).clamp(min=0)[:3]
    missing = 3 - axes.shape[1]
    if missing:
        axes, values = torch.nn.functional.pad(axes, (0, missing)), torch.nn.functional.pad(values, (0, missing))
    placed = torch.cat([(part.double() - mean) @ axes for part in parts]).sort(0).values
    low, high = placed[int(_OUTER * (count - 1))], placed[int(np.ceil((1 - _OUTER) * (count - 1)))]
    flat = high - low < 1e-12
    low, high = torch.where(flat, low - 0.5, low), torch.where(flat, high + 0.5, high)
    total = covariance.diagonal().sum().clamp(min=1e-300)
    return Components(mean=mean, axes=axes, share=values / total, low=low, high=high)
