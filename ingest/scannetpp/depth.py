"""depth.bin: the depth images of the phone, 256 x 192, one for each frame of its film, in one of two layouts.

    stream    the whole file is one raw deflate stream of float32 metres, frame after frame
    records   for each frame an int32 (little endian) with the number of bytes of what follows: an LZ4 block of uint16
              millimetres, or a raw deflate stream of float32 metres

Nothing in the file says which, how many frames there are or how large. A chain of plausible lengths to the end of the
file is no deflate stream by chance, so that is looked at first. The number of frames must be that of the phone's poses:
if one was lost, those after it would be seen from elsewhere. Therefore the file is always gone through as a whole; one
frame is in memory at a time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numcodecs import lz4
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RawDataError

WIDTH, HEIGHT = 256, 192
PIXELS = WIDTH * HEIGHT
SCALE = 0.001
"""Metres per unit of what is returned."""
PIECE = 4 << 20
MAX_RECORD = PIXELS * 4 + 4096
"""Bytes of a record: float32 that could not be compressed, and a little."""
LOOK_AHEAD = 4
HINT = "download it again; if it is whole, please report it: no real file was at hand when this was written"


def read_depth(files: RawFiles, path: str, wanted: Sequence[int], frames: int) -> dict[int, NDArray[np.uint16]]:
    """Depth images by frame, uint16 (192, 256) in millimetres, 0 where nothing was measured.

    Args:
        wanted: numbers of frames, rising, below `frames`.
        frames: how many frames the file must have.

    Raises:
        RawDataError: another number of frames, or a damaged file.
    """
    records = _is_records(files, path)
    chosen, found, count = set(wanted), dict[int, NDArray[np.uint16]](), 0
    for offset, data in _records(files, path) if records else _stream(files, path):
        if count in chosen:
            found[count] = _decode_record(files, path, offset, data) if records else _millimetres(data)
        count += 1
        if count > frames:
            break
    if count != frames:
        what = "more" if count > frames else str(count)
        raise files.error(path, f"it has {what} depth images, {frames} frames have a pose", hint=HINT)
    return found


def _is_records(files: RawFiles, path: str) -> bool:
    """Whether the file begins with a chain of records, to its end if that is near."""
    size, place = files.size(path), 0
    for _ in range(LOOK_AHEAD):
        if place == size:
            return place > 0
        if size - place < 4:
            return False
        (length,) = struct.unpack("<i", files.read_range(path, place, 4))
        place += 4 + length
        if not 0 < length <= MAX_RECORD or place > size:
            return False
    return True


def _records(files: RawFiles, path: str) -> Iterator[tuple[int, bytes]]:
    """(offset, compressed bytes) of each record."""
    rest, start = b"", 0
    for piece in _pieces(files, path):
        rest += piece
        place = 0
        while len(rest) - place >= 4:
            (length,) = struct.unpack_from("<i", rest, place)
            if not 0 < length <= MAX_RECORD:
                raise files.error(path, f"a record of {length} bytes", offset=start + place, hint=HINT)
            if len(rest) - place - 4 < length:
                break
            yield start + place, rest[place + 4 : place + 4 + length]
            place += 4 + length
        rest, start = rest[place:], start + place
    if rest:
        raise files.error(path, "the file ends within a record", offset=start, hint=HINT)


def _stream(files: RawFiles, path: str) -> Iterator[tuple[int, bytes]]:
    """(0, float32 pixels) of each frame of a file that is one raw deflate stream."""
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    frame, place = bytearray(), 0
    try:
        for piece in _pieces(files, path):
            left = piece
            while left and not inflate.eof:
                frame += inflate.decompress(left, PIXELS * 4 - len(frame))
                left = inflate.unconsumed_tail
                if len(frame) == PIXELS * 4:
                    yield 0, bytes(frame)
                    frame.clear()
            place += len(piece)
        while not inflate.eof:
            more = inflate.decompress(inflate.unconsumed_tail, PIXELS * 4 - len(frame))
            frame += more
            if len(frame) == PIXELS * 4:
                yield 0, bytes(frame)
                frame.clear()
            if not more:
                raise files.error(path, "the stream of depth images has no end", offset=place, hint=HINT)
    except zlib.error as problem:
        raise files.error(
            path, f"neither records nor a deflate stream: {problem}", offset=place, hint=HINT
        ) from problem
    if frame or inflate.unused_data:
        what = "the stream ends within a depth image" if frame else "bytes after the stream of depth images"
        raise files.error(path, what, offset=place, hint=HINT)


def _pieces(files: RawFiles, path: str) -> Iterator[bytes]:
    size = files.size(path)
    for start in range(0, size, PIECE):
        yield files.read_range(path, start, min(PIECE, size - start))


def _decode_record(files: RawFiles, path: str, offset: int, data: bytes) -> NDArray[np.uint16]:
    """Millimetres of an LZ4 block of uint16, or else of a raw deflate stream of float32 metres."""
    try:
        pixels = lz4.decompress(struct.pack("<i", PIXELS * 2) + data)
        return np.frombuffer(pixels, "<u2").reshape(HEIGHT, WIDTH).astype(np.uint16)
    except (RuntimeError, ValueError):
        pass
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        pixels = inflate.decompress(data, PIXELS * 4 + 1)
    except zlib.error as problem:
        raise _no_image(files, path, offset) from problem
    if len(pixels) != PIXELS * 4 or not inflate.eof:
        raise _no_image(files, path, offset)
    return _millimetres(pixels)


def _no_image(files: RawFiles, path: str, offset: int) -> RawDataError:
    what = f"a record that is neither an LZ4 block nor a deflate stream of {WIDTH}x{HEIGHT} pixels"
    return files.error(path, what, offset=offset, hint=HINT)


def _millimetres(pixels: bytes) -> NDArray[np.uint16]:
    """float32 metres -> uint16 (192, 256); 0 for what is not finite, not positive or beyond 65 m."""
    with np.errstate(invalid="ignore"):  # what is no number is no depth
        metres = np.frombuffer(pixels, "<f4").reshape(HEIGHT, WIDTH).astype(np.float64)
        measured = np.isfinite(metres) & (metres > 0) & (metres < 65.535)
    return np.where(measured, np.rint(np.where(measured, metres, 0) * 1000), 0).astype(np.uint16)
