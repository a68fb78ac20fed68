"""The child process that decodes video: FFmpeg (in PyAV's wheel) behind `ingest.bounded`, one thread, no file, no net.

A message is the time of a frame, its size, a picture of 24 x 24 for finding cuts, and a JPEG if the frame is kept at
the rate asked for; the last message counts what was damaged. Only containers of the list below are opened, because
others (playlists) make FFmpeg open further files and addresses.

A frame is converted in one pass to RGB at its final size: square pixels, upright (rotation metadata), the matrix and
range the stream says (without a word: BT.709 above 576 lines, BT.601 below, as players do), Lanczos with the support of
the smaller image. High dynamic range has no agreed conversion and is refused. Interlaced video is not deinterlaced.

AVI has no times of presentation, and what FFmpeg makes up for H.264 and its successors follows the order of decoding:
there the decoder's order counts, and its n-th frame has the n-th time of the packets.
"""

from __future__ import annotations

import heapq
import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from brickyard.ingest.clips import thin

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts"
FRAME = struct.Struct("<qII")
SIDE = 24
"""As in `shots.py` (like `FRAME` in `read.py`), which this process does not import: 0.3 s for nothing."""

SLACK_NS = 5_000_000
"""Between the time that is asked for and the frame's own, which is rounded to ticks of the stream."""
BUFFER_BYTES = 256 << 10
MAX_PIXELS = 8192 * 4608
REORDERED = ("h264", "hevc", "vvc")
"""Codecs whose order of frames FFmpeg does not know before it decodes."""
BLANK = bytes(512)
"""H.264 and its like never write three zero bytes in a row, arithmetic coders hardly ever more."""
HDR = {16: "PQ", 18: "HLG"}
ASPECTS = (0.25, 4.0)
EXACT = (
    Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


class Refused(Exception):
    """A video that cannot be decoded, in words for people."""


def main(file: Any, request: Mapping[str, Any]) -> Iterator[bytes]:
    """Frames of a window of a video, then a JSON object of counts.

    Args:
        file: has read, seek and tell.
        request: `start_ns`, `stop_ns` (or None), `rate_hz` or `times_ns` (rising), `short_side` (or None), `quality`,
            `max_frames`.

    Yields:
        b"F", `FRAME` (time in ns from the start of the stream, width, height), 24 * 24 * 3 bytes, JPEG or nothing;
        at the end b"S" and JSON.
    """
    tally: Counter[str] = Counter()
    start, stop = request["start_ns"], request["stop_ns"]
    wanted: list[int] | None = request["times_ns"]
    first = kept = last = None
    for time, frame, aspect in _window(file, start, tally):
        if time < start:
            continue
        if last is not None and time <= last:
            tally["frames out of order"] += 1
            continue
        if stop is not None and time >= stop:
            break
        if tally["decoded"] == request["max_frames"]:
            tally["cut short"] = 1
            break
        tally["decoded"] += 1
        last = time
        first = time if first is None else first
        if wanted is not None:
            keep = bool(wanted) and time >= wanted[0] - SLACK_NS
            wanted = [t for t in wanted if t > time + SLACK_NS] if keep else wanted
        else:
            # As `thin` would do with all times at hand: a frame is kept or not whatever comes after it.
            keep = kept is None or thin([t / 1e9 for t in (first, kept, time)], request["rate_hz"])[-1] == 2
        width, height, image = 0, 0, b""
        if keep:
            kept = time
            pixels = picture(frame, aspect, request["short_side"])
            height, width = pixels.shape[:2]
            image = simplejpeg.encode_jpeg(pixels, request["quality"], "RGB", "420")
        small = _rgb(frame, SIDE, SIDE, Interpolation.AREA)
        yield b"F" + FRAME.pack(time, width, height) + small.tobytes() + image
    yield b"S" + json.dumps(dict(tally)).encode()


def _window(file: Any, start: int, tally: Counter[str]) -> Iterator[tuple[int, av.VideoFrame, float]]:
    """(time in ns, frame, width of a pixel / its height) from `start` on, or a little before."""
    for attempt in range(2):
        file.seek(0)
        with av.open(
            file,
            buffer_size=BUFFER_BYTES,
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
        ) as container:
            stream = _stream(container)
            base, origin = stream.time_base, stream.start_time or 0
            aspect = float(stream.sample_aspect_ratio or 1)
            if start > 0 and attempt == 0:
                try:
                    container.seek(origin + int(start / base / 10**9), stream=stream, backward=True)
                except av.FFmpegError:
                    continue
            first = True
            for stamp, frame in _frames(container, stream, tally):
                if stamp is None:
                    tally["frames without time"] += 1
                    continue
                time = round((stamp - origin) * base * 10**9)
                if first and attempt == 0 and time > start > 0:
                    break  # the index of the file lies or is missing: everything from the start
                first = False
                yield time, frame, aspect
            else:
                return


def _stream(container: Any) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise Refused("there is no video stream in this file")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise Refused("the codec of the video is unknown to this program")
    if context.width * context.height > MAX_PIXELS:
        raise Refused(f"frames of {context.width} x {context.height} pixels, at most {MAX_PIXELS} are decoded")
    if not stream.time_base:
        raise Refused("the video stream has no time base")
    context.thread_count = 1
    return stream


def _frames(container: Any, stream: Any, tally: Counter[str]) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """(time in the stream's unit, frame) in order of presentation; what cannot be decoded is counted."""
    context = stream.codec_context
    untimed = container.format.name == "avi" and context.name in REORDERED
    packets, stamps = container.demux(stream), list[int]()
    while True:
        packet = None
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else context.decode(None)
        except av.error.EOFError:
            return
        except av.FFmpegError:
            tally["damaged packets"] += 1
            if tally["damaged packets"] > 10_000:
                raise
            continue
        if packet is not None and is_blank(bytes(packet)):
            tally["blank packets"] += 1
        if packet is not None and packet.dts is not None:
            heapq.heappush(stamps, packet.dts)
        for frame in frames:
            earliest = heapq.heappop(stamps) if stamps else None
            if frame.is_corrupt:
                tally["damaged frames"] += 1
            else:
                yield (earliest if untimed else frame.pts), frame
        if packet is None:
            return


def is_blank(data: bytes) -> bool:
    """Whether a disk has lost a sector of a packet: decoders make a picture of zeros, too, but no coder writes them."""
    return BLANK in data or (bool(data) and not data.strip(b"\0"))


def picture(frame: av.VideoFrame, aspect: float, short_side: int | None) -> NDArray[np.uint8]:
    """RGB uint8 (height, width, 3): square pixels, upright, `short_side` on the shorter side, never enlarged."""
    if frame.width * frame.height > MAX_PIXELS:
        raise Refused(f"frames of {frame.width} x {frame.height} pixels, at most {MAX_PIXELS} are decoded")
    if frame.color_trc in HDR:
        raise Refused(f"high dynamic range video ({HDR[frame.color_trc]}): convert it to BT.709 first")
    aspect = aspect if ASPECTS[0] <= aspect <= ASPECTS[1] else 1.0
    width, height = frame.width * min(aspect, 1.0), frame.height / max(aspect, 1.0)
    scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    upright = np.rot90(_rgb(frame, *size, Interpolation.LANCZOS), round(frame.rotation / 90))
    return np.ascontiguousarray(upright)


def _rgb(frame: av.VideoFrame, width: int, height: int, filter: Interpolation) -> NDArray[np.uint8]:
    matrix = {
        1: Colorspace.ITU709,
        4: Colorspace.FCC,
        7: Colorspace.SMPTE240M,
        9: Colorspace.BT2020,
        10: Colorspace.BT2020,
    }
    unknown = Colorspace.ITU709 if frame.height > 576 else Colorspace.ITU601
    space = unknown if frame.colorspace == 2 else matrix.get(frame.colorspace, Colorspace.ITU601)
    out = frame.reformat(
        width, height, "rgb24", src_colorspace=space, dst_colorspace=space, interpolation=filter | EXACT,
        src_color_range=frame.color_range or None, dst_color_range=ColorRange.JPEG, threads=1,
    )  # fmt: skip
    return np.asarray(out.to_ndarray(), dtype=np.uint8)
