"""`brickyard convert`: the same scenes in another container."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.progress import Progress
from brickyard.infra.verbs.text import size
from brickyard.shards.convert import convert
from brickyard.shards.corpus import Corpus
from brickyard.shards.storage import Store


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    out = Store(args.out)
    manifest = convert(Corpus.open(args.corpus), out, args.to, progress=Progress("converting", "shards"))
    total = sum(shard["bytes"] for shard in manifest["shards"])
    if not args.json:
        shards = len(manifest["shards"])
        print(f"{args.out}: {manifest['scenes']} scenes in {shards} {args.to} shards, {size(total)}")
    return {"corpus": args.out, "container": args.to, "scenes": manifest["scenes"], "bytes": total}, 0
