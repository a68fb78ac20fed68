"""`brickyard submit`: a build on a cluster, by its job server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from brickyard.infra.cli import FAILED
from brickyard.infra.jobs import connect, follow, portable_recipe, submit_build


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe = portable_recipe(args.recipe, args.set)
    out = args.out if "://" in args.out else str(Path(args.out).absolute())
    flags = [f"--allow-quarantined={args.allow_quarantined}"]
    asked = [name for name in ("grow", "retry_quarantined", "accept_code") if getattr(args, name)]
    flags += [f"--{name.replace('_', '-')}" for name in asked]
    client = connect(args.address)
    job = submit_build(client, recipe, out, flags)
    print(f"submitted as {job}; `brickyard jobs --address {args.address} {job}` tells of it", file=sys.stderr)
    if args.detach:
        if not args.json:
            print(job)
        return {"job": job, "state": "PENDING", "out": out}, 0
    ended = follow(client, job, lambda text: print(text, end="", file=sys.stderr, flush=True))
    return {"job": job, "state": ended, "out": out}, 0 if ended == "SUCCEEDED" else FAILED
