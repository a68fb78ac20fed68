"""Processes that are killed at a moment that is known, however busy the machine is: they do it themselves.

The signal is SIGKILL, so nothing is flushed, closed or caught; only when it comes does not depend on a clock.
"""

from __future__ import annotations

import os
import signal
import sys
from fnmatch import fnmatch
from typing import Any

from brickyard.train.running.metrics import MetricsLog


def kill_at_rename(pattern: str, number: int) -> None:
    """Kill this process just before it gives the `number`-th file (from 1) a name that matches."""
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and fnmatch(os.fsdecode(arguments[1]), pattern):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_after_line(number: int) -> None:
    """Kill this process when a training has logged its `number`-th line."""
    write, left = MetricsLog.write, number

    def writing(self: MetricsLog, *arguments: Any) -> None:
        nonlocal left
        write(self, *arguments)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    MetricsLog.write = writing  # type: ignore[method-assign]
