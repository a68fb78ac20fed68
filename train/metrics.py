"""Where the numbers of a run go: metrics.jsonl (one line per logged step), TensorBoard events, a line on stderr.

On resuming, lines and events of steps after the checkpoint are dropped, so a run that was killed has the same file as
one that was not. On a terminal the line is redrawn in place with a bar; elsewhere it is printed now and then.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

TIMINGS = ("data_wait", "scenes_per_second", "points_per_second", "peak_gib")
"""Metrics that differ from run to run; all others are equal, bit for bit, on a CPU."""

_BAR = 20
_PLAIN_SECONDS = 10.0


class MetricsLog:
    """Writes into a run's folder.

    Args:
        folder: of the run.
        step: the step that was restored; later lines of metrics.jsonl go.
        tensorboard: write events too.
    """

    def __init__(self, folder: Path, step: int = 0, *, tensorboard: bool = True) -> None:
        self._path = folder / "metrics.jsonl"
        kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= step]
        self._path.write_text("".join(line + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            if step == 0:
                shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a step; numbers are written exactly (shortest text that reads back equal)."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in _lines(folder / "metrics.jsonl")]


def _lines(path: Path) -> list[str]:
    """Whole lines; a last one without its newline was cut off by a crash."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


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
