"""The 32 general classes of nuScenes-lidarseg and the ids a label file uses for them.

The taxonomy "nuscenes16" is written for the published ids, which are the positions below. The ids of an installation
are what its `category.json` says (field `index`), so a file's bytes go through that table: id -> name -> published id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "nuscenes16"

GENERAL = (
    "noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller",
    "human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris",
    "movable_object.pushable_pullable", "movable_object.trafficcone", "static_object.bicycle_rack", "vehicle.bicycle",
    "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.car", "vehicle.construction", "vehicle.emergency.ambulance",
    "vehicle.emergency.police", "vehicle.motorcycle", "vehicle.trailer", "vehicle.truck", "flat.driveable_surface",
    "flat.other", "flat.sidewalk", "flat.terrain", "static.manmade", "static.other", "static.vegetation",
    "vehicle.ego",
)  # fmt: skip

UNKNOWN_NAME = -1
NOT_AN_ID = -2
_IDS = 256  # label files hold one byte a point


def published_ids(categories: Iterable[Mapping[str, Any]]) -> list[int]:
    """Rows of category.json -> list whose position is the id in label files and whose value is the published id.

    Values are UNKNOWN_NAME for a category that is none of the 32, NOT_AN_ID where no category has that index.
    Raises KeyError, TypeError, ValueError or OverflowError for rows without a usable index.
    """
    by_index: dict[int, str] = {}
    for row in categories:
        index = int(row["index"])
        if not 0 <= index < _IDS:
            raise ValueError(f"category {row['name']} has index {index}, expected 0..{_IDS - 1}")
        if index in by_index:
            raise ValueError(f"categories {by_index[index]} and {row['name']} share index {index}")
        by_index[index] = str(row["name"])
    published = {name: ident for ident, name in enumerate(GENERAL)}
    size = max(by_index, default=-1) + 1
    return [published.get(by_index[i], UNKNOWN_NAME) if i in by_index else NOT_AN_ID for i in range(size)]


def class_table(ids: list[int]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Two look-up tables over the 256 bytes: class of `TAXONOMY` (or UNLABELLED), and whether the id exists at all."""
    from_raw = taxonomy(TAXONOMY).from_raw
    classes = np.full(_IDS, UNLABELLED, np.int16)
    exists = np.zeros(_IDS, np.bool_)
    for raw, published in enumerate(ids):
        classes[raw] = from_raw.get(published, UNLABELLED)
        exists[raw] = published != NOT_AN_ID
    return classes, exists
