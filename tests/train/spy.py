"""A small objective that shows what the loop did: it learns, draws, has a teacher, and writes down its passes.

And processes to run it in: forked from a server that has imported everything once, because that takes seconds.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.shards.stream import Sample
from brickyard.train.ema import follow
from brickyard.train.objectives.objective import Loss, Objective, ObjectiveConfig
from brickyard.train.running.metrics import TIMINGS, read_metrics
from brickyard.train.schedules import cosine, linear_then_constant
from brickyard.train.students.base import Student


@dataclass(frozen=True, kw_only=True)
class SpyStudentConfig:
    kind: ClassVar[str] = "spy"
    width: int = 8


class SpyStudent(Student):
    def __init__(self) -> None:
        super().__init__()
        self.config, self.channels = SpyStudentConfig(), 8
        self.network = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 8))

    def forward(self, xyz: Tensor) -> Tensor:
        said: Tensor = self.network(xyz)
        return said


@dataclass(frozen=True)
class SpyBatch:
    keys: tuple[str, ...]
    xyz: Tensor
    scene: Tensor


@dataclass(frozen=True, kw_only=True)
class Spy(ObjectiveConfig):
    """Attributes: log: file of the passes. slow: seconds that a scene takes to prepare. cap: points kept of a scene.
    poison: the scene whose loss `how` spoils."""

    name: ClassVar[str] = "spy"

    log: str = ""
    slow: float = 0.0
    cap: int | None = None
    poison: str = ""
    how: str = ""
    idle: bool = False

    def build(self, device: torch.device | str = "cpu") -> SpyObjective:
        return SpyObjective(self).to(device)


class SpyObjective(Objective):
    """What the student says of noisy points should be what the teacher says of them as they are."""

    fields = ("points/xyz",)

    def __init__(self, config: Spy) -> None:
        super().__init__()
        self.config, self.step, self.temperature = config, -1, 0.0
        self.trained = SpyStudent()
        self.seldom = nn.Linear(8, 1)
        self.teacher = copy.deepcopy(self.trained).requires_grad_(False)

    @property
    def student(self) -> SpyStudent:  # type: ignore[override]
        return self.trained

    def rate(self, parameter: str) -> float:
        return 0.5 if parameter.startswith("trained.network.0.") else 1.0

    def begin_step(self, step: int, steps: int) -> None:
        self.step, self.temperature = step, linear_then_constant(0.5, 1.0, 0.5, step / steps)

    def end_step(self, step: int, steps: int) -> None:
        follow(self.teacher, self.trained, cosine(0.9, 1.0, step / steps))

    def compile(self, *args: Any, **options: Any) -> None:
        """The one part that is worth it; traced and differentiated, but left to torch's own kernels."""
        self.trained.compile(*args, backend="aot_eager", **options)

    def prepare(self, sample: Sample, rng: np.random.Generator) -> tuple[str, Tensor]:
        time.sleep(self.config.slow)
        xyz = np.array(sample["points/xyz"].dequantise(), np.float32)
        return sample.key, torch.from_numpy(rng.permutation(xyz)[: self.config.cap])

    def collate(self, items: Sequence[tuple[str, Tensor]], device: torch.device) -> SpyBatch:
        keys = tuple(key for key, _ in items)
        if self.config.log:
            line = {"step": self.step, "keys": keys, "points": sum(len(xyz) for _, xyz in items)}
            with Path(self.config.log).open("a") as file:
                file.write(json.dumps(line) + "\n")
        scene = torch.arange(len(items)).repeat_interleave(torch.tensor([len(xyz) for _, xyz in items]))
        return SpyBatch(keys=keys, xyz=torch.cat([xyz for _, xyz in items]).to(device), scene=scene.to(device))

    def forward(self, batch: SpyBatch) -> Loss:
        noisy = batch.xyz + 0.1 * torch.randn_like(batch.xyz)
        said = self.trained(noisy)
        with torch.no_grad():
            target = torch.tanh(batch.xyz @ torch.ones(3, 8, device=batch.xyz.device))
            target = target + 0.1 * self.teacher.network(batch.xyz)
        total = (said - target).square().mean() * self.temperature
        if int(batch.keys[0][-1]) % 2:  # so that some ranks have no gradient here
            total = total + self.seldom(said).square().mean()
        if self.config.poison in batch.keys:
            total = self._spoiled(total)
        metrics = {"temperature": self.temperature, "said": said.square().mean()}
        return Loss(total=total, metrics=metrics, usable=not self.config.idle)

    def _spoiled(self, total: Tensor) -> Tensor:
        how = self.config.how
        if how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nlong advice")
        if how == "error":
            raise RuntimeError("size mismatch")
        if how == "constant":
            return torch.zeros(())
        if how == "gradient":  # a finite loss whose gradient is not
            weight = self.seldom.bias
            return total + torch.sqrt((weight - weight).square()).sum()
        return total * float(how)


def passes(log: Path) -> dict[int, list[tuple[str, ...]]]:
    """Step -> keys of its passes, sorted: what all ranks saw of each global batch."""
    found: dict[int, list[tuple[str, ...]]] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        found.setdefault(line["step"], []).append(tuple(line["keys"]))
    return {step: sorted(keys) for step, keys in found.items()}


def rewrite(run: Path, **changes: Any) -> None:
    """Change what config.json of a run says of its objective, so that it is resumed with other settings."""
    table = json.loads((run / "config.json").read_text())
    table["objective"].update(changes)
    (run / "config.json").write_text(json.dumps(table))


def numbers(run: Path) -> list[dict[str, float]]:
    """The metrics that must not differ between equal runs."""
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run)]


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.train.test_loop", "torch._dynamo", "torch.utils.tensorboard"])


def child(function: Callable[..., None], *arguments: Any, rank: int = 0, world: int = 1, port: int = 0) -> BaseProcess:
    """A process of its own that runs `function(*arguments)`, on one thread, as one of `world` ranks."""
    process = _CONTEXT.Process(target=_run, args=(function, arguments, rank, world, port), daemon=True)
    process.start()
    return process


def _run(function: Callable[..., None], arguments: tuple[Any, ...], rank: int, world: int, port: int) -> None:
    torch.set_num_threads(1)
    table = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in table.items()})
    function(*arguments)


def ranks(world: int, function: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Exit codes of that many ranks."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [child(function, *arguments, rank=rank, world=world, port=port) for rank in range(world)]
    for process in started:
        process.join(120)
    for process in started:
        process.kill()
    return [process.exitcode for process in started]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are made in an order that depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
