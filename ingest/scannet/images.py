"""Label images of a scan: one grey PNG a frame, in zips as they are shipped or in folders they were unpacked to.

  <scan>_2d-label-filt.zip      label-filt/0.png ...      16 bits, ScanNet ids of the raw categories
  <scan>_2d-instance-filt.zip   instance-filt/0.png ...    8 bits, objectId + 1, 0 where no object

Both have the size of the colour image. A zip is read by ranges: its directory (70 bytes a frame) and the members of
the chosen frames, 10-40 KB each, never the whole and never onto the disk. Whatever a zip or PNG declares is held
against what an image of this size can need before it is decoded.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE, RawDataError
from brickyard.shards.images import inspect

MAX_DIRECTORY = 4 << 20
"""Bytes of a zip's directory: 50,000 frames. `zipfile` makes an object of every entry."""
NAME = re.compile(r"(?:[^\0]*/)?0*(\d{1,7})\.png")
DAMAGED = "the file is damaged; download it again"
ZIP_PROBLEMS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, *NONSENSE)
"""What `zipfile` raises for damaged, encrypted or exotic files."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of one kind.

    Attributes:
        path: of the zip or of the folder.
        members: frame number -> entry of the zip, or file name in the folder.
        archive: the zip, None for a folder.
    """

    path: str
    members: Mapping[int, zipfile.ZipInfo | str]
    archive: zipfile.ZipFile | None


class _RangeFile(io.RawIOBase):
    """A raw file as `zipfile` wants it; no single read exceeds `limit` bytes."""

    def __init__(self, files: RawFiles, path: str) -> None:
        super().__init__()
        self.limit = MAX_DIRECTORY
        self._files, self._path, self._size, self._place = files, path, files.size(path), 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError("seek before the start of the file")
        self._place = place
        return place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        size = left if size < 0 else min(size, left)
        if size > self.limit:
            raise self._files.error(
                self._path, f"{size} bytes are declared where at most {self.limit} are plausible", offset=self._place,
                hint=DAMAGED,
            )  # fmt: skip
        data = self._files.read_range(self._path, self._place, size)
        self._place += size
        return data


def open_zip(files: RawFiles, path: str) -> ImageSet:
    """The images of a zip; raises `RawDataError` for a file that is none, or names a frame twice."""
    raw = _RangeFile(files, path)
    try:
        archive = zipfile.ZipFile(raw)
        entries = archive.infolist()
    except ZIP_PROBLEMS as problem:
        raise files.error(path, f"is no readable zip: {problem}", hint=DAMAGED) from problem
    members: dict[int, zipfile.ZipInfo | str] = {}
    for entry in entries:
        match = NAME.fullmatch(entry.filename)
        if match and members.setdefault(int(match[1]), entry) is not entry:
            raise files.error(path, f"has two images of frame {match[1]}", offset=entry.header_offset)
    raw.limit = max(MAX_DIRECTORY, _most_bytes(1 << 24))
    return ImageSet(path=path, members=members, archive=archive)


def open_folder(files: RawFiles, path: str) -> ImageSet:
    """The images of a folder."""
    found = {int(match[1]): name for name in files.store.list(path) if (match := NAME.fullmatch(name))}
    return ImageSet(path=path, members=found, archive=None)


def read_image(files: RawFiles, images: ImageSet, frame: int, size: tuple[int, int]) -> NDArray[np.uint16] | None:
    """Values uint16 (H, W) of a frame's image, or None if it has none.

    Args:
        size: (width, height) the image must have.

    Raises:
        RawDataError: a damaged zip or PNG, another size, or no grey image of 8 or 16 bits.
    """
    member = images.members.get(frame)
    if member is None:
        return None
    most = _most_bytes(size[0] * size[1])
    if isinstance(member, str):
        path, name, offset = f"{images.path}/{member}", member, 0
        data = files.read(path, most)
    else:
        path, name, offset = images.path, member.filename, member.header_offset
        data = _read_member(files, images, member, most)
    try:
        return _decode(data, size)
    except Exception as problem:  # Pillow raises many types for damaged files
        raise files.error(
            path, f"{name[:80]!r} is no label image of {size[0]}x{size[1]} pixels: {problem}", offset=offset,
            hint="set view_labels: false to read this scan without label images",
        ) from problem  # fmt: skip


def _most_bytes(pixels: int) -> int:
    """No honest PNG of 16-bit pixels is longer: deflate adds 0.1 % at most, the rest is for its other chunks."""
    return 2 * pixels + pixels // 50 + (1 << 16)


def _read_member(files: RawFiles, images: ImageSet, member: zipfile.ZipInfo, most: int) -> bytes:
    def error(problem: object) -> RawDataError:
        return files.error(
            images.path, f"{member.filename[:80]!r}: {problem}", offset=member.header_offset, hint=DAMAGED
        )

    if max(member.file_size, member.compress_size) > most:
        raise error(f"declares {member.file_size} bytes, an image of this size has at most {most}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise error(f"compression method {member.compress_type}; stored (0) or deflated (8) expected")
    assert images.archive is not None
    try:
        with images.archive.open(member) as stream:
            data = stream.read(member.file_size)  # without a number, zipfile inflates first and cuts then
    except ZIP_PROBLEMS as problem:
        raise error(problem) from problem
    if len(data) != member.file_size:
        raise error(f"{len(data)} bytes found, {member.file_size} declared")
    return data


def _decode(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Pixels of a PNG whose header says: grey, 8 or 16 bits, this size. Pillow would scale fewer bits."""
    from PIL import Image

    if inspect(data).format != "png":  # its checksums, too
        raise ValueError("no PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if (width, height) != size:
        raise ValueError(f"it has {width}x{height}")
    if colour != 0 or bits not in (8, 16):
        raise ValueError(f"grey of 8 or 16 bits expected, found colour type {colour} of {bits} bits")
    with Image.open(io.BytesIO(data), formats=["png"]) as image:
        values = np.asarray(image)
    return values.astype(np.uint16)
