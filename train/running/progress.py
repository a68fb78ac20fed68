"""The line on stderr by which a person sees how far a run is; redrawn on a terminal, else printed now and then."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 20
_PLAIN_SECONDS = 10.0


class ProgressLine:
    """The line on stderr: step, loss, scenes per second, share of time waited for data, peak memory, time left."""

    def __init__(self, steps: int, done: int, stream: TextIO | None = None) -> None:
        self._steps, self._first, self._stream = steps, done, stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._printed = -1e9

    def update(self, step: int, loss: float, scenes_per_second: float, data_wait: float, peak: int) -> None:
        now = time.monotonic()
        if step < self._steps and now - self._printed < (0.1 if self._terminal else _PLAIN_SECONDS):
            return
        self._printed = now
        left = (now - self._start) / max(step - self._first, 1) * (self._steps - step)
        text = (
            f"step {step}/{self._steps}  loss {loss:.4f}  {scenes_per_second:.1f} scenes/s"
            f"  waiting for data {data_wait:.0%}  peak {peak / 2**30:.1f} GiB"
            f"  {int(left) // 60}:{int(left) % 60:02d} left"
        )
        if self._terminal:
            filled = _BAR * step // max(self._steps, 1)
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {text}")
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._terminal:
            self._stream.write("\n")
