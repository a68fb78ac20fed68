"""LAZ and COPC: the points of a LAS file, compressed in chunks by LASzip, decoded by lazrs in a child process.

The decoder is native code that trusts its input: a damaged file makes it panic (which Python does not see as an
Exception), or ask for all memory. So the LASzip record and the chunk table are checked here first, which refuses most
damaged files for the price of a few bytes, and what is left is decoded by `inflate.py`: a child with 1 GiB of address
space and a time limit, that reads a file and writes a file (no pickle, nothing to deadlock on). A start costs 60 ms.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from brickyard.ingest.source import RawFiles

RECORD = ("laszip encoded", 22204)
FIXED = struct.Struct("<2H8xI16xH")
"""Compressor, coder, points of a chunk, number of items; the items follow, each (type, bytes, version)."""
MEMORY_BYTES = 1 << 30
POINTS_PER_SECOND = 100_000
"""A tenth of the speed of a slow machine."""
START_SECONDS = 10
MAX_SECONDS = 3600
MAX_ITEMS = 32
MAX_CHUNK_POINTS = 10_000_000
MAX_RATIO = 500
VARIABLE = 0xFFFFFFFF
VERSIONS = {6: 2, 7: 2, 8: 2, 9: 1, 0: 2, 10: 3, 11: 3, 12: 3, 13: 3, 14: 3}
"""Type of an item -> its newest version that lazrs decodes: bytes (0), points, GPS times, colours, waveforms of the
point formats 0-5, and the same of 6-10."""
MAX_VERSION = 100
"""No LASzip that will ever be."""
DAMAGED = "the file is damaged; download it again"
NEWER = "it was written by a newer LASzip than can be read here; convert it to LAS"
LIMITED = "the file is damaged, or a decoder of this size needs more than it is given; convert it to LAS to find out"


@contextmanager
def decompress(
    files: RawFiles, path: str, *, start: int, count: int, record_bytes: int, record: bytes
) -> Iterator[IO[bytes]]:
    """A file with the `count * record_bytes` bytes of the records as they would stand in a LAS file.

    Args:
        start: offset of the compressed points.
        record: content of the LASzip record of the header.

    Raises:
        RawDataError: the headers do not fit together, or the decoder failed, ran too long or took too much memory.
    """
    chunk_points = _check_record(files, path, record, record_bytes)
    data = bytearray(files.read_range(path, start, files.size(path) - start))
    table = _check_chunks(files, path, data, start=start, count=count, chunk_points=chunk_points)
    if count * record_bytes > MAX_RATIO * len(data) + MAX_RATIO * record_bytes:
        raise files.error(path, f"{count} points are declared in {len(data)} compressed bytes", offset=107)
    # The decoder seeks to the table; its place is given from the start of what the child sees.
    struct.pack_into("<q", data, 0, table)
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as sink, tempfile.TemporaryFile() as words:
        source.write(data)
        source.seek(0)
        del data
        _run(files, path, source, sink, words, count=count, record_bytes=record_bytes, record=record)
        found = sink.seek(0, 2)
        if found != count * record_bytes:
            raise files.error(path, f"{found} bytes of points came out, {count * record_bytes} expected", hint=DAMAGED)
        sink.seek(0)
        yield sink


def _run(
    files: RawFiles, path: str, source: IO[bytes], sink: IO[bytes], words: IO[bytes], *, count: int,
    record_bytes: int, record: bytes,
) -> None:  # fmt: skip
    seconds = min(START_SECONDS + count // POINTS_PER_SECOND, MAX_SECONDS)
    script = str(Path(__file__).with_name("inflate.py"))
    numbers = [str(number) for number in (MEMORY_BYTES, seconds, record_bytes, count)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", script, *numbers, record.hex()],
            stdin=source, stdout=sink, stderr=words, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise files.error(path, f"decoding took longer than {seconds} s", hint=LIMITED) from problem
    if done.returncode:
        words.seek(max(words.seek(0, 2) - 2000, 0))
        said = words.read(2000).decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        hint = NEWER if "not supported" in said[-1] else LIMITED if "emory" in said[-1] else DAMAGED
        raise files.error(path, f"cannot be decompressed: {said[-1][:200]}", hint=hint)


def _check_record(files: RawFiles, path: str, record: bytes, record_bytes: int) -> int:
    """Points of a chunk, `VARIABLE` if the chunk table says it; checks that the items make up the point record."""
    if len(record) < FIXED.size:
        raise files.error(path, "is compressed but has no LASzip record", hint=DAMAGED)
    compressor, coder, chunk_points, declared = FIXED.unpack_from(record)
    items = len(record) - FIXED.size
    if compressor not in (2, 3) or coder != 0:
        raise files.error(
            path, f"LASzip compressor {compressor}, coder {coder}; chunked (2) or layered (3) expected",
            hint="write the file again with a LASzip of today",
        )  # fmt: skip
    known = [struct.unpack_from("<3H", record, FIXED.size + 6 * i) for i in range(min(items // 6, MAX_ITEMS))]
    sizes = [size for _, size, _ in known]
    if declared * 6 != items or declared > MAX_ITEMS or sum(sizes) != record_bytes:
        problem = f"LASzip items of {sum(sizes)} bytes, points have {record_bytes}"
        raise files.error(path, problem, hint=DAMAGED)
    for kind, _, version in known:
        if version > VERSIONS.get(kind, 0):
            problem = f"LASzip item {kind} of version {version}, which is not supported"
            raise files.error(path, problem, hint=NEWER if version < MAX_VERSION else DAMAGED)
    if chunk_points != VARIABLE and not 0 < chunk_points <= MAX_CHUNK_POINTS:
        raise files.error(path, f"LASzip chunks of {chunk_points} points", hint=DAMAGED)
    return int(chunk_points)


def _check_chunks(
    files: RawFiles, path: str, data: bytearray, *, start: int, count: int, chunk_points: int
) -> int:  # fmt: skip
    """Place of the chunk table in `data` (the file from the points on); its number of chunks must fit the points."""
    if len(data) < 16:
        raise files.error(path, f"{len(data)} bytes of compressed points", offset=start, hint=DAMAGED)
    (table,) = struct.unpack_from("<q", data)
    if table == -1:
        (table,) = struct.unpack_from("<q", data, len(data) - 8)
    table -= start
    if not 8 <= table <= len(data) - 8:
        raise files.error(path, "the chunk table lies outside of the file", offset=start, hint=DAMAGED)
    version, chunks = struct.unpack_from("<II", data, table)
    fits = chunks <= count if chunk_points == VARIABLE else chunks == -(-count // chunk_points)
    if version != 0 or not fits:
        problem = f"a chunk table of version {version} with {chunks} chunks for {count} points"
        raise files.error(path, problem, offset=start + table, hint=DAMAGED)
    return int(table)
