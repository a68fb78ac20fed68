"""All protocols of an evaluation, for pretrained weights and the baselines beside them, as one table.

    pretrained   the run's student
    random       the same network as it was before training
    raw          no network: colour, height, normal and so on as they come (for protocols that train no network)

Scenes are encoded once for all protocols that read frozen features. A result is plain JSON: what was measured, with
which settings and fingerprint, on how many scenes, and what others have published for the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from brickyard.evaluate.features import Encoder, RawStudent, frozen, raw_inputs
from brickyard.evaluate.knn import KnnConfig, knn_probe
from brickyard.evaluate.linear_probe import ProbeConfig, ProbeResult, probe_features, probe_rows
from brickyard.evaluate.metrics import accuracy, mean_accuracy
from brickyard.evaluate.protocols import fingerprint, settings
from brickyard.evaluate.published import published
from brickyard.evaluate.segmenter import adapted
from brickyard.evaluate.shortcut import ShortcutConfig, ShortcutResult, shortcut_check
from brickyard.evaluate.splits import DataConfig, train_rows
from brickyard.evaluate.supervised import SupervisedConfig, supervised
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.students.base import Student

INITS = ("random", "raw", "pretrained")
"""In the order of the table."""


class Evaluation:
    """Protocols one after another on the same corpus and students.

    Args:
        students: "pretrained" and, where it is wanted, "random" -> the student.
        raw: whether the raw inputs are probed too.
        keep_gib: memory for encoded scenes, of each student.
    """

    def __init__(
        self, corpus: Corpus, students: Mapping[str, Student], *, raw: bool = True, keep_gib: float = 2.0
    ) -> None:
        self._corpus, self._raw, self._keep = corpus, raw, keep_gib
        # A probe sees all levels of a point transformer, whatever was up-cast in training.
        self._students = {init: adapted(student, grid=None, domain="") for init, student in students.items()}
        self._encoders: dict[tuple[Any, ...], Encoder] = {}

    def run(self, name: str, config: DataConfig) -> dict[str, Any]:
        """The result of one protocol; see the module's text."""
        begun = time.monotonic()
        results = {init: self._measure(init, config) for init in self._inits(config)}
        first = next(iter(results.values()))
        counterpart = published(name, config, first.scenes)
        student = self._students["pretrained"]
        return {
            "protocol": name,
            "fingerprint": fingerprint(config, first.scenes),
            "taxonomy": config.taxonomy,
            "dataset": config.dataset,
            "training_data": config.choice,
            "train_scenes": first.scenes[0],
            "val_scenes": first.scenes[1],
            "student_voxel": student.config.voxel_size(self._domain(config)),
            "results": {init: _metrics(result) for init, result in results.items()},
            "published": {"miou": counterpart.miou, "source": counterpart.source},
            "settings": settings(config),
            "seconds": round(time.monotonic() - begun, 1),
        }

    def _inits(self, config: DataConfig) -> list[str]:
        no_network = self._raw and not isinstance(config, SupervisedConfig)
        return [init for init in INITS if init in self._students or (init == "raw" and no_network)]

    def _domain(self, config: DataConfig) -> str:
        return str(self._corpus.index.column("domain")[int(train_rows(self._corpus, config)[0])])

    def _measure(self, init: str, config: DataConfig) -> ProbeResult | ShortcutResult:
        if isinstance(config, SupervisedConfig):
            return supervised(self._students[init], self._corpus, config)
        for kind, rows, measure in _FROZEN:
            if isinstance(config, kind):
                calibration = rows(self._corpus, config)
                encoder = self._encoder(init, config, calibration, getattr(config, "calibrate", True))
                result: ProbeResult | ShortcutResult = measure(encoder, config)
                return result
        raise RecipeError(f"no way to evaluate a {type(config).__name__}")

    def _encoder(self, init: str, config: DataConfig, rows: NDArray[np.int64], calibrate: bool) -> Encoder:
        """The encoder of these scenes; one whose network knows no statistics of scenes serves all."""
        student = self._students["pretrained" if init == "raw" else init]
        normed = init != "raw" and any(isinstance(module, nn.BatchNorm1d) for module in student.modules())
        everything = train_rows(self._corpus, config)
        key = (
            init,
            config.taxonomy,
            (tuple(rows.tolist()), calibrate) if normed else None,
            raw_inputs(self._corpus, everything) if init == "raw" else None,
        )
        if key not in self._encoders:
            if init == "raw":
                student = RawStudent(student, key[3] or ())
            student = frozen(student, self._corpus, rows, measure=calibrate, threads=config.threads)
            self._encoders[key] = Encoder(
                student, self._corpus, config.taxonomy, threads=config.threads, keep_gib=self._keep, targets=True
            )
        return self._encoders[key]


def _all_rows(corpus: Corpus, config: DataConfig) -> NDArray[np.int64]:
    """The training scenes in the order of the default linear probe, with which an encoder may be shared."""
    return np.random.default_rng(ProbeConfig().seed).permutation(train_rows(corpus, config))


_FROZEN: tuple[tuple[type[DataConfig], Callable[..., NDArray[np.int64]], Callable[..., Any]], ...] = (
    (ProbeConfig, probe_rows, probe_features),
    (KnnConfig, _all_rows, knn_probe),
    (ShortcutConfig, _all_rows, shortcut_check),
)
"""(settings, the scenes that batch norms are measured on, the measurement)."""


def _metrics(result: ProbeResult | ShortcutResult) -> dict[str, Any]:
    if isinstance(result, ShortcutResult):
        names = ("height_r2", "height_error", "normal_r2", "normal_angle")
        return {name: _finite(getattr(result, name)) for name in names}
    return {
        "miou": _finite(result.miou),
        "mean_accuracy": _finite(mean_accuracy(result.confusion)),
        "accuracy": _finite(accuracy(result.confusion)),
        "iou": {name: _finite(value) for name, value in result.iou.items()},
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


_COLUMNS = {
    "miou": ("mIoU %", 100.0),
    "height_r2": ("height R²", 1.0),
    "normal_r2": ("normal R²", 1.0),
    "normal_angle": ("normal angle °", 1.0),
}


def result_table(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of text: one row per protocol and number, our columns, then the published one."""
    rows = []
    for entry in entries:
        for metric, (title, factor) in _COLUMNS.items():
            if not any(metric in result for result in entry["results"].values()):
                continue
            cells = [_cell(entry["results"].get(init, {}).get(metric), factor) for init in INITS]
            other = entry["published"] if metric == "miou" else {"miou": None, "source": ""}
            number = "-" if other["miou"] is None else f"{100 * other['miou']:.1f}, {other['source']}"
            rows.append([f"{entry['protocol']}, {title}", *cells, number, entry["fingerprint"]])
    return ["protocol", *INITS[:1], "raw inputs", *INITS[2:], "published by others", "fingerprint"], rows


def _cell(value: float | None, factor: float) -> str:
    return "-" if value is None else f"{factor * value:.{1 if factor == 100 or abs(value) >= 10 else 2}f}"
