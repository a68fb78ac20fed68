"""Rows of a Parquet component by their keys, in bounded memory, through the dataset's own door to bytes.

Two components never promise the same order, and releases differ in types (camera names as text, poses as float32) and
in extra columns, so columns are taken by name and rows by key. A whole segment may be one row group of some hundred
megabytes: it is decoded one row at a time, in order, up to the last row wanted, and nothing is kept of the others.
Parquet offers no shorter way to a row, so a frame in the middle of such a file costs the decoding of half of it; and
no way into a page, of which memory holds one twice (as stored and as read). Writers that end a page only every 1,024
rows, as pyarrow does, put the whole column of a segment into one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brickyard.ingest.waymo.frame import Fail

MAX_ROWS = 1_000_000
MAX_ROW_BYTES = 64 << 20
"""Bytes of one row; TOP with both returns has 5.4 million."""

SEGMENT, TIMESTAMP = "key.segment_context_name", "key.frame_timestamp_micros"
_BUFFER = 1 << 18

Row: TypeAlias = dict[str, Any]


class Table:
    """One Parquet file.

    Args:
        size: bytes of the file.
        read_range: (offset, length) -> those bytes.
        fail: problem -> error to raise.

    Raises:
        RawDataError: through `fail`: no Parquet file, or one that declares more than it can hold.
    """

    def __init__(self, size: int, read_range: Callable[[int, int], bytes], fail: Fail) -> None:
        self.fail = fail
        self._size = size
        source = pa.PythonFile(_Ranges(size, read_range), mode="r")
        with _told(fail):
            # One thread and no read-ahead: bytes are read in one order, and no more of them than a buffer. Pages are
            # held against their checksums where a writer gave them some; released files have none.
            self._file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
            self._metadata = self._file.metadata
            self.names = set(self._file.schema_arrow.names)
        if self._metadata.num_rows > MAX_ROWS:
            raise fail(f"{self._metadata.num_rows} rows, at most {MAX_ROWS} expected")

    def timestamps(self, segment: str) -> list[int]:
        """The frame timestamps (us) of a segment's rows, each once, in order of time; none where all are of others."""
        found = zip(self._column(SEGMENT), self._column(TIMESTAMP), strict=True)
        return sorted({int(time) for name, time in found if name == segment and time is not None})

    def segments(self) -> set[Any]:
        """The segments that rows are of; a file holds one, or several."""
        return set(self._column(SEGMENT))

    def _column(self, name: str) -> list[Any]:
        with _told(self.fail):
            self._check([name], range(self._metadata.num_row_groups))
            values: list[Any] = self._file.read(columns=[name], use_threads=False).column(0).to_pylist()
            return values

    def rows(self, keys: Mapping[str, Collection[Any]], columns: Iterable[str]) -> Iterator[Row]:
        """Rows whose key columns have one of these values each: column -> number, text, bytes, numpy array or None."""
        wanted = [*keys, *columns]
        for group in range(self._metadata.num_row_groups):
            with _told(self.fail):
                self._check(wanted, [group])
                places = self._places(group, keys)
            for values in self._group(group, wanted, places):
                yield dict(zip(wanted, values, strict=True))

    def _places(self, group: int, keys: Mapping[str, Collection[Any]]) -> set[int]:
        table = self._file.read_row_group(group, columns=list(keys), use_threads=False)
        columns = [table.column(name).to_pylist() for name in keys]
        fits = [[value in wanted for value in column] for column, wanted in zip(columns, keys.values(), strict=True)]
        return {place for place, row in enumerate(zip(*fits, strict=True)) if all(row)}

    def _group(self, group: int, wanted: list[str], places: set[int]) -> Iterator[list[Any]]:
        if not places:
            return
        batches = self._file.iter_batches(batch_size=1, row_groups=[group], columns=wanted, use_threads=False)
        for place in range(max(places) + 1):
            with _told(self.fail):
                batch = next(batches, None)
                if batch is None or len(batch) != 1:
                    raise self.fail(f"row group {group} ends before its row {place}")
                values = [_cell(batch.column(name)) for name in wanted] if place in places else None
            if values is not None:
                yield values

    def _check(self, columns: Iterable[str], groups: Iterable[int]) -> None:
        missing = sorted(set(columns) - self.names)
        if missing:
            raise self.fail(f"no column {', '.join(missing)}; found {', '.join(sorted(self.names))[:200]}")
        for group in groups:
            # Only numbers of the row group: asking pyarrow for a damaged column's metadata aborts the process.
            metadata = self._metadata.row_group(group)
            rows, size = metadata.num_rows, metadata.total_byte_size
            if not (0 <= rows <= MAX_ROWS and 0 <= size <= MAX_ROW_BYTES * max(1, rows)):
                raise self.fail(f"row group {group} declares {size} bytes in {rows} rows")


def _cell(column: pa.Array) -> Any:
    """The one value of an array: lists as numpy arrays, everything else as Python has it, None for null."""
    column.validate(full=True)
    if column.null_count:
        return None
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = column.flatten()
        if inner.null_count or not (pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)):
            raise pa.ArrowInvalid(f"a list of {inner.type} with {inner.null_count} nulls where numbers were expected")
        return np.asarray(inner.to_numpy(zero_copy_only=False))
    return column[0].as_py()


@contextmanager
def _told(fail: Fail) -> Iterator[None]:
    """Turns what pyarrow raises on damaged files into the reader's own error."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, LookupError, MemoryError, TypeError) as problem:
        text = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        raise fail(f"no readable Parquet: {text}") from problem


class _Ranges(io.RawIOBase):
    """A seekable file for pyarrow over ranged reads."""

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._read_range, self._place = size, read_range, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        count = left if size is None or size < 0 else min(size, left)
        data = self._read_range(self._place, count) if count else b""
        self._place += len(data)
        return data
