"""`brickyard simulate`: raw worlds to try everything on, without downloads; or what whole downloads would list."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.config import load_file
from brickyard.infra.progress import Progress
from brickyard.infra.verbs.text import size
from brickyard.ingest.simulate import ALL_DATASETS, SimulationConfig, simulate
from brickyard.ingest.simulate.listings import LISTINGS, write_listings
from brickyard.shards.errors import RecipeError


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    known = ALL_DATASETS if args.listings is None else tuple(LISTINGS)
    wanted = ",".join(known) if args.datasets == "all" else args.datasets
    names = list(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))
    bars: dict[str, Progress] = {}

    def progress(what: str, done: int, total: int) -> None:
        bars.setdefault(what, Progress(f"simulating {what}", "scenes"))(done, total)

    if args.listings is not None:
        if args.config is not None:
            raise RecipeError("listings have no sizes to configure: leave --config or --listings out")
        result = write_listings(args.out, datasets=names, share=args.listings, progress=progress)
    else:
        config = SimulationConfig() if args.config is None else load_file(args.config, SimulationConfig)
        result = simulate(args.out, datasets=names, seed=args.seed, config=config, progress=progress)
    if not args.json:
        for name, entry in result.items():
            counts = ", ".join(f"{value:,} {what}" for what, value in entry.items() if what != "bytes")
            print(f"{args.out / name}: {counts}, {size(entry['bytes'])}{'' if args.listings is None else ' of holes'}")
    return result, 0
