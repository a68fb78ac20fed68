"""A camera of one frame: one line, width height fx fy cx cy; a pinhole. The lens focuses, so each frame has its own."""

from __future__ import annotations

import numpy as np

from brickyard.ingest.arkitscenes.files import REPORT
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import Float64

MAX_PINCAM = 4096


def read_pincam(files: RawFiles, path: str) -> tuple[tuple[int, int], Float64]:
    """(width, height) and the camera matrix; raises `RawDataError` for anything but six plausible numbers."""
    text = files.read(path, MAX_PINCAM)
    try:
        width, height, fx, fy, cx, cy = values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    fine = len(values) == 6 and np.isfinite(values).all() and len(text.strip().splitlines()) == 1
    if not (fine and width == int(width) and height == int(height) and 0 < width < 65536 and 0 < height < 65536):
        raise files.error(path, f"expected width height fx fy cx cy, found {text[:60]!r}", hint=REPORT)
    wide = 0.2 * width < fx < 10 * width and 0.2 * width < fy < 10 * width
    if not (wide and 0 < cx < width and 0 < cy < height):
        raise files.error(path, f"no camera of {int(width)}x{int(height)} pixels: {text[:60]!r}", hint=REPORT)
    return (int(width), int(height)), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
