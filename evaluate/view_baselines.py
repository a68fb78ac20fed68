"""New views without a network: the input that is nearest in time, and the mix of the two neighbours.

A network that has understood nothing but the order of the frames can do as well as these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
