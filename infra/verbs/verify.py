"""`brickyard verify`: is the corpus what it says it is, its layers included?"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from brickyard.infra.progress import Progress
from brickyard.infra.verbs.text import size
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.layers import layer_names, layer_store
from brickyard.shards.verify import Report, verify


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    report = verify(corpus, deep=args.deep, progress=Progress("verifying", "scenes"))
    layers = {name: _verify_layer(corpus, name) for name in layer_names(corpus.store)}
    problems = [*report.problems, *(problem for layer in layers.values() for problem in layer.problems)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if report.problems:
        print("`brickyard repair` makes the damaged scenes anew from the raw data", file=sys.stderr)
    if not args.json:
        for name, entry in {args.corpus: report, **{f"layer {name}": layer for name, layer in layers.items()}}.items():
            found = f"{len(entry.problems)} problems" if entry.problems else "no problems"
            print(f"{name}: {entry.scenes} scenes, {entry.blobs} blobs, {size(entry.bytes)} read: {found}")
    result = {"corpus": args.corpus, "deep": args.deep, "layers": {name: asdict(r) for name, r in layers.items()}}
    return result | asdict(report), 1 if problems else 0


def _verify_layer(corpus: Corpus, name: str) -> Report:
    """Digests of a layer; its fields have no contract of their own that a deep check could hold them to."""
    try:
        report = verify(Corpus.open(layer_store(corpus.store, name)))
    except CorpusError as problem:
        return Report(0, 0, 0, (str(problem),))
    return Report(report.scenes, report.blobs, report.bytes, tuple(f"layer {name}: {p}" for p in report.problems))
