"""What the logs of a build tell: how far it is, how fast, what it cost, what it refused.

One run is what one call of `brickyard build` did; a build may take several. Tasks of all runs are told together, each
by its last result.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from brickyard.infra.events import EVERY_S, Event, read_runs
from brickyard.shards.corpus import MANIFEST
from brickyard.shards.errors import CorpusError
from brickyard.shards.storage import Store

State = Literal["running", "stopped", "silent", "finished"]
SILENT_S = 12 * EVERY_S
"""A run that has not ended and has not written for so long is thought dead."""
_RECENT_S = 600.0
LIBRARIES_BYTES = 512 << 20
"""What a process holds before its first scene, at most."""


@dataclass(frozen=True)
class Run:
    """One call of `brickyard build`.

    Attributes:
        name: of its folder in the log.
        began, last: seconds since 1970, of the first and the last event.
        state: "silent" is a run without an end that has not been heard of for a minute.
        reason: why it stopped, or "".
        outline: what it was about to do: "recipe", "scenes", "scenes_todo", "tasks", "todo", "bytes_todo", "missing".
        tasks: its "task" events.
    """

    name: str
    began: float
    last: float
    state: State
    reason: str
    outline: Event
    tasks: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        return max(self.last - self.began, 1e-3)

    @property
    def scenes_done(self) -> int:
        return sum(int(task["planned"]) for task in self.tasks)


@dataclass(frozen=True)
class Story:
    """A build.

    Attributes:
        runs: the oldest first; at least one.
        finished: whether the corpus is.
    """

    runs: tuple[Run, ...]
    finished: bool

    @property
    def now(self) -> Run:
        return self.runs[-1]

    @property
    def tasks(self) -> list[Event]:
        """The last result of every task, in the order they ended."""
        last = {int(task["task"]): task for run in self.runs for task in run.tasks}
        return sorted(last.values(), key=lambda task: float(task["time"]))


def read_story(store: Store, *, now: float | None = None) -> Story:
    """The story of the build in this folder; raises `CorpusError` where no log is.

    Args:
        now: seconds since 1970, by which silence is told; this machine's clock.
    """
    runs = [run for name, events in read_runs(store) if (run := _run(name, events, now or time.time())) is not None]
    finished = store.exists(MANIFEST)
    if not runs:
        raise CorpusError(
            f"{store.uri} holds no log of a build: give the folder that `brickyard build --out` was given"
        )
    return Story(tuple(runs), finished)


def _run(name: str, events: Sequence[Event], now: float) -> Run | None:
    outline = next((event for event in events if event["event"] == "begin"), None)
    if outline is None or not all(isinstance(outline.get(key), int) for key in _COUNTS):
        return None
    last, state, reason = events[-1], "running", ""
    if last["event"] == "end":
        state = "finished"
    elif last["event"] == "stopped":
        state, reason = "stopped", str(last.get("reason", ""))
    elif now - float(last["time"]) > SILENT_S:
        state = "silent"
    tasks = tuple(event for event in events if event["event"] == "task" and _is_task(event))
    return Run(name, float(outline["time"]), float(last["time"]), state, reason, outline, tasks)  # type: ignore[arg-type]


_COUNTS = ("scenes", "scenes_todo", "tasks", "todo", "bytes_todo")


def _is_task(event: Event) -> bool:
    numbers = [event.get(name) for name in ("task", "scenes", "planned", "bytes_in", "bytes_out", "seconds")]
    return all(isinstance(number, int | float) for number in numbers) and isinstance(event.get("dataset"), str)


def progress(run: Run) -> dict[str, Any]:
    """{"done", "total", "scenes_per_s", "seconds_left", "quarantined", "share_of_bytes"} of a run.

    The rate is that of the last ten minutes of the run; what is left is told by raw bytes, as large tasks come first.
    """
    done, total = run.scenes_done, int(run.outline["scenes_todo"])
    size = sum(int(task["bytes_in"]) for task in run.tasks)
    recent = [task for task in run.tasks if float(task["time"]) > run.last - _RECENT_S]
    passed = min(run.seconds, _RECENT_S)
    pace = sum(int(task["bytes_in"]) for task in recent) / passed
    left = int(run.outline["bytes_todo"]) - size
    return {
        "done": int(run.outline["scenes"]) - total + done,
        "total": int(run.outline["scenes"]),
        "scenes_per_s": sum(int(task["planned"]) for task in recent) / passed,
        "seconds_left": None if run.state != "running" or not recent else left / pace if pace else None,
        "quarantined": sum(len(task.get("quarantined", ())) for task in run.tasks),
        "share_of_bytes": size / run.outline["bytes_todo"] if run.outline["bytes_todo"] else 1.0,
    }


def stages(tasks: Sequence[Event]) -> dict[str, dict[str, float]]:
    """Dataset -> stage -> core seconds."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for task in tasks:
        for name, seconds in dict(task.get("stages", {})).items():
            found[task["dataset"]][str(name)] += float(seconds)
    return {dataset: dict(each) for dataset, each in found.items()}


