"""Stopping at a safe point: a signal asks for it, and the loop stops after the step it is in, with a checkpoint.

Spot machines and schedulers send SIGTERM (Slurm, where asked, SIGUSR1) some seconds to minutes before they kill; a
person types Ctrl-C. The first signal asks; a second one of a person ends the process where it stands. Ranks may hear of
it at different times or not at all: what they exchange in every step says whether any of them was asked, so all stop
after the same one.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

from brickyard.shards.errors import BrickyardError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(BrickyardError):
    """A training that was asked to stop, and did so where it can go on: the same command continues it.

    Attributes:
        exit_code: of the command line, so that a scheduler can tell it from a failure.
    """

    exit_code: ClassVar[int] = 4


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            name = signal.Signals(number).name
            print(f"\n{name}: stopping after this step, with a checkpoint", file=sys.stderr, flush=True)
        self.asked = True


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Hear signals for the time of a loop; outside the main thread, where none arrive, nothing is changed."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._hear) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
