"""Small videos for tests: textures that glide, at irregular times, in any container."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def glide(count: int, *, seed: int = 0, size: tuple[int, int] = (64, 48), speed: int = 2) -> list[Picture]:
    """`count` pictures (height, width, 3) of a texture of blocks that moves `speed` pixels a frame.

    Its colours are faint, as a JPEG of quality 100 still halves the resolution of colour.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    shape = (height // 8 + 1, (width + count * speed) // 8 + 1)
    blocks = rng.integers(20, 236, (*shape, 1)) + rng.integers(-8, 9, (*shape, 3))
    wide = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    return [np.ascontiguousarray(wide[:height, k * speed : k * speed + width]) for k in range(count)]


def irregular(count: int, seed: int = 0) -> list[int]:
    """Times in ms from 0 on, steps between 20 and 60."""
    steps = np.random.default_rng(seed).integers(20, 60, count - 1)
    return [0, *np.cumsum(steps).tolist()]


def write_movie(
    path: Path, pictures: Sequence[Picture], times_ms: Sequence[int], *, codec: str = "libx264",
    pixels: str = "yuv420p", options: dict[str, str] | None = None, **context: Any,
) -> Path:  # fmt: skip
    """A video; `context` is set on the codec context or the stream, such as `color_trc=16`."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for picture, time in zip(pictures, times_ms, strict=True):
            matrix = context.get("colorspace", 5)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels, dst_colorspace=matrix)
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
