"""One optimiser step: passes forward and back, what the ranks tell each other, then the update or none.

A step has the same passes on any number of ranks when batches are by budget of points: each bin is a pass, and its
gradient counts as much as that of any other. Torch's random state is set anew before every pass, from (seed, step,
pass), so what a network draws (drop path, dropout) depends neither on ranks nor on where a run was resumed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from brickyard.shards.errors import BrickyardError
from brickyard.train.models.norms import synchronise
from brickyard.train.objectives.objective import Loss, Objective
from brickyard.train.optimiser import OptimiserConfig, build_optimiser, guarded_step, set_rates
from brickyard.train.precision import settle
from brickyard.train.running.distributed import Group
from brickyard.train.running.guards import LossWatch, Stopped, out_of_memory

MAX_SKIPPED = 100
_NOTHING = "nothing to learn from (scenes without pairs, or views that do not meet)"
_COUNTERS = ("unusable", "unusable_in_a_row", "skipped", "in_a_row", "largest")
_SMALLER = (
    "lower `budget.points` or `batch` (raise `budget.bins` or `accumulate` to keep the size of a step), crop the scenes"
    " to fewer points, or turn on the network's activation checkpointing"
)
_CALMER = "lower `lr`, set `clip`, lengthen the warm-up, or leave these scenes out of the selection"


@dataclass(frozen=True, kw_only=True)
class StepConfig(OptimiserConfig):
    """How a step is computed.

    Attributes:
        bf16: autocast on CUDA (sparse convolutions stay in float32).
        tf32: on CUDA, products in float32, those of sparse convolutions too, round their factors to 10 bits, which
            tensor cores do several times as fast.
        compile: call the objective's `compile`, which is that of `nn.Module` unless the objective names the parts of
            itself for which `torch.compile` pays: those made of torch's own functions. Names of weights do not change.
        sync_norms: batch norms see the rows of all ranks, as published; False takes each rank's own.
        explode_factor: stop when the loss is more than so many times the median of the last hundred, or None.
        seed: of initial weights, order and augmentations.
    """

    bf16: bool = True
    tf32: bool = False
    compile: bool = False
    sync_norms: bool = True
    explode_factor: float | None = 10.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step was like.

    Attributes:
        metrics: means over passes and ranks.
        learned: whether the weights were moved.
        waited: seconds that the slowest rank waited for data.
        scenes, points: over all ranks.
        stop: whether any rank was asked to stop.
    """

    metrics: dict[str, float]
    learned: bool
    waited: float
    scenes: int
    points: int
    stop: bool


@dataclass(frozen=True, kw_only=True)
class _Pass:
    keys: tuple[str, ...]
    values: Mapping[str, float | Tensor]
    usable: bool
    points: int


