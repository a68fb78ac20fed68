"""PNG images as they are: bytes kept, size taken from the header (24 bytes), nothing decoded.

Only label images are decoded (a few milliseconds each), after their header has promised no more pixels than the
picture they belong to.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from ingest.source import RawFiles
from shards.errors import NONSENSE
from shards.scene import CameraModel, Float64, View

MAX_IMAGE_BYTES = 64 << 20
_START = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
_END = struct.pack(">I", 0) + b"IEND\xaeB`\x82"


def read_view(
    files: RawFiles,
    name: str,
    path: str,
    *,
    intrinsics: Float64,
    scene_from_camera: Float64 | None,
    size: tuple[int, int] | None = None,
    timestamp_ns: int | None = None,
    camera_model: CameraModel = "pinhole",
    distortion: tuple[float, ...] = (),
) -> View:
    """The view of a PNG file.

    Args:
        size: (width, height) the calibration is for, where the calibration says so.
        camera_model, distortion: as in `shards.scene.View`.

    Raises:
        RawDataError: missing, truncated, not a PNG, or of another size than the calibration.
    """
    data = files.read(path, limit=MAX_IMAGE_BYTES)
    width, height = _png_size(files, path, data)
    if size is not None and (width, height) != size:
        expected = f"{size[0]}x{size[1]}"
        raise files.error(
            path, f"the image is {width}x{height}, its calibration is for {expected}", hint="use the original images"
        )
    return View(
        name=name, image=data, image_format="png", width=width, height=height, intrinsics=intrinsics,
        scene_from_camera=scene_from_camera, timestamp_ns=timestamp_ns, camera_model=camera_model,
        distortion=distortion,
    )  # fmt: skip


def read_label_image(files: RawFiles, path: str, size: tuple[int, int]) -> NDArray[np.int32]:
    """The values of a grey PNG of 8 or 16 bits, int32 (height, width).

    Raises:
        RawDataError: missing, damaged, not grey, or of another size than (width, height).
    """
    from PIL import Image

    data = files.read(path, limit=MAX_IMAGE_BYTES)
    found = _png_size(files, path, data)
    depth, colour = data[len(_START) + 8 : len(_START) + 10].ljust(2, b"\0")
    if found != size or depth not in (8, 16) or colour != 0:
        problem = f"a {found[0]}x{found[1]} PNG of {depth} bits and colour type {colour}"
        expected = f"expected the labels of a {size[0]}x{size[1]} picture, 8 or 16 bits of grey"
        raise files.error(path, f"{problem}, {expected}", offset=len(_START))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != size:  # a second header can say so
                raise ValueError(f"its chunks declare {image.size[0]}x{image.size[1]} pixels")
            return np.array(image).astype(np.int32)
    except (OSError, struct.error, zlib.error, *NONSENSE) as problem:
        raise files.error(path, f"the PNG cannot be decoded: {problem}"[:200], hint="download it again") from problem


def _png_size(files: RawFiles, path: str, data: bytes) -> tuple[int, int]:
    """(width, height) of a PNG with a start and an end."""
    if len(data) < len(_START) + 8 or not data.startswith(_START):
        raise files.error(path, "not a PNG image", offset=0, hint="download it again")
    if not data.endswith(_END):
        raise files.error(path, "the PNG has no end: truncated or padded", offset=len(data), hint="download it again")
    width, height = struct.unpack_from(">II", data, len(_START))
    if not (0 < width < 65536 and 0 < height < 65536):
        raise files.error(path, f"impossible image size {width}x{height}", offset=len(_START))
    return width, height
