"""The training loop: one for every objective, on a CPU, a GPU, or several under torchrun or Ray Train.

A run is a folder (`train.running.run_folder`). Starting the same run again goes on from its newest checkpoint, and on a
CPU the losses that follow are the ones that an undisturbed run would have had, bit for bit: weights, optimiser,
teacher, stream position, random states and what the guards remember are restored, schedules are functions of the step,
and everything a scene draws depends on its place in the global order alone. On another number of
ranks the global batches stay the same.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.shards.batching import Budget, by_cost
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.reasons import grouped
from brickyard.shards.stream import Stream
from brickyard.shards.visits import Portion, Visits
from brickyard.train.checks import check_suits
from brickyard.train.objectives.objective import Objective, ObjectiveConfig
from brickyard.train.optimiser import check_warmup
from brickyard.train.running.ahead import Ahead
from brickyard.train.running.allocator import keep_pages
from brickyard.train.running.checkpoint import load_checkpoint, save_checkpoint
from brickyard.train.running.distributed import Group
from brickyard.train.running.logs import Log, LogName, check_logs, open_logs
from brickyard.train.running.memory import memory_report, peak_bytes, start_measuring
from brickyard.train.running.metrics import METRICS, MetricsLog, rows_until
from brickyard.train.running.progress import ProgressLine
from brickyard.train.running.run_folder import DATA, RunFolder
from brickyard.train.running.stopping import Interrupted, listening
from brickyard.train.running.watching import Watch
from brickyard.train.step import Report, StepConfig, Stepper


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StepConfig):
    """How long, and on what; how a step is computed and weights are moved is in the classes this one extends.

    Attributes:
        steps: optimiser steps; or None, then `epochs` decides. A mixture of corpora needs it.
        epochs: passes over the selection.
        batch: scenes per forward pass, over all ranks.
        accumulate: forward passes per optimiser step.
        budget: batches by cost (points, or an expression) instead of `batch` and `accumulate`: each of its bins is a
            forward pass of one rank, all of them together are an optimiser step. So memory stays bounded although
            scenes differ in size. Its `cap` must be what the objective crops scenes to.
        dataset: train on this dataset of the corpus only.
        split: train on this split; None takes all.
        checkpoint_every: steps. keep_last: checkpoints kept. keep_best: also keep the one with the best score of what
            is measured while training (see `train.running.watching`) or, where nothing is, the one before which the
            mean loss since its predecessor was lowest, which says little of a self-supervised run.
        log_every: steps between lines of metrics.jsonl. logs: where the numbers are shown besides.
        threads: of the stream.
        bad_scenes: damaged scenes that may be replaced before training stops.
        unfit_scenes: whole scenes that do not do for the objective (clips that are too short) and may be replaced, or
            None for any number; the summary says how many and why.
        device: "auto" takes CUDA where there is one.
    """

    steps: int | None = None
    epochs: float = 50.0
    batch: int = 16
    accumulate: int = 1
    budget: Budget | None = None
    dataset: str | None = None
    split: str | None = "train"
    checkpoint_every: int = 500
    keep_last: int = 2
    keep_best: bool = True
    log_every: int = 1
    logs: tuple[LogName, ...] = ("tensorboard",)
    threads: int = 4
    bad_scenes: int = 0
    unfit_scenes: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("batch", "accumulate", "checkpoint_every", "keep_last", "log_every", "threads")
        if bad := [name for name in positive if getattr(self, name) < 1]:
            raise ValueError(f"{bad[0]} must be positive")
        if self.epochs <= 0 or (self.steps is not None and self.steps < 1):
            raise ValueError("epochs and steps must be positive")
        if self.budget is not None and self.accumulate > 1:
            raise ValueError("with a budget, `bins` says how many passes make a step: leave out accumulate")


def train(
    config: TrainConfig,
    settings: ObjectiveConfig,
    corpus: Corpus | Sequence[Portion],
    out: str | Path,
    *,
    rows: NDArray[np.int64] | None = None,
    resume: bool = True,
    continue_with: str | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train until the last step; returns the summary that is also in `final/summary.json`.

    Args:
        settings: of the objective, an instance of a class in `train.objectives.CONFIGS`.
        corpus: an open corpus, or the portions of a mixture; of one without rows, the configured dataset and split.
        out: folder of the run, made if need be; all ranks must see it.
        rows: of the corpus's index to train on (see `shards.selection`), instead of the configured dataset and split.
        resume: go on from the newest checkpoint; False refuses a folder that has one.
        continue_with: a name for going on with other settings of the loop than the run had, which is recorded.
        watch: what is measured now and then.

    Raises:
        Interrupted: somebody asked to stop; the newest checkpoint is that of the last step.
        RecipeError: an impossible configuration, or a folder of another run.
        BrickyardError: the loss is not finite or explodes, or memory is used up; the message names the scenes.
    """
    with Group.join(config.device) as group:
        if group.device.type == "cpu":
            keep_pages()
        run = _Run(config, settings, portions_of(config, corpus, rows), Path(out), group, watch=watch)
        return run.train(resume=resume, continue_with=continue_with)


