"""Protocol buffers without generated code: a message is its fields by number, decoded as the caller asks for them.

Only the wire format is known here (protobuf.dev, "Encoding"): varint, 64-bit, length-delimited, 32-bit. Matrices are
most of the bytes and are decoded by NumPy. Whatever does not parse, or is not of the type asked for, is a `WireError`.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float64

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
MAX_FIELDS = 100_000
"""Fields of one message; a frame has a few hundred."""

Value: TypeAlias = tuple[int, Any]


class WireError(ValueError):
    """Bytes that are no message, or a field of another type than expected."""


class Message:
    """The fields of one message; nested messages stay bytes until they are asked for.

    Raises:
        WireError: the bytes do not parse.
    """

    def __init__(self, data: memoryview, name: str = "message") -> None:
        self.name = name
        self._fields: dict[int, list[Value]] = {}
        place = count = 0
        while place < len(data):
            key, place = _varint(data, place, name)
            value, place = _value(data, place, key & 7, name)
            self._fields.setdefault(key >> 3, []).append((key & 7, value))
            count += 1
            if count > MAX_FIELDS:
                raise WireError(f"{name} has more than {MAX_FIELDS} fields")

    def _all(self, field: int, wire_type: int) -> list[Any]:
        found = self._fields.get(field, [])
        if any(kind != wire_type for kind, _ in found):
            kinds = sorted({kind for kind, _ in found})
            raise WireError(f"field {field} of {self.name} has wire type {kinds}, expected {wire_type}")
        return [value for _, value in found]

    def messages(self, field: int, name: str) -> list[Message]:
        """All messages of a repeated field, in the order of the bytes."""
        return [Message(data, name) for data in self._all(field, _BYTES)]

    def message(self, field: int, name: str) -> Message:
        """The message of a field; an empty one if it is absent."""
        return Message(self.data(field), name)

    def data(self, field: int) -> memoryview:
        """The bytes of a field (the last wins, as the format says); empty if it is absent."""
        last: memoryview = (self._all(field, _BYTES) or [memoryview(b"")])[-1]
        return last

    def integer(self, field: int) -> int:
        """The varint of a field, 0 if it is absent."""
        return int((self._all(field, _VARINT) or [0])[-1])

    def double(self, field: int) -> float:
        """The double of a field, 0 if it is absent."""
        return float(struct.unpack("<d", (self._all(field, _FIXED64) or [bytes(8)])[-1])[0])

    def float(self, field: int) -> float:
        """The float of a field, 0 if it is absent."""
        return struct.unpack("<f", (self._all(field, _FIXED32) or [bytes(4)])[-1])[0]  # type: ignore[no-any-return]

    def doubles(self, field: int) -> Float64:
        """A repeated double, packed or not."""
        return self._repeated(field, _FIXED64, "<f8").astype(np.float64)

    def floats(self, field: int) -> NDArray[np.float32]:
        """A repeated float, packed or not."""
        return self._repeated(field, _FIXED32, "<f4").astype(np.float32, copy=False)

    def _repeated(self, field: int, wire_type: int, dtype: str) -> NDArray[Any]:
        parts = [bytes(value) for kind, value in self._fields.get(field, []) if kind in (wire_type, _BYTES)]
        if len(parts) != len(self._fields.get(field, [])):
            raise WireError(f"field {field} of {self.name} is not made of {dtype}")
        data = b"".join(parts)
        if len(data) % np.dtype(dtype).itemsize:
            raise WireError(f"field {field} of {self.name}: {len(data)} bytes are no whole number of {dtype}")
        return np.frombuffer(data, dtype)

    def integers(self, field: int) -> NDArray[np.int32]:
        """A repeated int32, packed or not."""
        parts = [unpack_varints(v) if kind == _BYTES else np.array([v & (1 << 64) - 1], np.uint64)
                 for kind, v in self._fields.get(field, []) if kind in (_BYTES, _VARINT)]  # fmt: skip
        if len(parts) != len(self._fields.get(field, [])):
            raise WireError(f"field {field} of {self.name} is not made of integers")
        joined = np.concatenate([np.zeros(0, np.uint64), *parts])
        low: NDArray[np.int32] = (joined & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
        return low


def unpack_varints(data: memoryview | bytes) -> NDArray[np.uint64]:
    """Packed varints -> uint64, modulo 2^64; raises `WireError` for one that is cut off or longer than 10 bytes."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 128)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        raise WireError("packed integers end inside a number")
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[: len(ends)]
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    if longest > _LONGEST_VARINT:
        raise WireError(f"a packed integer of {longest} bytes")
    values = np.zeros(len(ends), np.uint64)
    for step in range(longest):
        there = np.flatnonzero(lengths > step)
        values[there] |= (raw[starts[there] + step] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * step)
    return values


def inflate(data: memoryview, limit: int, name: str) -> memoryview:
    """A whole zlib stream, at most `limit` bytes of it; raises `WireError`."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, limit)
    except zlib.error as problem:
        raise WireError(f"{name} is no zlib stream: {problem}") from None
    if not stream.eof:
        raise WireError(f"{name} is cut off, or has more than {limit} bytes")
    return memoryview(inflated)


def _varint(data: memoryview, place: int, name: str) -> tuple[int, int]:
    value = 0
    for step, byte in enumerate(data[place : place + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * step
        if byte < 128:
            return value & (1 << 64) - 1, place + step + 1
    raise WireError(f"{name}: no varint at byte {place}")


def _value(data: memoryview, place: int, wire_type: int, name: str) -> tuple[Any, int]:
    if wire_type == _VARINT:
        return _varint(data, place, name)
    if wire_type == _BYTES:
        length, place = _varint(data, place, name)
    elif wire_type in (_FIXED64, _FIXED32):
        length = 8 if wire_type == _FIXED64 else 4
    else:
        raise WireError(f"{name}: unknown wire type {wire_type} at byte {place}")
    if length > len(data) - place:
        raise WireError(f"{name}: {length} bytes declared at byte {place}, {len(data) - place} are left")
    return data[place : place + length], place + length