def measured_rates(tasks: Sequence[Event]) -> dict[str, dict[str, float]]:
    """What the next plan may count with: dataset -> "seconds" (of one core), "bytes_out" and "memory" for a raw byte.

    Memory is what a task held above `LIBRARIES_BYTES`, the most that was seen.
    """
    found = {}
    for dataset in sorted({str(task["dataset"]) for task in tasks}):
        own = [task for task in tasks if task["dataset"] == dataset]
        size = sum(int(task["bytes_in"]) for task in own)
        if size:
            found[dataset] = {
                "seconds": sum(float(task["seconds"]) for task in own) / size,
                "bytes_out": sum(int(task["bytes_out"]) for task in own) / size,
                "memory": max(_memory(task) for task in own),
            }
    return found


def _memory(task: Event) -> float:
    above = max(0, int(task.get("memory_bytes", 0)) - LIBRARIES_BYTES)
    return above / max(1, int(task["bytes_in"]))


def slowest(tasks: Sequence[Event], count: int) -> list[tuple[str, float]]:
    """(key, seconds) of the scenes that took longest."""
    named = [(str(key), float(seconds)) for task in tasks for key, seconds in task.get("slowest", ())]
    return sorted(named, key=lambda item: (-item[1], item[0]))[:count]


def refused(tasks: Sequence[Event]) -> list[dict[str, str]]:
    """{"key", "reason"} of every scene that was quarantined."""
    return [{"key": str(key), "reason": str(why)} for task in tasks for key, why in task.get("quarantined", ())]


def workers(tasks: Sequence[Event]) -> dict[str, list[Event]]:
    """What ran where, by "host, process"; tasks that told where they ran."""
    found: dict[str, list[Event]] = defaultdict(list)
    for task in tasks:
        if task.get("host") and math.isfinite(float(task.get("began", "nan"))):
            found[f"{task['host']}, {task.get('process')}"].append(task)
    return dict(sorted(found.items()))


def per_dataset(tasks: Sequence[Event]) -> dict[str, Mapping[str, float]]:
    """Dataset -> "scenes", "quarantined", "bytes_in", "bytes_out", "seconds", "tasks", "memory_bytes" (the most)."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    most: dict[str, int] = defaultdict(int)
    for task in tasks:
        dataset = str(task["dataset"])
        counts[dataset].update({name: task[name] for name in ("scenes", "bytes_in", "bytes_out", "seconds")})
        counts[dataset].update({"tasks": 1, "quarantined": len(task.get("quarantined", ()))})
        most[dataset] = max(most[dataset], int(task.get("memory_bytes", 0)))
    return {dataset: {**counts[dataset], "memory_bytes": most[dataset]} for dataset in counts}
