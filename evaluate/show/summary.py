"""What the pages are filled from: small records, and how to get them out of a corpus, a run's folder, probe results."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluate.show.colour import RGB
from shards.corpus import Corpus
from shards.errors import BrickyardError


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What one split of one dataset holds; `bytes` are stored bytes of its scenes."""

    dataset: str
    split: str
    scenes: int
    points: int
    views: int
    pairs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """A corpus.

    Attributes:
        name: title of the page.
        splits: one entry per dataset and split.
        licences: licence id -> datasets under it.
        quarantined: (scene key, reason) of scenes that were not built.
        fingerprint: of the build.
    """

    name: str
    splits: tuple[SplitCounts, ...]
    licences: Mapping[str, tuple[str, ...]]
    quarantined: tuple[tuple[str, str], ...] = ()
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The log of one run; a value is NaN where a step did not log it.

    Attributes:
        name: such as "st-slidr seed 0".
        step, loss, learning_rate, wait_share: equally long; the share of a step's time spent waiting for data is 0..1.
    """

    name: str
    step: tuple[int, ...]
    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    wait_share: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ProbeRun:
    """One evaluation: `init` is "pretrained" or "random"; `iou` in the order of the probe's classes, NaN if absent."""

    name: str
    init: str
    miou: float
    iou: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Probe:
    classes: tuple[str, ...]
    runs: tuple[ProbeRun, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureScene:
    """A scene coloured by features: pictures as (caption, uint8 (height, width, 3))."""

    key: str
    title: str
    pictures: tuple[tuple[str, RGB], ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Training runs that are compared (seeds, objectives), and what their weights are worth.

    Attributes:
        facts: (name, value) pairs for the head of the page, such as ("objective", "st-slidr").
        results: (head, rows) of the table of protocols, see `evaluate.results`; with the name of the run where there
            are several.
        features: scenes as the run's student sees them.
    """

    name: str
    curves: tuple[Curve, ...] = ()
    probe: Probe | None = None
    facts: tuple[tuple[str, str], ...] = ()
    results: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = ()
    features: tuple[FeatureScene, ...] = ()


def summarise_corpus(corpus: Corpus, name: str) -> CorpusSummary:
    """The summary of an open corpus, from its index and manifest alone."""
    columns = ["dataset", "split", "licence", "n_points", "n_views", "n_pairs", "blobs"]
    splits: dict[tuple[str, str], list[int]] = {}
    licences: dict[str, set[str]] = {}
    for batch in corpus.index.select(columns).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            stored = sum(blob["length"] for blob in row["blobs"])
            counts = splits.setdefault((row["dataset"], row["split"]), [0] * 5)
            for place, value in enumerate((1, row["n_points"], row["n_views"], row["n_pairs"], stored)):
                counts[place] += value
            licences.setdefault(row["licence"], set()).add(row["dataset"])
    return CorpusSummary(
        name=name,
        splits=tuple(
            SplitCounts(dataset=d, split=s, scenes=n[0], points=n[1], views=n[2], pairs=n[3], bytes=n[4])
            for (d, s), n in sorted(splits.items())
        ),
        licences={licence: tuple(sorted(datasets)) for licence, datasets in sorted(licences.items())},
        quarantined=tuple((entry.key, entry.reason) for entry in corpus.quarantine),
        fingerprint=str(corpus.manifest["fingerprint"]),
    )


def read_curve(path: Path, name: str) -> Curve:
    """The curve of a metrics.jsonl; raises `BrickyardError` naming the line that is no JSON object with a step."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"]), **row})
        except (ValueError, TypeError, KeyError) as error:
            raise BrickyardError(f"{path.name} line {number}: expected a JSON object with a step") from error

    def column(*names: str) -> tuple[float, ...]:
        return tuple(_number(next((row[n] for n in names if n in row), None)) for row in rows)

    steps = tuple(int(row["step"]) for row in rows)
    return Curve(
        name=name,
        step=steps,
        loss=column("loss"),
        learning_rate=column("lr"),
        wait_share=column("data_wait", "wait_share"),
    )


def read_probe(text: str, where: str) -> Probe:
    """Probe results: {"classes": [...], "runs": [{"name", "init", "miou", "iou": [...]}]}; raises `BrickyardError`."""
    try:
        data = json.loads(text)
        classes = tuple(str(name) for name in data["classes"])
        runs = tuple(
            ProbeRun(name=str(r["name"]), init=str(r["init"]), miou=_number(r["miou"]), iou=_numbers(r["iou"]))
            for r in data["runs"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BrickyardError(f"{where}: not a table of probe results: {error!r}") from error
    for run in runs:
        if len(run.iou) != len(classes):
            raise BrickyardError(f"{where}: run {run.name!r} has {len(run.iou)} IoUs for {len(classes)} classes")
    return Probe(classes=classes, runs=runs)


def join_probes(results: Iterable[Mapping[str, Any]]) -> Probe:
    """The probe.json objects of several runs as one table: {"run", "seed", "pretrained", "random"} each, where an
    evaluation is {"miou": ..., "iou": {class: IoU or None}}; raises `BrickyardError` for another shape."""
    runs: list[tuple[str, str, float, dict[str, float]]] = []
    classes: dict[str, None] = {}
    try:
        for result in results:
            for init in ("random", "pretrained"):
                iou = {str(name): _number(value) for name, value in result[init]["iou"].items()}
                classes.update(dict.fromkeys(iou))
                name = f"{Path(result['run']).name} seed {result['seed']}"
                runs.append((name, init, _number(result[init]["miou"]), iou))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrickyardError(f"not the result of a linear probe: {error!r}") from error
    return Probe(
        classes=tuple(classes),
        runs=tuple(
            ProbeRun(name=name, init=init, miou=miou, iou=tuple(iou.get(c, math.nan) for c in classes))
            for name, init, miou, iou in runs
        ),
    )


MAX_FEATURE_SCENES = 6
_FILE = re.compile(r"[A-Za-z0-9._-]{1,200}\.png")


def read_features(folder: Path) -> tuple[FeatureScene, ...]:
    """The first scenes of a folder that `brickyard features` wrote; raises `BrickyardError` for anything else."""
    path = folder / "features.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        query = data.get("query") or {}
        entries = data["scenes"] + [{"title": "Query", **entry} for entry in query.get("scenes", [])]
        return tuple(
            FeatureScene(
                key=str(entry["scene"]),
                title=str(entry["title"]),
                pictures=tuple((str(p["caption"]), _read_picture(folder, str(p["file"]))) for p in entry["pictures"]),
            )
            for entry in entries[:MAX_FEATURE_SCENES]
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrickyardError(f"{path} does not describe pictures of features: {error!r}; write them again") from error


def _read_picture(folder: Path, name: str) -> RGB:
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} is no picture in the folder")
    with Image.open(folder / name, formats=("PNG",)) as image:
        if image.width * image.height > 1 << 22:
            raise ValueError(f"{name} has {image.width} x {image.height} pixels")
        return np.asarray(image.convert("RGB"))


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
