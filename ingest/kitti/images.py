"""PNG images as they are: bytes kept, size taken from the header (24 bytes), nothing decoded."""

from __future__ import annotations

import struct

from ingest.source import RawFiles
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
    scene_from_camera: Float64,
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
    if len(data) < len(_START) + 8 or not data.startswith(_START):
        raise files.error(path, "not a PNG image", offset=0, hint="download it again")
    if not data.endswith(_END):
        raise files.error(path, "the PNG has no end: truncated or padded", offset=len(data), hint="download it again")
    width, height = struct.unpack_from(">II", data, len(_START))
    if not (0 < width < 65536 and 0 < height < 65536):
        raise files.error(path, f"impossible image size {width}x{height}", offset=len(_START))
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
