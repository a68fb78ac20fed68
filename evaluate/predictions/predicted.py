"""Scenes -> classes of all their points, by a trained segmenter: as in `evaluate.supervised`, where labels need not be.

A damaged scene is an error here, and never replaced by another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.evaluate.fragments import VARIANTS, predict
from brickyard.evaluate.segment import SupervisedConfig, read_cloud
from brickyard.evaluate.segmenter import Segmenter
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from brickyard.train.clouds import Cloud

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Attributes: row: in the corpus. classes: int16 (N,), of the points of the scene in its order."""

    row: int
    classes: NDArray[np.int16]


def predicted(
    model: Segmenter, corpus: Corpus, config: SupervisedConfig, rows: NDArray[np.int64]
) -> Iterator[Predicted]:
    """The scenes of `rows`, in their order; raises `CorruptDataError` for a damaged one."""

    def prepare(sample: Sample, rng: np.random.Generator) -> tuple[int, Cloud]:
        del rng
        return sample.row, read_cloud(model.student, config, sample)

    stream = Stream(
        corpus,
        model.student.fields,
        batch=1,
        seed=config.seed,
        rows=rows,
        threads=config.threads,
        prepare=prepare,
        epochs=1,
        shuffle=False,
    )
    variants = VARIANTS[config.test_variants]
    bf16 = config.bf16 and model.device.type == "cuda"
    for items in stream:
        for row, cloud in items:
            with torch.autocast("cuda", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
                scores = predict(model.classify, cloud, variants, most_turns=config.most_turns).scores
            yield Predicted(row=row, classes=scores.argmax(1).cpu().numpy().astype(np.int16))
