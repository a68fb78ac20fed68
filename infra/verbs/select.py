"""`brickyard select`: choose scenes of a corpus by conditions; no data is moved."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.scene_list import read_scene_list
from brickyard.shards.selection import select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.uri import Location


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    selection = select(
        corpus,
        datasets=args.dataset,
        splits=args.split,
        domains=args.domain,
        at_least=dict(map(_limit, args.at_least)),
        at_most=dict(map(_limit, args.at_most)),
        weights=dict(map(_limit, args.weight)),
        only=None if args.scenes is None else read_scene_list(args.scenes),
        without=None if args.without is None else read_scene_list(args.without),
    )
    folder, name = selection_place(args.out)
    write_selection(Store(folder), name, selection)
    if not args.json:
        print(f"{args.out}: {len(selection.keys)} of {len(corpus)} scenes")
    return {"selection": args.out, "scenes": len(selection.keys), "of": len(corpus)}, 0


def selection_place(out: str) -> tuple[str, str]:
    """(folder, name) of a path or URI of a selection."""
    if not isinstance(out, Location):
        path = Path(out).resolve()
        return str(path.parent), path.name
    place, mark, query = out.whole.partition("?")
    folder, _, name = place.rpartition("/")
    return f"{folder}{mark}{query}", name


def _limit(text: str) -> tuple[str, float]:
    column, mark, value = text.partition("=")
    try:
        return column, float(value if mark else "none given")
    except ValueError as problem:
        raise CorpusError(f"expected NAME=NUMBER, such as n_points=1000, found {text!r}") from problem
