"""Tables of numbers as text, the body of ASCII PLY and PCD files: one row a line, columns between white space."""

from __future__ import annotations

import io
import re
from array import array

import numpy as np

from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64

MAX_LINE = 1 << 16
MAX_TEXT_BYTES = 1 << 30
_ODD = re.compile(rb"([-+]?)(?:nan(?:\(\w*\))?|1\.#(?:(inf|j)|[a-z]+)\d*)", re.IGNORECASE)
"""What C libraries print for values that are no number; Microsoft's old one is `1.#QNAN`, `-1.#IND00`, `1.#INF`."""


def unix_lines(data: bytes) -> bytes:
    """A text whose lines end in a bare CR, as old Macs and some writers end them, with LF in place of them."""
    first = re.search(rb"[\r\n]", data[:MAX_LINE])
    bare = first is not None and first[0] == b"\r" and data[first.end() : first.end() + 1] != b"\n"
    return data.replace(b"\r", b"\n") if bare else data


def read_table(
    files: RawFiles, path: str, data: bytes, *, start: int, skip: int = 0, rows: int, width: int
) -> tuple[Float64, int]:
    """The table float64 (rows, width) that begins at byte `start`, and the byte behind it; blank lines are passed over.

    Args:
        skip: rows of something else that stand before the table.

    Raises:
        RawDataError: rows are missing, a row has another number of columns, or a word is no number.
    """
    # The shortest row has one digit and one separator a column.
    if (skip + rows * width) * 2 > len(data) - start + 2:
        problem = f"{rows} rows of {width} numbers are declared, {len(data) - start} bytes are left"
        raise files.error(path, problem, offset=start, hint="the file is truncated or its header is damaged")
    stream = io.BytesIO(data)
    stream.seek(start)
    values = array("d")
    line_number, row = data.count(b"\n", 0, start), -skip
    while row < rows:
        line = stream.readline(MAX_LINE)
        line_number += 1
        if not line:
            raise files.error(path, f"{max(row, 0)} of {rows} rows are there", line=line_number, hint="truncated?")
        words = line.split()
        if not words:
            continue
        if row >= 0:
            try:
                numbers = [float(word) for word in words]
            except ValueError:
                numbers = _odd_numbers(files, path, words, line_number)
            if len(numbers) != width or b"_" in line:
                raise files.error(path, f"{len(words)} columns, expected {width} numbers", line=line_number)
            values.extend(numbers)
        row += 1
    return np.frombuffer(values, np.float64).reshape(rows, width).copy(), stream.tell()


def lines_left(data: bytes, start: int) -> int:
    """Lines from byte `start` on, blank ones aside."""
    return sum(1 for line in data[start:].split(b"\n") if line.strip())


def _odd_numbers(files: RawFiles, path: str, words: list[bytes], line: int) -> list[float]:
    """A row with a word that Python does not take for a number."""
    numbers = []
    for word in words:
        odd = _ODD.fullmatch(word)
        try:
            numbers.append(float(odd[1] + (b"inf" if odd[2] else b"nan")) if odd else float(word))
        except ValueError as problem:
            raise files.error(path, str(problem)[:80], line=line) from None
    return numbers