class Stepper:
    """Makes steps, and counts those it did not make.

    Args:
        points: of a scene, by its key.
        epoch: steps of one.

    Attributes:
        watch: over the losses.
        unusable: steps without anything to learn from. skipped: steps that a guard left out.
        largest: points of the largest pass of this rank so far.
    """

    def __init__(
        self,
        config: StepConfig,
        objective: Objective,
        group: Group,
        points: Callable[[str], int],
        epoch: float = 1.0,
    ) -> None:
        self.config, self.objective, self.group, self.points, self.epoch = config, objective, group, points, epoch
        if config.compile:
            objective.compile(dynamic=True)
        settle(group.device, tf32=config.tf32)
        synchronise(objective, config.sync_norms)
        group.equalise(objective)
        self.optimiser: Optimizer = build_optimiser(config, objective)
        self.trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self.watch = LossWatch(config.explode_factor)
        self.unusable = self.unusable_in_a_row = self.skipped = self.in_a_row = self.largest = 0

    def state(self) -> dict[str, Any]:
        """Counters and the last losses, as JSON for the checkpoint."""
        return {name: getattr(self, name) for name in _COUNTERS} | {"losses": self.watch.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for name in _COUNTERS:
            setattr(self, name, int(state.get(name, 0)))
        self.watch = LossWatch(self.config.explode_factor, state.get("losses", ()))

    def make(
        self,
        step: int,
        steps: int,
        passes: Iterator[list[Any]],
        numbers: Sequence[int],
        *,
        stop: Callable[[], bool] = lambda: False,
        ahead: Callable[[], None] = lambda: None,
    ) -> Report:
        """Optimiser step `step` (from 0) of `steps`.

        Args:
            passes: the items of this rank's passes; as many are taken as there are `numbers`.
            numbers: of these passes among those of all ranks.
            ahead: called when all passes are on their way and the device is busy, unless this is the last step.
            stop: whether this rank is asked to stop, see `Report.stop`.

        Raises:
            Stopped: a loss or gradient that is not finite or explodes; on all ranks.
            BrickyardError: no memory; both name the scenes.
        """
        rates = set_rates(self.config, self.optimiser, step, steps, self.epoch)
        self.objective.begin_step(step, steps)
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.train()
        waited = 0.0
        done: list[_Pass] = []
        for number in numbers:
            begun = time.monotonic()
            items = next(passes)
            waited += time.monotonic() - begun
            _seed(self.config.seed, step, number)
            done.append(self._pass(step, items, len(numbers)))
        if step + 1 < steps:
            begun = time.monotonic()
            ahead()
            waited += time.monotonic() - begun
        self.largest = max(self.largest, *(one.points for one in done))
        self.group.average(self.trained)
        ranks = self.group.share(
            {
                "passes": _read([one.values for one in done], self.group.device),
                "usable": any(one.usable for one in done),
                "waited": waited,
                "scenes": sum(len(one.keys) for one in done),
                "points": sum(one.points for one in done),
                "stop": stop(),
            }
        )
        metrics = _means([rank["passes"] for rank in ranks])
        learned, norm = self._update(step, done, ranks, metrics["loss"])
        if learned:
            self.objective.end_step(step, steps)
        return Report(
            metrics=metrics | norm | rates,
            learned=learned,
            waited=max(rank["waited"] for rank in ranks),
            scenes=sum(rank["scenes"] for rank in ranks),
            points=sum(rank["points"] for rank in ranks),
            stop=any(rank["stop"] for rank in ranks),
        )

    def _pass(self, step: int, items: list[Any], count: int) -> _Pass:
        """One of `count` passes forward and back; its values stay on the device."""
        keys: tuple[str, ...] = ()
        try:
            batch = self.objective.collate(items, self.group.device)
            keys = tuple(batch.keys)
            with self._autocast():
                loss: Loss = self.objective(batch)
            if loss.total.requires_grad:
                (loss.total / count).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as problem:
            # on this rank alone: who started the ranks ends the others, which may wait for it within their pass
            text = out_of_memory(problem, step + 1, keys or (f"{len(items)} scenes",), self.points, _SMALLER)
            raise BrickyardError(text) from problem
        except BrickyardError:
            raise
        except Exception as problem:
            scenes = ", ".join(keys) or f"{len(items)} scenes, before they were joined"
            text = f"a pass failed at step {step + 1} with {type(problem).__name__}: {problem}; scenes: {scenes}"
            raise BrickyardError(text) from problem
        values = {k: v.detach() if torch.is_tensor(v) else v for k, v in {"loss": loss.total, **loss.metrics}.items()}
        return _Pass(keys=keys, values=values, usable=loss.usable, points=sum(map(self.points, keys)))

    def _update(
        self, step: int, done: Sequence[_Pass], ranks: Sequence[Mapping[str, Any]], loss: float
    ) -> tuple[bool, dict[str, float]]:
        """(whether the weights were moved, norm of the gradient); every rank comes to the same conclusion."""
        limit = self.watch.limit()
        finite = all(math.isfinite(one["loss"]) for rank in ranks for one in rank["passes"])
        if finite and loss > limit:
            what = f"the loss of {loss:.4g} is more than {self.config.explode_factor:g} times the usual one"
            raise self._stop(what, step, done, lambda value: value > limit)
        if not finite and self.config.nonfinite == "stop":
            raise self._stop(f"the loss is {loss}", step, done, lambda value: not math.isfinite(value))
        norm: dict[str, float] = {}
        learned = False
        if finite:
            if not any(rank["usable"] for rank in ranks):
                self.unusable, self.unusable_in_a_row = self.unusable + 1, self.unusable_in_a_row + 1
                if self.unusable_in_a_row >= MAX_SKIPPED:
                    raise self._stop(f"{MAX_SKIPPED} steps in a row held {_NOTHING}", step, done, lambda _: True)
                return False, {}
            self.unusable_in_a_row = 0
            norm["gradient_norm"], learned = guarded_step(self.config, self.optimiser, step)
            if not math.isfinite(norm["gradient_norm"]) and self.config.nonfinite == "stop":
                raise self._stop("the gradient is not finite", step, done, lambda _: True)
        if learned:
            self.watch.add(loss)
            self.in_a_row = 0
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            if self.in_a_row >= MAX_SKIPPED:
                raise self._stop(f"{MAX_SKIPPED} steps in a row were left out", step, done, lambda _: True)
        return learned, norm

    def _stop(self, what: str, step: int, done: Sequence[_Pass], guilty: Callable[[float], bool]) -> Stopped:
        """The error, with the scenes of the guilty passes of all ranks, or of all passes if none is guilty alone."""
        values = [one["loss"] for one in _read([one.values for one in done], self.group.device)]
        mine = [key for one, value in zip(done, values, strict=True) if guilty(value) for key in one.keys]
        table = {"guilty": mine, "all": [key for one in done for key in one.keys]}
        shared = self.group.share(table)
        named = [key for rank in shared for key in rank["guilty"]] or [key for rank in shared for key in rank["all"]]
        return Stopped(f"{what} at step {step + 1}; scenes: {', '.join(named)}\n{_CALMER}")

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.bf16 and self.group.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()


def _seed(seed: int, step: int, number: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence((seed, step, number)).generate_state(1, np.uint64)[0]))


def _read(passes: Sequence[Mapping[str, float | Tensor]], device: torch.device) -> list[dict[str, float]]:
    """The numbers of all passes, fetched from the device at once."""
    tensors = [v.to(device, torch.float64).reshape(()) for p in passes for v in p.values() if torch.is_tensor(v)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [{k: next(numbers) if torch.is_tensor(v) else float(v) for k, v in p.items()} for p in passes]


def _means(ranks: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Means over passes, then over the ranks that have a metric."""
    found: dict[str, list[float]] = {}
    for passes in ranks:
        sums: dict[str, float] = {}
        for one in passes:
            for name, value in one.items():
                sums[name] = sums.get(name, 0.0) + value / len(passes)
        for name, value in sums.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
