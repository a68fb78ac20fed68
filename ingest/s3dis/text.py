"""Annotation text -> numbers: lines of `x y z r g b`, tens of megabytes of them, with a few known damages.

A healthy file goes through pyarrow's CSV parser, correctly rounded: four fifths of what reading a room costs. Only a
file it refuses is walked line by line, which costs ten times as much and can tell what is wrong where. The release has
single control bytes in its text, of two kinds:

  `3.048 185?187 182`    where a space was: the line is whole again with the space, and counted as repaired
  `-9.1?60 1.2 ...`      inside a number: a digit is lost, so the point is dropped and counted

Both kinds together may spoil a few lines of a file. A file with more of them is no damaged annotation but something
else, and an error; so is one with a block of zero bytes, which a disk or a download put in place of many lines. A last
line without its line feed may have lost digits, so it is dropped and counted too.
"""

from __future__ import annotations

import io
import re
from array import array
from collections import Counter
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64

Color = NDArray[np.uint8]

MAX_TEXT_BYTES = 1 << 30
"""The largest room (auditorium) has some 400 MB in all its files."""
MAX_BAD_LINES = 3
MAX_BAD_SHARE = 0.001
ALPHABET = b"0123456789.-+eE \t\r\n"
MAX_COORDINATE = 10_000.0
COLUMNS = ("x", "y", "z", "r", "g", "b")
REPAIRED = "line repaired: a stray byte instead of a space"
UNREADABLE = "unreadable line"
CUT = "last line cut off"
MAX_LINE = 4096
LOST_BLOCK = bytes(64)
"""So many zero bytes are longer than a line, let alone a stray byte."""
_DAMAGE = re.compile(rb"[^0-9.\-+eE \t\r\n]+")
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")


def read_rows(files: RawFiles, path: str) -> tuple[Float64, Color, Counter[str]]:
    """The points of an annotation file: xyz float64 (N, 3), finite; RGB uint8 (N, 3); what was repaired or left out.

    Raises `RawDataError` if the file is missing, too large, has a block of zero bytes, or is not lines of six numbers
    of which three are colours.
    """
    data = files.read(path, MAX_TEXT_BYTES)
    lost = data.find(LOST_BLOCK)
    if lost >= 0:
        count = len(data) - lost - len(data[lost:].lstrip(b"\0"))
        problem = f"a block of {count} zero bytes stands in place of text: its points are lost"
        raise files.error(path, problem, offset=lost, hint="extract the room from the archive again")
    whole = data[: data.rfind(b"\n") + 1]
    counts = Counter({CUT: 1} if data[len(whole) :].strip() else {})
    if _is_plain(whole):
        whole_colors = b"." not in whole[: whole.find(b"\n")].rpartition(b" ")[2]
        table = _parse_healthy(whole, pa.uint8()) if whole_colors else None
        if table is not None and np.isfinite(xyz := _stack(table, COLUMNS[:3]).T).all():
            return _in_building(files, path, xyz), _stack(table, COLUMNS[3:], axis=1), counts
        # The release that is not aligned writes 167.000000; cutting the zeros off first costs more than it saves.
        table = _parse_healthy(whole, pa.float64())
        if table is not None and np.isfinite(rows := _stack(table, COLUMNS).T).all():
            return _in_building(files, path, rows[:, :3]), _as_color(files, path, rows), counts
    rows = _parse_damaged(files, path, whole, counts)
    return _in_building(files, path, rows[:, :3]), _as_color(files, path, rows), counts


def _is_plain(data: bytes) -> bool:
    """Whether a text has no letter but e, none of the signs beyond ASCII, and nothing else that the parser might take.

    What stands before the digits in ASCII is no part of a number or a space, and the parser refuses it.
    """
    return bool(data) and (np.frombuffer(data, np.uint8).max() <= ord("9") or not data.translate(None, ALPHABET))


def _parse_healthy(data: bytes, color: pa.DataType) -> pa.Table | None:
    """A table of `COLUMNS`, or None if the text is not exactly six numbers a line, one space between them."""
    types = dict.fromkeys(COLUMNS[:3], pa.float64()) | dict.fromkeys(COLUMNS[3:], color)
    try:
        return csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=COLUMNS, use_threads=False),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid:
        return None


def _stack(table: pa.Table, columns: tuple[str, ...], axis: int = 0) -> NDArray[Any]:
    return np.stack([table[name].to_numpy() for name in columns], axis=axis)


def _in_building(files: RawFiles, path: str, xyz: Float64) -> Float64:
    if max(xyz.max(initial=0), -xyz.min(initial=0)) > MAX_COORDINATE:
        far = (np.abs(xyz) > MAX_COORDINATE).any(axis=1)
        text = " ".join(f"{value:g}" for value in xyz[far.argmax()])
        problem = f"{int(far.sum())} points have a coordinate beyond {MAX_COORDINATE:.0f} m, such as {text}"
        raise files.error(path, problem, hint="extract it again")
    return xyz


def _as_color(files: RawFiles, path: str, rows: Float64) -> Color:
    with np.errstate(invalid="ignore"):  # what does not survive the cast is found by comparing
        color = rows[:, 3:].astype(np.uint8)
    bad = (color != rows[:, 3:]).any(axis=1)
    if bad.any():
        text = " ".join(f"{value:g}" for value in rows[bad.argmax()])
        problem = f"{int(bad.sum())} points have a colour that is not 0..255, such as {text}"
        raise files.error(path, problem, hint="extract it again")
    return color


def _parse_damaged(files: RawFiles, path: str, data: bytes, counts: Counter[str]) -> Float64:
    """Rows (N, 6) of the lines that can be read; adds what was done to the others to `counts`."""
    values = array("d")
    allowed = MAX_BAD_LINES + int(MAX_BAD_SHARE * data.count(b"\n"))
    # bytes.split takes vertical tabs and form feeds for spaces; here they are stray bytes like any other.
    for number, line in enumerate(io.BytesIO(data.translate(bytes.maketrans(b"\v\f", b"\0\0"))), 1):
        words = line.split() if len(line) < MAX_LINE else [line]
        if not words:
            continue
        if len(words) == len(COLUMNS) - 1 and len(_DAMAGE.findall(line)) == 1:
            words = _DAMAGE.sub(b" ", line).split()
            counts[REPAIRED] += len(words) == len(COLUMNS)
        row = [float(word) for word in words if _NUMBER.fullmatch(word)]
        if len(row) == len(words) == len(COLUMNS) and all(map(isfinite, row)):
            values.extend(row)
        else:
            counts[UNREADABLE] += 1
        if counts[REPAIRED] + counts[UNREADABLE] > allowed:
            shown = line[:60].decode("ascii", "replace")
            raise files.error(
                path, f"{allowed + 1} bad lines so far, the last is {shown!r}; expected `x y z r g b`", line=number,
                hint="extract the room from the archive again",
            )  # fmt: skip
    return np.frombuffer(values, np.float64).reshape(-1, len(COLUMNS)).copy()
