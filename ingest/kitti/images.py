"""PNG and JPEG images as they are: bytes kept, format and size taken from their content, nothing decoded.

KITTI's are PNG; many keep them as JPEG to save space, and the bytes say which they are, not the name. Another frame's
picture of the same size cannot be told from the right one.

Only label images are decoded (a few milliseconds each), after their header has promised no more pixels than the
picture they belong to.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.images import image_header
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import CameraModel, Float64, View

MAX_IMAGE_BYTES = 64 << 20


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
    """The view of a PNG or JPEG file.

    Args:
        size: (width, height) the calibration is for, where the calibration says so.
        camera_model, distortion: as in `shards.scene.View`.

    Raises:
        RawDataError: missing, truncated, damaged, neither PNG nor JPEG, or of another size than the calibration.
    """
    data = files.read(path, limit=MAX_IMAGE_BYTES)
    found = image_header(files, path, data)
    if size is not None and found.size != size:
        expected = f"{size[0]}x{size[1]}"
        problem = f"the image is {found.width}x{found.height}, its calibration is for {expected}"
        raise files.error(path, problem, hint="use the original images")
    return View(
        name=name, image=data, image_format=found.format, width=found.width, height=found.height,
        intrinsics=intrinsics, scene_from_camera=scene_from_camera, timestamp_ns=timestamp_ns,
        camera_model=camera_model, distortion=distortion,
    )  # fmt: skip


def read_label_image(files: RawFiles, path: str, size: tuple[int, int]) -> NDArray[np.int32]:
    """The values of a grey PNG of 8 or 16 bits, int32 (height, width).

    Raises:
        RawDataError: missing, damaged, not grey, or of another size than (width, height).
    """
    from PIL import Image

    data = files.read(path, limit=MAX_IMAGE_BYTES)
    found = image_header(files, path, data, expected="png")
    if found.size != size or found.bits not in (8, 16) or found.kind != "grey":
        problem = f"a {found.width}x{found.height} PNG of {found.bits} bits and kind {found.kind}"
        raise files.error(
            path, f"{problem}, expected the labels of a {size[0]}x{size[1]} picture, 8 or 16 bits of grey"
        )
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != size:  # another chunk can say so
                raise ValueError(f"its chunks declare {image.size[0]}x{image.size[1]} pixels")
            return np.array(image).astype(np.int32)
    except (OSError, struct.error, zlib.error, *NONSENSE) as fault:
        raise files.error(path, f"the PNG cannot be decoded: {fault}"[:200], hint="download it again") from fault
