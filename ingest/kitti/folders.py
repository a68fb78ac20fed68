"""Finding KITTI's numbered files, by number and never by sorted position; one listing per folder, nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass

from shards.errors import RecipeError
from shards.storage import Store

DEFAULT_CAMERAS = ("image_02", "image_03")
"""The colour cameras, left and right; "image_00" and "image_01" are the grey ones."""

_CAMERAS = ("image_00", "image_01", "image_02", "image_03")

LICENCE = "CC-BY-NC-SA-3.0"


@dataclass(frozen=True)
class Found:
    """A file of a folder's listing.

    Attributes:
        path: relative to the dataset's root.
        size: bytes.
    """

    path: str
    size: int


def numbered(store: Store, folder: str, suffix: str, digits: int) -> dict[int, Found]:
    """Frame number -> file, for the names of exactly `digits` digits and `suffix`; empty if there is no such folder."""
    found = {}
    for name, size in store.sizes(folder).items():
        stem = name.removesuffix(suffix)
        if name.endswith(suffix) and len(stem) == digits and stem.isascii() and stem.isdecimal():
            found[int(stem)] = Found(f"{folder}/{name}", size)
    return found


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