def portions_of(
    config: TrainConfig, corpus: Corpus | Sequence[Portion], rows: NDArray[np.int64] | None = None
) -> tuple[Portion, ...]:
    """What is trained on, each portion with its rows; arguments and errors as of `train`."""
    if isinstance(corpus, Corpus):
        corpus = [Portion(corpus=corpus, rows=rows)]
    elif rows is not None:
        raise ValueError("the portions of a mixture have rows of their own")
    found = tuple(p if p.rows is not None else replace(p, rows=_chosen(config, p.corpus)) for p in corpus)
    for portion in found:
        if not len(_rows(portion)):
            where = f" of {portion.corpus.store.uri}" if len(found) > 1 else ""
            raise RecipeError(f"the selection{where} holds no scene: there is nothing to train on")
    if len(found) > 1 and config.steps is None:
        raise RecipeError("a mixture has no epochs, as each of its corpora has its own: say how many `steps` to make")
    return found


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        settings: ObjectiveConfig,
        portions: Sequence[Portion],
        out: Path,
        group: Group,
        *,
        watch: Watch | None,
    ) -> None:
        self.config, self.settings, self.portions, self.group, self.watch = config, settings, portions, group, watch
        check_logs(config.logs)
        self.numbers = _numbers_of_passes(config, group)
        self.steps = config.steps or max(1, math.ceil(config.epochs * _steps_of_an_epoch(config, portions)))
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002 - libraries may use the global generator
        self.objective: Objective = settings.build(group.device)
        for portion in portions:
            check_suits(self.objective, portion.corpus, _rows(portion))
        check_warmup(config, self.steps)
        if watch:
            watch.check(self.objective, config.checkpoint_every)
        epoch = _steps_of_an_epoch(config, portions) if config.schedule == "epoch_cosine" else 1.0
        self.stepper = Stepper(config, self.objective, group, self._points, epoch)
        self.folder = RunFolder(out, group, config=config, settings=settings, portions=portions)
        self.seconds = self.waited = 0.0
        self.best: dict[str, float] | None = None
        self.since_checkpoint: list[float] = []
        self.last_loss: float | None = None
        self.log: MetricsLog | None = None
        self.lines: int | None = None  # of metrics.jsonl, when the restored checkpoint was written

    def train(self, *, resume: bool, continue_with: str | None) -> dict[str, Any]:
        started = time.monotonic()
        checkpoint = self.folder.open(resume=resume, continue_with=continue_with)
        first, place = (0, None) if checkpoint is None else self._restore(checkpoint)
        if first >= self.steps and (done := self.folder.finished()):
            return done
        stream = Stream(
            self.portions,
            self.objective.fields,
            batch=self.config.budget or self.config.batch,
            seed=self.config.seed,
            rank=self.group.rank,
            world=self.group.world,
            threads=self.config.threads,
            prepare=self.objective.prepare,
            choose=self.objective.choose,
            state=place,
            bad_scenes=self.config.bad_scenes,
            unfit_scenes=self.config.unfit_scenes,
            accumulate=self.config.accumulate,
        )
        base, before = start_measuring(self.group.device), self.seconds
        if first < self.steps:
            self._loop(first, stream)
        if self.stepper.unusable >= self.steps:
            raise BrickyardError(
                f"all {self.steps} steps held nothing to learn from, so no student is exported: look at the pairs and"
                " views of the selected scenes (`brickyard stats`, `brickyard show`)"
            )
        self.group.barrier()
        memory = memory_report(self.objective, self.stepper.optimiser, self.group.device, base, self.stepper.largest)
        summary = {
            "objective": self.settings.name,
            "steps": self.steps,
            "scenes": sum(len(_rows(portion)) for portion in self.portions),
            "last_loss": self.last_loss,
            "best": self.best,
            self.objective.unusable: self.stepper.unusable,
            "steps_left_out": self.stepper.skipped,
            "replaced_scenes": dict(stream.replaced),
            "unfit_scenes": {"scenes": len(stream.unfit), "reasons": [g.line() for g in grouped(stream.unfit.items())]},
            "seconds": round(before + time.monotonic() - started, 1),
            "data_wait": round(self.waited / max(self.seconds, 1e-9), 4),
            "memory": memory,
            **{name: self.folder.identity[name] for name in DATA if name in self.folder.identity},
        }
        self.folder.finish(self.objective.student, summary, self.objective.companions)
        return summary

    def _loop(self, first: int, stream: Stream) -> None:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(contextlib.closing(self._passes(stream)))
            device = self.group.device if self.objective.items_on_device else None
            passes = Ahead(source, stream.state, device if device and device.type == "cuda" else None)
            request = stack.enter_context(listening())
            chief, logs = self.group.rank == 0, list[Log]()
            if chief:
                log = MetricsLog(self.folder.out, first, lines=self.lines)
                self.log = stack.enter_context(contextlib.closing(log))
                logs = open_logs(self.config.logs, self.folder.out, first, self.folder.identity)
                for one in logs:
                    stack.enter_context(contextlib.closing(one))
            line = stack.enter_context(contextlib.closing(ProgressLine(self.steps, first))) if chief else None
            for step in range(first, self.steps):
                begun = time.monotonic()
                report = self.stepper.make(
                    step, self.steps, passes, self.numbers, stop=lambda: request.asked, ahead=passes.look
                )
                seconds = max(time.monotonic() - begun, 1e-9)
                self.seconds, self.waited = self.seconds + seconds, self.waited + report.waited
                if report.learned:
                    self.since_checkpoint.append(report.metrics["loss"])
                self.last_loss = loss if math.isfinite(loss := report.metrics["loss"]) else None
                done, peak = step + 1, peak_bytes(self.group.device)
                seen = self._look(done)
                if self.log and (seen or report.stop or done % self.config.log_every == 0 or done == self.steps):
                    numbers = report.metrics | seen | _speed(report, seconds, peak)
                    for one in (self.log, *logs):
                        one.write(done, numbers)
                if line:
                    rate, wait = report.scenes / seconds, report.waited / seconds
                    line.update(done, report.metrics["loss"], rate, wait, peak)
                if report.stop or done % self.config.checkpoint_every == 0 or done == self.steps:
                    self._save(done, passes.place, seen)
                if report.stop and done < self.steps:
                    raise Interrupted(f"stopped after step {done} of {self.steps}; the same command goes on from there")

    def _look(self, done: int) -> dict[str, float]:
        """What is measured after so many steps, if anything; by rank 0, the others wait where they save."""
        if self.watch is None or done % self.watch.every or self.group.rank != 0:
            return {}
        return self.watch.look(self.objective)

    def _passes(self, stream: Stream) -> Generator[list[Any], None, None]:
        """The items of each pass of this rank: those of a batch, or those of each bin of one."""
        with contextlib.closing(stream.batches()) as batches:
            for batch in batches:
                if self.config.budget is None:
                    yield batch
                else:
                    yield from batch

    def _points(self, key: str) -> int:
        budget, corpora = self.config.budget, [portion.corpus for portion in self.portions]
        counts = [int(corpus.points_per_scene[row]) for corpus in corpora if (row := corpus.find(key)) is not None]
        points = max(counts, default=0)  # corpora of a mixture may share a key
        return points if budget is None or budget.points is None or budget.cap is None else min(points, budget.cap)

    # Checkpoints

    def _restore(self, checkpoint: Path) -> tuple[int, dict[str, Any]]:
        """(step to go on from, place of the stream)."""
        state = load_checkpoint(checkpoint, self.objective, self.stepper.optimiser)
        self.stepper.restore(state)
        self.best = state.get("best")
        self.seconds, self.waited = state.get("seconds", 0.0), state.get("waited", 0.0)
        self.last_loss, self.lines = state.get("last_loss"), state.get("lines")
        step = int(state["step"])
        if self.group.rank == 0:
            self._check_lines(step)
        return step, state["stream"] | {"batches": step * self.config.accumulate}  # older versions did not keep it

    def _check_lines(self, step: int) -> None:
        """Say so where metrics.jsonl has lost lines; nothing but its curves depends on them."""
        path = self.folder.out / METRICS
        rows = rows_until(path, step, self.lines)
        if self.lines is None:  # a checkpoint of an older version
            loss = rows[-1]["loss"] if rows else math.nan
            self.last_loss = loss if math.isfinite(loss) else None
        expected = self.lines if self.lines is not None else 1
        if len(rows) < expected:
            text = f"{path} has {len(rows)} lines up to step {step} where there were {expected} or more"
            print(f"{text}: they are lost; the run goes on, its curves have a gap", file=sys.stderr, flush=True)

    def _save(self, step: int, place: dict[str, Any], seen: Mapping[str, float]) -> None:
        """Rank 0 writes; the others wait."""
        if self.since_checkpoint:
            mean = sum(self.since_checkpoint) / len(self.since_checkpoint)
            self._judge({"step": step, "loss": mean}, seen)
            self.since_checkpoint = []
        if self.group.rank == 0:
            assert self.log is not None
            self.log.flush()
            times = {"seconds": self.seconds, "waited": self.waited}
            logged = {"last_loss": self.last_loss, "lines": self.log.lines}
            save_checkpoint(
                self.folder.checkpoints,
                step,
                self.objective,
                self.stepper.optimiser,
                {"stream": place, "best": self.best, **times, **logged, **self.stepper.state()},
                keep=self.config.keep_last,
                best=int(self.best["step"]) if self.best and self.config.keep_best else None,
            )
        self.group.barrier()

    def _judge(self, state: dict[str, float], seen: Mapping[str, float]) -> None:
        """Remember a checkpoint that is the best so far: by its score or, where nothing is watched, by its loss."""
        if self.watch is None:
            if self.best is None or state["loss"] < self.best["loss"]:
                self.best = state
        elif seen:
            score = self.watch.scored(seen)
            if self.best is None or score > self.best.get("score", -math.inf):
                self.best = state | {"score": score}


