"""Schedules: a quantity as a pure function of how far the training is.

`progress` is the share of the optimiser steps that are over, 0 before the first and 1 after the last; what lies outside
counts as 0 or 1. Learning rates are functions of the step, because their warm-up is counted in steps.
"""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """Half a period of a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * _clamp(progress)))


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from `start` to `end`."""
    return start + (end - start) * _clamp(progress)


def linear_then_constant(start: float, end: float, share: float, progress: float) -> float:
    """A straight line from `start` to `end` during the first `share` of the training, then `end`."""
    return end if share <= 0 else linear(start, end, progress / share)


def warmup_cosine(peak: float, step: int, steps: int, warmup: int) -> float:
    """`warmup` steps of linear growth, the last of which has the peak, then a cosine to 0, reached after `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(
    peak: float, step: int, steps: int, warmup: float, *, start_factor: float = 0.1, final_factor: float = 1e-4
) -> float:
    """A cosine from `start_factor * peak` up to the peak, then one down to `final_factor * peak` at the last step.

    The peak is the last of `warmup` steps (a fraction is allowed). Source: Smith & Topin, "Super-convergence", 2018, in
    the form of torch's OneCycleLR: its `div_factor` is 1 / start_factor, its `final_div_factor` start_factor /
    final_factor.
    """
    return two_cosines((start_factor * peak, peak, final_factor * peak), step, steps, warmup)


def two_cosines(levels: tuple[float, float, float], step: int, steps: int, warmup: float) -> float:
    """A cosine from the first of three levels to the second, at the last of `warmup` steps, then one to the third, at
    the last of `steps`."""
    start, peak, end = levels
    top, last = max(warmup - 1, 0.0), steps - 1
    if step < top:
        return cosine(start, peak, step / top)
    return cosine(peak, end, (step - top) / (last - top)) if last > top else peak


def layer_decay(block: int, blocks: int, decay: float) -> float:
    """Factor on the learning rate of block `block` (from 0) of `blocks`: 1 for the last, `decay` for the one before."""
    return float(decay ** (blocks - 1 - block))


def _clamp(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)
