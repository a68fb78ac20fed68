"""The process in which scenes are read, curated and encoded: nothing a scene does to it can reach the job.

Started by `infra.supervisor`, which reads along and kills it when a scene takes too long, whatever the scene is at: a
loop in native code, `except BaseException` around a sleep, a stopped process. It is deaf to Ctrl-C (its supervisor is
not), is the first to go when memory runs out, and dies with its supervisor.

On the pipe: a task comes; ("scene", key) goes out for each scene, ("scene", "") when the shard is written, then
("done", result) or ("failed", text). Both ends are ours, and the bytes never come from a file.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from brickyard.infra.task import TaskResult, reason, run_task, try_scenes

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


def main() -> None:
    """Arguments: descriptor of the pipe, process id of the supervisor, seconds after which it must not be stopped."""
    pipe, parent, patience = Connection(int(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if patience:
        threading.Thread(target=_refuse_to_wait, args=(parent, patience), daemon=True).start()
    home = Path.cwd()

    def begin_scene(key: str) -> None:
        os.chdir(home)  # a reader may have gone elsewhere
        pipe.send(("scene", key))

    while True:
        try:
            job, task, refs, excluded = pipe.recv()
        except EOFError:
            return
        result: TaskResult | None = None
        answer: tuple[str, object]
        try:
            if task is None:
                try_scenes(job, refs, begin_scene)
            else:
                result = run_task(job, task, refs, excluded, begin_scene)
            answer = ("done", result)
        except Exception as problem:
            answer = ("failed", reason(problem))
        pipe.send(answer)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def _refuse_to_wait(parent: int, patience: float) -> None:
    """Kill a supervisor that stays stopped (SIGSTOP): Ray then gives its task to another one."""
    since = None
    while True:
        time.sleep(patience / 4)
        if not is_stopped(parent):
            since = None
        elif since is None:
            since = time.monotonic()
        elif time.monotonic() - since > patience:
            os.kill(parent, signal.SIGKILL)


def is_stopped(process: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP; False where there is no /proc."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


if __name__ == "__main__":
    main()
