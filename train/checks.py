"""What is refused before a run begins: settings that no recipe means, and scenes that an objective cannot learn from.

Not-a-number and infinity compare as if they were fine, and ruin a run later.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError

if TYPE_CHECKING:
    from brickyard.train.objectives.objective import Objective


def refuse_nonfinite(config: Any, path: str = "") -> None:
    """Raise `ValueError` that names the first float of a config, or of one below it, that is not finite."""
    if isinstance(config, float) and not math.isfinite(config):
        raise ValueError(f"{path} must be a finite number, found {config}")
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            refuse_nonfinite(getattr(config, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(config, list | tuple):
        for value in config:
            refuse_nonfinite(value, path)
    elif isinstance(config, dict):
        for name, value in config.items():
            refuse_nonfinite(value, f"{path}.{name}" if path else str(name))


def check_suits(objective: Objective, corpus: Corpus, rows: NDArray[np.int64]) -> None:
    """Raise `RecipeError` where the index shows that no scene of `rows` has what an objective needs."""
    found: set[str] = set()
    for row in rows.tolist():
        names = tuple(corpus.addresses(row))
        found |= {pattern for pattern in objective.needed if fnmatch.filter(names, pattern)}
        if len(found) == len(objective.needed):
            break
    missing = [pattern for pattern in objective.needed if pattern not in found]
    pairs = corpus.index.column("n_pairs").to_numpy()[rows].sum() if "views/*/pairs" in objective.needed else 1
    if missing or not pairs:
        lacks = f"{', '.join(missing)}" if missing else "pairs of a point and a pixel"
        raise RecipeError(
            f"none of the {len(rows)} scenes to train on has {lacks}, so there is nothing to learn from: build the"
            " corpus with what the objective needs (see `curate` in the recipe), or select other scenes"
        )
