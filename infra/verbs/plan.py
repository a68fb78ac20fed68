"""`brickyard plan`: the dry run."""

from __future__ import annotations

import argparse
from typing import Any

from infra.plan import estimate, make_plan
from infra.recipe import load_recipe
from infra.verbs.text import duration, size, table


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, folder = load_recipe(args.recipe)
    result = estimate(make_plan(recipe, folder), recipe, cpus=args.cpus, samples=args.samples)
    if not args.json:
        _print(result)
    return result, 0


def _print(result: dict[str, Any]) -> None:
    rows = [
        [r["dataset"], f"{r['scenes']:,}", f"{r['points']:,}", size(r["bytes_in"]), size(r["bytes_out"]),
         duration(r["core_seconds"])]
        for r in result["datasets"]
    ]  # fmt: skip
    print(table(["dataset", "scenes", "points", "raw", "shards", "core time"], rows))
    print(
        f"\n{result['scenes']:,} scenes in {result['shards']:,} shards; about {size(result['bytes_out'])} written, ",
        end="",
    )
    print(f"{duration(result['seconds'])} on {result['cpus']} cores, {size(result['memory_bytes'])} of memory a task.")
    for row in result["datasets"]:
        for problem in row["problems"]:
            print(f"sample failed: {problem}")
    for item in result["notices"]:
        print(f"not used: {item['key']}: {item['reason']}")
    for item in result["missing"]:
        print(f"missing: {item['key']}: {item['reason']}")
