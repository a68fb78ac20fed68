"""`brickyard repair`: make the damaged scenes of a corpus anew from the raw data."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.plan import make_plan
from brickyard.infra.progress import Progress
from brickyard.infra.recipe import load_recipe
from brickyard.infra.repair import repair


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, folder = load_recipe(args.recipe, args.set)
    done = repair(recipe, make_plan(recipe, folder), args.corpus, progress=Progress("checking", "shards"))
    if not args.json:
        for key in done.scenes:
            print(f"made anew: {key}")
        print(f"{args.corpus}: {len(done.scenes)} scenes of {len(done.shards)} shards made anew, with the same bytes")
    return {"corpus": args.corpus, "shards": list(done.shards), "scenes": list(done.scenes)}, 0
