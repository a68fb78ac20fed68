"""`brickyard diff`: what differs between two corpora."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.shards.corpus import Corpus
from brickyard.shards.diff import diff

_SHOWN = 20


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    found = diff(Corpus.open(args.first), Corpus.open(args.second))
    if not args.json:
        lines = [f"- {key}" for key in found.only_first] + [f"+ {key}" for key in found.only_second]
        lines += [f"~ {key}: {', '.join(names)}" for key, names in found.changed.items()]
        for line in lines[:_SHOWN]:
            print(line)
        if len(lines) > _SHOWN:
            print(f"... and {len(lines) - _SHOWN} more (all of them with --json)")
        print(
            f"{found.same} scenes are equal, {len(found.changed)} differ, {len(found.only_first)} are only in "
            f"{args.first}, {len(found.only_second)} only in {args.second}"
        )
    result = {
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "changed": {key: list(names) for key, names in found.changed.items()},
        "same": found.same,
    }
    return result, 0 if found.equal else 1
