"""`brickyard simulate`: raw worlds to try everything on, without downloads."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.config import load_file
from brickyard.infra.progress import Progress
from brickyard.infra.verbs.text import size
from brickyard.ingest.simulate import ALL_DATASETS, SimulationConfig, simulate


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    config = SimulationConfig() if args.config is None else load_file(args.config, SimulationConfig)
    wanted = ",".join(ALL_DATASETS) if args.datasets == "all" else args.datasets
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    bars: dict[str, Progress] = {}

    def progress(what: str, done: int, total: int) -> None:
        bars.setdefault(what, Progress(f"simulating {what}", "scenes"))(done, total)

    result = simulate(args.out, datasets=names, seed=args.seed, config=config, progress=progress)
    if not args.json:
        for name, entry in result.items():
            counts = ", ".join(f"{value:,} {what}" for what, value in entry.items() if what != "bytes")
            print(f"{args.out / name}: {counts}, {size(entry['bytes'])}")
    return result, 0
