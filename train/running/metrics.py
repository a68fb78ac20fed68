"""The numbers of a run: metrics.jsonl, one line per logged step. (`train.running.logs` shows them elsewhere, too.)

Lines are appended; a last one without its newline was cut off by a crash and is none. What stood before a checkpoint is
on the disk when the checkpoint is. On resuming, lines of steps after the checkpoint are dropped (the file is written
anew, whole or not at all), so a run that was killed has the same file as one that was not. A number that is not finite
is null.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from brickyard.shards.atomic import write_whole
from brickyard.shards.documents import Every, read_document
from brickyard.shards.errors import BrickyardError

METRICS = "metrics.jsonl"

TIMINGS = ("data_wait", "scenes_per_second", "points_per_second", "peak_gib")
"""Metrics that differ from run to run; all others are equal, bit for bit, on a CPU."""


WATCHED = "watch_"
"""What names begin with of what was measured while training went on, see `train.running.watching`."""


class MetricsLog:
    """Writes into a run's folder.

    Args:
        folder: of the run.
        step: the step that was restored; later lines of metrics.jsonl go.
        lines: that the checkpoint of this step has seen, if that is known; the file is read no further.

    Attributes:
        lines: in the file.
    """

    def __init__(self, folder: Path, step: int = 0, *, lines: int | None = None) -> None:
        path = folder / METRICS
        kept = rows_until(path, step, lines)
        write_whole(path, "".join(_line(row) for row in kept).encode())
        self.lines = len(kept)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a step; numbers are written exactly (shortest text that reads back equal)."""
        self._file.write(_line({"step": step, **values}))
        self._file.flush()
        self.lines += 1

    def flush(self) -> None:
        """Have the disk keep what was written; before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl, NaN where a number was not finite; `step` is always there.

    Raises:
        BrickyardError: naming the line that is damaged.
    """
    return list(_rows(folder / METRICS))


def rows_until(path: Path, step: int, most: int | None = None) -> list[dict[str, float]]:
    """The lines of steps up to `step`, at most so many; what follows is not read. Raises as `read_metrics`."""
    rows = itertools.takewhile(lambda row: row["step"] <= step, itertools.islice(_rows(path), most))
    return list(rows)


def _rows(path: Path) -> Iterator[dict[str, float]]:
    """Whole lines; a last one without its newline was cut off by a crash."""
    if not path.exists():
        return
    for number, data in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        place, hint = f"{path} line {number}", "delete the line to go on without it"
        row = read_document(_NOT_FINITE.sub(rb"\1null", data), place, _LINE, error=BrickyardError, hint=hint)
        if not isinstance(row.get("step"), int):
            raise BrickyardError(f"{place} has no step: {hint}")
        yield {name: math.nan if value is None else value for name, value in row.items()}


def _line(row: Mapping[str, float]) -> str:
    return json.dumps({name: v if math.isfinite(v) else None for name, v in row.items()}, allow_nan=False) + "\n"


_LINE = Every((int, float, None))
_NOT_FINITE = re.compile(rb"(: )(?:NaN|-?Infinity)(?=[,}])")
"""Older versions wrote what is no JSON."""
