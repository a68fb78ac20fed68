"""PCD 0.7 of the Point Cloud Library: a text header with named fields, then rows as text, binary, or LZF-compressed.

`binary_compressed` is two uint32 (compressed and plain size) and an LZF stream of the fields one after another, each a
column. The sensor's VIEWPOINT is not applied (nor is it by PCL): the points stay as they are written, which is counted
where it is not the identity. A packed `rgb` holds 0x00RRGGBB in the bits of its four bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.pointfiles.cloud import MAX_POINTS, Cloud, from_columns
from ingest.pointfiles.ply import as_declared
from ingest.pointfiles.text import MAX_TEXT_BYTES, read_table
from ingest.source import RawFiles

MAX_HEADER = 1 << 16
MAX_FIELDS = 256
MAX_LZF_RATIO = 133
"""An LZF match of two or three bytes stands for at most 264 bytes."""
MAX_LZF_BYTES = 256 << 20
"""LZF is decoded in Python, 10-50 MB/s."""
KINDS = {
    ("F", 4): "<f4", ("F", 8): "<f8", ("I", 1): "<i1", ("I", 2): "<i2", ("I", 4): "<i4", ("I", 8): "<i8",
    ("U", 1): "<u1", ("U", 2): "<u2", ("U", 4): "<u4", ("U", 8): "<u8",
}  # fmt: skip
IDENTITY = ["0", "0", "0", "1", "0", "0", "0"]
PACKED = ("rgb", "rgba")


@dataclass(frozen=True, kw_only=True)
class _Header:
    fields: list[tuple[str, str, int]]
    """(name, dtype, count); a field of padding has the name `_`."""
    points: int
    encoding: str
    start: int
    moved: bool
    """The viewpoint is not the identity."""


def read_pcd(files: RawFiles, path: str, metres_per_unit: float) -> Cloud:
    """The points in file order; raises `RawDataError` with the line or offset of what is wrong."""
    data = files.read(path)
    header = _read_header(files, path, data)
    if header.encoding == "ascii":
        columns = _text_columns(files, path, data, header)
    else:
        columns = _binary_columns(files, path, data, header)
    for name in PACKED:
        if name in columns and columns[name].dtype.itemsize == 4:
            bits = columns.pop(name).view("<u4")
            columns |= {c: ((bits >> shift) & 255).astype(np.uint8) for c, shift in (("r", 16), ("g", 8), ("b", 0))}
    cloud = from_columns(columns, metres_per_unit)
    if header.moved:
        return Cloud(**(vars(cloud) | {"dropped": {**cloud.dropped, "viewpoint: not applied": 1}}))
    return cloud


def _read_header(files: RawFiles, path: str, data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    start, number = 0, 0
    while "DATA" not in entries:
        end = data.find(b"\n", start, MAX_HEADER)
        if end < 0:
            raise files.error(path, "no PCD header found: no line DATA", line=number + 1, hint="is this a PCD file?")
        words = data[start:end].decode("latin-1").split()
        start, number = end + 1, number + 1
        if words and not words[0].startswith("#"):
            entries[words[0]] = words[1:]
    names = entries.get("FIELDS", [])
    counts = entries.get("COUNT", ["1"] * len(names))
    sizes, types = entries.get("SIZE", []), entries.get("TYPE", [])
    (encoding, points), whole = _last(entries), {len(names)} == {len(counts), len(sizes), len(types)}
    numeric = all(text.isascii() and text.isdigit() and len(text) < 12 for text in (*counts, *sizes, points))
    fields = []
    if whole and numeric and len(names) <= MAX_FIELDS:
        for name, kind, size, count in zip(names, types, sizes, counts, strict=True):
            dtype = KINDS.get((kind, int(size)), f"V{size}" if name == "_" and 0 < int(size) <= 1024 else "")
            fields.append((name.lower(), dtype, int(count)))
    singles = {name: count for name, dtype, count in fields if dtype and name != "_"}
    known = all(dtype and 0 < count <= 4096 for _, dtype, count in fields)
    unique = len(singles) == sum(name != "_" for name, _, _ in fields)
    if not (fields and known and unique and all(singles.get(axis) == 1 for axis in "xyz")):
        raise files.error(
            path, "the header must give FIELDS (x, y, z among them, each name once), SIZE, TYPE, COUNT and POINTS that "
            "fit together", line=number,
        )  # fmt: skip
    if encoding not in ("ascii", "binary", "binary_compressed") or int(points) > MAX_POINTS:
        raise files.error(path, f"DATA {encoding[:40]!r} of {points} points is not read", line=number)
    viewpoint = [word.removesuffix(".0") for word in entries.get("VIEWPOINT", IDENTITY)]
    return _Header(
        fields=fields, points=int(points), encoding=encoding, start=start, moved=viewpoint != IDENTITY,
    )  # fmt: skip


def _last(entries: dict[str, list[str]]) -> tuple[str, str]:
    """The encoding, and the number of points (width times height in files older than POINTS)."""
    encoding, points = (entries.get(key, [""])[:1] or [""] for key in ("DATA", "POINTS"))
    size = [entries.get(key, [""])[:1] or [""] for key in ("WIDTH", "HEIGHT")]
    if not points[0] and all(s[0].isdigit() and len(s[0]) < 6 for s in size):
        return encoding[0], str(int(size[0][0]) * int(size[1][0]))
    return encoding[0], points[0]


def _text_columns(files: RawFiles, path: str, data: bytes, header: _Header) -> dict[str, NDArray[Any]]:
    if len(data) > MAX_TEXT_BYTES:
        raise files.error(path, "text files beyond 1 GiB are not read", hint="write it as binary")
    width = sum(count for _, _, count in header.fields)
    table = read_table(files, path, data, start=header.start, rows=header.points, width=width)
    columns, place = {}, 0
    for name, dtype, count in header.fields:
        if count == 1 and name != "_":
            column = as_declared(files, path, table[:, place], dtype)
            # Packed colours are bits: as text they are an integer, or a float32 whose bits they are.
            with np.errstate(over="ignore"):
                columns[name] = column.astype(dtype) if name in PACKED else column
        place += count
    return columns


def _binary_columns(files: RawFiles, path: str, data: bytes, header: _Header) -> dict[str, NDArray[Any]]:
    # numpy wants different names; only fields of one number are used.
    record = np.dtype([(f"{i}", dtype, (count,)) for i, (_, dtype, count) in enumerate(header.fields)])
    expected = header.points * record.itemsize
    used = [(i, name) for i, (name, _, count) in enumerate(header.fields) if count == 1 and name != "_"]
    if header.encoding == "binary":
        if expected > len(data) - header.start:
            problem = f"{header.points} points need {expected} bytes, {len(data) - header.start} are left"
            raise files.error(path, problem, offset=header.start, hint="the file is truncated")
        table = np.frombuffer(data, record, header.points, header.start)
        return {name: np.ascontiguousarray(table[f"{i}"][:, 0]) for i, name in used}
    plain = _decompress(files, path, data, header.start, expected)
    columns, place = {}, 0
    for i, (name, dtype, count) in enumerate(header.fields):
        if (i, name) in used:
            columns[name] = np.frombuffer(plain, dtype, header.points, place).copy()
        place += header.points * count * np.dtype(dtype).itemsize
    return columns


def _decompress(files: RawFiles, path: str, data: bytes, start: int, expected: int) -> bytes:
    left = len(data) - start - 8
    compressed, plain = struct.unpack_from("<II", data, start) if left >= 0 else (0, 0)
    if left < 0 or compressed > left or plain != expected or plain > min(compressed * MAX_LZF_RATIO, MAX_LZF_BYTES):
        problem = f"{compressed} compressed bytes of {left} that become {plain}; the header declares {expected}"
        raise files.error(path, problem, offset=start, hint="the file is truncated or damaged")
    try:
        return lzf_decompress(data[start + 8 : start + 8 + compressed], expected)
    except ValueError as problem:
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
