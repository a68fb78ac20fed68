"""`brickyard plan`: the dry run."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.config import load_file
from brickyard.infra.estimate import estimate, read_rates
from brickyard.infra.forecast import ClusterConfig
from brickyard.infra.forecast_page import print_simulated, simulate
from brickyard.infra.plan import make_plan
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.text import about, duration, reasons, size, table


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, folder = load_recipe(args.recipe, args.set)
    rates = read_rates(args.rates) if args.rates else None
    cluster = load_file(args.simulate, ClusterConfig) if args.simulate else None
    plan = make_plan(recipe, folder)
    result = estimate(plan, recipe, cpus=args.cpus, samples=args.samples, rates=rates)
    if not args.json:
        _print(result)
    if cluster is not None:
        result["simulated"] = simulate(plan, result["rates"], cluster, times=args.times, page=args.page)
        if not args.json:
            print_simulated(result["simulated"])
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
    _print_splits(result["splits"])
    if any(task["core_seconds"] for task in result["longest"]):
        tasks = [f"{t['first']} ({t['scenes']} scenes) {about(duration(t['core_seconds']))}" for t in result["longest"]]
        print(f"longest tasks: {', '.join(tasks)}")
    for row in result["datasets"]:
        if row["elsewhere"]:
            print(f"{row['dataset']}: rates of another plan, as no sample could be made here")
        for problem in row["problems"]:
            print(f"sample failed: {problem}")
    for line in [*reasons("not used", result["notices"], "files"), *reasons("missing", result["missing"], "scenes")]:
        print(line)


def _print_splits(rows: list[dict[str, Any]]) -> None:
    """Scenes by split, beside those that are expected where the recipe says."""
    if any(row["expected"] is not None for row in rows):
        print()
        texts = [[r["dataset"], r["split"], f"{r['scenes']:,}", _expected(r["expected"])] for r in rows]
        print(table(["dataset", "split", "scenes", "expected"], texts))


def _expected(scenes: int | None) -> str:
    return "-" if scenes is None else f"{scenes:,}"
