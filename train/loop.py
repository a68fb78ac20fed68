"""The training loop: one for every objective, on a CPU, a GPU, or several under torchrun.

A run is a folder. Starting the same run again goes on from its newest checkpoint, and on a CPU the losses that follow
are the ones that an undisturbed run would have had, bit for bit: weights, optimiser, stream position and random states
are all restored, and everything a scene draws depends on its place in the global order alone. Another configuration or
corpus in the same folder is refused, with the difference.

    run/config.json  environment.json  metrics.jsonl  tensorboard/  checkpoints/step-000100/  final/
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from shards.build import differences
from shards.corpus import Corpus
from shards.errors import BrickyardError, RecipeError
from shards.stream import Stream
from train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from train.distributed import Group
from train.metrics import MetricsLog, ProgressLine, read_metrics
from train.objectives.objective import Loss, Objective, ObjectiveConfig
from train.student import export_student

_FREE = ("checkpoint_every", "keep_last", "log_every", "threads", "bad_scenes", "device")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, on what, and with which optimiser; defaults are those published for SLidR.

    Attributes:
        steps: optimiser steps; or None, then `epochs` decides.
        epochs: passes over the selection.
        batch: scenes per forward pass, over all ranks.
        accumulate: forward passes per optimiser step.
        dataset: train on this dataset of the corpus only.
        split: train on this split; None takes all.
        optimiser: "sgd" or "adamw".
        lr: peak learning rate; cosine to 0 at the last step, after `warmup` steps of linear growth.
        momentum, dampening: of SGD. betas: of AdamW.
        clip: largest global norm of the gradient, or None.
        bf16: autocast on CUDA (sparse convolutions stay in float32).
        seed: of initial weights, order and augmentations.
        checkpoint_every: steps. keep_last: checkpoints kept.
        log_every: steps between lines of metrics.jsonl.
        threads: of the stream.
        bad_scenes: damaged scenes that may be replaced before training stops.
        device: "auto" takes CUDA where there is one.
    """

    steps: int | None = None
    epochs: float = 50.0
    batch: int = 16
    accumulate: int = 1
    dataset: str | None = None
    split: str | None = "train"
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.5
    momentum: float = 0.9
    dampening: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    warmup: int = 0
    clip: float | None = None
    bf16: bool = True
    seed: int = 0
    checkpoint_every: int = 500
    keep_last: int = 2
    log_every: int = 1
    threads: int = 4
    bad_scenes: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        positive = ("batch", "accumulate", "checkpoint_every", "keep_last", "log_every", "threads")
        if bad := [name for name in positive if getattr(self, name) < 1]:
            raise ValueError(f"{bad[0]} must be positive")
        if self.lr <= 0 or self.epochs <= 0 or self.warmup < 0 or (self.steps is not None and self.steps < 1):
            raise ValueError("lr, epochs and steps must be positive, warmup not negative")


