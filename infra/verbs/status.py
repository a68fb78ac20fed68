"""`brickyard status`: how far a build is, from any machine, while it runs or after it died."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from brickyard.infra.story import Story, progress, read_story, refused, workers
from brickyard.infra.verbs.text import duration, reasons
from brickyard.shards.storage import Store

_WORDS = {"running": "is running", "stopped": "has stopped", "silent": "has fallen silent", "finished": "is finished"}


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    story = read_story(Store(args.corpus))
    now, found = story.now, progress(story.now)
    result = {
        "corpus": args.corpus,
        "recipe": now.outline.get("recipe"),
        "state": now.state,
        "reason": now.reason,
        "finished": story.finished,
        "runs": len(story.runs),
        "began": now.began,
        "last": now.last,
        "workers": len(workers(now.tasks)),
        **found,
    }
    if not args.json:
        _print(story, result)
    return result, 0


def _print(story: Story, result: dict[str, Any]) -> None:
    now = story.now
    when = datetime.fromtimestamp(now.began, UTC).strftime("%Y-%m-%d %H:%M UTC")
    last = f"last heard of {duration(max(0.0, time.time() - now.last))} ago" if now.state != "finished" else ""
    words = [f"{result['recipe']}: {_WORDS[now.state]}", f"begun {when}, run {len(story.runs)}", last]
    print("; ".join(word for word in words if word))
    if now.reason:
        print(f"stopped: {now.reason}")
    left = "" if result["seconds_left"] is None else f", {duration(result['seconds_left'])} left"
    print(
        f"{result['done']:,} of {result['total']:,} scenes, {result['scenes_per_s']:.2f} a second on"
        f" {result['workers']} workers{left}; {result['quarantined']:,} quarantined"
    )
    for line in reasons("quarantined", refused(now.tasks), "scenes"):
        print(line)
    if now.state in ("stopped", "silent") and not story.finished:
        print("run the same `brickyard build` again to go on")
