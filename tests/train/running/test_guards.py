"""Which losses explode."""

from __future__ import annotations

import math

from brickyard.train.running.guards import WINDOW, LossWatch


def test_a_loss_explodes_when_it_is_far_above_the_median_of_enough_others() -> None:
    watch = LossWatch(10.0)
    for number in range(19):
        assert watch.limit() == math.inf
        watch.add(1.0 + number % 3)
    watch.add(1.0)
    assert watch.limit() == 20.0
    for _ in range(WINDOW):
        watch.add(0.5)
    assert watch.limit() == 5.0  # what was long ago is forgotten
    assert len(watch.state()) == WINDOW
    assert LossWatch(10.0, watch.state()).limit() == 5.0


def test_there_is_no_limit_without_a_factor_or_for_losses_that_are_not_above_zero() -> None:
    assert LossWatch(None, [1.0] * 50).limit() == math.inf
    assert LossWatch(10.0, [-1.0] * 50).limit() == math.inf
    assert LossWatch(10.0, [0.0] * 50).limit() == math.inf
