"""Opening small Parquet files of unknown origin (indices, selections) without letting them take the machine's memory.

A few kilobytes of Parquet can say "this 400 MB string, two thousand times": pages are compressed, dictionaries repeat,
and counts are whatever the footer claims. Arrow believes them and allocates. So before it decodes anything, the headers
of all pages are read here (they are what the decoder obeys, the footer only repeats them), and what the columns would
become in memory is added up: at most 64 MiB plus 64 times the file, where an honest index takes about 6 times. Only
what our writers write is accepted: data pages of version 1, dictionaries, zstd.

Costs about 20 us a page, and 0.1 us a dictionary entry; an index of 140,000 scenes has some 2,000 pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_FLOOR, _RATIO = 64 << 20, 64
_MAX_LIST = 4096
"""Elements of a list in the footer: row groups (of 8192 rows), columns, elements of the schema, and so its depth."""
_FOOTER_FLOOR = 1 << 20
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_WIDTH = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8}


def open_parquet(data: bytes) -> pq.ParquetFile:
    """The file, its pages' checksums to be verified on reading.

    Raises:
        ValueError, OSError, pyarrow.ArrowException: damaged, or far larger in memory than its size explains.
    """
    file = _open(data)
    budget = _FLOOR + _RATIO * len(data)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != file.metadata.num_rows:
        raise ValueError("the row groups have other rows than the file")
    for group in groups:
        for number in range(group.num_columns):
            flat = file.schema.column(number).max_repetition_level == 0
            budget -= _expanded(data, group.column(number), group.num_rows if flat else None, budget)
    return file


def read_columns(file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    """The table, read by the calling thread alone.

    Arrow's threads outlive the call, and may be the last to let go of `data`, which is Python's. One that does so while
    the interpreter ends kills the process, its work done, with "terminate called without an active exception"."""
    return file.read(columns=list(columns), use_threads=False)


def open_footer(data: bytes) -> pq.FileMetaData:
    """What stands at the end of the file; nothing that it says of the pages is believed. Raises as `open_parquet`."""
    return _open(data).metadata


def _open(data: bytes) -> pq.ParquetFile:
    footer = int.from_bytes(data[-8:-4], "little")
    if footer > _FOOTER_FLOOR + len(data) // _RATIO:
        raise ValueError(f"a footer of {footer} bytes")
    limits = {"thrift_container_size_limit": _MAX_LIST, "arrow_extensions_enabled": False}
    # nothing is read ahead: it lies in memory already, and other threads would do it (see `read_columns`)
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True, **limits)


def _expanded(data: bytes, column: Any, rows: int | None, budget: int) -> int:
    """Bytes that a column chunk can take in memory; raises ValueError once that is more than `budget`."""
    place = min(p for p in (column.dictionary_page_offset, column.data_page_offset) if p is not None)
    end = place + column.total_compressed_size
    if not 4 <= place <= end <= len(data) or column.compression not in ("ZSTD", "UNCOMPRESSED"):
        raise ValueError(f"column {column.path_in_schema} lies outside of the file or is compressed in another way")
    longest, total, values = _WIDTH.get(column.physical_type, 0), 0, 0
    while values < column.num_values:
        header, place = _struct(data, place, 0) if place < end else ({}, place)
        kind, size, stored = (header.get(number) for number in (1, 2, 3))
        counts = header.get(5 if kind == _DATA_PAGE else 7)
        count = counts.get(1) if isinstance(counts, dict) else None
        if not (isinstance(size, int) and isinstance(stored, int) and isinstance(count, int)):
            raise ValueError(f"column {column.path_in_schema} has a page of an unknown kind ({kind})")
        if min(size, stored, count) < 0 or stored > end - place or size > budget or kind not in (0, 2):
            raise ValueError(f"column {column.path_in_schema} has an impossible page ({size} bytes in {stored})")
        if kind == _DICTIONARY_PAGE and column.physical_type == "BYTE_ARRAY":
            longest = _longest(_inflated(data[place : place + stored], size, column.compression), count)
        values += count if kind == _DATA_PAGE else 0
        total += size + (count * (longest + 4) if kind == _DATA_PAGE else 0)
        place += stored
        if total > budget:
            raise ValueError(f"column {column.path_in_schema} would take {total >> 20} MiB, far more than the file")
    if values != column.num_values or rows not in (None, values):
        raise ValueError(f"column {column.path_in_schema} has {values} values where others are promised")
    return total


def _inflated(page: bytes, size: int, compression: str) -> bytes:
    if compression == "UNCOMPRESSED":
        return page
    return bytes(pa.Codec("zstd").decompress(page, decompressed_size=size, asbytes=True))


def _longest(page: bytes, count: int) -> int:
    """Bytes of the longest entry of a dictionary of strings."""
    place = longest = 0
    for _ in range(count):
        if place + 4 > len(page):
            raise ValueError("a dictionary ends early")
        length = int.from_bytes(page[place : place + 4], "little")
        longest, place = max(longest, length), place + 4 + length
    return longest


# Thrift's compact protocol, as far as page headers need it


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """(number -> integer or struct of the fields, place after them); other values are passed over."""
    fields: dict[int, Any] = {}
    number = 0
    while True:
        byte, place = _byte(data, place)
        if byte == 0:
            return fields, place
        kind, delta = byte & 15, byte >> 4
        if delta:
            number += delta
        else:
            number, place = _integer(data, place)
        if kind in (1, 2):  # a truth value is its own type
            continue
        if kind in (4, 5, 6):
            fields[number], place = _integer(data, place)
        elif kind == 8:
            length, place = _varint(data, place)
            place += length
        elif kind == 12 and depth < 4:
            fields[number], place = _struct(data, place, depth + 1)
        else:
            raise ValueError("a page header that cannot be read")


def _byte(data: bytes, place: int) -> tuple[int, int]:
    if place >= len(data):
        raise ValueError("a page header ends early")
    return data[place], place + 1


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte, place = _byte(data, place)
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number without an end")


def _integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
