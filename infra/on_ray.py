"""Tasks on Ray: longest first, a bounded window that follows the cluster, copies of what straggles.

What Ray loses (a node, a worker that its memory monitor killed) it tries again; if a task keeps losing its worker, its
scenes are tried one by one. A task whose process the kernel kills for its memory is tried again alone, with all the
memory of a node; what does not end well then is quarantined. When nothing waits any more and cores are idle, a task
that takes much longer than the others would have is given to a second worker: committing is atomic and whoever is first
wins, so a copy can do no harm. The head is asked for the cluster's size now and then, not for each task.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from brickyard.infra.nodes import code_digest
from brickyard.infra.plan import Plan, task_memory
from brickyard.infra.supervisor import PATIENCE_S, NeedsRoom, run_watched
from brickyard.infra.task import Job, TaskResult
from brickyard.ingest.source import SceneRef
from brickyard.shards.build import fingerprint_digest
from brickyard.shards.errors import BrickyardError

WAIT_S = 5.0
"""How long one looks for results before one says that the build is alive."""
_WINDOW = 2
"""Tasks submitted per CPU: enough to keep workers busy, few enough to keep the driver's memory flat."""
_LOOK_S = 10.0
"""Seconds between two looks at the size of the cluster."""
_STRAGGLES, _STRAGGLES_S, _KNOWN = 3.0, 30.0, 5
"""A task straggles that takes three times what its bytes should take, and half a minute more; that is known from the
fifth result on."""

Heartbeat = Callable[[], None]


def run_on_ray(
    ray: Any, job: Job, todo: Sequence[int], plan: Plan, *, heartbeat: Heartbeat, memory: Mapping[str, float]
) -> Iterator[TaskResult]:
    """Results as tasks finish.

    Args:
        todo: tasks in the order they are to begin.
        heartbeat: called while one waits.
        memory: dataset -> bytes that a task was seen to hold for a raw byte; see `infra.plan.task_memory`.

    Raises:
        BrickyardError: what a task raised, or a node has other code.
    """
    nodes = Nodes(ray, memory)
    calls = _Calls(ray, job, plan, nodes)
    waiting = list(reversed(todo))
    while waiting or calls.open:
        while waiting and len(calls.open) < _WINDOW * nodes.cpus:
            calls.submit(waiting.pop())
        if not waiting:
            calls.copy_stragglers()
        ready = calls.ready()
        if not ready:
            heartbeat()
        for call in ready:
            task = calls.open.pop(call, None)
            if task is None or task in calls.done:
                continue
            result = calls.result(call, task)
            if result is None:
                continue  # it is tried again
            calls.finish(task, result)
            yield result


@dataclass
class Nodes:
    """The size of the cluster, as of a few seconds ago."""

    ray: Any
    memory: Mapping[str, float]
    cpus: int = 1
    largest: int = 0
    _looked: float = float("-inf")

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Look, unless that was a moment ago."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.cpus = max(1, int(sum(node.get("CPU", 0) for node in alive)))
        self.largest = int(max((node.get("memory", 0) for node in alive), default=0))

    def needs(self, refs: Sequence[SceneRef]) -> dict[str, Any]:
        """Resources of a task: its planned memory, or all of the largest node's where that is less (it runs alone)."""
        self.look()
        declared = task_memory(sum(ref.bytes_estimate for ref in refs), self.memory.get(refs[0].dataset))
        return {"num_cpus": 1, "memory": min(declared, self.largest)}


