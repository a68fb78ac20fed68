"""`brickyard show`: a page of a corpus, of a run, or of a folder of runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from brickyard.evaluate.pictured import PICTURES
from brickyard.evaluate.records import FEATURES, FEATURES_MANIFEST, probe_of, read_results
from brickyard.evaluate.show import (
    MAX_SCENES,
    FeatureScene,
    RunSummary,
    corpus_page,
    join_probes,
    read_curve,
    read_features,
    read_protocol_pictures,
    run_page,
    summarise_corpus,
)
from brickyard.evaluate.table import result_table
from brickyard.infra.verbs.text import size
from brickyard.shards.build import BUILD
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import BrickyardError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.train.running.metrics import METRICS
from brickyard.train.running.records import read_config

_PER_DATASET = 3


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    store = Store(args.target)
    if store.exists(MANIFEST) or store.exists(BUILD):
        drawn = _show_corpus(Corpus.open(args.target), args.scene, args.out)
    elif args.scene:
        raise BrickyardError(f"{args.target} is no corpus, so it has no scene {args.scene!r}")
    else:
        drawn = _show_runs(Path(args.target), args.out)
    bytes_written = args.out.stat().st_size
    if not args.json:
        print(f"{args.out.resolve().as_uri()} ({size(bytes_written)})")
    return {"page": str(args.out), "bytes": bytes_written, "drawn": drawn}, 0


def _show_corpus(corpus: Corpus, scene: str | None, out: Path) -> int:
    rows = [corpus.row(scene)] if scene else _spread(corpus)

    def scenes() -> Iterator[Scene]:
        for row in rows:
            yield corpus.scene(row)

    choice = "the one asked for" if scene else f"up to {_PER_DATASET} of every dataset, evenly over its scenes"
    summary = summarise_corpus(corpus, str(corpus.manifest.get("name", "corpus")))
    return corpus_page(summary, scenes(), out, choice=choice)


def _spread(corpus: Corpus) -> list[int]:
    """A few scenes of every dataset, evenly over its rows; fewer where there are many, as a page has its limits."""
    datasets = list(dict.fromkeys(corpus.index.column("dataset").to_pylist()))
    most = min(_PER_DATASET, max(1, MAX_SCENES // max(1, len(datasets))))
    rows = []
    for dataset in datasets:
        own = corpus.select(dataset=dataset).tolist()
        rows += own[:: max(1, -(-len(own) // most))][:most]
    return rows


def _show_runs(folder: Path, out: Path) -> int:
    """One run, or all runs directly inside a folder."""
    runs = [folder] if (folder / METRICS).is_file() else sorted(p.parent for p in folder.glob(f"*/{METRICS}"))
    if not runs:
        raise BrickyardError(f"{folder} is neither a corpus ({MANIFEST}) nor a run, nor holds runs ({METRICS})")
    evaluated = {path.name: entries for path in runs if (entries := read_results(path))}
    probes = [probe for entries in evaluated.values() if (probe := probe_of(entries)) is not None]
    pictured = [path for path in runs if (path / FEATURES / FEATURES_MANIFEST).is_file()]
    features, all_features = read_features(pictured[0] / FEATURES) if pictured else ((), 0)
    summary = RunSummary(
        name=folder.name,
        curves=tuple(read_curve(path, path.name) for path in runs),
        probe=join_probes(probes) if probes else None,
        facts=_facts([read_config(path) for path in runs]),
        results=tuple(_table(name, entries) for name, entries in evaluated.items()),
        pictures=_pictures(runs),
        features=features,
        features_note=_features_note(pictured, len(features), all_features),
    )
    run_page(summary, out)
    return len(runs)


def _pictures(runs: Sequence[Path]) -> tuple[tuple[str, tuple[FeatureScene, ...]], ...]:
    """What protocols have drawn, with the name of the run where there are several."""
    found = [(run.name, name, scenes) for run in runs for name, scenes in read_protocol_pictures(run / PICTURES)]
    return tuple((f"{name}, {run}" if len(runs) > 1 else name, scenes) for run, name, scenes in found)


def _table(name: str, entries: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]:
    head, rows = result_table(entries)
    return name, tuple(head), tuple(map(tuple, rows))


def _facts(configs: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """(name, value) of the settings that matter most; all their values where runs differ."""
    rows = [
        {
            "objective": config["objective"]["name"],
            "student": _entry(config["objective"], "student", "network"),
            "teacher": _entry(config["objective"], "teacher", "name"),
            "batch": config["train"].get("batch"),
            "peak learning rate": config["train"].get("lr"),
            "corpus": config["corpus"],
        }
        for config in configs
    ]
    values = {name: list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None)) for name in rows[0]}
    return tuple((name, ", ".join(found)) for name, found in values.items() if found)


def _entry(objective: dict[str, Any], part: str, name: str) -> Any:
    table = objective.get(part)
    return table.get(name) if isinstance(table, dict) else None


def _features_note(pictured: Sequence[Path], shown: int, there: int) -> str:
    words = [f"{shown} of {there} pictured scenes are shown"] if shown < there else []
    if len(pictured) > 1:
        words.append(f"they are those of {pictured[0].name}; {len(pictured)} runs have pictures")
    return "; ".join(words)
