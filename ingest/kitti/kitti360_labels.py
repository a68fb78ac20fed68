"""KITTI-360's labels: classes and instances of images (`data_2d_semantics`) and of accumulated clouds.

Both carry the dataset's own class ids (0..44) and global instance ids, 1000 * class + k, where k = 0 stands for no
instance; they are unique within a drive. The classes kept are the nineteen that the benchmark trains on (`trainId` of
kitti360scripts, where garages are buildings, gates are fences and small poles are poles); the rest is UNLABELLED.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.kitti.folders import Folders, Found
from brickyard.ingest.kitti.images import read_label_image
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "kitti360_19"
_LABELLED = ("image_00", "image_01")
_KINDS = ("semantic", "instance")
_PER_CLASS = 1000


def list_image_labels(folders: Folders, drive: str, camera: str, digits: int) -> dict[int, dict[str, Found]]:
    """Frame -> {"semantic": file, "instance": file}, where both are there; only perspective cameras have any."""
    if camera not in _LABELLED:
        return {}
    folder = f"data_2d_semantics/train/{drive}/{camera}"
    semantic, instance = (folders.numbered(f"{folder}/{kind}", (".png",), digits) for kind in _KINDS)
    return {
        frame: {"semantic": semantic[frame], "instance": instance[frame]} for frame in semantic if frame in instance
    }


def label_roles(image: str, labels: dict[str, Found]) -> dict[str, Found]:
    """Keys in `SceneRef.files` of the label images of the picture whose own key is `image`."""
    return {f"{kind}/{image}": found for kind, found in labels.items()}


def read_image_labels(files: RawFiles, image: str, size: tuple[int, int]) -> dict[str, Any]:
    """`semantic` and `instance` of the `View` of a picture; empty if the scene was planned without.

    Raises:
        RawDataError: a label image is missing, damaged or of another size than its picture.
    """
    roles = [f"{kind}/{image}" for kind in _KINDS]
    if roles[0] not in files.ref.files:
        return {}
    semantic, instance = (read_label_image(files, files.ref.files[role], size) for role in roles)
    return {"semantic": {TAXONOMY: classes_of(semantic)}, "instance": instances_of(instance)}


def classes_of(raw: NDArray[np.int32]) -> NDArray[np.int16]:
    """Raw class ids -> class ids of the taxonomy, UNLABELLED for all others."""
    table = _class_table()
    return np.asarray(table[np.clip(raw, -1, len(table) - 1)])


def instances_of(global_id: NDArray[np.int32]) -> NDArray[np.int32]:
    """Global ids as they are, 0 where they name no instance."""
    return np.where((global_id > 0) & (global_id % _PER_CLASS > 0), global_id, 0).astype(np.int32)


@cache
def _class_table() -> NDArray[np.int16]:
    """Class of raw ids 0..; the last entry stands for every other id (-1 reads it too)."""
    from_raw = taxonomy(TAXONOMY).from_raw
    table = np.full(max(from_raw) + 2, UNLABELLED, np.int16)
    table[list(from_raw)] = list(from_raw.values())
    return table
