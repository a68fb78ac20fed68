"""The child process that takes numbered frames out of a film: FFmpeg (in PyAV's wheel) behind `ingest.bounded`.

Frame n of the phone's film is the n-th picture in the order of presentation, and nothing else in the dataset says when
it was taken. So the times of all packets are gathered first, without decoding (the file is read through once), and
sorted; then the frames that are asked for are decoded from the key frames before them. If the number of packets is not
that of the poses, pictures would get the pose of others: then nothing is decoded.

A message is the number of the frame, its size and a JPEG; of a mask, the share of pixels that are black in place of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np
import simplejpeg

from brickyard.ingest.video.decode import BUFFER_BYTES, FORMATS, Refused, is_blank, picture

FRAME = struct.Struct("<IIId")
QUALITY = 92
CLOSE = 60
"""Frames that are decoded rather than sought over."""
BLACK = 64
"""Grey levels below which a pixel of a mask is painted over; films are never exact."""


def main(file: Any, request: Mapping[str, Any]) -> Iterator[bytes]:
    """The frames `numbers` (rising) of a film of `frames` frames.

    Args:
        file: has read, seek and tell.
        request: `numbers`, `frames`, and `mask`: whether shares of black pixels are wanted in place of pictures.

    Yields:
        `FRAME` (number, width, height, share of black pixels) and a JPEG, or nothing for a mask.
    """
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    with av.open(file, buffer_size=BUFFER_BYTES, container_options=options) as container:
        streams = container.streams.video
        if not streams or streams[0].codec_context is None:
            raise Refused("there is no film in this file that this program can decode")
        stream = streams[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        if len(stamps) != request["frames"] or len(set(stamps)) != len(stamps):
            raise Refused(f"it has {len(set(stamps))} frames, {request['frames']} have a pose")
        stream.codec_context.thread_count = 1
        for number, frame in _frames(container, stream, stamps, request["numbers"]):
            pixels = picture(frame, 1.0, None)
            height, width = pixels.shape[:2]
            black, jpeg = 0.0, b""
            if request["mask"]:
                black = float((pixels.max(axis=2) < BLACK).mean())
            else:
                jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")
            yield FRAME.pack(number, width, height, black) + jpeg


def _frames(container: Any, stream: Any, stamps: list[int], numbers: list[int]) -> Iterator[tuple[int, Any]]:
    """(number, frame), each run of frames that lie close together at one go."""
    starts = [k for k in range(len(numbers)) if k == 0 or numbers[k] - numbers[k - 1] > CLOSE]
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        yield from _run(container, stream, {stamps[number]: number for number in numbers[start:stop]})


def _run(container: Any, stream: Any, wanted: dict[int, int]) -> Iterator[tuple[int, Any]]:
    """The frames of times, from the key frame before the first, or else from the start of the film."""
    for start in (min(wanted), stream.start_time or 0):
        try:
            container.seek(start, stream=stream, backward=True)
            for frame in _decoded(container, stream, max(wanted.values())):
                if frame.pts in wanted and not frame.is_corrupt:
                    yield wanted.pop(frame.pts), frame
                if not wanted:
                    return
                if frame.pts is not None and frame.pts > max(wanted):
                    break
        except av.FFmpegError:
            continue
    raise Refused(f"frame {min(wanted.values())} cannot be decoded")


def _decoded(container: Any, stream: Any, number: int) -> Iterator[Any]:
    for packet in container.demux(stream):
        if is_blank(bytes(packet)):
            raise Refused(f"a block of zero bytes at or before frame {number}")
        yield from packet.decode()
