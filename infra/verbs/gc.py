"""`brickyard gc`: what interrupted work has left and nothing refers to."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from brickyard.infra.verbs.text import size
from brickyard.shards.orphans import collect
from brickyard.shards.storage import Store

_HOUR_S = 3600.0


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    found = collect(Store(args.folder), delete=args.yes, older_s=args.older_than * _HOUR_S)
    total = sum(orphan.bytes for orphan in found)
    if not args.json:
        for orphan in found:
            print(f"{orphan.name}  {size(orphan.bytes)}  {orphan.why}")
        done = "deleted" if args.yes else "to delete with --yes" if found else "nothing to delete"
        print(f"{args.folder}: {len(found)} files, {size(total)}: {done}")
    return {"folder": args.folder, "deleted": args.yes, "bytes": total, "files": [asdict(o) for o in found]}, 0
