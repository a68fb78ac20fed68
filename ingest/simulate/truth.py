"""The truth of a simulated world, written beside the raw files for tests: plain `.npy` files and one JSON a scene.

For a scan: `label` uint8 and `instance` int32 of each point in file order, and `visible_<camera>` bool: whether the
spot that was measured is seen by that camera at its exposure. For a picture: `<camera>_label` uint8 (H, W), 255 for the
sky, and `<camera>_depth` float16 (H, W) metres along z, inf for the sky. Labels are the dataset's own raw ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.sensors import NOTHING, Picture
from brickyard.ingest.simulate.world import MISS, World


def raw_labels(world: World, ids: Mapping[str, int]) -> NDArray[np.uint8]:
    """Raw label id of each triangle, uint8 (F,)."""
    return np.array([ids[name] for name in world.labels], np.uint8)[world.label]


def picture_truth(picture: Picture, labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(label image, depth image) of a picture; `labels` as from `raw_labels`."""
    label = labels[picture.face]
    label[picture.face == MISS] = NOTHING
    return label, np.asarray(picture.depth, np.float16)


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """One `.npy` file for each array."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=0, sort_keys=False) + "\n")
