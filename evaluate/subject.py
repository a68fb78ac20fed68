"""The subject of an evaluation: a network, the corpus it is judged on, and its features, computed once.

    pretrained   the exported network
    random       the same network as it was before training
    raw          no network: colour, height, normal and so on as they come (for protocols that read features alone)

Protocols that read frozen features ask for an encoder. One whose network knows no statistics of scenes serves them all;
where batch norms were measured on some scenes, it serves whoever asks for the same ones. Protocols that train something
of their own have a folder for that, named after what they train, so that asking again goes on where it was stopped.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from torch import nn

from brickyard.evaluate.features import Encoder, RawStudent, frozen, raw_inputs
from brickyard.evaluate.protocols.fingerprint import fingerprint
from brickyard.evaluate.segmenter import adapted
from brickyard.evaluate.splits import DataConfig, shuffled_rows, train_rows, val_rows
from brickyard.evaluate.weights import weights_digest
from brickyard.shards.corpus import Corpus
from brickyard.train.students.base import Exported, Student


class Subject:
    """See the module's text.

    Args:
        keep_gib: memory for encoded scenes.
        trainings: where protocols train; None for temporary folders.
    """

    def __init__(
        self, network: Exported, corpus: Corpus, *, keep_gib: float = 0.0, trainings: Path | None = None
    ) -> None:
        self.network, self.corpus, self._trainings = network, corpus, trainings
        self._keep = keep_gib
        self._encoders: dict[tuple[Any, ...], Encoder] = {}

    @cached_property
    def student(self) -> Student:
        """The network as a protocol sees it that needs a `Student`: all levels of a point transformer are joined,
        whatever was up-cast in training."""
        assert isinstance(self.network, Student), "the protocol does not say that it needs a student"
        return adapted(self.network, grid=None, domain="")

    def folder(self, config: DataConfig) -> Path | None:
        """Of the training of a protocol with these settings, on these weights and this corpus."""
        if self._trainings is None:
            return None
        scenes = (len(train_rows(self.corpus, config)), len(val_rows(self.corpus, config)))
        whose = xxhash.xxh3_64_hexdigest(f"{weights_digest(self.network)} {self.corpus.fingerprint}".encode())[:8]
        return self._trainings / f"{fingerprint(config, scenes)}-{whose}"

    def encoder(self, config: DataConfig, rows: NDArray[np.int64] | None = None, *, calibrate: bool = True) -> Encoder:
        """The frozen student.

        Args:
            rows: on which batch norms are measured, in this order (see `features.calibrate`); by default all training
                scenes, `splits.shuffled_rows`.
            calibrate: whether they are measured.
        """
        rows = shuffled_rows(self.corpus, config) if rows is None else rows
        student, what = self._reader(config)
        normed = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in student.modules())
        key = (what, config.taxonomy, (tuple(rows.tolist()), calibrate) if normed else None)
        if key not in self._encoders:
            student = frozen(student, self.corpus, rows, measure=calibrate, threads=config.threads)
            self._encoders[key] = Encoder(
                student, self.corpus, config.taxonomy, threads=config.threads, keep_gib=self._keep, targets=True
            )
        return self._encoders[key]

    def _reader(self, config: DataConfig) -> tuple[Student, Any]:
        """What encodes, and what tells it from other such."""
        del config
        return self.student, None


class RawSubject(Subject):
    """The raw inputs, on the voxels of a student."""

    def _reader(self, config: DataConfig) -> tuple[Student, Any]:
        inputs = raw_inputs(self.corpus, train_rows(self.corpus, config))
        return RawStudent(self.student, inputs), inputs
