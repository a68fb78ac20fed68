"""A raw dataset, looked at once more: where the answer for a scene belongs, and how many points its file holds.

A corpus holds points; a server counts those of the raw file. So the count comes from the file itself (its header, or
its size), and with it what the corpus does not keep: nuScenes' names of sweeps, Waymo's pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.storage import Store

Read: TypeAlias = Callable[[str], Any]
"""Name of a field of the scene -> its values."""


class Raw:
    """The raw files of a dataset; one subclass for each layout.

    Args:
        root: the dataset's own root, as the build's recipe names it; None where it is not at hand.

    Raises:
        RecipeError: the root is needed.
    """

    needs_root: ClassVar[bool] = True

    def __init__(self, root: Store | None) -> None:
        self.root = root
        if root is None and self.needs_root:
            raise RecipeError(
                "the corpus does not say what the server asks of these raw files: give the dataset's root with --raw"
            )

    def set_name(self, split: str, version: str) -> str:
        """What the benchmark calls a split of a release, where its files are named after it."""
        del version
        return split

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        """`raw_points` of the scene's file, and what else an `Answer` holds of it; raises `BrickyardError`."""
        raise NotImplementedError

    def mine(self, header: SceneHeader, read: Read) -> slice | NDArray[np.bool_]:
        """Which of the scene's points are those of the raw file."""
        del header, read
        return slice(None)

    def size(self, header: SceneHeader, path: str) -> int:
        """Bytes of a raw file; raises `BrickyardError` where it is not the one that the scene was read from."""
        recorded = next((source.size for source in header.identity.sources if source.path == path), None)
        found = self.root.size(path) if self.root is not None else recorded
        if found is None or (recorded is not None and found != recorded):
            where = f"{self.root.uri}/{path}" if self.root is not None else path
            what = "is not there" if found is None else f"has {found} bytes"
            raise BrickyardError(f"{header.identity.key}: {where} {what}, and {recorded} bytes were read from it")
        return found


def points_of(header: SceneHeader, path: str, size: int, record: int) -> int:
    """Points of a file without a header: its size over that of a record; raises `BrickyardError` if they do not fit."""
    if size % record:
        raise BrickyardError(f"{header.identity.key}: {size} bytes of {path} are no multiple of {record}")
    return size // record


def source_like(header: SceneHeader, ending: str, folder: str = "") -> str:
    """The path of the scene's only source with an ending, in a folder; raises `BrickyardError` where it is not one."""
    paths = [s.path for s in header.identity.sources if s.path.endswith(ending) and f"/{folder}" in f"/{s.path}"]
    if len(paths) != 1:
        raise BrickyardError(f"{header.identity.key} was read from {len(paths)} files {folder}*{ending}, expected one")
    return paths[0]
