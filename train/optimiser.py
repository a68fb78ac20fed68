"""The optimiser: which parameters it moves, how fast, how fast they decay, and which steps it had better not make.

Parameters are grouped by the factor that the objective gives on their learning rate and by whether they decay; a frozen
teacher is in no group. Learning rate and weight decay follow their schedules from `set_rates`, before every step.
`guarded_step` clips the gradient and then makes the step or leaves it out. Ranks see the same averaged gradient, so
all of them decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from brickyard.shards.errors import RecipeError
from brickyard.train.checks import refuse_nonfinite
from brickyard.train.objectives.objective import Objective
from brickyard.train.schedules import cosine, one_cycle, two_cosines, warmup_cosine


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How weights are moved; defaults are those published for SLidR.

    Attributes:
        optimiser: "sgd" or "adamw".
        lr: peak learning rate; an objective may give parameters a fraction of it.
        schedule: "cosine" grows linearly to the peak and falls to 0; "epoch_cosine" is the same kept still within an
            epoch, as SLidR's; "one_cycle" goes from `start_factor` of the peak up to it and down to `final_factor` of
            it, both along a cosine.
        warmup: steps until the peak; or `warmup_share`, a share of all steps.
        start_factor, final_factor: of "one_cycle"; the published division by 10, and by 1,000 again.
        momentum, dampening: of SGD; `nesterov` asks for his momentum, which has no dampening. betas: of AdamW.
        momentum_cycle: with "one_cycle", momentum (AdamW's beta1) at both ends and at the peak, along the same cosines;
            the published runs of Sonata have [0.95, 0.85], which torch's OneCycleLR does unasked.
        weight_decay: at the start; `weight_decay_end` at the end, along a cosine, None for no change.
        decay: which parameters decay: "all", or "matrices", which leaves out biases and norms.
        clip: largest global norm of the gradient, or None.
        skip_factor: leave out a step whose gradient has a norm of more than so many times `clip`, or None;
            `skip_after`: only after so many steps.
        nonfinite: what to do about a loss or gradient that is not finite: "stop", "skip" the step, or "zero" those
            elements of the gradient (and skip where it is the loss). A hundred steps left out in a row stop it anyway.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.5
    schedule: Literal["cosine", "epoch_cosine", "one_cycle"] = "cosine"
    warmup: int = 0
    warmup_share: float = 0.0
    start_factor: float = 0.1
    final_factor: float = 1e-4
    momentum: float = 0.9
    dampening: float = 0.1
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    momentum_cycle: tuple[float, float] | None = None
    weight_decay: float = 1e-4
    weight_decay_end: float | None = None
    decay: Literal["all", "matrices"] = "all"
    clip: float | None = None
    skip_factor: float | None = None
    skip_after: int = 100
    nonfinite: Literal["stop", "skip", "zero"] = "stop"

    def __post_init__(self) -> None:
        refuse_nonfinite(self)
        if self.lr <= 0 or self.warmup < 0 or not 0 <= self.warmup_share < 1:
            raise ValueError("lr must be positive, warmup not negative, warmup_share from 0 to 1")
        if self.warmup and self.warmup_share:
            raise ValueError("give warmup in steps or as warmup_share, not both")
        if not 0 < self.start_factor <= 1 or not 0 <= self.final_factor <= 1:
            raise ValueError("start_factor and final_factor are shares of the peak learning rate")
        if not all(0 <= share < 1 for share in (self.momentum, *self.betas, *(self.momentum_cycle or ()))):
            raise ValueError("momentum, betas and momentum_cycle must be at least 0 and less than 1")
        if self.nesterov and (self.dampening or not self.momentum):
            raise ValueError("nesterov needs momentum and dampening: 0")
        if self.momentum_cycle is not None and self.schedule != "one_cycle":
            raise ValueError('momentum_cycle goes with schedule "one_cycle"')
        if not 0 <= self.dampening <= 1:
            raise ValueError("dampening must be within 0..1")
        if min(self.weight_decay, self.weight_decay_end or 0.0) < 0:
            raise ValueError("weight_decay and weight_decay_end must not be negative")
        if self.clip is not None and self.clip <= 0:
            raise ValueError("clip must be positive")
        if self.skip_factor is not None and (self.clip is None or self.skip_factor < 1):
            raise ValueError("skip_factor must be at least 1, and needs clip")


def check_warmup(config: OptimiserConfig, steps: int) -> None:
    """Raise `RecipeError` where the warm-up would last longer than a training of `steps`."""
    if config.warmup > steps:
        raise RecipeError(f"a warm-up of {config.warmup} steps does not end within a training of {steps}")


def learning_rate(config: OptimiserConfig, step: int, steps: int, epoch: float = 1.0) -> float:
    """Of optimiser step `step` (from 0) of `steps`, before an objective's factors; `epoch` is the steps of one."""
    if config.schedule != "one_cycle":
        if config.schedule == "epoch_cosine":
            step = math.floor(math.floor(step / epoch + 1e-9) * epoch)
        return warmup_cosine(config.lr, step, steps, config.warmup or round(config.warmup_share * steps))
    warmup = config.warmup or config.warmup_share * steps
    factors = {"start_factor": config.start_factor, "final_factor": config.final_factor}
    return one_cycle(config.lr, step, steps, warmup, **factors)


