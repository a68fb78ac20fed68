"""`brickyard report`: the page of a build."""

from __future__ import annotations

import argparse
from typing import Any

from brickyard.infra.build_page import build_page
from brickyard.infra.story import measured_rates, per_dataset, read_story, slowest, stages
from brickyard.infra.verbs.text import size
from brickyard.shards.storage import Store


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    story = read_story(Store(args.corpus))
    data = build_page(story, str(story.now.outline.get("recipe", "build")), price=args.price)
    target = Store(args.out.absolute().parent)
    target.write(args.out.name, data)
    target.close()
    if not args.json:
        print(f"{args.out.resolve().as_uri()} ({size(len(data))})")
    tasks = story.tasks
    result = {
        "page": str(args.out),
        "bytes": len(data),
        "runs": len(story.runs),
        "datasets": per_dataset(tasks),
        "stages": stages(tasks),
        "slowest": slowest(tasks, 15),
        "rates": measured_rates(tasks),
    }
    return result, 0
