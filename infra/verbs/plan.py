"""`brickyard plan`: the dry run."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.plan import estimate, make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.text import about, duration, reasons, size, table


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, folder = load_recipe(args.recipe, args.set)
    result = estimate(make_plan(recipe, folder), recipe, cpus=args.cpus, samples=args.samples)
    if not args.json:
        _print(result)
    return result, 0


def _print(result: dict[str, Any]) -> None:
    rows = [
        [r["dataset"], f"{r['scenes']:,}",
         *map(about, (f"{r['points']:,}", size(r["bytes_in"]), size(r["bytes_out"]), duration(r["core_seconds"])))]
        for r in result["datasets"]
    ]  # fmt: skip
    print(table(["dataset", "scenes", "points", "raw", "shards", "core time"], rows))
    written, took, memory = size(result["bytes_out"]), duration(result["seconds"]), size(result["memory_bytes"])
    print(
        f"\n{result['scenes']:,} scenes in {result['shards']:,} shards; {about(written)} written, "
        f"{about(took)} on {result['cpus']} cores, {about(memory)} of memory a task (~: estimated)."
    )
    for row in result["datasets"]:
        for problem in row["problems"]:
            print(f"sample failed: {problem}")
    for line in [*reasons("not used", result["notices"], "files"), *reasons("missing", result["missing"], "scenes")]:
        print(line)
