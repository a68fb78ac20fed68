"""`brickyard build`: the Ray job."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from brickyard.infra.cli import FAILED, QUARANTINED
from brickyard.infra.estimate import read_rates
from brickyard.infra.job import run_build
from brickyard.infra.plan import make_plan
from brickyard.infra.progress import Progress
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.text import reasons, size
from brickyard.shards.reasons import sentence


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, folder = load_recipe(args.recipe, args.set)
    plan = make_plan(recipe, folder)
    built = run_build(
        recipe,
        plan,
        args.out,
        cpus=args.cpus,
        address=args.address,
        ship_code=args.ship_code,
        rates=read_rates(args.rates) if args.rates else None,
        in_process=args.in_process,
        retry_quarantined=args.retry_quarantined,
        accept_code=args.accept_code,
        grows=args.grow,
        progress=Progress("building", "scenes"),
    )
    manifest = built.manifest
    quarantined = manifest["quarantined"]
    result = {
        "corpus": args.out,
        "fingerprint": manifest["fingerprint"],
        "scenes": manifest["scenes"],
        "shards": len(manifest["shards"]),
        "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
        "shards_built": built.tasks_done,
        "shards_reused": built.tasks_reused,
        "core_seconds": built.core_seconds,
        "licences": manifest["licences"],
        "quarantined": quarantined,
    }
    for line in [*reasons("not used", manifest["notices"], "files"), *reasons("quarantined", quarantined, "scenes")]:
        print(line, file=sys.stderr)
    if not result["scenes"]:
        result["error"] = f"no scene was built; {sentence((item['key'], item['reason']) for item in quarantined)}"
        print(f"brickyard build: {result['error']}", file=sys.stderr)
        return result, FAILED
    if not args.json:
        print(
            f"{args.out}: {result['scenes']:,} scenes in {result['shards']:,} shards, {size(result['bytes'])}; "
            f"{built.tasks_done} shards built, {built.tasks_reused} found committed; {len(quarantined):,} quarantined"
        )
    return result, QUARANTINED if len(quarantined) > args.allow_quarantined else 0
