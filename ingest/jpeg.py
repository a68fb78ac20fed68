"""The size of a JPEG from its headers: a walk over a few marker segments, nothing is decoded."""

from __future__ import annotations

import struct

from ingest.source import RawFiles


def jpeg_size(files: RawFiles, path: str, data: bytes) -> tuple[int, int]:
    """(width, height) from a JPEG's frame header, without decoding; the end marker must be there too.

    Raises:
        RawDataError: not a JPEG, truncated, or without a frame header.
    """
    if not data.startswith(b"\xff\xd8"):
        raise files.error(path, "not a JPEG image", offset=0, hint="download it again")
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise files.error(path, "the JPEG has no end: truncated", offset=len(data), hint="download it again")
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header, not a table
            height, width = struct.unpack_from(">HH", data, place + 5)
            if not (0 < width < 65536 and 0 < height < 65536):
                raise files.error(path, f"impossible image size {width}x{height}", offset=place + 5)
            return width, height
        if marker == 0xDA or length < 2:  # the image data begins, or no marker segment at all
            break
        place += 2 + length
    raise files.error(path, "no JPEG frame header before the image data", offset=place, hint="download it again")
