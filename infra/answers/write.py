"""Predictions of a trained segmenter, scene by scene into the folder of a submission."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.evaluate.labels import label_field
from brickyard.evaluate.predictions.predicted import predicted
from brickyard.evaluate.predictions.submission import Submission
from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.evaluate.predictions.writer import Answer
from brickyard.evaluate.segment import SupervisedConfig
from brickyard.evaluate.segmenter import Segmenter
from brickyard.infra.answers.layouts import S3DISRaw, ScanNetRaw, SemanticKittiRaw
from brickyard.infra.answers.nuscenes import NuScenesRaw
from brickyard.infra.answers.raw import Raw
from brickyard.infra.answers.waymo import WaymoRaw
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene_list import SceneList
from brickyard.shards.storage import Store

RAW: Mapping[str, type[Raw]] = MappingProxyType(
    {
        "scannet": ScanNetRaw,
        "scannet200": ScanNetRaw,
        "s3dis": S3DISRaw,
        "nuscenes": NuScenesRaw,
        "semantickitti": SemanticKittiRaw,
        "waymo": WaymoRaw,
    }
)
"""Target -> the raw files that its server counts."""


class Wanted:
    """What is to be predicted; made before anything is trained, since it may be refused.

    Args:
        target: name in `evaluate.predictions.targets.TARGETS`. split: of the corpus.
        out: the folder. raw: the dataset's root. about: what the server asks, see the writers.
        scenes: predict only these.

    Raises:
        RecipeError: a server that asks something else, no such scenes, or the raw files are needed.
        BrickyardError: the folder holds something.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        target: str,
        split: str,
        out: Path,
        raw: Store | None = None,
        about: Mapping[str, Any] | None = None,
        scenes: SceneList | None = None,
    ) -> None:
        kind = TARGETS[target]
        self.target, self.taxonomy, self._corpus = target, kind.taxonomy, corpus
        self.rows = _rows(corpus, target, split, scenes)
        self._raw = RAW[target](raw)
        version = corpus.header(int(self.rows[0])).identity.version
        writer = kind(self._raw.set_name(split, version), about)
        self._submission = Submission(out, writer, split, self._truth)

    def write(self, model: Segmenter, config: SupervisedConfig) -> dict[str, Any]:
        """Predict and write all; returns what `Submission.finish` says.

        Raises:
            BrickyardError: a scene whose raw file has points that the corpus has not, and so on; it is named.
        """
        for scene in predicted(model, self._corpus, config, self.rows):
            header = self._corpus.header(scene.row)
            self._submission.add(
                Answer(
                    identity=header.identity,
                    classes=scene.classes[self._mine(scene.row, header)],
                    dropped=header.dropped,
                    part=header.part is not None,
                    **self._raw.place(header),
                )
            )
        return self._submission.finish()

    def _truth(self, key: str) -> NDArray[Any] | None:
        row = self._corpus.row(key)
        header, field = self._corpus.header(row), label_field(self.taxonomy)
        if field not in header.fields:
            return None
        labels: NDArray[Any] = np.asarray(self._read(row, header, field))[self._mine(row, header)]
        return labels

    def _mine(self, row: int, header: SceneHeader) -> slice | NDArray[np.bool_]:
        return self._raw.mine(header, lambda field: self._read(row, header, field))

    def _read(self, row: int, header: SceneHeader, field: str) -> Any:
        return self._corpus.read_field(row, header, field, self._corpus.addresses(row))


def _rows(corpus: Corpus, target: str, split: str, scenes: SceneList | None) -> NDArray[np.int64]:
    """The scenes that the server waits for: of Waymo, the frames of a list, or those that were labelled."""
    kind = TARGETS[target]
    found = [corpus.select(dataset=dataset, split=split) for dataset in kind.datasets]
    rows = np.sort(np.concatenate(found))
    if scenes is not None:
        rows = rows[_listed(corpus, target, scenes)[rows]]
    elif target == "waymo" and split != "test":
        field = label_field(kind.taxonomy)
        rows = np.array([row for row in rows.tolist() if field in corpus.addresses(row)], np.int64)
    if not len(rows):
        listed = "" if scenes is None else f" that {scenes.name} lists"
        raise RecipeError(
            f"the corpus has no scene of {' or '.join(kind.datasets)} in its split {split!r}{listed} to predict"
        )
    return rows


def _listed(corpus: Corpus, target: str, scenes: SceneList) -> NDArray[np.bool_]:
    if target != "waymo":
        return scenes.mask(corpus)
    # Waymo's list of test frames names them as "context,microseconds".
    sequences, times = (corpus.index.column(name).to_pylist() for name in ("sequence", "timestamp_ns"))
    names = [
        {key, sequence, "" if time is None else f"{sequence},{time // 1000}"}
        for key, sequence, time in zip(corpus.keys, sequences, times, strict=True)
    ]
    return np.array([not scenes.names.isdisjoint(own) for own in names], bool)