def train(
    config: TrainConfig,
    settings: ObjectiveConfig,
    corpus: Corpus,
    out: str | Path,
    *,
    rows: NDArray[np.int64] | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Train until the last step; returns the summary that is also in `final/summary.json`.

    Args:
        settings: of the objective, an instance of a class in `train.objectives.CONFIGS`.
        out: folder of the run, made if need be.
        rows: of the corpus's index to train on (see `shards.selection`), instead of the configured dataset and split.
        resume: go on from the newest checkpoint; False refuses a folder that has one.

    Raises:
        RecipeError: an impossible configuration, or a folder of another run.
        BrickyardError: the loss is not finite; the message names the scenes.
    """
    with Group.join(config.device) as group:
        return _Run(config, settings, corpus, Path(out), group, rows=rows).train(resume=resume)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Of optimiser step `step` (from 0) of `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        settings: ObjectiveConfig,
        corpus: Corpus,
        out: Path,
        group: Group,
        *,
        rows: NDArray[np.int64] | None,
    ) -> None:
        self.config, self.settings, self.corpus, self.out, self.group = config, settings, corpus, out, group
        if rows is None:
            rows = corpus.select(**{k: v for k, v in (("split", config.split), ("dataset", config.dataset)) if v})
        if not len(rows):
            raise RecipeError(f"the corpus has no scene of split {config.split!r} and dataset {config.dataset!r}")
        if config.batch % group.world:
            raise RecipeError(f"batch {config.batch} must be a multiple of the {group.world} ranks")
        self.rows = rows
        per_step = config.batch * config.accumulate
        self.steps = config.steps or max(1, math.ceil(config.epochs * len(rows) / per_step))
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002 - libraries may use the global generator
        self.objective: Objective = settings.build(group.device)
        self.model: nn.Module = group.wrap(self.objective)
        self.optimiser = _optimiser(config, self.objective)
        self.skipped = 0

    def train(self, *, resume: bool) -> dict[str, Any]:
        started = time.monotonic()
        step, state = self._open(resume=resume)
        stream = Stream(
            self.corpus,
            self.objective.fields,
            batch=self.config.batch,
            seed=self.config.seed,
            rows=self.rows,
            rank=self.group.rank,
            world=self.group.world,
            threads=self.config.threads,
            prepare=self.objective.prepare,
            state=state,
            bad_scenes=self.config.bad_scenes,
        )
        finished = self.out / "final" / "summary.json"
        if step >= self.steps and finished.exists():
            done: dict[str, Any] = json.loads(finished.read_text())
            return done
        self._loop(step, stream)
        self.group.barrier()
        summary = {
            "objective": self.settings.name,
            "steps": self.steps,
            "scenes": len(self.rows),
            "last_loss": read_metrics(self.out)[-1]["loss"],
            "steps_without_pairs": self.skipped,
            "replaced_scenes": dict(stream.replaced),
            "seconds": round(time.monotonic() - started, 1),
            "corpus": self.corpus.fingerprint,
        }
        if self.group.rank == 0:
            finished.parent.mkdir(exist_ok=True)
            export_student(self.objective.student, finished.parent)
            finished.write_text(json.dumps(summary, indent=2) + "\n")  # last: it says that the export is whole
        return summary

    def _loop(self, first: int, stream: Stream) -> None:
        if first >= self.steps:
            return
        log = MetricsLog(self.out, first) if self.group.rank == 0 else None
        progress = ProgressLine(self.steps, first) if self.group.rank == 0 else None
        batches: Any = iter(stream)
        try:
            for step in range(first, self.steps):
                begun = time.monotonic()
                metrics = self._step(step, batches)
                seconds = max(time.monotonic() - begun, 1e-9)
                wait = metrics.pop("data_seconds") / seconds
                scenes = self.config.batch * self.config.accumulate / seconds
                done = step + 1
                if log and (done % self.config.log_every == 0 or done == self.steps):
                    log.write(done, {**metrics, "data_wait": round(wait, 4), "scenes_per_second": round(scenes, 2)})
                if progress:
                    progress.update(done, metrics["loss"], scenes, wait)
                if done % self.config.checkpoint_every == 0 or done == self.steps:
                    self._save(done, stream)
        finally:
            batches.close()
            if progress:
                progress.close()
            if log:
                log.close()

    def _step(self, step: int, batches: Iterator[list[Any]]) -> dict[str, float]:
        """One optimiser step; its metrics are means over the accumulated batches (of this rank)."""
        rate = learning_rate(self.config, step, self.steps)
        for entry in self.optimiser.param_groups:
            entry["lr"] = rate * entry["rate"]
        self.objective.begin_step(step, self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        self.model.train()
        sums: dict[str, float] = {}
        usable, waited = False, 0.0
        for number in range(self.config.accumulate):
            begun = time.monotonic()
            items = next(batches)
            waited += time.monotonic() - begun
            batch = self.objective.collate(items, self.group.device)
            last = number == self.config.accumulate - 1
            with self.group.synchronised(self.model, last), self._autocast():
                loss: Loss = self.model(batch)
                (loss.total / self.config.accumulate).backward()  # type: ignore[no-untyped-call]
            usable = usable or loss.usable
            for name, value in {"loss": loss.total.detach(), **loss.metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / self.config.accumulate
            if not math.isfinite(sums["loss"]):
                raise BrickyardError(f"the loss is {sums['loss']} at step {step + 1}; scenes: {', '.join(batch.keys)}")
        if self.group.any(usable):
            if self.config.clip is not None:
                norm: Tensor = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip)
                sums["gradient_norm"] = float(norm)
            self.optimiser.step()
            self.objective.end_step(step, self.steps)
        else:
            self.skipped += 1
        return {**sums, "lr": rate, "data_seconds": waited}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.bf16 and self.group.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    # Folder

    def _open(self, *, resume: bool) -> tuple[int, dict[str, Any] | None]:
        """Prepare the folder; the step to go on from and the stream's state."""
        identity = {
            "train": dataclasses.asdict(self.config),
            "objective": {"name": self.settings.name, **dataclasses.asdict(self.settings)},
            "corpus": self.corpus.fingerprint,
        }
        path, saved = self.out / "config.json", checkpoints(self.out / "checkpoints")
        if saved and not resume:
            raise RecipeError(f"{self.out} already holds a run; resume it, or choose another folder")
        if not saved:
            if self.group.rank == 0:
                self.out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(identity, indent=2) + "\n")
                (self.out / "environment.json").write_text(json.dumps(environment(self.group), indent=2) + "\n")
            self.group.barrier()
            return 0, None
        changed = differences(_numerics(json.loads(path.read_text())), _numerics(json.loads(json.dumps(identity))))
        if changed:
            raise RecipeError(f"{self.out} holds another run; resuming would mix them:\n  " + "\n  ".join(changed))
        state = load_checkpoint(saved[-1], self.objective, self.optimiser)
        self.skipped = int(state["skipped"])
        return int(state["step"]), state["stream"]

    def _save(self, step: int, stream: Stream) -> None:
        if self.group.rank == 0:
            state = {"stream": stream.state(), "skipped": self.skipped}
            folder = self.out / "checkpoints"
            save_checkpoint(folder, step, self.objective, self.optimiser, state, keep=self.config.keep_last)
        self.group.barrier()


def _numerics(identity: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers of a run; the rest may change when it is resumed."""
    return {**identity, "train": {k: v for k, v in identity["train"].items() if k not in _FREE}}


def environment(group: Group) -> dict[str, Any]:
    """What a run depended on besides its configuration."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("brickyard", "torch", "spconv-cu120", "spconv-cu126", "numpy", "transformers", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    device = torch.cuda.get_device_name(group.device) if group.device.type == "cuda" else platform.processor()
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "device": device,
        "threads": torch.get_num_threads(),
        "world": group.world,
        "packages": versions,
    }


def _optimiser(config: TrainConfig, model: Objective) -> Optimizer:
    """One group of parameters for each factor on the learning rate."""
    rates: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rates.setdefault(model.rate(name), []).append(parameter)
    groups = [{"params": parameters, "rate": rate} for rate, parameters in rates.items()]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        dampening=config.dampening,
        weight_decay=config.weight_decay,
    )
