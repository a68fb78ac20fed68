"""Finding KITTI's numbered files, by number and never by sorted position; one listing per folder, nothing is opened.

A name is a frame number and a suffix. Zeros in front do not matter (the raw recordings write ten digits, odometry six),
nor does the suffix of a picture: its bytes say whether it is PNG or JPEG. What a folder holds besides is told as a
`Notice`, never passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from brickyard.ingest.source import Missing, Notice
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

DEFAULT_CAMERAS = ("image_02", "image_03")
"""The colour cameras, left and right; "image_00" and "image_01" are the grey ones."""

_CAMERAS = ("image_00", "image_01", "image_02", "image_03")

LICENCE = "CC-BY-NC-SA-3.0"

PICTURES = (".png", ".jpg", ".jpeg")
_OTHER_PICTURES = (".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".gif")
_MAX_DIGITS = 18


@dataclass(frozen=True)
class Found:
    """A file of a folder's listing.

    Attributes:
        path: relative to the dataset's root.
        size: bytes.
    """

    path: str
    size: int


class Folders:
    """Lists folders and remembers which files were no frames."""

    def __init__(self, store: Store, dataset: str) -> None:
        self.store, self.dataset = store, dataset
        self._unused: dict[str, tuple[str, list[str]]] = {}

    def numbered(self, folder: str, suffixes: tuple[str, ...], digits: int) -> dict[int, Found]:
        """Frame number -> file with one of the suffixes, in any case; empty if there is no such folder.

        Args:
            digits: of the dataset's own names; of two names of a number, that of this length is the frame, then that
                of the earlier suffix.
        """
        best: dict[int, tuple[bool, int, str]] = {}
        unused, sizes = [], self.store.sizes(folder)
        for name in sorted(sizes):
            stem, dot, ending = name.rpartition(".")
            suffix = (dot + ending).lower()
            if suffix not in suffixes or not (stem.isascii() and stem.isdecimal() and len(stem) <= _MAX_DIGITS):
                unused.append(name)
                continue
            chosen = min(best.get(int(stem), (True, 9, name)), (len(stem) != digits, suffixes.index(suffix), name))
            if int(stem) in best:
                unused.append(name if chosen[2] != name else best[int(stem)][2])
            best[int(stem)] = chosen
        if unused:
            self._unused[folder] = (f"{0:0{digits}d}{' or '.join(suffixes)}", unused)
        return {number: Found(f"{folder}/{name}", sizes[name]) for number, (_, _, name) in sorted(best.items())}

    def unused(self, *folders: str) -> str:
        """Words on why folders have no frames although they are not empty; "" if they are."""
        for folder in folders:
            if folder in self._unused:
                expected, names = self._unused[folder]
                return f" ({_count(names)} of {folder} named like {names[0]!r}, expected {expected})"
        return ""

    def notices(self) -> Iterator[Notice]:
        """One for each folder with files that are no frames."""
        for folder, (expected, names) in self._unused.items():
            pictures = all(name.lower().endswith(_OTHER_PICTURES) for name in names)
            what = f"{'pictures of another format' if pictures else 'other names or formats'}, such as {names[0]!r}"
            reason = f"{_count(names)} not used: {what}; expected {expected} and so on, each number once"
            yield Notice(dataset=self.dataset, scene_id=folder, reason=reason)


def _count(names: Collection[str]) -> str:
    return f"{len(names)} file{'s' if len(names) > 1 else ''}"


def lost_frames(dataset: str, sequence: str, frames: Collection[int], digits: int, problem: str) -> Iterator[Missing]:
    """A `Missing` for each frame of a sequence that one damaged or absent table costs, all with the same reason."""
    reason = f"{problem}; this costs all {len(frames)} frames of {sequence}"
    for frame in sorted(frames):
        yield Missing(dataset=dataset, scene_id=f"{sequence}/{frame:0{digits}d}", reason=reason)


def check_cameras(cameras: tuple[str, ...]) -> None:
    """Raise `RecipeError` for a camera KITTI does not have, or one named twice."""
    unknown = sorted(set(cameras) - set(_CAMERAS))
    if unknown:
        raise RecipeError(f"unknown KITTI camera {', '.join(unknown)}; the cameras are {', '.join(_CAMERAS)}")
    if len(set(cameras)) != len(cameras):
        raise RecipeError(f"a KITTI camera is named twice: {', '.join(cameras)}")


def root_of(store: Store) -> str:
    """The root as workers elsewhere need it: absolute if local, the URI otherwise."""
    return store.uri
