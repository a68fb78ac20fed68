"""The zips as they are downloaded, read in place: the directory at a volume's end once, then single members by range.

A directory holds some 150 bytes for each of up to 130,000 members; it is taken apart here, because `zipfile` makes an
object of every entry (56 volumes: 2.4 million). A member costs one request: its place and sizes are known from the
directory, so a worker never reads that again. The volumes are beyond 4 GiB (zip64). Some have damaged stretches as they
are published; the checksum of every member that is read is verified, and its name is compared with the one expected.

The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

MAX_DIRECTORY = 256 << 20
_TAIL = 22 + 65535
_END, _END64, _LOCATOR64 = (struct.Struct(text) for text in ("<4s4H2IH", "<4sQ2H2I4Q", "<4sIQI"))
_ENTRY, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_SLACK = 96
"""Bytes that the header before a member may have beyond its name."""
_STORED, _DEFLATED = 0, 8
DAMAGED = "this part of the archive is damaged; download it again"


class VolumeError(ValueError):
    """A zip whose directory cannot be read; the text says why."""


class Member(NamedTuple):
    """Where a file lies in a volume: offset of its header, bytes there, bytes when inflated, CRC-32, method."""

    offset: int
    packed: int
    size: int
    crc: int
    method: int


def list_members(store: Store, path: str) -> Iterator[tuple[str, Member]]:
    """(name, place) of the members of a volume, in the order of its directory; folders are left out.

    Raises:
        VolumeError: it is no zip, is cut off, is split, encrypted, or its directory is damaged.
    """
    size = store.size(path) or 0
    try:
        start, length, count = _find_directory(store, path, size)
        data = store.read_range(path, start, length)
    except OSError as problem:
        raise VolumeError(f"cannot be read: {problem}") from problem
    if len(data) != length:
        raise VolumeError(f"its directory has {length} bytes, {len(data)} were there")
    place = 0
    for number in range(count):
        if place + _ENTRY.size > length or data[place : place + 4] != b"PK\1\2":
            raise VolumeError(f"its directory is damaged at entry {number} of {count}, byte {start + place}")
        fields = _ENTRY.unpack_from(data, place)
        flags, method, crc, packed, whole = fields[3], fields[4], *fields[7:10]
        name_end = place + _ENTRY.size + fields[10]
        next_place = name_end + fields[11] + fields[12]
        if next_place > length:
            raise VolumeError(f"its directory is damaged at entry {number} of {count}, byte {start + place}")
        name = data[place + _ENTRY.size : name_end]
        offset = fields[16]
        if 0xFFFFFFFF in (packed, whole, offset):
            extra = data[name_end : name_end + fields[11]]
            packed, whole, offset = _widened(extra, (whole, packed, offset), number)
        if not name.endswith(b"/"):
            if flags & 1:
                raise VolumeError(f"entry {number} is encrypted")
            yield name.decode("utf-8", "replace"), Member(offset, packed, whole, crc, method)
        place = next_place


def _find_directory(store: Store, path: str, size: int) -> tuple[int, int, int]:
    """(offset, bytes, entries) of the directory."""
    tail_start = max(0, size - _TAIL)
    tail = store.read_range(path, tail_start, size - tail_start)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:
        if place + _END.size <= len(tail):
            end = _END.unpack_from(tail, place)
            if place + _END.size + end[7] == len(tail):
                break
        place = tail.rfind(b"PK\5\6", 0, place)
    if place < 0:
        raise VolumeError("it is no zip, or its end is cut off: there is no directory")
    if end[1] != 0 or end[2] != 0:
        raise VolumeError("it is one part of a zip that was split; join the parts")
    count, length, start, stop = end[4], end[5], end[6], tail_start + place
    locator = place - _LOCATOR64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        stop = _LOCATOR64.unpack_from(tail, locator)[2]
        record = store.read_range(path, stop, _END64.size) if stop < size else b""
        if len(record) < _END64.size or record[:4] != b"PK\6\6":
            raise VolumeError(f"its zip64 directory is not at byte {stop}, where it is said to be")
        *_, count, length, start = _END64.unpack(record)
    if start + length != stop:
        problem = f"its directory is said to be at bytes {start} to {start + length}, it ends at {stop}"
        raise VolumeError(f"{problem}: bytes are missing or too many")
    if length > MAX_DIRECTORY or count * _ENTRY.size > length:
        raise VolumeError(f"its directory says {count} entries in {length} bytes, at most {MAX_DIRECTORY} are read")
    return start, length, count


def _widened(extra: bytes, values: tuple[int, int, int], number: int) -> tuple[int, int, int]:
    """(packed, size, offset) with the 64-bit numbers of the extra field 1; `values` are (size, packed, offset)."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            count = min(length, len(extra) - place - 4) // 8
            wide = list(struct.unpack_from(f"<{count}Q", extra, place + 4))
            if count < values.count(0xFFFFFFFF):
                break
            whole, packed, offset = (wide.pop(0) if value == 0xFFFFFFFF else value for value in values)
            return packed, whole, offset
        place += 4 + length
    raise VolumeError(f"entry {number} of its directory lacks its 64-bit numbers")


def read_member(files: RawFiles, path: str, member: Member, name: str, limit: int) -> bytes:
    """The bytes of a member whose name ends in `name`; raises `RawDataError` if they are not what the zip says.

    Args:
        limit: bytes, more are not inflated.
    """

    def wrong(problem: str) -> RawDataError:
        return files.error(path, f"{name}: {problem}", offset=member.offset, hint=DAMAGED)

    if max(member.size, member.packed) > limit:
        raise wrong(f"declares {member.size} bytes ({member.packed} packed), at most {limit} were expected")
    if member.method not in (_STORED, _DEFLATED):
        raise wrong(f"compression method {member.method}; stored (0) or deflated (8) expected")
    most = _LOCAL.size + 4 * len(name) + _SLACK + member.packed
    data = files.read_range(path, member.offset, max(0, min(most, files.size(path) - member.offset)))
    if len(data) < _LOCAL.size or data[:4] != b"PK\3\4":
        raise wrong("there is no header of a member here")
    *_, name_bytes, extra_bytes = _LOCAL.unpack_from(data)
    start = _LOCAL.size + name_bytes + extra_bytes
    found = data[_LOCAL.size : _LOCAL.size + name_bytes].decode("utf-8", "replace")
    if not f"/{found}".endswith(f"/{name}"):
        raise wrong(f"another member is here: {found[-80:]!r}")
    if start + member.packed > len(data):  # a long header, or the end of the file
        data, start = files.read_range(path, member.offset + start, member.packed), 0
    packed = memoryview(data)[start : start + member.packed]
    try:
        whole = bytes(packed) if member.method == _STORED else _inflate(packed, member.size)
    except zlib.error as problem:
        raise wrong(f"cannot be inflated: {problem}") from problem
    if len(whole) != member.size or zlib.crc32(whole) != member.crc:
        raise wrong("the checksum is wrong")
    return whole


def _inflate(packed: memoryview, size: int) -> bytes:
    """At most one byte more than was declared."""
    return zlib.decompressobj(-15).decompress(packed, size + 1)
