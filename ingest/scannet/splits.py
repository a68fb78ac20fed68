"""Which split a scan belongs to: the official lists, if the user has them, and what follows from them.

A space SSSS was scanned several times (sceneSSSS_00, _01, ...). Its rescans show the same room, so they share a split:
a scan that no list names takes the split of its space, and lists that tear a space apart are refused. Where a list is
damaged, nobody knows whether it named a scan that no other names, so that scan has no split at all. Without lists
only the test set can be told: it is what lies in scans_test/, and the spaces 0707 to 0806 wherever they lie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

SCAN = re.compile(r"scene\d{4}(_\d{2})?")
MAX_LIST = 16 << 20
TEST_SPACES = range(707, 807)


def space(scan: str) -> str:
    """The space of a scan: scene0012_03 -> scene0012."""
    return scan.partition("_")[0]


@dataclass(frozen=True, kw_only=True)
class SplitLists:
    """The official lists that the user has.

    Attributes:
        splits: space -> split.
        damaged: path of a list that lost lines -> why it is thought so.
        absent: name of a list of the training or validation scans that is not there though another is.
    """

    splits: Mapping[str, str]
    damaged: Mapping[str, str]
    absent: Sequence[str] = ()

    def of(self, scan: str, folder: str) -> str | None:
        """Split of a scan that lies in "scans" or "scans_test"; None where a damaged list may have named it."""
        listed = self.splits.get(space(scan))
        if listed is not None:
            return listed
        if folder == "scans_test" or int(space(scan)[len("scene") :]) in TEST_SPACES:
            return "test"
        return None if self.damaged else "none"


def read_splits(store: Store) -> SplitLists:
    """The lists that exist at the root or in `splits/`.

    Raises:
        RawDataError: a list that is too long to be one, or a space that lies in two lists.
    """
    splits: dict[str, str] = {}
    damaged: dict[str, str] = {}
    there: set[str] = set()
    for split in ("train", "val", "test"):
        for path in (f"scannetv2_{split}.txt", f"splits/scannetv2_{split}.txt"):
            size = store.size(path)
            if size is None:
                continue
            there.add(split)
            if size > MAX_LIST:
                raise RawDataError(f"{size} bytes are no list of scans", dataset="scannet", path=path)
            for number, line in enumerate(store.read(path).decode("utf-8", "replace").splitlines(), 1):
                scan = line.strip()
                if scan and not SCAN.fullmatch(scan):
                    error = RawDataError(
                        f"{scan[:40]!r} is no scan such as scene0000_00: the list lost lines", dataset="scannet",
                        path=path, line=number, hint="take the official lists",
                    )  # fmt: skip
                    damaged.setdefault(path, str(error))
                elif scan and splits.setdefault(space(scan), split) != split:
                    raise RawDataError(
                        f"{scan} is here, a scan of the same space is in the {splits[space(scan)]} list",
                        dataset="scannet", path=path, line=number,
                        hint="rescans of a room must share a split; take the official lists",
                    )  # fmt: skip
            break
    absent = [f"scannetv2_{split}.txt" for split in ("train", "val") if there and split not in there]
    return SplitLists(splits=splits, damaged=damaged, absent=absent)
