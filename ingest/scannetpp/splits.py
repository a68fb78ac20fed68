"""Which scenes there are and which split they belong to: the official lists, and the release that they are of.

    splits/nvs_sem_train.txt, nvs_sem_val.txt, sem_test.txt     one id of ten hexadecimal digits a line
    splits/nvs_test.txt, nvs_test_iphone.txt, ...               scenes for new views alone, which need no mesh

The ids of the validation and the test list are the same in both releases, that of the training list tells them apart
by its length. Labels and meshes of the two must never be mixed, and no file says which it is of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

DATASET = "scannetpp"
SCENE = re.compile(r"[0-9a-f]{10}")
LISTS = {"nvs_sem_train": "train", "nvs_sem_val": "val", "sem_test": "test"}
NEW_VIEWS = re.compile(r"(nvs_test\w*)\.txt")
TRAINING_SCENES = {230: "v1", 856: "v2"}
"""Lines of nvs_sem_train.txt -> release."""
MAX_LIST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SplitLists:
    """The lists that the user has.

    Attributes:
        splits: scene -> "train", "val" or "test", in the order of the lists.
        new_views: scenes that only lists for new views name.
        damaged: path of a list that lost lines -> why it is thought so.
        absent: names of lists of `LISTS` that are not there.
        release: "v1" or "v2", or None where the training list is of neither length.
    """

    splits: Mapping[str, str]
    new_views: frozenset[str]
    damaged: Mapping[str, str]
    absent: tuple[str, ...]
    release: str | None

    def of(self, scene: str) -> str | None:
        """Split of a scene; None where a damaged list may have named it."""
        listed = self.splits.get(scene) or ("test" if scene in self.new_views else None)
        return listed or (None if self.damaged else "none")


def read_splits(store: Store) -> SplitLists:
    """The lists in `splits/`; raises `RawDataError` for a scene that two splits have."""
    names = store.sizes("splits")
    splits: dict[str, str] = {}
    damaged: dict[str, str] = {}
    release = None
    for name, split in LISTS.items():
        path = f"splits/{name}.txt"
        scenes = _read_list(store, path, names[f"{name}.txt"], damaged) if f"{name}.txt" in names else {}
        for scene, line in scenes.items():
            if splits.setdefault(scene, split) != split:
                raise RawDataError(
                    f"{scene} is here, and in the list of the split {splits[scene]}, too", dataset=DATASET, path=path,
                    line=line, hint="take the official lists",
                )  # fmt: skip
        if split == "train" and path not in damaged:
            release = TRAINING_SCENES.get(len(scenes))
    others: set[str] = set()
    for name, size in names.items():
        if NEW_VIEWS.fullmatch(name):
            others |= _read_list(store, f"splits/{name}", size, damaged).keys()
    return SplitLists(
        splits=splits,
        new_views=frozenset(others - splits.keys()),
        damaged=damaged,
        absent=tuple(f"splits/{name}.txt" for name in LISTS if f"{name}.txt" not in names),
        release=release,
    )


def _read_list(store: Store, path: str, size: int, damaged: dict[str, str]) -> dict[str, int]:
    """Scene -> line; a line that is no scene, or a last one without its end of line, is a reason in `damaged`."""
    if size > MAX_LIST:
        raise RawDataError(f"{size} bytes are no list of scenes", dataset=DATASET, path=path)
    scenes: dict[str, int] = {}
    for number, line in enumerate(store.read(path).decode("utf-8", "replace").splitlines(), 1):
        scene = line.strip()
        if SCENE.fullmatch(scene):
            scenes.setdefault(scene, number)
        elif scene:
            error = RawDataError(
                f"{scene[:40]!r} is no scene such as 0a5c013435: the list lost lines", dataset=DATASET, path=path,
                line=number, hint="take the official lists",
            )  # fmt: skip
            damaged.setdefault(path, str(error))
    return scenes
