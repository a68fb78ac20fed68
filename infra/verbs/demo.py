"""`brickyard demo`: the main job on a simulated raw world, by the very commands a user would type."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from brickyard.evaluate.records import probe_of, read_results
from brickyard.evaluate.table import class_table
from brickyard.infra.verbs.text import duration, table
from brickyard.shards.errors import BrickyardError

_RECIPES = Path(__file__).parents[1] / "recipes"
_YOURS = """
With data of your own: say what you have in a recipe ({recipe} is one; `brickyard sources` lists what can be read)
    name: mine
    sources: [{{dataset: scannet, root: /data/scannet}}]
and type
    brickyard plan  my.yaml                     # a dry run: scenes, bytes, time
    brickyard build my.yaml --out my-corpus     # run it again to go on
    brickyard show  my-corpus --out my-corpus.html
More in docs/recipes.md."""


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    import brickyard.infra.verbs.evaluate  # noqa: F401  what it needs and is not installed is told before the work
    from brickyard.infra.cli import main

    begin = time.monotonic()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    recipe, corpus = out / "recipe.yaml", out / "corpus"
    recipe.write_text(_RECIPES.joinpath("demo.yaml").read_text())
    runs = [out / f"run-{seed}" for seed in range(args.seeds)]
    commands = [
        ["simulate", "--out", str(out / "raw"), "--config", str(_RECIPES / "demo-world.yaml")],
        ["plan", str(recipe)],
        ["build", str(recipe), "--out", str(corpus)],
        ["verify", str(corpus), "--deep"],
    ]
    for seed, folder in enumerate(runs):
        commands += [
            ["train", str(recipe), "--corpus", str(corpus), "--out", str(folder), "--seed", str(seed)],
            ["evaluate", str(recipe), "--run", str(folder), "--corpus", str(corpus)],
        ]
    pages = {"corpus": out / "corpus.html", "runs": out / "runs.html"}
    commands += [
        ["show", str(corpus), "--out", str(pages["corpus"])],
        ["show", str(out), "--out", str(pages["runs"])],
    ]
    seconds: dict[str, float] = {}
    for command in commands:
        print(f"\n$ brickyard {shlex.join(command)}", file=sys.stderr, flush=True)
        started = time.monotonic()
        if main(command):
            raise BrickyardError(
                f"the demo stopped at `brickyard {shlex.join(command)}`; if another version began {out}, remove it"
            )
        seconds[command[0]] = seconds.get(command[0], 0.0) + time.monotonic() - started
    probes = [probe for folder in runs if (probe := probe_of(read_results(folder))) is not None]
    if not args.json:
        _print(probes, seconds, pages, time.monotonic() - begin)
        print(_YOURS.format(recipe=recipe))
    return {"seconds": seconds, "probes": probes, "pages": {k: str(v) for k, v in pages.items()}}, 0


def _print(probes: list[dict[str, Any]], seconds: dict[str, float], pages: dict[str, Path], total: float) -> None:
    print(f"\n{table(*class_table(probes))}")
    scores = [[probe["results"][init]["miou"] for init in ("pretrained", "random")] for probe in probes]
    gains = ", ".join(f"{100 * (ours - base):+.1f}" for ours, base in scores if None not in (ours, base))
    print(f"\ngain in mean IoU by seed: {gains} points")
    print("time: " + ", ".join(f"{verb} {duration(s)}" for verb, s in seconds.items()) + f"; {duration(total)} in all")
    for what, page in pages.items():
        print(f"page of the {what}: {page.resolve().as_uri()}")
