"""New views without a network: the input that is nearest in time, and the mix of the two neighbours.

A network that has understood nothing but the order of the frames can do as well as these. Blurred, the mix has a better
PSNR yet where views lie far apart, as edges at the wrong place cost more than none; a network that is no better than
that has learned to be careful.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

BLUR = 16
"""The blur's standard deviation is the size of the images over this."""


def nearest_input(images: Tensor, times: Sequence[int], inputs: int) -> Tensor:
    """For each target the input nearest in time, the earlier of two: (T, 3, H, W).

    Args:
        images: (V, 3, H, W), those of the inputs first. times: of each view.
    """
    found = [min(range(inputs), key=lambda k: (abs(times[k] - time), times[k])) for time in times[inputs:]]
    return images[found]


def mean_of_neighbours(images: Tensor, times: Sequence[int], inputs: int) -> Tensor:
    """For each target the mean of the last input before it and the first after it; where there is but one, that one.

    Args:
        images, times: see `nearest_input`.
    """
    mixed = []
    for time in times[inputs:]:
        before = [k for k in range(inputs) if times[k] < time]
        after = [k for k in range(inputs) if times[k] > time]
        near = [max(before, key=lambda k: times[k])] if before else []
        near += [min(after, key=lambda k: times[k])] if after else []
        mixed.append(images[near].mean(0))
    return torch.stack(mixed)


def blurred(images: Tensor) -> Tensor:
    """Images (T, 3, H, W) under a Gaussian, see `BLUR`; beyond their edges they go on as they end."""
    sigma = min(images.shape[-2:]) / BLUR
    radius = round(3 * sigma)
    place = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    across = functional.conv2d(padded, kernel[:, :, None], groups=images.shape[1])
    return functional.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])
