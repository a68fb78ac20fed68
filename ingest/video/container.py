"""How long a video is, from its container's headers: a few ranges of a few bytes, plain Python, nothing is decoded.

MP4 and MOV: the boxes of the file are hopped over to `moov`, whose `mvhd` (and `mehd`, if fragmented) says it. Matroska
and WebM: `Duration` of the segment's `Info`. AVI: frames and microseconds a frame of the main header. Other containers,
live recordings and damaged files do not say; then None, and the video is read as one window.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from brickyard.shards.errors import NONSENSE
from brickyard.shards.storage import Store

MAX_BOXES = 200
MATROSKA_BYTES = 16 << 10
SEGMENT, INFO = b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66"
DURATION, SCALE = b"\x44\x89", b"\x2a\xd7\xb1"
EBML = b"\x1a\x45\xdf\xa3"


def duration_s(store: Store, path: str, size: int) -> float | None:
    """Seconds, positive and finite; None where the headers do not say. Reads at most 25 kB."""
    try:
        head = store.read_range(path, 0, 64)
        if head.startswith(EBML):
            found = _matroska(store.read_range(path, 0, MATROSKA_BYTES))
        elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            found = _avi(head)
        else:
            found = _mp4(store, path, size)
    except (OSError, struct.error, *NONSENSE):
        return None
    return found if found is not None and math.isfinite(found) and found > 0 else None


def _mp4(store: Store, path: str, size: int) -> float | None:
    for kind, start, stop in _boxes(store, path, 0, size):
        if kind == b"moov":
            inner = {name: (a, b) for name, a, b in _boxes(store, path, start, stop)}
            (scale, length), fragments = _movie_header(store, path, inner[b"mvhd"][0]), 0
            if b"mvex" in inner:
                places = {name: a for name, a, _ in _boxes(store, path, *inner[b"mvex"])}
                if b"mehd" in places:
                    head = store.read_range(path, places[b"mehd"], 12)
                    (fragments,) = struct.unpack_from(">Q" if head[0] else ">I", head, 4)
            return max(length, fragments) / scale
    return None


def _movie_header(store: Store, path: str, start: int) -> tuple[int, int]:
    """(ticks a second, ticks) of `mvhd`; a length of all ones is unknown."""
    head = store.read_range(path, start, 32)
    scale, length = struct.unpack_from(">IQ", head, 20) if head[0] else struct.unpack_from(">II", head, 12)
    unknown = length == (0xFFFFFFFFFFFFFFFF if head[0] else 0xFFFFFFFF)
    return scale, 0 if unknown else length


def _boxes(store: Store, path: str, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start and end of the content) of the boxes in a range of the file."""
    for _ in range(MAX_BOXES):
        if start + 8 > stop:
            return
        head = store.read_range(path, start, 16)
        length, kind = struct.unpack_from(">I4s", head)
        body = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
            body = start + 16
        end = stop if length == 0 else start + length
        if end < body or end > stop:
            return
        yield kind, body, end
        start = end


def _matroska(head: bytes) -> float | None:
    """The EBML header, then the segment, whose elements are skipped up to `Info`."""
    _, _, stop = _element(head, 0)
    kind, place, _ = _element(head, stop)
    while kind == SEGMENT and place < len(head):
        name, body, end = _element(head, place)
        if name == INFO:
            return _segment_seconds(head, body, min(end, len(head)))
        place = end
    return None


def _segment_seconds(head: bytes, place: int, stop: int) -> float | None:
    scale, duration = 1_000_000, None
    while place < stop:
        name, body, end = _element(head, place)
        if name == SCALE:
            scale = int.from_bytes(head[body:end], "big")
        elif name == DURATION:
            duration = float(struct.unpack(">d" if end - body == 8 else ">f", head[body:end])[0])
        place = end
    return None if duration is None else duration * scale / 1e9


def _element(data: bytes, place: int) -> tuple[bytes, int, int]:
    """(id, start and end of the content) of an EBML element."""
    width = 9 - data[place].bit_length()
    length, body = _vint(data, place + width)
    return data[place : place + width], body, body + length


def _vint(data: bytes, place: int) -> tuple[int, int]:
    """(value, place behind it) of EBML's number of variable length."""
    width = 9 - data[place].bit_length()
    if width > 8:
        raise ValueError("no EBML number")
    value = int.from_bytes(data[place : place + width], "big")
    return value & ((1 << 7 * width) - 1), place + width


def _avi(head: bytes) -> float | None:
    """`hdrl` list, then `avih`: microseconds a frame, ..., frames."""
    if head[20:32][4:12] != b"avih" + head[28:32]:
        return None
    microseconds, frames = struct.unpack_from("<I12xI", head, 32)
    return float(microseconds * frames / 1e6)
