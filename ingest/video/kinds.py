"""Pictures that are no sequence of their own: depth, labels and masks of other pictures, and smaller copies of them.

Datasets of frames keep them in folders beside the colour images (`color/`, `depth/`, `label/`; `images/`, `images_2/`,
`masks/`), or beside them in one folder (`r_0.png`, `r_0_depth_0001.png`). They are known by their names, by the numbers
that they share with the pictures they belong to, and by what a PNG says in its first bytes: 16 bits of grey or a
palette are values, where pictures of the same numbers stand beside them.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from brickyard.shards.errors import ImageError
from brickyard.shards.png import GREY, PALETTE, png_header
from brickyard.shards.storage import Store

IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
PICTURES = (
    ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif", ".bmp", ".jxl", ".jp2", ".exr", ".hdr", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".ppm", ".pgm", ".pnm", ".tga",
)  # fmt: skip
"""Suffixes of pictures that are not read."""
_WORDS = {
    "depth", "depths", "depthmap", "depthmaps", "disparity", "disparities", "label", "labels", "semantic", "semantics",
    "instance", "instances", "panoptic", "mask", "masks", "segmentation", "segmentations", "seg", "annotation",
    "annotations", "normals", "confidence", "flow", "alpha",
}  # fmt: skip
_EXTRA = re.compile(rf"(.+?)[._-](?:{'|'.join(sorted(_WORDS | {'normal'}))})(?:[._-]?\d+)?", re.IGNORECASE)
_COPY = re.compile(r"images_(?:2|4|8|16|32)", re.IGNORECASE)
Sizes = Mapping[str, Mapping[str, int]]


def images_of(names: Iterable[str]) -> list[str]:
    """Those of the names that are of images that can be read."""
    return [name for name in names if name.lower().endswith(IMAGES)]


def extras(names: Iterable[str]) -> set[str]:
    """Names of depth, labels and masks whose picture is among the names too."""
    stems = {posixpath.splitext(name)[0]: name for name in names}
    found = {name: _EXTRA.fullmatch(stem) for stem, name in stems.items()}
    endings = ("", "_rgb", "_color", "_image", "-rgb", "-color", "-image", ".rgb", ".image")
    return {name for name, match in found.items() if match and any(match[1] + ending in stems for ending in endings)}


class Kinds:
    """Tells what folders of images are, from their names and, of some, the first bytes of one image."""

    def __init__(self, store: Store, below: Sizes) -> None:
        self._store = store
        self._names = {folder: names for folder in below if (names := images_of(below[folder]))}
        self._numbers = {folder: {_number(name) for name in names} for folder, names in self._names.items()}
        self._beside: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)
        self._pictures: dict[tuple[int, tuple[str, ...]], list[str]] = {}
        self._values: dict[str, bool] = {}
        for folder in self._names:
            parts = folder.split("/")
            for place in range(len(parts)):
                self._beside[place, (*parts[:place], *parts[place + 1 :])].append(folder)

    def belongs_to(self, folder: str) -> str | None:
        """Why the images of a folder are no pictures of their own, in words; None if they are."""
        parts = folder.split("/")
        for place, part in enumerate(parts):
            for other in self._pictures_beside(folder, place):
                if _COPY.fullmatch(part) and other.split("/")[place].lower() == "images":
                    return f"smaller copies of the pictures in {other}"
                if _is_named(part) or self._holds_values(folder):
                    return f"depth, labels or masks of the pictures in {other}"
        if any(map(_is_named, parts)) and self._holds_values(folder):
            return "depth, labels or masks, by their name and kind, without pictures beside them"
        return None

    def _pictures_beside(self, folder: str, place: int) -> list[str]:
        """Folders of pictures with the same numbers whose path differs in one part, whose name says no kind."""
        part = folder.split("/")[place]
        if not (_COPY.fullmatch(part) or _is_named(part) or self._holds_values(folder)):
            return []
        key = (place, tuple(name for k, name in enumerate(folder.split("/")) if k != place))
        if key not in self._pictures:
            there = [f for f in self._beside[key] if not _is_named(f.split("/")[place])]
            self._pictures[key] = [f for f in there if not self._holds_values(f)]
        return [f for f in self._pictures[key] if f != folder and self._same_numbers(folder, f)]

    def _same_numbers(self, folder: str, other: str) -> bool:
        """Whether half of the folder's images have a partner in the other one."""
        numbers = self._numbers[folder]
        return 2 * len(numbers & self._numbers[other]) >= len(numbers)

    def _holds_values(self, folder: str) -> bool:
        """Whether the first image is a PNG of 16 bits of grey or of a palette."""
        if folder not in self._values:
            path = posixpath.join(folder, min(self._names[folder]))
            try:
                header = png_header(self._store.read_range(path, 0, 64))
                found = header.colour == PALETTE or (header.colour, header.bits) == (GREY, 16)
            except (OSError, ImageError):
                found = False
            self._values[folder] = found
        return self._values[folder]


def _is_named(part: str) -> bool:
    return not _WORDS.isdisjoint(re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", part).lower()))


def _number(name: str) -> str:
    """The numbers of a name, which a picture and its depth have in common; the whole stem where there are none."""
    stem = posixpath.splitext(name)[0]
    return " ".join(str(int(digits)) for digits in re.findall(r"\d{1,20}", stem)) or stem
