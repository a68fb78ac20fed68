"""`brickyard show`: a page of a corpus, of a run, or of a folder of runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluate.results import result_table
from evaluate.show import (
    RunSummary,
    corpus_page,
    join_probes,
    read_curve,
    read_features,
    run_page,
    summarise_corpus,
)
from infra.verbs.evaluate import RESULT, RESULTS
from infra.verbs.features import FEATURES
from infra.verbs.features import MANIFEST as MANIFEST_OF_FEATURES
from infra.verbs.text import size
from shards.build import BUILD
from shards.corpus import MANIFEST, Corpus
from shards.errors import BrickyardError
from shards.scene import Scene
from shards.storage import Store

METRICS = "metrics.jsonl"
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

    return corpus_page(summarise_corpus(corpus, str(corpus.manifest.get("name", "corpus"))), scenes(), out)


def _spread(corpus: Corpus) -> list[int]:
    """A few scenes of every dataset, evenly over its rows."""
    rows = []
    for dataset in dict.fromkeys(corpus.index.column("dataset").to_pylist()):
        own = corpus.select(dataset=dataset).tolist()
        rows += own[:: max(1, -(-len(own) // _PER_DATASET))][:_PER_DATASET]
    return rows


def _show_runs(folder: Path, out: Path) -> int:
    """One run, or all runs directly inside a folder."""
    runs = [folder] if (folder / METRICS).is_file() else sorted(p.parent for p in folder.glob(f"*/{METRICS}"))
    if not runs:
        raise BrickyardError(f"{folder} is neither a corpus ({MANIFEST}) nor a run, nor holds runs ({METRICS})")
    probes = [json.loads((path / RESULT).read_text()) for path in runs if (path / RESULT).is_file()]
    first = json.loads((runs[0] / "config.json").read_text())
    objective = first["objective"]
    facts = {
        "objective": objective["name"],
        "student": (objective.get("student") or {}).get("network"),
        "teacher": (objective.get("teacher") or {}).get("name"),
        "batch": first["train"]["batch"],
        "peak learning rate": first["train"]["lr"],
        "corpus": first["corpus"],
    }
    tables = [
        (path.name, *result_table(json.loads((path / RESULTS).read_text())["protocols"]))
        for path in runs
        if (path / RESULTS).is_file()
    ]
    pictured = [path / FEATURES for path in runs if (path / FEATURES / MANIFEST_OF_FEATURES).is_file()]
    summary = RunSummary(
        name=folder.name,
        curves=tuple(read_curve(path / METRICS, path.name) for path in runs),
        probe=join_probes(probes) if probes else None,
        facts=tuple((name, str(value)) for name, value in facts.items() if value is not None),
        results=tuple((name, tuple(head), tuple(map(tuple, rows))) for name, head, rows in tables),
        features=read_features(pictured[0]) if pictured else (),
    )
    run_page(summary, out)
    return len(runs)
