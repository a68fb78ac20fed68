"""`brickyard explain`: what is known of one scene, where it came from, and what a curation decided of it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from brickyard.curate.describe.describe import FIGURES
from brickyard.curate.selections.curate import CurationRecipe
from brickyard.curate.selections.why_not import why_not
from brickyard.infra.config import load
from brickyard.infra.verbs.curate import FOLDER, against_note, check_name
from brickyard.infra.verbs.text import size, table
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import described, layer_digest
from brickyard.shards.errors import CorpusError
from brickyard.shards.refusals import read_refusals
from brickyard.shards.selection import read_selection


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    row = corpus.row(args.scene)
    key = corpus.keys[row]
    identity = corpus.header(row).identity
    figures = dict(described(corpus).slice(row, 1).column("figures").to_pylist()[0] or [])
    result: dict[str, Any] = {
        "scene": key,
        "split": identity.split,
        "sequence": identity.sequence,
        "licence": identity.licence,
        "figures": figures,
        "sources": [{"path": s.path, "size": s.size, "digest": s.digest} for s in identity.sources],
    }
    if args.why_not and args.selection is None:
        raise CorpusError("--why-not asks of a curation: name it with --selection")
    if args.selection is not None:
        result["selection"] = decided(corpus, key, args.selection)
    if args.why_not and not result["selection"]["in"]:
        result["why_not"] = objections(corpus, key, args.selection, args.against)
    if not args.json:
        _print(result)
    return result, 0


def decided(corpus: Corpus, key: str, name: str) -> dict[str, Any]:
    """In or out, weight and reason; and the scenes that are out as copies of this one."""
    check_name(name)
    selection = read_selection(corpus.store, f"{FOLDER}/{name}.parquet")
    refused = read_refusals(corpus.store, f"{FOLDER}/{name}-out.parquet")
    then = corpus.as_it_was(selection.corpus)
    if sorted([*selection.keys, *refused]) != sorted(then.keys):
        raise CorpusError(f"{name} and {name}-out in {corpus.store.uri} are of different curations: curate again")
    if key not in set(then.keys):
        reason = "it has come to the corpus since: curate again"
        return {"name": name, "in": False, "weight": 0.0, "reason": reason, "copies": []}
    mine = f"deduplicate: as {key} by "
    copies = sorted(other for other, why in refused.items() if why.startswith(mine))
    weight, reason = 0.0, refused.get(key, "")
    if key not in refused:
        place = selection.keys.index(key)
        weight, reason = float(selection.weights[place]), selection.reasons[place]
    return {"name": name, "in": key not in refused, "weight": weight, "reason": reason, "copies": copies}


def objections(corpus: Corpus, key: str, name: str, against: str | None) -> list[str]:
    """Everything that stands against a scene: the selection's own recipe is run again, without what refused it.

    Raises:
        CorpusError: the selection was not made by `curate`, or by other figures, or against another corpus.
    """
    selection = read_selection(corpus.store, f"{FOLDER}/{name}.parquet")
    about, corpus = selection.about, corpus.as_it_was(selection.corpus)
    if "curators" not in about:
        raise CorpusError(f"{name} was not made by `brickyard curate`: it has no recipe to run again")
    other = None if against is None else Corpus.open(against)
    if about.get("described") != layer_digest(corpus) or about.get("against") != against_note(other):
        raise CorpusError(
            f"{name} was curated by other descriptions or against another corpus: curate again, or name that --against"
        )
    recipe = load(json.dumps({"curators": about["curators"]}), CurationRecipe, where=name)
    return why_not(described(corpus), recipe, key, None if other is None else described(other))


def _print(result: dict[str, Any]) -> None:
    print(f"{result['scene']}: split {result['split']}, sequence {result['sequence']}, {result['licence']}")
    if (one := result.get("selection")) is not None:
        print(f"{one['name']}: " + (f"in, weight {one['weight']:g}" if one["in"] else "out") + f": {one['reason']}")
        print("".join(f"  stands for {copy}\n" for copy in one["copies"]), end="")
    for reason in result.get("why_not", []):
        print(f"  against it: {reason}")
    units = {figure.name: figure.unit for figure in FIGURES}
    cells = [[name, f"{value:.4g}", units.get(name, "")] for name, value in sorted(result["figures"].items())]
    if cells:
        print(table(["figure", "value", "unit"], cells))
    for source in result["sources"]:
        print(f"{source['digest']}  {size(source['size'])}  {source['path']}")
