"""The one door of readers to encoded images: what they are, by their content, and whether they are whole.

    header = image_header(files, path, data)  # .format, .width, .height, .bits, .kind
    View(image=data, image_format=header.format, width=header.width, height=header.height, ...)

Nothing is decoded and no byte changed: a JPEG of 1600 x 900 takes 0.1 ms, a PNG of KITTI 0.4 to 1.1 ms (its checksums).
"""

from __future__ import annotations

import re

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import ImageError, RawDataError
from brickyard.shards.images import ImageHeader, check, inspect
from brickyard.shards.scene import ImageFormat

_NAMES = {"jpeg": "a JPEG image", "png": "a PNG image"}


def image_header(
    files: RawFiles, path: str, data: bytes, *, expected: ImageFormat | None = None, decoded: bool = False
) -> ImageHeader:
    """What an image says of itself; its format is that of its content, whatever its file is called.

    Args:
        path: the file the bytes are from, for errors.
        expected: the only format that will do, where the dataset knows but one.
        decoded: decode it as well, to see that it is whole.

    Raises:
        RawDataError: it is no JPEG or PNG, not the expected one, truncated or damaged.
    """
    try:
        header = inspect(data)
        if decoded:
            check(data)
    except ImageError as problem:
        raise image_error(files, path, problem, expected) from None
    if expected is not None and header.format != expected:
        found = f"{_NAMES[header.format]}, expected {_NAMES[expected]}"
        raise files.error(path, found, offset=0, hint="use the original images")
    return header


def image_error(
    files: RawFiles, path: str, problem: ImageError, expected: ImageFormat | None = None
) -> RawDataError:  # fmt: skip
    """The error for people about an image of a file."""
    text = str(problem).replace("JPEG or PNG", "JPEG or PNG" if expected is None else expected.upper())
    convert = re.search(r" but an? (\S+ )+image$|numpy$|common decoders do not read", text)
    hint = "convert it to JPEG or PNG" if convert else "download it again"
    return files.error(path, text, offset=problem.offset, hint=hint)


def jpeg_size(files: RawFiles, path: str, data: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG; raises `RawDataError` for anything else, or one that is truncated or damaged."""
    return image_header(files, path, data, expected="jpeg").size


def image_size(files: RawFiles, path: str, data: bytes, image_format: ImageFormat) -> tuple[int, int]:
    """(width, height) of an image of one format; raises `RawDataError` as `jpeg_size` does."""
    return image_header(files, path, data, expected=image_format).size
