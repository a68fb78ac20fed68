"""`brickyard explain`: what is known of one scene, where it came from, and what a curation decided of it."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.curate.describe.describe import FIGURES
from brickyard.infra.verbs.curate import FOLDER, check_name
from brickyard.infra.verbs.text import size, table
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import described
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
    if args.selection is not None:
        result["selection"] = decided(corpus, key, args.selection)
    if not args.json:
        _print(result)
    return result, 0


def decided(corpus: Corpus, key: str, name: str) -> dict[str, Any]:
    """In or out, weight and reason; and the scenes that are out as copies of this one."""
    check_name(name)
    selection = read_selection(corpus.store, f"{FOLDER}/{name}.parquet")
    refused = read_refusals(corpus.store, f"{FOLDER}/{name}-out.parquet")
    selection.rows(corpus)  # refuses one of another corpus
    mine = f"deduplicate: as {key} by "
    copies = sorted(other for other, why in refused.items() if why.startswith(mine))
    if key in refused:
        return {"name": name, "in": False, "weight": 0.0, "reason": refused[key], "copies": copies}
    place = selection.keys.index(key)
    weight = float(selection.weights[place])
    return {"name": name, "in": True, "weight": weight, "reason": selection.reasons[place], "copies": copies}


def _print(result: dict[str, Any]) -> None:
    print(f"{result['scene']}: split {result['split']}, sequence {result['sequence']}, {result['licence']}")
    if (one := result.get("selection")) is not None:
        print(f"{one['name']}: " + (f"in, weight {one['weight']:g}" if one["in"] else "out") + f": {one['reason']}")
        print("".join(f"  stands for {copy}\n" for copy in one["copies"]), end="")
    known = {figure.name: figure for figure in FIGURES}
    cells = [
        [name, f"{value:.4g}", known[name].unit if name in known else "", known[name].meaning if name in known else ""]
        for name, value in sorted(result["figures"].items())
    ]
    if cells:
        print(table(["figure", "value", "unit", "meaning"], cells))
    for source in result["sources"]:
        print(f"{source['digest']}  {size(source['size'])}  {source['path']}")
