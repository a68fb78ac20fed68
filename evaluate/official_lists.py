"""The lists of ScanNet's data-efficient benchmark, from the user's own copy.

Its page offers them under "Limited Scene Reconstructions" (text, a scene a line) and "Limited Annotations": one file
for 20, 50, 100 or 200 points a scene, which torch has saved, a table of scene ids and numbers of points. Such a file
holds pickled arrays; only what makes arrays of integers is let in (torch's `weights_only`), anything else is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.errors import RecipeError

WHERE = (
    "the official lists of ScanNet are on the page of its data-efficient benchmark,"
    " kaldir.vc.in.tum.de/scannet_benchmark/data_efficient/documentation, under Training Data"
)
_SAVED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")
"""How files begin that torch has saved, new ones and old ones."""


def is_saved(path: Path) -> bool:
    """Whether a file looks like one of torch's."""
    with path.open("rb") as file:
        return file.read(4).startswith(_SAVED)


def read_saved(path: Path) -> dict[str, NDArray[np.int64]]:
    """Scene id -> numbers of points, of a file that torch has saved.

    Raises:
        RecipeError: the file holds anything else.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_array_makers()):
            table: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch raises whatever its unpickler met, and advises to trust the file
        what = f"cannot be read as a saved list of points: it is damaged, or holds more than whole numbers; {WHERE}"
        raise RecipeError(f"{path} {what}") from problem
    if not isinstance(table, dict) or not all(isinstance(scene, str) for scene in table):
        raise RecipeError(f"{path} holds no table of scenes, but a {type(table).__name__}; {WHERE}")
    return {scene: _numbers(values, f"{path}, scene {scene}") for scene, values in table.items()}


def _numbers(values: Any, where: str) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise RecipeError(f"{where}: expected a row of integers, found {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)


def _array_makers() -> list[Any]:
    """What an array of integers is pickled by, under the names of numpy 1 and 2."""
    make = np.zeros(0).__reduce__()[0]
    integers = [type(np.dtype(f"{sign}{size}")) for sign in "iu" for size in (1, 2, 4, 8)]
    names = [(make, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*names, np.ndarray, np.dtype, *integers]
