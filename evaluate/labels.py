"""Classes of points: where they stand in the stream, and which one a voxel has.

A network gives a row for every voxel, and one point speaks for it: its label is the voxel's. Where only a few points of
a scene keep their labels, hardly one of them would be such a point, so there a voxel takes the label of any of its
points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from brickyard.evaluate.splits import LabelledPoints
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import UNLABELLED

if TYPE_CHECKING:
    from brickyard.evaluate.features import EncodedScene
    from brickyard.shards.stream import Sample


def label_field(taxonomy: str) -> str:
    """The stream's field with the labels of a taxonomy."""
    return f"points/semantic.{taxonomy}"


def read_labels(sample: Sample, taxonomy: str) -> Tensor:
    """int64 (N,); raises `RecipeError` where the scene has none."""
    field = label_field(taxonomy)
    if field not in sample:
        raise RecipeError(f"scene {sample.key} has no labels of {taxonomy!r}; select a dataset that has")
    return torch.from_numpy(np.asarray(sample[field]).astype(np.int64))


def row_labels(scene: EncodedScene, kept: LabelledPoints) -> Tensor:
    """int64 (V,): the label of each row's representative; where few points are labelled, that of a labelled point in
    the row (the one with the greatest class, should there be several)."""
    if not kept.few:
        return scene.labels[scene.rows.representative]
    few = torch.from_numpy(kept.keep(scene.key, scene.labels.cpu().numpy())).to(scene.labels.device)
    return spread_labels(few, scene.rows.inverse, len(scene.rows.features))


def spread_labels(labels: Tensor, inverse: Tensor, rows: int) -> Tensor:
    """int64 (rows,): the greatest label of each row's points, UNLABELLED where none has any."""
    result = labels.new_full((rows,), UNLABELLED)
    return result.scatter_reduce_(0, inverse, labels, "amax")
