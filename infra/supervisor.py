"""Runs tasks in a process of its own and bounds what a scene may take there, whatever the scene does.

The one guard of both ways to build: in this process, and in the workers of Ray. The process (`infra.worker`) is started
once and kept for the next task; a start costs what its imports do. When it goes over a scene's time, it is killed; when
it dies, killed by a signal, out of memory or by `os._exit`, that is the scene's doing if it happens again in a fresh
process. The scene is then quarantined with what was seen, and its task done again without it.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from brickyard.infra.task import Job, TaskResult
from brickyard.infra.worker import is_stopped
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import BrickyardError

WORKER = "brickyard.infra.worker"
GRACE_S = 5.0
"""A scene over its time may take so much longer until Python is back from native code and can end it by itself."""
WRITE_S = 3600.0
"""Writing a shard takes no longer."""
PATIENCE_S = 60.0
"""A worker of Ray that is stopped for so long is killed."""
_DEATHS = 2
_DEATHS_BY_KILL = 3
"""SIGKILL is what the kernel sends when memory runs out, and that may be a neighbour's doing."""
_TICK_S = 0.5

_kept: list[Worker] = []
"""The process, if there is one."""


class NeedsRoom(BrickyardError):
    """A process was killed again and again where others ran beside it: perhaps there was too little memory for all."""


def run_watched(
    job: Job,
    task: int | None,
    refs: Sequence[SceneRef],
    excluded: Mapping[str, str],
    patience: float = 0.0,
    *,
    alone: bool = True,
) -> TaskResult | None:
    """`infra.task.run_task` in the process kept for that; without a task's number, the scenes are made and thrown away.

    Args:
        patience: more than 0 where this process itself may be given up when it is stopped for so many seconds.
        alone: whether nothing else takes memory here; if so, what is killed every time is the scene's own doing.

    Raises:
        NeedsRoom: a scene's process was killed every time, not `alone`.
        BrickyardError: the machine's trouble; nothing is committed, the rerun tries again.
    """
    excluded = dict(excluded)
    deaths: Counter[str] = Counter()
    while True:
        try:
            return _running(patience).run(job, task, refs, excluded)
        except _Overdue as problem:
            if not problem.key:
                raise BrickyardError(f"shard {task} was not written within {WRITE_S:g} s") from problem
            excluded[problem.key] = str(problem)
        except _Died as problem:
            deaths[problem.key] += 1
            if deaths[problem.key] < (_DEATHS_BY_KILL if problem.killed else _DEATHS):
                continue
            if problem.killed and not alone:
                raise NeedsRoom(f"shard {task} keeps losing its process ({problem}) beside others") from problem
            if not problem.key:
                raise BrickyardError(
                    f"shard {task} keeps losing its process ({problem}); use fewer --cpus"
                ) from problem
            excluded[problem.key] = f"reading or curating it kills the worker process ({problem}), every time"


def dismiss() -> None:
    """End the process, if there is one."""
    while _kept:
        _kept.pop().kill()


def _running(patience: float) -> Worker:
    if not (_kept and _kept[0].alive):
        dismiss()
        _kept.append(Worker(patience))
    return _kept[0]


atexit.register(dismiss)


class _Overdue(Exception):
    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class _Died(Exception):
    def __init__(self, key: str, status: int | None) -> None:
        if status is None:
            text = "its pipe was closed"
        else:
            text = f"signal {_signal_name(-status)}" if status < 0 else f"exit code {status}"
        super().__init__(text)
        self.key, self.killed = key, status == -signal.SIGKILL


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


class Worker:
    """The process, seen from its supervisor."""

    def __init__(self, patience: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._pipe = Connection(ours.detach())
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER, str(theirs.fileno()), str(os.getpid()), str(patience)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what readers print must not get between ours and the one JSON object
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """It and the processes it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._pipe.close()

    def run(
        self, job: Job, task: int | None, refs: Sequence[SceneRef], excluded: Mapping[str, str]
    ) -> TaskResult | None:
        try:
            return self._follow(job, task, refs, excluded)
        except BaseException:
            dismiss()
            raise

    def _follow(
        self, job: Job, task: int | None, refs: Sequence[SceneRef], excluded: Mapping[str, str]
    ) -> TaskResult | None:
        key, limit = "", WRITE_S
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead: `_receive` says of what
            self._pipe.send((job, task, tuple(refs), dict(excluded)))
        while True:
            kind, value = self._receive(key, limit, job.shards.scene_timeout_s)
            if kind == "done" and isinstance(value, TaskResult | None):
                return value
            if kind == "failed":
                raise BrickyardError(f"shard {task} failed: {value}")
            key = str(value)
            limit = job.shards.scene_timeout_s + GRACE_S if key else WRITE_S

    def _receive(self, key: str, limit: float, allowed: float) -> tuple[str, Any]:
        """The next message; raises `_Overdue` and `_Died`."""
        passed, last = 0.0, time.monotonic()
        while not self._pipe.poll(_TICK_S):
            now = time.monotonic()
            passed += min(now - last, 2 * _TICK_S)  # not the time for which this process was stopped or asleep itself
            last = now
            if self._child.poll() is not None and not self._pipe.poll():
                raise _Died(key, self._child.wait())  # a process that it has started keeps the pipe open
            if passed > limit:
                how = "had its process stopped" if is_stopped(self._child.pid) else "could not be interrupted"
                raise _Overdue(
                    key, f"took longer than {allowed:g} s and {how}; raise shards.scene_timeout_s or drop the scene"
                )
        try:
            kind, value = self._pipe.recv()
        except Exception as problem:  # the end, or what is no message
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_TICK_S)
            raise _Died(key, self._child.poll()) from problem
        return kind, value