def _chosen(config: TrainConfig, corpus: Corpus) -> NDArray[np.int64]:
    rows = corpus.select(dataset=config.dataset, split=config.split)
    if not len(rows):
        raise RecipeError(
            f"{corpus.store.uri} has no scene of split {config.split!r} and dataset {config.dataset!r}: there is"
            " nothing to train on"
        )
    return rows


def _rows(portion: Portion) -> NDArray[np.int64]:
    assert portion.rows is not None
    return portion.rows


def _numbers_of_passes(config: TrainConfig, group: Group) -> list[int]:
    """The passes of a step that are this rank's, by their numbers among those of all ranks."""
    if config.budget is None:
        if config.batch % group.world:
            raise RecipeError(f"batch {config.batch} must be a multiple of the {group.world} ranks")
        return [number * group.world + group.rank for number in range(config.accumulate)]
    if config.budget.bins % group.world:
        raise RecipeError(f"budget.bins {config.budget.bins} must be a multiple of the {group.world} ranks")
    share = config.budget.bins // group.world
    return list(range(group.rank * share, (group.rank + 1) * share))


def _steps_of_an_epoch(config: TrainConfig, portions: Sequence[Portion]) -> float:
    """Steps of a pass over the rows; with a budget the first pass is planned and counted."""
    if len(portions) > 1:
        raise RecipeError('a mixture has no epochs: schedule "epoch_cosine" has no meaning there, take another one')
    visits = Visits(portions, config.seed)
    if config.budget is None:
        return visits.epoch_length / (config.batch * config.accumulate)
    return float(sum(1 for _ in by_cost(visits, config.budget, (0, 0), visits.epoch_length)))


def _speed(report: Report, seconds: float, peak: int) -> dict[str, float]:
    """Metrics that differ from run to run; their names are in `train.running.metrics.TIMINGS`."""
    return {
        "data_wait": round(report.waited / seconds, 4),
        "scenes_per_second": round(report.scenes / seconds, 2),
        "points_per_second": round(report.points / seconds, 1),
        "peak_gib": round(peak / 2**30, 3),
    }
