"""What stops a training, and what it says then: losses that are not finite or explode, and memory that is used up."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import torch

from brickyard.shards.errors import BrickyardError

WINDOW, _ENOUGH = 100, 20
"""Losses whose median is what is usual; and how many there must be before a loss can be unusual."""

_SHOWN = 8


class Stopped(BrickyardError):
    """A training that stopped itself, on all ranks alike; trying again would end the same way."""


class LossWatch:
    """Knows the last losses, and says which loss is out of all proportion.

    Args:
        factor: a loss above so many times the median of the last hundred explodes; None for no limit.
        losses: those before, from a checkpoint.
    """

    def __init__(self, factor: float | None, losses: Iterable[float] = ()) -> None:
        self._factor, self._losses = factor, deque(losses, maxlen=WINDOW)

    def limit(self) -> float:
        """The largest loss that does not explode; infinite while few are known, or if the usual one is not above 0."""
        if self._factor is None or len(self._losses) < _ENOUGH:
            return math.inf
        usual = median(self._losses)
        return self._factor * usual if usual > 0 else math.inf

    def add(self, loss: float) -> None:
        """Remember a loss that was learned from."""
        self._losses.append(loss)

    def state(self) -> list[float]:
        """For the checkpoint."""
        return list(self._losses)


def out_of_memory(
    problem: torch.OutOfMemoryError, step: int, keys: Sequence[str], points: Callable[[str], int], advice: str
) -> str:
    """What to say of a pass that did not fit on the device: its scenes, largest first, and what to lower."""
    sizes = sorted(((points(key), key) for key in keys), reverse=True)
    shown = ", ".join(f"{key} ({count:,} points)" for count, key in sizes[:_SHOWN])
    more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    return (
        f"out of memory on the device at step {step}, in a pass of {len(sizes)} scenes with "
        f"{sum(count for count, _ in sizes):,} points: {shown}{more}\n{advice}\n{str(problem).splitlines()[0]}"
    )
