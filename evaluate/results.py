"""An evaluation: protocols one after another on a network, with the baselines beside it (see `evaluate.subject`).

An entry of the results is plain JSON: what was measured, with which settings and fingerprint, on how many scenes, which
of the metrics are columns of the table, and what others have published for the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brickyard.evaluate.protocols.fingerprint import fingerprint, settings
from brickyard.evaluate.protocols.protocol import Measured
from brickyard.evaluate.protocols.registry import Chosen
from brickyard.evaluate.subject import RawSubject, Subject
from brickyard.evaluate.table import INITS, columns_document
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError
from brickyard.train.students.base import Exported


class Evaluation:
    """Protocols on the same corpus and networks.

    Args:
        networks: "pretrained" and, where it is wanted, "random" -> the network.
        raw: whether raw inputs are judged too, by the protocols that read features alone.
        keep_gib: memory for encoded scenes, of each network.
        trainings: where protocols train that train something; None for temporary folders.
    """

    def __init__(
        self,
        corpus: Corpus,
        networks: Mapping[str, Exported],
        *,
        raw: bool = True,
        keep_gib: float = 2.0,
        trainings: Path | None = None,
    ) -> None:
        self._corpus = corpus
        self._subjects = {
            init: Subject(network, corpus, keep_gib=keep_gib, trainings=trainings) for init, network in networks.items()
        }
        self._raw = RawSubject(networks["pretrained"], corpus, keep_gib=keep_gib) if raw else None

    def check(self, chosen: Chosen) -> None:
        """Raise `RecipeError` where the network is not what a protocol needs."""
        chosen.protocol.check(chosen.name, self._subjects["pretrained"].network)

    def run(self, chosen: Chosen) -> dict[str, Any]:
        """The entry of one protocol; raises as `Protocol.run` and `check`."""
        begun = time.monotonic()
        self.check(chosen)
        protocol, config = chosen.protocol, chosen.config
        subjects = self._subjects | ({"raw": self._raw} if self._raw and protocol.reads_features else {})
        measured = {init: protocol.run(subjects[init], config) for init in INITS if init in subjects}
        scenes = measured["pretrained"].scenes
        counterpart = protocol.published(chosen.name, config, scenes)
        return {
            "protocol": chosen.name,
            "fingerprint": fingerprint(config, scenes),
            "dataset": config.dataset,
            "train_scenes": scenes[0],
            "val_scenes": scenes[1],
            **protocol.describe(self._subjects["pretrained"], config),
            "columns": columns_document(protocol.columns),
            "results": {init: _metrics(chosen, result) for init, result in measured.items()},
            "published": {**counterpart.values, "source": counterpart.source},
            "settings": settings(config),
            "seconds": round(time.monotonic() - begun, 1),
        }


def _metrics(chosen: Chosen, result: Measured) -> dict[str, Any]:
    metrics = {name: _plain(value) for name, value in result.metrics.items()}
    for column in chosen.protocol.columns:
        if column.metric not in metrics:
            found = ", ".join(metrics) or "nothing"
            raise BrickyardError(f"protocol {chosen.name!r} has a column {column.metric!r}, but measured {found}")
    return metrics


def _plain(value: Any) -> Any:
    """Numbers of any kind as JSON, None where one is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return float(value) if value is not None and math.isfinite(value) else None
