"""Schedules: the numbers of the published recipes, and torch's own schedulers."""

from __future__ import annotations

import pytest
import torch

from brickyard.train.schedules import cosine, layer_decay, linear, linear_then_constant, one_cycle, warmup_cosine


def test_golden_numbers_of_sonata() -> None:
    assert cosine(0.994, 1.0, 0.5) == pytest.approx(0.997, abs=1e-12)  # momentum
    assert cosine(0.04, 0.2, 0.5) == pytest.approx(0.12, abs=1e-12)  # weight decay
    assert linear_then_constant(0.04, 0.07, 0.05, 0.025) == pytest.approx(0.055, abs=1e-12)  # teacher temperature
    assert linear_then_constant(0.1, 0.4, 0.05, 0.025) == pytest.approx(0.25, abs=1e-12)  # mask size
    assert linear_then_constant(0.3, 0.7, 0.05, 0.025) == pytest.approx(0.5, abs=1e-12)  # mask ratio


def test_golden_learning_rates_of_blocks() -> None:
    published = {
        0: 3.545e-4, 1: 3.939e-4, 2: 4.377e-4, 3: 4.863e-4, 4: 5.403e-4, 5: 6.004e-4, 6: 6.671e-4, 7: 7.412e-4,
        8: 8.236e-4, 9: 9.151e-4, 20: 2.916e-3, 21: 3.24e-3, 22: 3.6e-3, 23: 4e-3,
    }  # fmt: skip
    for block, rate in published.items():
        assert 0.004 * layer_decay(block, 24, 0.9) == pytest.approx(rate, rel=2e-4)


def test_ends_and_what_lies_beyond() -> None:
    for schedule in (cosine, linear):
        assert [schedule(3.0, 5.0, p) for p in (-1, 0, 1, 2)] == [3.0, 3.0, 5.0, 5.0]
    assert [linear_then_constant(1.0, 2.0, 0.1, p) for p in (0, 0.1, 0.5, 1)] == [1.0, 2.0, 2.0, 2.0]
    assert linear_then_constant(1.0, 2.0, 0.0, 0.0) == 2.0


@pytest.mark.parametrize(("steps", "share"), [(200, 0.05), (50, 0.3), (1000, 0.05)])
def test_one_cycle_is_that_of_torch(steps: int, share: float) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.004, total_steps=steps, pct_start=share, div_factor=10, final_div_factor=1000
    )
    for step in range(steps):
        expected = optimiser.param_groups[0]["lr"]
        assert one_cycle(0.004, step, steps, share * steps) == pytest.approx(expected, rel=1e-9)
        optimiser.step()
        if step + 1 < steps:
            theirs.step()
    assert one_cycle(0.004, 0, steps, share * steps) == pytest.approx(4e-4)
    assert one_cycle(0.004, steps - 1, steps, share * steps) == pytest.approx(4e-7)


def test_one_cycle_without_a_warmup_begins_at_the_peak() -> None:
    assert one_cycle(1.0, 0, 10, 0) == 1.0
    assert one_cycle(1.0, 0, 1, 0.05) == 1.0


def test_warmup_and_cosine() -> None:
    assert [warmup_cosine(0.5, step, 100, 0) for step in (0, 50, 100)] == pytest.approx([0.5, 0.25, 0])
    assert [warmup_cosine(0.5, step, 110, 10) for step in (0, 9, 10, 60)] == pytest.approx([0.05, 0.5, 0.5, 0.25])
