"""The `.sens` RGB-D stream, versions 3 and 4: little endian, no padding, several GB a scan.

A stream is a header and frames; a frame is 96 bytes (pose, timestamps, two sizes), a colour blob (JPEG) and a depth
blob (zlib). Frames differ in size, so the index is made by walking: 96 bytes are read, the blobs are skipped. That
walk (5,000 frames: about 50 ms locally) also proves that the file is whole; blobs are read for chosen frames only.

Timestamps have no documented unit, and some files hold zeros. Microseconds are what the values of the release look
like, so they are taken as such where that gives a plausible frame rate, and as absent everywhere else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import ImageError
from brickyard.shards.images import inspect
from brickyard.shards.scene import Depth, Float64, ImageFormat

MAX_NAME = 4096
MAX_PIXELS = 1 << 24
MAX_FRAMES = 1_000_000
"""Nine hours at 30 Hz: keeps the index of a hostile file small."""
MAX_COLOR_BYTES = 64 << 20
NOMINAL_HZ = 30.0
PLAUSIBLE_STEP_US = (1_000, 10_000_000)
"""Microseconds between two frames: 1 kHz to one frame in ten seconds."""
INFLATE_PIECE = 32 << 10
FIXED = struct.Struct("<64f2i4IfQ")
FRAME = struct.Struct("<16f4Q")
IMU_BYTES = 128
IMAGE_FORMATS: dict[int, ImageFormat] = {1: "png", 2: "jpeg"}
TRUNCATED = "the file is truncated; download it again"


@dataclass(frozen=True, kw_only=True)
class SensHeader:
    """What holds for the whole stream.

    Attributes:
        color_intrinsics, depth_intrinsics: float64 (3, 3).
        color_format: "jpeg" or "png".
        depth_compression: 0 raw uint16, 1 zlib uint16.
        color_size, depth_size: (width, height).
        depth_shift: metres = value / depth_shift; 0 means the stream has no depth.
        frames: number of frames.
        start: offset of the first frame.
        version: 3, or 4 (which ends with an IMU table).
    """

    color_intrinsics: Float64
    depth_intrinsics: Float64
    color_format: ImageFormat
    depth_compression: int
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    frames: int
    start: int
    version: int


@dataclass(frozen=True, kw_only=True)
class SensFrame:
    """Where one frame lies: `pose` is world from camera, float64 (4, 4), not finite where tracking was lost; `time` is
    the colour image's timestamp as the file has it (see `times_ns`)."""

    number: int
    offset: int
    time: int
    pose: Float64
    color_bytes: int
    depth_bytes: int

    @property
    def color_offset(self) -> int:
        return self.offset + FRAME.size

    @property
    def depth_offset(self) -> int:
        return self.color_offset + self.color_bytes