@dataclass
class _Calls:
    """What is under way."""

    ray: Any
    job: Job
    plan: Plan
    nodes: Nodes
    open: dict[Any, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    copied: set[int] = field(default_factory=set)
    begun: dict[int, float] = field(default_factory=dict)
    paces: list[float] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)

    def submit(self, task: int, *, alone: bool = False) -> None:
        """Give a task to the cluster; `alone`, with all the memory of a node."""
        refs = self.plan.tasks[task]
        remote = self.ray.remote(max_retries=2, retry_exceptions=False)(_run_task)
        needs = self.nodes.needs(refs) | ({"memory": self.nodes.largest} if alone else {})
        call = remote.options(**needs, name=f"shard {task}")
        self.open[call.remote(self.job, task, refs, {}, self._code(refs), alone=alone)] = task
        self.begun.setdefault(task, time.monotonic())

    def ready(self) -> list[Any]:
        """What is finished; after a while nothing."""
        calls = list(self.open)
        first, _ = self.ray.wait(calls, num_returns=1, timeout=WAIT_S)
        return list(self.ray.wait(calls, num_returns=len(calls), timeout=0)[0]) if first else []

    def finish(self, task: int, result: TaskResult) -> None:
        self.done.add(task)
        self.paces.append(result.seconds / (1 + self._bytes(task)))
        for copy in [call for call, of in self.open.items() if of == task]:
            del self.open[copy]
            self.ray.cancel(copy, force=True)

    def copy_stragglers(self) -> None:
        """Give what takes far too long to a second worker, one task for each idle core."""
        idle = self.nodes.cpus - len(self.open)
        if idle < 1 or len(self.paces) < _KNOWN:
            return
        pace, now = median(self.paces), time.monotonic()
        running = Counter(self.open.values())
        for task in sorted(running, key=lambda task: self.begun[task])[:idle]:
            allowed = _STRAGGLES * pace * self._bytes(task) + _STRAGGLES_S
            if task not in self.copied and now - self.begun[task] > allowed:
                self.copied.add(task)
                self.submit(task)

    def result(self, call: Any, task: int) -> TaskResult | None:
        """The result of a task; if it lost its workers, that of the same task without the scenes that do so. None if
        its process was killed beside others: it is submitted again, to run alone."""
        ray, refs = self.ray, self.plan.tasks[task]
        try:
            return _get(ray, call)
        except NeedsRoom:
            self.submit(task, alone=True)
            return None
        except ray.exceptions.RayError as problem:
            deadly = self._find_deadly(refs, problem)
        again = ray.remote(max_retries=2)(_run_task).options(**self.nodes.needs(refs))
        try:
            return _get(ray, again.remote(self.job, task, refs, deadly, self._code(refs), alone=True))
        except ray.exceptions.RayError as problem:
            raise BrickyardError(
                f"shard {task} keeps losing its worker ({problem}); build with fewer --cpus"
            ) from problem

    def _find_deadly(self, refs: Sequence[SceneRef], first: Exception) -> Mapping[str, str]:
        """Try each scene in a worker of its own; those whose worker is lost are returned with the reason."""
        ray, deadly = self.ray, {}
        for ref in refs:
            trial = ray.remote(max_retries=1)(run_watched).options(**self.nodes.needs([ref]))
            try:
                ray.get(trial.remote(self.job, None, [ref], {}, PATIENCE_S))
            except (ray.exceptions.RayTaskError, ray.exceptions.NodeDiedError):
                continue  # an ordinary error, which the task itself will tell; or its node was lost once more
            except ray.exceptions.RayError:
                deadly[ref.key] = f"reading or curating it kills the worker process ({type(first).__name__})"
        return deadly

    def _code(self, refs: Sequence[SceneRef]) -> str:
        dataset = refs[0].dataset
        if dataset not in self.codes:
            self.codes[dataset] = fingerprint_digest(self.plan.fingerprint["code"][dataset])
        return self.codes[dataset]

    def _bytes(self, task: int) -> int:
        return sum(ref.bytes_estimate for ref in self.plan.tasks[task])


def _run_task(
    job: Job, task: int, refs: Sequence[SceneRef], excluded: Mapping[str, str], code: str, *, alone: bool = False
) -> TaskResult | None:
    """On a node: `run_watched`, if the code here is the driver's; `alone` where no other task takes memory."""
    if (found := code_digest(refs[0].dataset, job.curate)) != code:
        raise BrickyardError(
            f"for {refs[0].dataset}, node {socket.gethostname()} has other code than this build began with ({found},"
            f" not {code}): it joined with another version, or was changed meanwhile; make it the same, then run the"
            " same command again"
        )
    return run_watched(job, task, refs, excluded, PATIENCE_S, alone=alone)


def checked(value: object) -> TaskResult:
    """The result of a task that came back."""
    if not isinstance(value, TaskResult):
        raise TypeError(f"a task returned {type(value).__name__}")
    return value


def _get(ray: Any, call: Any) -> TaskResult:
    """Raises `BrickyardError` for what the task raised, Ray's errors for a worker that is lost."""
    try:
        return checked(ray.get(call))
    except ray.exceptions.RayTaskError as problem:
        if isinstance(problem.cause, NeedsRoom):
            raise problem.cause from problem
        raise BrickyardError(str(problem.cause)) from problem
    except ray.exceptions.LocalRayletDiedError as problem:
        raise BrickyardError("Ray's own process on this machine has died: run the same command again") from problem
