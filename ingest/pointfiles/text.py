"""Tables of numbers as text, the body of ASCII PLY and PCD files: one row a line, columns between white space."""

from __future__ import annotations

import io
from array import array

import numpy as np

from ingest.source import RawFiles
from shards.scene import Float64

MAX_LINE = 1 << 16
MAX_TEXT_BYTES = 1 << 30


def read_table(
    files: RawFiles, path: str, data: bytes, *, start: int, skip: int = 0, rows: int, width: int
) -> Float64:  # fmt: skip
    """The table float64 (rows, width) that begins at byte `start`; blank lines are passed over.

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
            except ValueError as problem:
                raise files.error(path, str(problem)[:80], line=line_number) from None
            if len(numbers) != width or b"_" in line:
                raise files.error(path, f"{len(words)} columns, expected {width} numbers", line=line_number)
            values.extend(numbers)
        row += 1
    return np.frombuffer(values, np.float64).reshape(rows, width).copy()
