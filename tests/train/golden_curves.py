"""Loss curves that must not change unless somebody means them to, stored as JSON.

A curve is compared exactly where it was made: on the same processor with the same torch. Elsewhere sums are rounded
otherwise (other vector instructions, other kernels), and training turns that into more than rounding: of the millions
of inputs of ReLUs some lie within a rounding of zero, and on which side decides whether a gradient flows. So the
difference jumps, at any step, by what one such gradient is worth. How much that is gets measured when a curve is made:
the training is repeated from weights that are each a rounding off, and the largest difference at each step is stored as
its `spread`. Another processor may differ by five times as much, or by 1 in 10,000; the first loss, before any update,
by 1 in 100,000.

To make the curves anew: BRICKYARD_GOLDEN=write pytest tests/train/test_golden.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from brickyard.train import step
from brickyard.train.running.run_folder import processor

FOLDER = Path(__file__).with_name("golden")
ROUNDING = 1e-7
REPEATS = 20


def assert_golden(name: str, losses: list[float], again: Callable[[], list[float]]) -> None:
    """Compare with the curve of that name, made on one thread; `again` repeats the training."""
    path = FOLDER / f"{name}.json"
    here = {"processor": processor(), "kernels": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    if os.environ.get("BRICKYARD_GOLDEN") == "write":
        curve = {"made_on": here, "losses": losses, "spread": spread(losses, again)}
        path.write_text(json.dumps(curve, indent=1) + "\n")
    stored = json.loads(path.read_text())
    if stored["made_on"] == here:
        assert losses == stored["losses"]
        return
    assert len(losses) == len(stored["losses"])
    allowed = [1e-5, *(max(1e-4, 5 * value) for value in stored["spread"][1:])]
    for number, (loss, golden, most) in enumerate(zip(losses, stored["losses"], allowed, strict=True), start=1):
        assert loss == pytest.approx(golden, rel=most), f"step {number}"


def spread(losses: list[float], again: Callable[[], list[float]]) -> list[float]:
    """Largest relative difference at each step between the losses and those of trainings that start a rounding off."""
    worst = [0.0] * len(losses)
    for seed in range(REPEATS):
        with nudged_weights(seed):
            worst = [max(w, abs(a / b - 1)) for w, a, b in zip(worst, again(), losses, strict=True)]
    return [float(f"{value:.1e}") for value in worst]


@contextmanager
def nudged_weights(seed: int) -> Iterator[None]:
    """Trainings begun in here start from weights that are each about a rounding of float32 off."""
    begin = step.Stepper.__init__

    def nudged(self: step.Stepper, config: step.StepConfig, objective: torch.nn.Module, *rest: object) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in objective.parameters():
                parameter.mul_(1 + ROUNDING * torch.randn(parameter.shape, generator=generator))
        begin(self, config, objective, *rest)  # type: ignore[arg-type]

    step.Stepper.__init__ = nudged  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        step.Stepper.__init__ = begin  # type: ignore[method-assign]