def read_header(files: RawFiles, path: str) -> SensHeader:
    """Parse and check the header; raises `RawDataError` for anything that this reader would misinterpret."""
    version, name_length = struct.unpack("<IQ", files.read_range(path, 0, 12))
    if version not in (3, 4):
        raise files.error(path, f"version {version} found, 3 or 4 expected", offset=0, hint="is this a .sens file?")
    if name_length > MAX_NAME:
        raise files.error(path, f"the sensor's name has {name_length} bytes, at most {MAX_NAME} expected", offset=4)
    offset = 12 + name_length
    values = FIXED.unpack(files.read_range(path, offset, FIXED.size))
    color_k, color_x, depth_k, depth_x = np.array(values[:64], np.float64).reshape(4, 4, 4)
    color_compression, depth_compression, *sizes, depth_shift, frames = values[64:]
    for name, matrix, place in (("colour", color_x, offset + 64), ("depth", depth_x, offset + 192)):
        # The release has identities only, so nobody could check in which direction another matrix is meant.
        if not np.allclose(matrix, np.eye(4), atol=1e-5):
            raise files.error(path, f"the {name} extrinsics are not the identity: unknown convention", offset=place)
    for name, matrix, place in (("colour", color_k, offset), ("depth", depth_k, offset + 128)):
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise files.error(path, f"the {name} intrinsics have no positive focal length", offset=place)
    if color_compression not in IMAGE_FORMATS:
        raise files.error(
            path, f"colour compression {color_compression}; PNG (1) or JPEG (2) expected", offset=offset + 256
        )
    if not 0 < sizes[0] * sizes[1] <= MAX_PIXELS or sizes[2] * sizes[3] > MAX_PIXELS or max(sizes) >= 65536:
        raise files.error(
            path, f"impossible image sizes {sizes[0]}x{sizes[1]}, {sizes[2]}x{sizes[3]}", offset=offset + 264
        )
    if not (np.isfinite(depth_shift) and (depth_shift == 0 or depth_shift > 1e-6)):
        raise files.error(path, f"impossible depth shift {depth_shift}", offset=offset + 280)
    start = offset + FIXED.size
    left = files.size(path) - start
    if frames > min(left // FRAME.size, MAX_FRAMES):
        raise files.error(
            path, f"{frames} frames are declared, {left} bytes are left", offset=start - 8, hint=TRUNCATED
        )
    return SensHeader(
        color_intrinsics=color_k[:3, :3].copy(), depth_intrinsics=depth_k[:3, :3].copy(),
        color_format=IMAGE_FORMATS[color_compression], depth_compression=depth_compression,
        color_size=(sizes[0], sizes[1]), depth_size=(sizes[2], sizes[3]), depth_shift=depth_shift,
        frames=frames, start=start, version=version,
    )  # fmt: skip


def read_frames(files: RawFiles, path: str, header: SensHeader, stop: int | None = None) -> list[SensFrame]:
    """Walk the stream and return where every frame lies, to its end or up to (without) frame number `stop`.

    Raises `RawDataError` if what was walked over is not whole.
    """
    size, count = files.size(path), header.frames if stop is None else min(stop, header.frames)
    frames, offset = [], header.start
    for number in range(count):
        values = FRAME.unpack(files.read_range(path, offset, FRAME.size))
        time, _, color_bytes, depth_bytes = values[16:]
        # Lost tracking is -inf; a camera that is nowhere is no frame, so neither are the sizes after it.
        if np.isfinite(values[:16]).all() and not np.allclose(values[12:16], (0, 0, 0, 1), atol=1e-3):
            raise files.error(
                path, f"frame {number}: no pose stands here: a block of the file is lost, or one before this frame",
                offset=offset, hint="the file is damaged; download it again",
            )  # fmt: skip
        left = size - offset - FRAME.size
        if color_bytes + depth_bytes > left:
            raise files.error(
                path, f"frame {number} declares {color_bytes} + {depth_bytes} bytes, {left} are left",
                offset=offset + 80, hint=TRUNCATED,
            )  # fmt: skip
        frame = SensFrame(
            number=number, offset=offset, time=time, pose=np.array(values[:16], np.float64).reshape(4, 4),
            color_bytes=color_bytes, depth_bytes=depth_bytes,
        )  # fmt: skip
        frames.append(frame)
        offset = frame.depth_offset + depth_bytes
    if header.version >= 4 and count == header.frames:
        (imu,) = struct.unpack("<Q", files.read_range(path, offset, 8))
        if imu > (size - offset - 8) // IMU_BYTES:
            raise files.error(
                path, f"{imu} IMU records are declared, the file ends before", offset=offset, hint=TRUNCATED
            )
    return frames


def times_ns(frames: Sequence[SensFrame]) -> list[int | None]:
    """Nanoseconds of each frame on the sensor's clock, or None for all where the file's values cannot be microseconds.

    Zeros, clocks that stand still or run backwards, and steps of an implausible size are such cases: a wrong unit
    would be worse than no time.
    """
    times = [frame.time for frame in frames]
    steps = [(b.time - a.time) / (b.number - a.number) for a, b in pairwise(frames)]
    low, high = PLAUSIBLE_STEP_US
    if not steps or min(steps) <= 0 or not low <= float(np.median(steps)) <= high or max(times) >= 2**63 // 1000:
        return [None] * len(frames)
    return [time * 1000 for time in times]


def read_color(files: RawFiles, path: str, header: SensHeader, frame: SensFrame) -> bytes:
    """The encoded colour image; its own header must tell the stream's format and size."""
    if frame.color_bytes > MAX_COLOR_BYTES:
        raise files.error(
            path, f"frame {frame.number}: a colour image of {frame.color_bytes} bytes", offset=frame.offset + 80
        )
    data = files.read_range(path, frame.color_offset, frame.color_bytes)
    try:
        image = inspect(data)
    except ImageError as problem:
        raise files.error(
            path, f"frame {frame.number}: {problem}", offset=frame.color_offset + (problem.offset or 0),
            hint="download it again",
        ) from None  # fmt: skip
    if (image.format, image.size) != (header.color_format, header.color_size):
        found, declared = "x".join(map(str, image.size)), "x".join(map(str, header.color_size))
        raise files.error(
            path, f"frame {frame.number}: {image.format} image of {found}, the stream declares {header.color_format} "
            f"of {declared}", offset=frame.color_offset,
        )  # fmt: skip
    return data


def read_depth(files: RawFiles, path: str, header: SensHeader, frame: SensFrame) -> Depth | None:
    """The decoded depth image, or None where the stream or the frame has none."""
    width, height = header.depth_size
    expected = width * height * 2
    if frame.depth_bytes == 0 or header.depth_shift == 0 or expected == 0:
        return None
    if header.depth_compression not in (0, 1):
        raise files.error(
            path, f"depth compression {header.depth_compression}; raw (0) or zlib (1) expected",
            hint="set read_depth: false to read this scan without depth",
        )  # fmt: skip
    # The allowance keeps a blob that is longer than any honest compression of these pixels from being loaded.
    if frame.depth_bytes > expected + expected // 100 + 4096:
        raise files.error(path, f"frame {frame.number}: depth of {frame.depth_bytes} bytes", offset=frame.offset + 88)
    data: bytes | bytearray = files.read_range(path, frame.depth_offset, frame.depth_bytes)
    if header.depth_compression == 1:
        try:
            data = _inflate(data, expected)
        except (zlib.error, EOFError) as problem:
            raise files.error(path, f"frame {frame.number}: depth: {problem}", offset=frame.depth_offset) from problem
    if len(data) != expected:
        raise files.error(
            path, f"frame {frame.number}: depth is not {width}x{height} pixels of 16 bits", offset=frame.depth_offset
        )
    values: NDArray[np.uint16] = np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16, copy=False)
    return Depth(values=values, scale=1.0 / header.depth_shift, intrinsics=header.depth_intrinsics)


def _inflate(data: bytes | bytearray, most: int) -> bytearray:
    """The zlib stream in `data`, at most `most` + 1 bytes of it; raises EOFError where it has no end.

    Fed by pieces: `zlib` collects a bounded output in growing blocks, and blocks of a megabyte are fresh pages each
    time, which costs a third of the inflating itself.
    """
    inflater, out = zlib.decompressobj(), bytearray()
    for start in range(0, len(data), INFLATE_PIECE):
        out += inflater.decompress(memoryview(data)[start : start + INFLATE_PIECE], most + 1 - len(out))
        if len(out) > most:
            return out
    if not inflater.eof:
        raise EOFError("compressed depth has no end")
    return out
