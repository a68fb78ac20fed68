"""An evaluation: protocols one after another on a network, with the baselines beside it (see `evaluate.subject`).

An entry of the results is plain JSON: what was measured, with which settings and fingerprint, on how many scenes, which
of the metrics are columns of the table, and what others have published for the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brickyard.evaluate.class_tables import write_tables
from brickyard.evaluate.pictured import write_pictured
from brickyard.evaluate.protocols.fingerprint import fingerprint, settings
from brickyard.evaluate.protocols.protocol import Measured
from brickyard.evaluate.protocols.registry import Chosen
from brickyard.evaluate.subject import RawSubject, Subject
from brickyard.evaluate.table import INITS, columns_document
from brickyard.shards.atomic import write_whole
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError
from brickyard.shards.export.folder import safe_name
from brickyard.train.students.base import Exported


class Evaluation:
    """Protocols on the same corpus and networks.

    Args:
        networks: "pretrained" and, where it is wanted, "random" -> the network.
        companions: likewise, what lies beside it: a protocol that cannot judge the network judges the first of these
            that it can.
        raw: whether raw inputs are judged too, by the protocols that read features alone.
        keep_gib: memory for encoded scenes, of each network.
        trainings: where protocols train that train something; None for temporary folders.
        tables: where counts of classes go as CSV; None writes none. pictures: where pictures go, likewise.
    """

    def __init__(
        self,
        corpus: Corpus,
        networks: Mapping[str, Exported],
        *,
        raw: bool = True,
        keep_gib: float = 2.0,
        trainings: Path | None = None,
        tables: Path | None = None,
        companions: Mapping[str, Sequence[Exported]] | None = None,
        pictures: Path | None = None,
    ) -> None:
        self._tables, self._pictures = tables, pictures
        self._corpus = corpus
        self._subjects = {
            init: [
                Subject(one, corpus, keep_gib=keep_gib, trainings=trainings)
                for one in (network, *(companions or {}).get(init, ()))
            ]
            for init, network in networks.items()
        }
        self._raw = RawSubject(networks["pretrained"], corpus, keep_gib=keep_gib) if raw else None

    def check(self, chosen: Chosen) -> None:
        """Raise `RecipeError` where the network is not what a protocol needs."""
        chosen.protocol.check(chosen.name, self._subject("pretrained", chosen).network)

    def _subject(self, init: str, chosen: Chosen) -> Subject:
        """The first that the protocol can judge, or the network itself."""
        subjects = self._subjects[init]
        return next((one for one in subjects if isinstance(one.network, chosen.protocol.needs)), subjects[0])

    def run(self, chosen: Chosen) -> dict[str, Any]:
        """The entry of one protocol; raises as `Protocol.run` and `check`."""
        begun = time.monotonic()
        self.check(chosen)
        protocol, config = chosen.protocol, chosen.config
        subjects = {init: self._subject(init, chosen) for init in self._subjects}
        subjects |= {"raw": self._raw} if self._raw and protocol.reads_features else {}
        measured = {init: protocol.run(subjects[init], config) for init in INITS if init in subjects}
        scenes = measured["pretrained"].scenes
        counterpart, digest = protocol.published(chosen.name, config, scenes), fingerprint(config, scenes)
        self._write_tables(f"{safe_name(chosen.name)}-{digest}-{self._corpus.fingerprint[:8]}", measured)
        self._write_pictures(safe_name(chosen.name), measured["pretrained"])
        return {
            "protocol": chosen.name,
            "fingerprint": digest,
            "dataset": config.dataset,
            "train_scenes": scenes[0],
            "val_scenes": scenes[1],
            **protocol.describe(subjects["pretrained"], config),
            "columns": columns_document(protocol.columns),
            "results": {init: _metrics(chosen, result) for init, result in measured.items()},
            "published": {**counterpart.values, "source": counterpart.source},
            "settings": settings(config),
            "seconds": round(time.monotonic() - begun, 1),
        }

    def _write_pictures(self, name: str, result: Measured) -> None:
        if self._pictures is None:
            return
        if result.pictures:
            write_pictured(self._pictures, name, result.pictures)
        for file, content in result.files.items():
            write_whole(self._pictures / file, content)

    def _write_tables(self, name: str, measured: Mapping[str, Measured]) -> None:
        for init, result in measured.items():
            if self._tables is not None and result.confusion is not None:
                write_tables(self._tables / name / init, result.classes, result.confusion)


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
