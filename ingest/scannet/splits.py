"""Which split a scan belongs to: the official lists, if the user has them, and what follows from them.

A space SSSS was scanned several times (sceneSSSS_00, _01, ...). Its rescans show the same room, so they share a split:
a scan that no list names takes the split of its space, and lists that tear a space apart are refused. Without lists
only the test set can be told: it is what lies in scans_test/, and the spaces 0707 to 0806 wherever they lie.
"""

from __future__ import annotations

from shards.errors import RawDataError
from shards.storage import Store

MAX_LIST = 16 << 20
TEST_SPACES = range(707, 807)


def space(scan: str) -> str:
    """The space of a scan: scene0012_03 -> scene0012."""
    return scan.partition("_")[0]


def read_splits(store: Store) -> dict[str, str]:
    """Space -> split, from the lists that exist at the root or in `splits/`.

    Raises:
        RawDataError: a list that is too long to be one, or a space that lies in two lists.
    """
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        for path in (f"scannetv2_{split}.txt", f"splits/scannetv2_{split}.txt"):
            size = store.size(path)
            if size is None:
                continue
            if size > MAX_LIST:
                raise RawDataError(f"{size} bytes are no list of scans", dataset="scannet", path=path)
            for number, line in enumerate(store.read(path).decode("utf-8", "replace").splitlines(), 1):
                name = space(line.strip())
                if name and splits.setdefault(name, split) != split:
                    raise RawDataError(
                        f"{line.strip()[:80]} is here, a scan of the same space is in the {splits[name]} list",
                        dataset="scannet", path=path, line=number,
                        hint="rescans of a room must share a split; take the official lists",
                    )  # fmt: skip
            break
    return splits


def split_of(scan: str, folder: str, splits: dict[str, str]) -> str:
    """Split of a scan that lies in "scans" or "scans_test"."""
    listed = splits.get(space(scan))
    if listed is not None:
        return listed
    return "test" if folder == "scans_test" or int(space(scan)[len("scene") :]) in TEST_SPACES else "none"
