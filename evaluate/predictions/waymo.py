"""Waymo: a class for each pixel of the top lidar's two range images, in protocol buffers.

    predictions.bin     a SegmentationFrameList, which compute_segmentation_metrics_main reads
    submission.bin      a SemanticSegmentationSubmission around it, which the server takes; only if `about` says whose

Every pixel that measured something has a class 1..22, in both returns, all others 0. A return is a zlib stream of a
MatrixInt32 (H, W, 2) whose channel 0 is the instance and 1 the class. The official program takes both channels for
classes, of truth and predictions alike: give it files with channel 1 alone, or its numbers count instances.

A list is written as the concatenation of its frames, which is how a repeated field is stored. Field numbers are those
of the dataset's published proto files.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.predictions.writer import Answer, Writer
from brickyard.shards.atomic import TEMPORARY, flush
from brickyard.shards.errors import BrickyardError, RecipeError

_TEXTS = {"account_name": 1, "unique_method_name": 2, "affiliation": 4, "description": 5, "method_link": 6}
_AUTHORS, _SENSORS, _PAST, _FUTURE, _RESULTS = 3, 7, 8, 9, 10
_SENSOR_TYPES = {"LIDAR_ALL": 1, "LIDAR_TOP": 2, "CAMERA_LIDAR_TOP": 4, "CAMERA_LIDAR_ALL": 5}
_LABELS, _CONTEXT, _TIME = 1, 2, 3  # SegmentationFrame
_TOP, _RETURNS, _COMPRESSED = 1, (2, 3), 6  # Laser.name, Laser.ri_return1 and 2, RangeImage's labels


class WaymoWriter(Writer):
    """See the module's text."""

    name, taxonomy = "waymo", "waymo22"
    datasets, tool = ("waymo_v1", "waymo_v2"), "waymo"
    official = MappingProxyType({"test": 2_982})
    scene_id = r"[A-Za-z0-9_-]+/\d+"
    fields = MappingProxyType(
        {
            **dict.fromkeys(_TEXTS, str),
            "authors": list,
            "sensor_type": str,
            "number_past_frames_exclude_current": int,
            "number_future_frames_exclude_current": int,
        }
    )

    def __init__(self, folder: str, about: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, about)
        needed = ("account_name", "unique_method_name", "sensor_type")
        if self.about and (missing := [key for key in needed if key not in self.about]):
            raise RecipeError(f"waymo: the server asks {', '.join(missing)}, too")
        if self.about and self.about["sensor_type"] not in _SENSOR_TYPES:
            raise RecipeError(f"waymo: sensor_type must be one of {', '.join(_SENSOR_TYPES)}")
        if not all(isinstance(name, str) for name in self.about.get("authors", [])):
            raise RecipeError("waymo: authors must be a list of texts")

    @property
    def packed(self) -> str:
        return "submission.bin" if self.about else "predictions.bin"

    def check(self, answer: Answer) -> None:
        super().check(answer)
        if len(answer.measured) != 2 or answer.identity.timestamp_ns is None:
            raise BrickyardError(
                f"{answer.identity.key}: Waymo wants both returns of the top lidar and the frame's time"
            )

    def file(self, answer: Answer) -> str:
        assert answer.identity.timestamp_ns is not None
        return f"{answer.identity.sequence}_{answer.identity.timestamp_ns // 1000}.bin"

    def encode(self, answer: Answer) -> bytes:
        assert answer.identity.timestamp_ns is not None
        ids, laser, start = self.inverse.official(answer.classes), _number(1, _TOP), 0
        for field, mask in zip(_RETURNS, answer.measured, strict=True):
            pixels = np.zeros((*mask.shape, 2), np.uint8)
            count = int(mask.sum())
            pixels[mask, 1] = ids[start : start + count]
            start += count
            laser += _bytes(field, _bytes(_COMPRESSED, zlib.compress(_matrix(pixels))))
        frame = _bytes(_LABELS, laser) + _bytes(_CONTEXT, answer.identity.sequence.encode())
        return _bytes(1, frame + _number(_TIME, answer.identity.timestamp_ns // 1000))

    def decode(self, data: bytes) -> NDArray[np.int64]:
        laser = _fields(_fields(_fields(data)[1])[_LABELS])
        parts = []
        for field in _RETURNS:
            matrix = zlib.decompress(_fields(laser[field])[_COMPRESSED])
            classes = np.frombuffer(_fields(matrix)[1], np.uint8).reshape(-1, 2)[:, 1]
            parts.append(classes[classes > 0])
        return self.inverse.classes(np.concatenate(parts))

    def pack(self, root: Path, files: Sequence[str], out: Path) -> None:
        _join(out.with_name("predictions.bin"), b"", root, files)
        if self.about:
            size = sum((root / name).stat().st_size for name in files)
            head = self._head() + _varint(_RESULTS << 3 | 2) + _varint(size)
            _join(out.with_name("submission.bin"), head, root, files)

    def unpack(self, out: Path, files: Sequence[str]) -> Iterator[bytes]:
        with out.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 0
            if self.about:  # frames are the last field
                for number, begin, _ in _walk(data, 0, len(data)):
                    start = begin if number == _RESULTS else start
            found = _walk(data, start, len(data))
            for name in files:
                _, begin, end = next(found)
                frame = bytes(data[begin:end])
                values = _fields(frame)
                if name != f"{values[_CONTEXT].decode()}_{values[_TIME]}.bin":
                    raise BrickyardError(f"{out}: the frame of {name} is not where it was written")
                yield _bytes(1, frame)

    def _head(self) -> bytes:
        """Whose it is: all of a submission that comes before the frames."""
        head = b"".join(_bytes(number, self.about[key].encode()) for key, number in _TEXTS.items() if key in self.about)
        head += b"".join(_bytes(_AUTHORS, author.encode()) for author in self.about.get("authors", []))
        head += _number(_SENSORS, _SENSOR_TYPES[self.about["sensor_type"]])
        head += _number(_PAST, self.about.get("number_past_frames_exclude_current", 0))
        return head + _number(_FUTURE, self.about.get("number_future_frames_exclude_current", 0))


def _join(out: Path, head: bytes, root: Path, files: Sequence[str]) -> None:
    """A file of `head` and the bytes of others, there when it is whole."""
    temporary = out.with_name(f"{TEMPORARY}{out.name}")
    with temporary.open("wb") as target:
        target.write(head)
        for name in files:
            target.write((root / name).read_bytes())
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(out)
    flush(out.parent)


def _varint(value: int) -> bytes:
    """The wire format's number, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _matrix(values: NDArray[np.uint8]) -> bytes:
    """A MatrixInt32 of values below 128, each of which is one byte of the wire format."""
    shape = b"".join(_number(1, side) for side in values.shape)
    return _bytes(1, values.tobytes()) + _bytes(2, shape)


def _read_varint(data: Any, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place


def _walk(data: Any, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field, first byte of its value, the byte after it) of what the writers above write."""
    while place < end:
        key, place = _read_varint(data, place)
        if key & 7 == 2:
            length, place = _read_varint(data, place)
            yield key >> 3, place, place + length
            place += length
        else:
            begin = place
            _, place = _read_varint(data, place)
            yield key >> 3, begin, place


def _fields(data: bytes) -> dict[int, Any]:
    """Field -> its last value, bytes or a number."""
    found: dict[int, Any] = {}
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        value, place = _read_varint(data, place)
        if key & 7 == 2:
            found[key >> 3], place = data[place : place + value], place + value
        else:
            found[key >> 3] = value
    return found
