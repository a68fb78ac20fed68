"""`brickyard export`: leaving, in the layouts of others."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from brickyard.infra.progress import Progress
from brickyard.shards.corpus import Corpus
from brickyard.shards.export.advice import advice
from brickyard.shards.export.plain import export_plain
from brickyard.shards.export.ply import export_ply
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.export.superpixels import export_superpixels
from brickyard.shards.storage import Store

_WRITERS = {"pointcept": export_pointcept, "ply": export_ply}


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    corpus, out, progress = Corpus.open(args.corpus), Store(args.out), Progress("exporting", "scenes")
    said = advice(corpus, args.to)
    for text in said:
        print(f"warning: {text}", file=sys.stderr)
    if args.to in _WRITERS:
        summary = _WRITERS[args.to](corpus, out, progress=progress)
        text = f"{summary['scenes']} scenes, {summary['points']:,} points"
        if summary["without_points"]:
            text += f"; {summary['without_points']} scenes without points are left out"
    elif args.to == "rerun":
        from brickyard.shards.export.rerun import export_rerun  # its library is an extra of its own

        summary = export_rerun(corpus, out, progress=progress)
        text = f"{summary['scenes']} recordings, {summary['points']:,} points, {summary['views']} images"
    elif args.to == "superpixels":
        summary = export_superpixels(corpus, out, progress=progress)
        text = f"{summary['maps']} maps of {summary['scenes']} scenes"
        if summary["without_superpixels"]:
            text += f"; {summary['without_superpixels']} scenes have none"
    else:
        summary = export_plain(corpus, out, progress=progress)
        text = f"{summary['scenes']} scenes in {summary['shards']} tars"
    if not args.json:
        print(f"{args.out}: {text}; the data keep their licences, see LICENCES.txt")
    return {"corpus": args.corpus, "layout": args.to, "out": args.out, "warnings": said} | summary, 0
