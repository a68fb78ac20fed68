"""Class ids -> the ids of a benchmark, and back the way the benchmark's own tool reads them.

A benchmark's files hold raw ids, and its training merges some of them into one class: moving cars are cars. So the way
back is a choice, and it is the one that the benchmark itself publishes. Where a class is one raw id there is nothing to
choose. Both ways are held against each other when a table is made: the tool must read every class as what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

_CHOSEN: Mapping[str, Mapping[str, int]] = {
    # learning_map_inv of semantic-kitti.yaml: what stands still. Road is also lane marking (60), other vehicles are
    # also bus (13) and on rails (16).
    "semantickitti19": {
        "car": 10, "truck": 18, "other-vehicle": 20, "person": 30, "bicyclist": 31, "motorcyclist": 32, "road": 40,
    },
}  # fmt: skip
_NUMBERED = {"nuscenes16"}
"""Taxonomies whose benchmark has ids of its own, 1 and up in the order of the classes; 0 is no class, and the raw ids,
of which several are one class, are only in the truth."""


@dataclass(frozen=True, kw_only=True)
class Inverse:
    """See the module's text.

    Attributes:
        ids: int64 (classes,), the benchmark's id of each class, all different.
        forward: int64 (highest id + 1,), the class that the tool makes of an id, UNLABELLED for none.
    """

    ids: NDArray[np.int64]
    forward: NDArray[np.int64]

    def official(self, classes: NDArray[Any]) -> NDArray[np.int64]:
        """The benchmark's ids of classes, both (N,)."""
        found: NDArray[np.int64] = self.ids[classes]
        return found

    def classes(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The classes that the tool makes of ids, both (N,); UNLABELLED where it knows none."""
        known = ids < len(self.forward)
        return np.where(known, self.forward[np.where(known, ids, 0).astype(np.int64)], UNLABELLED)


@cache
def inverse(name: str) -> Inverse:
    """The table of a taxonomy.

    Raises:
        ValueError: a class of several raw ids without a published choice, or a choice that is none of them.
    """
    labels = taxonomy(name)
    count = len(labels.classes)
    forward = dict(enumerate(range(count), 1)) if name in _NUMBERED else labels.from_raw
    merged: list[list[int]] = [[] for _ in range(count)]
    for ident, number in forward.items():
        merged[number].append(ident)
    ids = [_one(name, title, own) for title, own in zip(labels.classes, merged, strict=True)]
    table = np.full(max(forward) + 1, UNLABELLED, np.int64)
    table[list(forward)] = list(forward.values())
    made = Inverse(ids=np.array(ids, np.int64), forward=table)
    assert len(set(ids)) == count and (made.classes(made.ids) == np.arange(count)).all(), f"{name} is no bijection"
    return made


def _one(name: str, title: str, own: list[int]) -> int:
    """The id that stands for a class."""
    chosen = _CHOSEN.get(name, {}).get(title, own[0] if len(own) == 1 else None)
    if chosen not in own:
        raise ValueError(f"{name}: {title!r} is the ids {own}, and nothing published says which one is written")
    return chosen
