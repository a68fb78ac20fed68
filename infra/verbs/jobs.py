"""`brickyard jobs`: builds that were submitted to a cluster; what one prints, and how to stop it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from brickyard.infra.cli import FAILED
from brickyard.infra.jobs import connect, follow, known, state, stop
from brickyard.infra.verbs.text import table
from brickyard.shards.errors import BrickyardError


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    client = connect(args.address)
    if args.job is None:
        if args.follow or args.stop:
            raise BrickyardError("which job? `brickyard jobs --address ...` lists them")
        jobs = list(known(client))
        if not args.json:
            rows = [[job["job"], job["state"], job["out"] or "-"] for job in jobs]
            print(table(["job", "state", "corpus"], rows))
        return {"jobs": jobs}, 0
    if args.stop:
        found = stop(client, args.job)
    elif args.follow:
        found = follow(client, args.job, lambda text: print(text, end="", file=sys.stderr, flush=True))
    else:
        found = state(client, args.job)
    if not args.json:
        print(f"{args.job}: {found}")
    return {"job": args.job, "state": found}, FAILED if found == "FAILED" else 0