def momentum(config: OptimiserConfig, step: int, steps: int) -> float | None:
    """Of optimiser step `step` (from 0) of `steps`, where it follows a cycle."""
    if config.momentum_cycle is None:
        return None
    ends, peak = config.momentum_cycle
    warmup = config.warmup or config.warmup_share * steps
    return two_cosines((ends, peak, ends), step, steps, warmup)


def weight_decay(config: OptimiserConfig, step: int, steps: int) -> float:
    """Of optimiser step `step` (from 0) of `steps`."""
    if config.weight_decay_end is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.weight_decay_end, step / steps)


def build_optimiser(config: OptimiserConfig, objective: Objective) -> Optimizer:
    """An optimiser of the parameters that ask for a gradient; every group has its "rate" and whether it "decays"."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            decays = config.decay == "all" or parameter.ndim > 1
            groups.setdefault((objective.rate(name), decays), []).append(parameter)
    table: list[dict[str, Any]] = [
        {"params": parameters, "rate": rate, "decays": decays} for (rate, decays), parameters in groups.items()
    ]
    if config.optimiser == "adamw":
        devices = {parameter.device.type for group in table for parameter in group["params"]}
        # One pass over all weights instead of a dozen; on a CPU it would round otherwise.
        fused = True if devices == {"cuda"} else None
        return torch.optim.AdamW(table, lr=config.lr, betas=config.betas, fused=fused)
    return torch.optim.SGD(
        table, lr=config.lr, momentum=config.momentum, dampening=config.dampening, nesterov=config.nesterov
    )


def set_rates(
    config: OptimiserConfig, optimiser: Optimizer, step: int, steps: int, epoch: float = 1.0
) -> dict[str, float]:
    """Put the schedules' values of a step into every group; returns what is worth a line in the log."""
    rate, decay = learning_rate(config, step, steps, epoch), weight_decay(config, step, steps)
    inertia = momentum(config, step, steps)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]
        group["weight_decay"] = decay if group["decays"] else 0.0
        if inertia is not None and "betas" in group:
            group["betas"] = (inertia, group["betas"][1])
        elif inertia is not None:
            group["momentum"] = inertia
    return {"lr": rate} | ({} if config.weight_decay_end is None else {"weight_decay": decay})


def guarded_step(config: OptimiserConfig, optimiser: Optimizer, step: int) -> tuple[float, bool]:
    """(norm of the gradient before clipping, whether the step was made).

    It is not made where the guards of `config` say so. A norm that is not finite is returned as it is: with "stop" it
    is for the caller to stop.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    norm = _norm(parameters)
    if not math.isfinite(norm) and config.nonfinite == "zero":
        for parameter in parameters:
            torch.nan_to_num_(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)
        norm = _norm(parameters)
    if not math.isfinite(norm):
        return norm, False
    if config.clip is not None:
        if config.skip_factor is not None and step >= config.skip_after and norm > config.skip_factor * config.clip:
            return norm, False
        nn.utils.clip_grads_with_norm_(parameters, config.clip, torch.tensor(norm))
    optimiser.step()
    return norm, True


def _norm(parameters: Sequence[nn.Parameter]) -> float:
    return float(nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]))
