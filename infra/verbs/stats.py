"""`brickyard stats`: what a corpus holds and where its bytes go."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from brickyard.infra.verbs.text import size, table
from brickyard.shards.corpus import Corpus
from brickyard.shards.stats import Stats, stats


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus = Corpus.open(args.corpus)
    found = stats(corpus)
    if not args.json:
        _print(found)
        for licence, datasets in corpus.manifest["licences"].items():
            print(f"licence {licence}: {', '.join(datasets)}")
    return {"corpus": args.corpus, "licences": corpus.manifest["licences"]} | asdict(found), 0


def _print(found: Stats) -> None:
    rows = [
        [name, *(f"{part[k]:,}" for k in ("scenes", "n_points", "n_views", "n_pairs")), size(part["raw_bytes"]),
         size(part["bytes"])]
        for name, part in found.parts.items()
    ]  # fmt: skip
    print(table(["dataset/split", "scenes", "points", "views", "pairs", "raw", "stored"], rows), end="\n\n")
    whole = sum(entry["bytes"] for entry in found.fields.values())
    rows = []
    for name, entry in found.fields.items():
        unit, per = "point" if name.startswith("points/") else "pair", entry["items"]
        each = f"{entry['bytes'] / per:.2f} B/{unit}" if per else f"{size(entry['bytes'] / entry['blobs'])} each"
        rows.append([name, f"{entry['blobs']:,}", size(entry["bytes"]), f"{100 * entry['bytes'] / whole:.1f} %", each])
    print(table(["field", "blobs", "bytes", "share", ""], rows))
    for title, counts in (("dropped", found.dropped), ("quarantined", found.quarantined)):
        for what, count in counts.items():
            print(f"{title} {count:,}: {what}")
