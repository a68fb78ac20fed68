"""Which files are there, and how large: one listing per folder, kept in 16 bytes a file.

Folders of trainval hold up to 300,000 files; asking for each file by itself would take minutes, and on an object store
hours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.nuscenes.tables import key
from brickyard.shards.storage import Store


class Listing:
    """Sizes of files below a root; lists a folder when it is first asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders: dict[str, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}

    def size(self, path: str) -> int | None:
        """Bytes of a file, None where it is not; raises `BrickyardError` for a path that leaves the root."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            sizes = self._store.sizes(folder)
            keys = np.fromiter(map(key, sizes), np.uint64, len(sizes))
            order = np.argsort(keys)
            self._folders[folder] = keys[order], np.fromiter(sizes.values(), np.int64, len(sizes))[order]
        keys, bytes_of = self._folders[folder]
        wanted = np.uint64(key(name))
        place = int(np.searchsorted(keys, wanted))
        return int(bytes_of[place]) if place < len(keys) and keys[place] == wanted else None
