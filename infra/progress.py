"""Progress of long work: a bar where a person looks on, a plain line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_PLAIN_EVERY_S = 5.0
_WIDTH = 28


class Progress:
    """Call it with (done, total[, note]) as often as you like.

    Args:
        what: a verb in the -ing form, such as "building".
        unit: what is counted, such as "scenes".
    """

    def __init__(self, what: str, unit: str, stream: TextIO | None = None) -> None:
        self._what, self._unit = what, unit
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._begin = time.monotonic()
        self._last = float("-inf")
        self._closed = False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        finished = total > 0 and done >= total
        if self._closed or (not finished and now - self._last < (0.1 if self._terminal else _PLAIN_EVERY_S)):
            return
        self._last, self._closed = now, finished
        passed = now - self._begin
        left = f", {passed / done * (total - done):.0f} s left" if 0 < done < total else f", {passed:.0f} s"
        text = f"{done}/{total} {self._unit}{left}{', ' + note if note else ''}"
        if self._terminal:
            full = round(_WIDTH * done / total) if total else _WIDTH
            bar = "█" * full + "░" * (_WIDTH - full)
            self._stream.write(f"\r\x1b[K{self._what} {bar} {text}" + ("\n" if finished else ""))
        else:
            self._stream.write(f"{self._what}: {text}\n")
        self._stream.flush()
