"""PCD of the Point Cloud Library: a text header with named fields, then rows as text, binary, or LZF-compressed.

Version 0.7 and the older ones that PCL still reads: COLUMNS for FIELDS, float32 where SIZE and TYPE are not given, no
POINTS. A field of COUNT 0 takes no bytes. `binary_compressed` is two uint32 (compressed and plain size) and an LZF
stream of the fields one after another, each a column; where both sizes are equal the fields may stand there as they
are. The sensor's VIEWPOINT is not applied (nor is it by PCL): the points stay as they are written, which is counted
where it is not the identity. A packed `rgb` holds 0x00RRGGBB in the bits of its four bytes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import SECTOR, blank_records
from brickyard.ingest.pointfiles.cloud import MAX_POINTS, Cloud, Scale, from_columns
from brickyard.ingest.pointfiles.ply import as_declared
from brickyard.ingest.pointfiles.text import MAX_TEXT_BYTES, lines_left, read_table, unix_lines
from brickyard.ingest.source import RawFiles

MAX_HEADER = 1 << 16
MAX_FIELDS = 256
MAX_COUNT = 4096
"""Numbers of one field."""
MAX_LZF_RATIO = 133
"""An LZF match of two or three bytes stands for at most 264 bytes."""
MAX_LZF_BYTES = 256 << 20
"""LZF is decoded in Python, 10-50 MB/s."""
KINDS = {
    ("F", 4): "<f4", ("F", 8): "<f8", ("I", 1): "<i1", ("I", 2): "<i2", ("I", 4): "<i4", ("I", 8): "<i8",
    ("U", 1): "<u1", ("U", 2): "<u2", ("U", 4): "<u4", ("U", 8): "<u8",
}  # fmt: skip
FIELDS = ("FIELDS", "COLUMNS")
PADDING = "_"


@dataclass(frozen=True, kw_only=True)
class _Header:
    fields: list[tuple[str, str, int]]
    """(name, dtype, count); a field of padding has the name `_`."""
    points: int
    encoding: str
    start: int
    moved: bool
    """The viewpoint is not the identity."""
    grid: int
    """WIDTH times HEIGHT."""

    @property
    def used(self) -> list[tuple[int, str]]:
        """(number, name) of the fields of one number each."""
        return [(i, name) for i, (name, _, count) in enumerate(self.fields) if count == 1 and name != PADDING]


def read_pcd(files: RawFiles, path: str, scale: Scale, taxonomy: str | None = None) -> Cloud:
    """The points in file order; raises `RawDataError` with the line or offset of what is wrong.

    Args:
        taxonomy: label set of the file's labels, if it is known.
    """
    data = files.read(path)
    header = _read_header(files, path, data)
    dropped, lost = Counter({"viewpoint: not applied": int(header.moved)}), None
    if header.encoding == "ascii":
        columns, left = _text_columns(files, path, unix_lines(data), header)
        dropped["rows beyond those that are declared"] = left
    else:
        columns, lost, left = _binary_columns(files, path, data, header)
        dropped["bytes after the points"] = left
    if header.grid != header.points:
        problem = f"POINTS is {header.points}, WIDTH times HEIGHT is {header.grid}"
        raise files.error(path, problem, offset=0, hint="the header must give one number of points")
    return from_columns(
        columns, scale, taxonomy=taxonomy, lost=lost, dropped=dropped, text=header.encoding == "ascii",
        unread=[name for name, _, count in header.fields if count > 1 and name != PADDING],
    )  # fmt: skip


def _read_header(files: RawFiles, path: str, data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    start, number, head = 0, 0, unix_lines(data[:MAX_HEADER])
    while "DATA" not in entries:
        end = head.find(b"\n", start)
        if end < 0:
            raise files.error(path, "no PCD header found: no line DATA", line=number + 1, hint="is this a PCD file?")
        words = head[start:end].decode("latin-1").split()
        start, number = end + 1, number + 1
        if words and not words[0].startswith("#"):
            entries["FIELDS" if words[0] in FIELDS else words[0]] = words[1:]
    encoding = (entries["DATA"][:1] or [""])[0].lower()
    try:
        (points, grid), fields = _points(entries), _fields(entries)
    except ValueError as problem:
        raise files.error(path, f"{problem}: the lines of the header must fit together", line=number) from None
    if encoding not in ("ascii", "binary", "binary_compressed") or points > MAX_POINTS:
        raise files.error(path, f"DATA {encoding[:40]!r} of {points} points is not read", line=number)
    moved = _moved(entries)
    return _Header(fields=fields, points=points, encoding=encoding, start=start, moved=moved, grid=grid)


def _fields(entries: Mapping[str, list[str]]) -> list[tuple[str, str, int]]:
    """(name, dtype, count) of each field; raises ValueError with what does not fit."""
    names = entries.get("FIELDS", [])
    if not 0 < len(names) <= MAX_FIELDS:
        raise ValueError(f"FIELDS has {len(names)} names, 1 to {MAX_FIELDS} are read")
    columns = []
    for key, usual in (("TYPE", "F"), ("SIZE", "4"), ("COUNT", "1")):
        words = entries.get(key, [usual] * len(names))
        if len(words) != len(names):
            raise ValueError(f"{key} has {len(words)} entries for {len(names)} FIELDS")
        columns.append(words)
    fields = []
    for name, kind, size, count in zip((name.lower() for name in names), *columns, strict=True):
        bytes_each, numbers = _natural(size, f"SIZE of {name[:40]!r}"), _natural(count, f"COUNT of {name[:40]!r}")
        dtype = KINDS.get((kind, bytes_each))
        if dtype is None and (name == PADDING or numbers == 0) and 0 < bytes_each <= 1024:
            dtype = f"V{bytes_each}"
        if dtype is None:
            raise ValueError(f"the field {name[:40]!r} has TYPE {kind[:9]} and SIZE {bytes_each}, which no number has")
        if numbers > MAX_COUNT:
            raise ValueError(f"the field {name[:40]!r} has COUNT {numbers}, at most {MAX_COUNT} are read")
        fields.append((name, dtype, numbers))
    single = Counter(name for name, _, count in fields if count and name != PADDING)
    if twice := [name for name, count in single.items() if count > 1]:
        raise ValueError(f"FIELDS has {twice[0][:40]!r} more than once")
    if any((axis, 1) not in [(name, count) for name, _, count in fields] for axis in "xyz"):
        raise ValueError(f"FIELDS {' '.join(names)[:200]}: x, y and z are needed, of COUNT 1")
    return fields


def _points(entries: Mapping[str, list[str]]) -> tuple[int, int]:
    """POINTS, and WIDTH times HEIGHT, each the other where it is not given; raises ValueError."""
    given = {key: _natural(entries[key][0], key) for key in ("POINTS", "WIDTH", "HEIGHT") if entries.get(key)}
    if "WIDTH" not in given and "POINTS" not in given:
        raise ValueError("neither POINTS nor WIDTH is given")
    grid = given["WIDTH"] * given.get("HEIGHT", 1) if "WIDTH" in given else given["POINTS"]
    return given.get("POINTS", grid), grid


def _natural(word: str, what: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 12):
        raise ValueError(f"{what} is {word[:40]!r}, which is no number")
    return int(word)


def _moved(entries: Mapping[str, list[str]]) -> bool:
    """Whether the VIEWPOINT is anything but no translation and the quaternion (1, 0, 0, 0) or its negative."""
    try:
        words = [float(word) for word in entries.get("VIEWPOINT", ["0", "0", "0", "1", "0", "0", "0"])]
    except ValueError:
        return True
    return [*words[:3], *map(abs, words[3:])] != [0, 0, 0, 1, 0, 0, 0]


def _text_columns(
    files: RawFiles, path: str, data: bytes, header: _Header
) -> tuple[dict[str, NDArray[Any]], int]:  # fmt: skip
    """Columns, and how many lines stand behind them."""
    if len(data) > MAX_TEXT_BYTES:
        raise files.error(path, "text files beyond 1 GiB are not read", hint="write it as binary")
    width = sum(count for _, _, count in header.fields)
    table, end = read_table(files, path, data, start=header.start, rows=header.points, width=width)
    columns, place = {}, 0
    for name, dtype, count in header.fields:
        if count == 1 and name != PADDING:
            columns[name] = as_declared(files, path, table[:, place], dtype)
        place += count
    return columns, lines_left(data, end)


def _binary_columns(
    files: RawFiles, path: str, data: bytes, header: _Header
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_] | None, int]:
    """Columns, which of the points lie in lost blocks, and how many bytes of points stand behind them."""
    # numpy wants different names; only fields of one number are used.
    held = [(i, dtype, count) for i, (_, dtype, count) in enumerate(header.fields) if count]
    record = np.dtype([(f"{i}", dtype, (count,)) for i, dtype, count in held])
    expected = header.points * record.itemsize
    if header.encoding == "binary":
        left = len(data) - header.start - expected
        if left < 0:
            problem = f"{header.points} points need {expected} bytes, {len(data) - header.start} are left"
            raise files.error(path, problem, offset=header.start, hint="the file is truncated")
        table = np.frombuffer(data, record, header.points, header.start)
        columns = {name: np.ascontiguousarray(table[f"{i}"][:, 0]) for i, name in header.used}
        return columns, blank_records(table, record.itemsize), left if left >= record.itemsize else 0
    plain, stored = _decompress(files, path, data, header.start, expected)
    columns, place, used = {}, 0, dict(header.used)
    lost = np.zeros(header.points, np.bool_)
    for i, dtype, count in held:
        if i in used:
            columns[used[i]] = np.frombuffer(plain, dtype, header.points, place).copy()
            if stored:
                # Zeros that LZF would have packed are none of the data's own.
                lost |= blank_records(columns[used[i]], np.dtype(dtype).itemsize, SECTOR)
        place += header.points * count * np.dtype(dtype).itemsize
    return columns, lost, 0


def _decompress(files: RawFiles, path: str, data: bytes, start: int, expected: int) -> tuple[bytes, bool]:
    """The plain bytes, and whether they stood there as they are: LZF does not shrink noise."""
    left = len(data) - start - 8
    compressed, plain = struct.unpack_from("<II", data, start) if left >= 0 else (0, 0)
    if left < 0 or compressed > left or plain != expected or plain > min(compressed * MAX_LZF_RATIO, MAX_LZF_BYTES):
        problem = f"{compressed} compressed bytes of {left} that become {plain}; the header declares {expected}"
        raise files.error(path, problem, offset=start, hint="the file is truncated or damaged")
    body = data[start + 8 : start + 8 + compressed]
    try:
        return lzf_decompress(body, expected), False
    except ValueError as problem:
        if compressed == plain:
            return body, True
        raise files.error(path, str(problem), offset=start + 8, hint="the file is damaged") from None


def lzf_decompress(data: bytes, expected: int) -> bytes:
    """LZF (M. Lehmann's liblzf): a byte below 32 announces that many literals and one more; others a match.

    A match has its length in the top three bits (7: plus the next byte), plus 2, and its distance in the low five bits
    and the following byte, plus 1. Raises ValueError for a stream that is not one of exactly `expected` bytes.
    """
    out = bytearray()
    place = 0
    try:
        while place < len(data):
            control = data[place]
            place += 1
            if control < 32:
                literal = data[place : place + control + 1]
                if len(literal) != control + 1:
                    raise ValueError("compressed data ends within a literal")
                out += literal
                place += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[place]
                    place += 1
                distance = ((control & 31) << 8) + data[place] + 1
                place += 1
                length += 2
                if distance > len(out):
                    raise ValueError("compressed data refers to bytes before its start")
                chunk = out[-distance:][:length] if distance >= length else _repeat(out[-distance:], length)
                out += chunk
            if len(out) > expected:
                raise ValueError(f"compressed data holds more than {expected} bytes")
    except IndexError:
        raise ValueError("compressed data ends within a match") from None
    if len(out) != expected:
        raise ValueError(f"compressed data holds {len(out)} bytes, {expected} expected")
    return bytes(out)


def _repeat(period: bytearray, length: int) -> bytearray:
    return (period * (length // len(period) + 1))[:length]
