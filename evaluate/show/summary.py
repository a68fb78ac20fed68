"""What the pages are filled from: small records, and how to get them out of a corpus, a run's folder, probe results."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.evaluate.pictured import read_pictured_protocols
from brickyard.evaluate.records import read_pictured
from brickyard.evaluate.show.colour import RGB
from brickyard.evaluate.show.raster import Moving
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import NONSENSE, BrickyardError
from brickyard.train.running.metrics import WATCHED, read_metrics


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
        taken: "all" splits, or the "train" scenes alone; None where the corpus does not say.
    """

    name: str
    splits: tuple[SplitCounts, ...]
    licences: Mapping[str, tuple[str, ...]]
    quarantined: tuple[tuple[str, str], ...] = ()
    fingerprint: str | None = None
    taken: str | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The log of one run; a value is NaN where a step did not log it.

    Attributes:
        name: such as "st-slidr seed 0".
        step, loss, learning_rate, wait_share: equally long; the share of a step's time spent waiting for data is 0..1.
        watched: what was measured while training went on: name -> its steps and values.
    """

    name: str
    step: tuple[int, ...]
    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    wait_share: tuple[float, ...]
    watched: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)


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
    """A scene coloured by features: pictures as (caption, uint8 (height, width, 3), or what moves)."""

    key: str
    title: str
    pictures: tuple[tuple[str, RGB | Moving], ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Training runs that are compared (seeds, objectives), and what their weights are worth.

    Attributes:
        facts: (name, value) pairs for the head of the page, such as ("objective", "st-slidr").
        results: (head, rows) of the table of protocols, see `evaluate.table`; with the name of the run where there
            are several.
        features: scenes as the run's student sees them.
        features_note: whose they are, and how many of how many, where the page does not show all.
        pictures: protocol -> the scenes that it has drawn.
    """

    name: str
    curves: tuple[Curve, ...] = ()
    probe: Probe | None = None
    facts: tuple[tuple[str, str], ...] = ()
    results: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = ()
    features: tuple[FeatureScene, ...] = ()
    features_note: str = ""
    pictures: tuple[tuple[str, tuple[FeatureScene, ...]], ...] = ()


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
        taken=None if (config := corpus.manifest.get("config")) is None else config.get("splits", "all"),
    )


def read_curve(run: Path, name: str) -> Curve:
    """The curve of a run's metrics.jsonl; raises `BrickyardError` naming a line that is damaged."""
    rows = read_metrics(run)

    def column(*names: str) -> tuple[float, ...]:
        return tuple(next((row[n] for n in names if n in row), math.nan) for row in rows)

    return Curve(
        name=name,
        step=tuple(int(row["step"]) for row in rows),
        loss=column("loss"),
        learning_rate=column("lr"),
        wait_share=column("data_wait", "wait_share"),
        watched={name: _measured(rows, name) for name in watched_names(rows)},
    )


def watched_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names in a log of what was measured while training went on, sorted."""
    return sorted({name for row in rows for name in row if name.startswith(WATCHED)})


def _measured(rows: Iterable[Mapping[str, Any]], name: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    return tuple(step for step, _ in points), tuple(value for _, value in points)


def join_probes(results: Iterable[Mapping[str, Any]]) -> Probe:
    """The linear probes of several runs (`evaluate.records.probe_of`) as one table."""
    runs: list[tuple[str, str, float, dict[str, float]]] = []
    classes: dict[str, None] = {}
    for result in results:
        for init in ("random", "pretrained"):
            if init not in result["results"]:
                continue
            scores = result["results"][init]
            iou = {name: _number(value) for name, value in scores["iou"].items()}
            classes.update(dict.fromkeys(iou))
            name = f"{Path(result['run']).name} seed {result['seed']}"
            runs.append((name, init, _number(scores["miou"]), iou))
    return Probe(
        classes=tuple(classes),
        runs=tuple(
            ProbeRun(name=name, init=init, miou=miou, iou=tuple(iou.get(c, math.nan) for c in classes))
            for name, init, miou, iou in runs
        ),
    )


MAX_FEATURE_SCENES = 6
_FILE = re.compile(r"[A-Za-z0-9._-]{1,200}\.(png|webp)")
_MOST_PIXELS, _MOST_BYTES = 1 << 22, 1 << 24


def read_features(folder: Path) -> tuple[tuple[FeatureScene, ...], int]:
    """(the first scenes of a folder that `brickyard features` wrote, how many there are).

    Raises:
        BrickyardError: features.json is damaged, or a picture is.
    """
    data = read_pictured(folder) or {"scenes": []}
    query = data.get("query") or {"scenes": []}
    entries = data["scenes"] + [{"title": "Query", **entry} for entry in query["scenes"]]
    return tuple(_scene(folder, entry) for entry in entries[:MAX_FEATURE_SCENES]), len(entries)


def read_protocol_pictures(folder: Path) -> tuple[tuple[str, tuple[FeatureScene, ...]], ...]:
    """(protocol, the first scenes that it has drawn) of a run's folder of pictures; raises as `read_features`."""
    return tuple(
        (name, tuple(_scene(folder, scene) for scene in scenes[:MAX_FEATURE_SCENES]))
        for name, scenes in read_pictured_protocols(folder).items()
    )


def _scene(folder: Path, entry: Mapping[str, Any]) -> FeatureScene:
    return FeatureScene(
        key=entry["scene"],
        title=entry["title"],
        pictures=tuple((p["caption"], _read_picture(folder, p["file"])) for p in entry["pictures"]),
    )


def _read_picture(folder: Path, name: str) -> RGB | Moving:
    try:
        if not (match := _FILE.fullmatch(name)):
            raise ValueError(f"{name!r} is no picture in the folder")
        if (size := (folder / name).stat().st_size) > _MOST_BYTES:
            raise ValueError(f"{name} has {size} bytes")
        data = (folder / name).read_bytes()
        with Image.open(io.BytesIO(data), formats=(match[1].upper(),)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{name} has {image.width} x {image.height} pixels")
            if match[1] == "webp":
                image.load()
                return Moving(webp=data, width=image.width, height=image.height)
            return np.asarray(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError, *NONSENSE) as problem:
        again = "`brickyard features` or `brickyard evaluate` writes it again"
        raise BrickyardError(f"{folder}: a picture cannot be shown: {problem}: {again}") from problem


def _number(value: float | None) -> float:
    return math.nan if value is None else value
