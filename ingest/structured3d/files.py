"""The files of one room by their roles, wherever they lie; and the images among them, decoded.

No real rendering was at hand when this was written, only what is published about them. Whatever contradicts that is
refused with `REPORT`: a wrong guess would look like data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.images import image_error
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.structured3d.names import Wanted
from brickyard.ingest.zips import Member, read_member
from brickyard.shards.errors import ImageError, RawDataError
from brickyard.shards.images import ImageHeader, decode, inspect, load

REPORT = "this reader has met no real file that says so: please report it"
MAX_IMAGE, MAX_TEXT, MAX_ANNOTATION = 64 << 20, 1 << 16, 256 << 20
MAX_PIXELS = 1 << 24
BACKGROUND, FARTHEST = 65535, 65535
"""Values of a pixel of no instance, and of one beyond what 16 bits hold."""


class RoomFiles:
    """Reads the files of a reference made by `plan`."""

    def __init__(self, ref: SceneRef) -> None:
        self.raw = RawFiles(ref)
        options = ref.details["options"]
        self._wanted = Wanted(options["configuration"], options["light"])
        self._members: dict[str, tuple[str, Member]] = {}
        for line in filter(None, ref.details["members"].split("\n")):
            role, volume, *numbers = line.split(" ")
            self._members[role] = ref.files[volume], Member(*map(int, numbers))

    def has(self, role: str) -> bool:
        return role in self._members or role in self.raw.ref.files

    def place(self, role: str) -> tuple[str, int | None]:
        """(path, offset) for errors."""
        return (self._members[role][0], self._members[role][1].offset) if role in self._members else (
            self.raw.ref.files[role], None,
        )  # fmt: skip

    def error(self, role: str, problem: str, hint: str | None = None) -> RawDataError:
        path, offset = self.place(role)
        what = f"{self._name(role)}: {problem}" if role in self._members else problem
        return self.raw.error(path, what, offset=offset, hint=hint)

    def _name(self, role: str) -> str:
        details = self.raw.ref.details
        return self._wanted.name(details["house"], details["room"], role)

    def read(self, role: str, limit: int) -> bytes:
        """All bytes of a file; raises `RawDataError` if it is missing, damaged or larger than `limit`."""
        if role in self._members:
            path, member = self._members[role]
            return read_member(self.raw, path, member, self._name(role), limit)
        return self.raw.read(self.raw.ref.files[role], limit)

    def numbers(self, role: str, count: int) -> list[float]:
        """The numbers of a text file of one line."""
        text = self.read(role, MAX_TEXT)
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != count or not np.isfinite(values).all() or len(text.strip().splitlines()) != 1:
            raise self.error(role, f"expected one line of {count} numbers, found {text[:60]!r}", "download it again")
        return values

    # Images

    def color(self, role: str) -> tuple[bytes, NDArray[np.uint8], ImageHeader]:
        """The image as shipped, its pixels uint8 (H, W, 3), and what it says of itself."""
        data, header = self._image(role)
        if header.bits != 8 or header.kind not in ("rgb", "rgb+alpha"):
            raise self.error(role, f"expected 8-bit colours, found {header.kind} of {header.bits} bits", REPORT)
        try:
            return data, decode(data), header
        except ImageError as problem:
            raise self._damaged(role, problem) from None

    def depth(self, role: str) -> NDArray[np.uint16]:
        """Millimetres, 0 where there is no reading: also where there is the largest number, which is no distance."""
        values = self._values(role, (("grey", 16),)).astype(np.uint16)
        values[values == FARTHEST] = 0
        return values

    def semantic(self, role: str) -> NDArray[np.uint8]:
        """NYU40 ids, 0 unlabelled. The release colours them by a palette: its index is the id, never its colour."""
        values = self._values(role, (("grey", 8), ("palette", 1), ("palette", 2), ("palette", 4), ("palette", 8)))
        if values.max(initial=0) > 40:
            raise self.error(role, f"it has the id {int(values.max())}, NYU40 ends with 40", REPORT)
        return values.astype(np.uint8)

    def instance(self, role: str) -> NDArray[np.int32]:
        """The ids of `bbox_3d.json` + 1, 0 for the background."""
        values = self._values(role, (("grey", 16),)).astype(np.int32)
        return np.where(values == BACKGROUND, 0, values + 1).astype(np.int32)

    def _image(self, role: str) -> tuple[bytes, ImageHeader]:
        data = self.read(role, MAX_IMAGE)
        try:
            header = inspect(data)
        except ImageError as problem:
            raise self._damaged(role, problem) from None
        if header.format != "png":
            raise self.error(role, f"expected a PNG image, found {header.format}", REPORT)
        if header.width * header.height > MAX_PIXELS:
            raise self.error(role, f"{header.width}x{header.height} pixels, at most {MAX_PIXELS} are read", REPORT)
        return data, header

    def _values(self, role: str, kinds: tuple[tuple[str, int], ...]) -> NDArray[Any]:
        data, header = self._image(role)
        if (header.kind, header.bits) not in kinds:
            wanted = " or ".join(dict.fromkeys(f"{kind} of {kinds[-1][1]} bits" for kind, _ in kinds))
            raise self.error(role, f"expected {wanted}, found {header.kind} of {header.bits}", REPORT)
        try:
            return np.asarray(load(data))
        except ImageError as problem:
            raise self._damaged(role, problem) from None

    def _damaged(self, role: str, problem: ImageError) -> RawDataError:
        path, offset = self.place(role)
        if offset is None:
            return image_error(self.raw, path, problem, "png")
        return self.error(role, str(problem), "download it again")


def is_surprise(problem: RawDataError) -> bool:
    """Whether a file is whole and is not what is published about it, so that no other of its kind can be trusted."""
    return problem.hint == REPORT
