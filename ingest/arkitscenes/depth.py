"""Depth images: 16 bits, millimetres along the camera's z, 0 for none; and how sure the device was of each pixel.

lowres_depth/<id>_<t>.png     256 x 192, made on the device; the camera of the lowres_wide frame of that time
highres_depth/<id>_<t>.png    1920 x 1440, of the laser scanner; the camera of the wide frame
confidence/<id>_<t>.png       8 bits beside lowres_depth: 0 low, 1, 2 high; in raw alone
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.arkitscenes.files import MAX_IMAGE, REPORT, CaptureFiles, beside
from brickyard.ingest.arkitscenes.pincam import read_pincam
from brickyard.ingest.images import image_error
from brickyard.shards.errors import ImageError
from brickyard.shards.images import inspect, load
from brickyard.shards.scene import Depth

MAX_PIXELS = 1 << 24
MILLIMETRES = 0.001
KINDS = {"lowres": ("lowres_depth", "lowres_wide_intrinsics"), "highres": ("highres_depth", "wide_intrinsics")}
NO_DEPTH = "frame without a depth image"
NO_DEPTH_CAMERA = "depth image without a pincam"
NO_CONFIDENCE = "depth image without confidence: kept as it is"
UNSURE = "depth pixels of low confidence: left out"


class DepthImages:
    """The depth images of a capture by their times."""

    def __init__(self, files: CaptureFiles, kind: str) -> None:
        images, cameras = KINDS[kind]
        self._files, self._images, self._cameras = files, files.timed(images), files.timed(cameras)
        self._confidence = files.timed("confidence") if kind == "lowres" and files.ref.details["min_confidence"] else {}
        self._least: int = files.ref.details["min_confidence"] if kind == "lowres" else 0

    def read(self, milliseconds: int, dropped: Counter[str]) -> Depth | None:
        """The depth image of a frame; None, and counted, where it or its camera is not there."""
        path, pincam = beside(self._images, milliseconds), beside(self._cameras, milliseconds)
        if path is None or pincam is None:
            dropped[NO_DEPTH if path is None else NO_DEPTH_CAMERA] += 1
            return None
        values = _grey(self._files, path, 16).astype(np.uint16)
        (width, height), intrinsics = read_pincam(self._files, pincam)
        if values.shape != (height, width):
            what = f"{values.shape[1]}x{values.shape[0]} pixels, its camera {pincam} has {width}x{height}"
            raise self._files.error(path, what, hint=REPORT)
        if self._least:
            values = _confident(self._files, values, beside(self._confidence, milliseconds), self._least, dropped)
        return Depth(values=values, scale=MILLIMETRES, intrinsics=intrinsics)


def _confident(
    files: CaptureFiles, values: NDArray[np.uint16], path: str | None, least: int, dropped: Counter[str]
) -> NDArray[np.uint16]:
    """Depth without what the device was less sure of; another size than that of its confidence is kept and counted."""
    confidence = None if path is None else _grey(files, path, 8)
    if path is None or confidence is None or confidence.shape != values.shape:
        dropped[NO_CONFIDENCE] += 1
        return values
    if (most := int(confidence.max(initial=0))) > 2:
        raise files.error(path, f"a confidence of {most}, it has 0, 1 and 2", hint=REPORT)
    unsure = (confidence < least) & (values > 0)
    if count := int(unsure.sum()):
        dropped[UNSURE] += count
    return np.where(unsure, 0, values).astype(np.uint16)


def _grey(files: CaptureFiles, path: str, bits: int) -> NDArray[Any]:
    data = files.read(path, MAX_IMAGE)
    try:
        header = inspect(data)
        if (header.format, header.kind, header.bits) != ("png", "grey", bits):
            what = f"expected a PNG of {bits}-bit grey, found {header.format}, {header.kind} of {header.bits} bits"
            raise files.error(path, what, hint=REPORT)
        if header.width * header.height > MAX_PIXELS:
            raise files.error(path, f"{header.width}x{header.height} pixels", hint=REPORT)
        return np.asarray(load(data))
    except ImageError as problem:
        raise image_error(files, path, problem, "png") from None
