"""The optimiser: its groups and schedules, and the steps that guards change or leave out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from brickyard.train.objectives.objective import Objective
from brickyard.train.optimiser import (
    OptimiserConfig,
    build_optimiser,
    guarded_step,
    learning_rate,
    set_rates,
    weight_decay,
)

SONATA = OptimiserConfig(
    optimiser="adamw", lr=0.004, schedule="one_cycle", warmup_share=0.05, weight_decay=0.04, weight_decay_end=0.2,
    clip=3.0,
)  # fmt: skip


class Layers(Objective):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)
        self.teacher = nn.Linear(2, 3).requires_grad_(False)

    def rate(self, parameter: str) -> float:
        return 0.9 if parameter.startswith("first.") else 1.0


def test_groups_by_rate_and_decay_without_the_teacher() -> None:
    objective = Layers()
    groups = build_optimiser(SONATA, objective).param_groups
    assert [(g["rate"], len(g["params"])) for g in groups] == [(0.9, 2), (1.0, 2)]
    groups = build_optimiser(OptimiserConfig(decay="matrices"), objective).param_groups
    found = {(g["rate"], g["decays"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert found == {(0.9, True): [(3, 2)], (0.9, False): [(3,)], (1.0, True): [(1, 3)], (1.0, False): [(1,)]}


def test_schedules_reach_every_group() -> None:
    optimiser = build_optimiser(SONATA, Layers())
    assert set_rates(SONATA, optimiser, 500, 1000)["weight_decay"] == pytest.approx(0.12)
    rate = learning_rate(SONATA, 500, 1000)
    assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([0.9 * rate, rate])
    assert [g["weight_decay"] for g in optimiser.param_groups] == pytest.approx([0.12, 0.12])
    assert [learning_rate(SONATA, step, 1000) for step in (0, 49, 999)] == pytest.approx([4e-4, 4e-3, 4e-7])
    plain = OptimiserConfig(weight_decay=0.1, decay="matrices")
    optimiser = build_optimiser(plain, Layers())
    assert "weight_decay" not in set_rates(plain, optimiser, 3, 10)
    assert [g["weight_decay"] for g in optimiser.param_groups] == [0.1, 0.0, 0.1, 0.0]
    assert weight_decay(plain, 3, 10) == 0.1


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_groups_are_torchs_own_optimiser_bit_for_bit(optimiser: Any) -> None:
    config = OptimiserConfig(optimiser=optimiser, lr=0.01, weight_decay=0.1, clip=0.5)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 4), nn.Linear(4, 4)
    theirs.load_state_dict(ours.state_dict())

    class One(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.layer = ours

    built = build_optimiser(config, One())
    expected: torch.optim.Optimizer = (
        torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.999), weight_decay=0.1) if optimiser == "adamw"
        else torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, dampening=0.1, weight_decay=0.1)
    )  # fmt: skip
    for step in range(5):
        x = torch.randn(8, 4)
        for layer, opt in ((ours, built), (theirs, expected)):
            opt.zero_grad()
            layer(x).square().sum().backward()
        rate = set_rates(config, built, step, 5)["lr"]
        expected.param_groups[0]["lr"] = rate
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert guarded_step(config, built, step) == (float(norm), True)
        expected.step()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def stepped(config: OptimiserConfig, gradient: list[float], step: int) -> tuple[float, bool, list[float]]:
    """(norm, made, how far each weight went) with learning rate 1."""

    class Two(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    objective = Two()
    optimiser = build_optimiser(config, objective)
    objective.weight.grad = torch.tensor(gradient)
    norm, made = guarded_step(config, optimiser, step)
    return norm, made, objective.weight.tolist()


def test_guards() -> None:
    base: dict[str, Any] = {"lr": 1.0, "dampening": 0.0, "weight_decay": 0.0}
    assert stepped(OptimiserConfig(**base), [3.0, 4.0], 0) == (5.0, True, [-3.0, -4.0])
    norm, made, moved = stepped(OptimiserConfig(**base, clip=1.0), [3.0, 4.0], 0)
    assert (norm, made) == (5.0, True) and moved == pytest.approx([-0.6, -0.8], abs=1e-5)
    rayzer = OptimiserConfig(**base, clip=1.0, skip_factor=2.0, skip_after=100)
    assert stepped(rayzer, [3.0, 4.0], 99)[1] and not stepped(rayzer, [3.0, 4.0], 100)[1]
    assert stepped(rayzer, [3.0, 4.0], 100)[2] == [0.0, 0.0]
    assert stepped(rayzer, [1.0, 1.0], 100)[1]
    for nonfinite in ("stop", "skip"):
        norm, made, moved = stepped(OptimiserConfig(**base, clip=1.0, nonfinite=nonfinite), [math.nan, 4.0], 0)
        assert math.isnan(norm) and not made and moved == [0.0, 0.0]
    assert stepped(OptimiserConfig(**base, nonfinite="zero"), [math.inf, 4.0], 0) == (4.0, True, [0.0, -4.0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0}, {"warmup": 3, "warmup_share": 0.1}, {"warmup_share": 1.0}, {"start_factor": 0.0}, {"clip": 0.0},
        {"skip_factor": 2.0}, {"clip": 1.0, "skip_factor": 0.5},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lr|warmup|factor|clip"):
        OptimiserConfig(**wrong)


def test_learning_rate_is_a_warmup_and_a_cosine() -> None:
    config = OptimiserConfig(lr=0.5)
    assert [learning_rate(config, step, 100) for step in (0, 50, 100)] == pytest.approx([0.5, 0.25, 0])
    for warm in (OptimiserConfig(lr=0.5, warmup=10), OptimiserConfig(lr=0.5, warmup_share=10 / 110)):
        assert [learning_rate(warm, step, 110) for step in (0, 9, 10, 60)] == pytest.approx([0.05, 0.5, 0.5, 0.25])


def test_nesterovs_momentum_has_no_dampening() -> None:
    config = OptimiserConfig(nesterov=True, dampening=0.0)
    assert all(group["nesterov"] for group in build_optimiser(config, Layers()).param_groups)
    with pytest.raises(ValueError, match="dampening: 0"):
        OptimiserConfig(nesterov=True)
