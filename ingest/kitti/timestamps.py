"""KITTI's `timestamps.txt`: line i is the time of frame i, with nine decimals; blank where the frame was lost.

The times are local and carry no zone, so they are counted as if they were UTC: only differences mean something.
datetime keeps six decimals, hence the arithmetic here is done on integers.

A frame whose line is blank, absent or not certain (see `tables`) has no time, counted as "no time" in `Scene.dropped`.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial

from brickyard.ingest.kitti.calibration import Fail
from brickyard.ingest.kitti.tables import read_table
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

_PATTERN = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{1,9})", re.ASCII)
_EPOCH = datetime(1970, 1, 1).toordinal()
_MAX_BYTES = 64 << 20


def list_timestamps(store: Store, path: str, dataset: str) -> dict[int, str]:
    """Frame number -> text of its line, for the lines that hold one; empty if there is no such file."""
    size = store.size(path)
    if size is None:
        return {}
    if size > _MAX_BYTES:
        raise RawDataError(f"{size} bytes are too many for timestamps", dataset=dataset, path=path)
    lines = read_table(store.read(path)).lines
    return {line.number - 1: line.text.decode("ascii", errors="replace").strip() for line in lines}


def parse_timestamp(text: str, frame: int, fail: Fail) -> int:
    """`YYYY-MM-DD hh:mm:ss.nnnnnnnnn` -> nanoseconds since 1970; raises `RawDataError` naming the line."""
    match = _PATTERN.fullmatch(text)
    try:
        if match is None:
            raise ValueError("expected YYYY-MM-DD hh:mm:ss.nnnnnnnnn")
        moment = datetime(*(int(part) for part in match.groups()[:6]))  # type: ignore[arg-type] # six ints, no zone
    except ValueError as problem:
        raise fail(f"bad timestamp {text[:40]!r}: {problem}", line=frame + 1) from None
    days = moment.toordinal() - _EPOCH
    seconds = ((days * 24 + moment.hour) * 60 + moment.minute) * 60 + moment.second
    return seconds * 1_000_000_000 + int(match.group(7).ljust(9, "0"))


def guess_seconds(text: str | None) -> float | None:
    """Seconds of a timestamp for planning; None where there is none, or a damaged one, which `read` then reports."""
    try:
        return None if text is None else parse_timestamp(text, 0, _UNREAD) / 1e9
    except RawDataError:
        return None


_UNREAD = partial(RawDataError, dataset="kitti", path="timestamps.txt")
