"""`brickyard curate`: curators in order, over the index and what the corpus was described by; no data is moved.

Writes `selections/NAME.parquet` into the corpus's folder, which `train --selection` takes, and beside it
`NAME-out.parquet`: what was left out, and why.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np

from brickyard.curate.selections.candidates import Candidates
from brickyard.curate.selections.curate import CurationRecipe, run_curators
from brickyard.infra.config import dump, load_file
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import described, layer_digest
from brickyard.shards.errors import CorpusError
from brickyard.shards.refusals import write_refusals
from brickyard.shards.selection import Selection, write_selection

FOLDER = "selections"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    check_name(args.name)
    recipe = load_file(args.recipe, CurationRecipe)
    corpus = Corpus.open(args.corpus)
    other = None if args.against is None else Corpus.open(args.against)
    scenes = run_curators(described(corpus), recipe, None if other is None else described(other))
    about = {"curators": dump(recipe)["curators"], "described": layer_digest(corpus), "against": against_note(other)}
    selection = to_selection(corpus, scenes, about)
    out = np.flatnonzero(scenes.weight <= 0).tolist()
    place = f"{FOLDER}/{args.name}"
    write_refusals(corpus.store, f"{place}-out.parquet", corpus.manifest["digest"],
                   [scenes.keys[row] for row in out], [scenes.reason[row] for row in out])  # fmt: skip
    write_selection(corpus.store, f"{place}.parquet", selection)
    if not args.json:
        print("\n".join(scenes.notes))
        print(f"{corpus.store.uri}/{place}.parquet: {len(selection.keys)} of {len(corpus)} scenes")
    result = {"selection": f"{corpus.store.uri}/{place}.parquet", "scenes": len(selection.keys), "of": len(corpus)}
    return result | {"notes": scenes.notes}, 0


def check_name(name: str) -> None:
    """Raise `CorpusError` for what no selection can be called."""
    if not _NAME.fullmatch(name) or name.endswith("-out"):
        raise CorpusError(f"a selection cannot be called {name!r}: lower-case letters, digits, - and _, no -out")


def against_note(other: Corpus | None) -> dict[str, Any] | None:
    """Which corpus another one was guarded against, and by which of its descriptions."""
    return None if other is None else {"corpus": other.manifest["digest"], "described": layer_digest(other)}


def to_selection(corpus: Corpus, scenes: Candidates, about: dict[str, Any]) -> Selection:
    """What is in, with its weights, in the order of the keys."""
    rows = scenes.alive
    keys, reasons = (tuple(one[row] for row in rows.tolist()) for one in (scenes.keys, scenes.reason))
    return Selection(corpus.manifest["digest"], keys, scenes.weight[rows].astype(np.float32), reasons, about)
