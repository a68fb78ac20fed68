"""`brickyard evaluate`: the linear probe of a run's student, beside the same network before training."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluate.features import random_student
from evaluate.linear_probe import ProbeConfig, ProbeResult, probe
from infra.recipe import load_recipe
from infra.verbs.text import table
from infra.verbs.train import training
from shards.corpus import Corpus
from shards.errors import BrickyardError
from train.student import load_student

RESULT = "probe.json"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The recipe's `evaluate` section.

    Attributes:
        linear_probe: settings of the probe.
    """

    linear_probe: ProbeConfig = field(default_factory=ProbeConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, _ = load_recipe(args.recipe)
    config = recipe.evaluate.load(EvaluateConfig).linear_probe
    training(recipe.train)  # a recipe that could not have made this run is refused before the work
    corpus = Corpus.open(args.corpus)
    result = probe_run(args.run, corpus, config)
    if not args.json:
        print(probe_table([result]))
    return result, 0


def probe_run(run_folder: Path, corpus: Corpus, config: ProbeConfig) -> dict[str, Any]:
    """Probe `final/` of a run and its random initialisation; also written to the run's `probe.json`."""
    final = run_folder / "final"
    if not final.is_dir():
        raise BrickyardError(f"{run_folder} has no finished training (no {final.name}/): run `brickyard train` first")
    seed = int(json.loads((run_folder / "config.json").read_text())["train"]["seed"])
    student = load_student(final)
    trained = probe(student, corpus, config)
    untrained = probe(random_student(student.config, seed), corpus, config)
    result = {
        "run": str(run_folder),
        "seed": seed,
        "taxonomy": config.taxonomy,
        "train_scenes": trained.scenes[0],
        "val_scenes": trained.scenes[1],
        "pretrained": _entry(trained),
        "random": _entry(untrained),
        "gain": trained.miou - untrained.miou,
    }
    (run_folder / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    return result


def _entry(result: ProbeResult) -> dict[str, Any]:
    return {"miou": result.miou, "iou": {name: None if math.isnan(v) else v for name, v in result.iou.items()}}


def probe_table(results: list[dict[str, Any]]) -> str:
    """Per-class IoU in percent, means over runs, random initialisation beside pretraining."""
    names = [n for n in results[0]["pretrained"]["iou"] if results[0]["pretrained"]["iou"][n] is not None]
    rows = [[name, *(_mean(results, kind, name) for kind in ("random", "pretrained"))] for name in names]
    rows.append(["mean IoU", *(_spread(results, kind) for kind in ("random", "pretrained"))])
    return table(["linear probe, IoU %", "random", "pretrained"], rows)


def _mean(results: list[dict[str, Any]], kind: str, name: str) -> str:
    return f"{100 * sum(r[kind]['iou'][name] or 0.0 for r in results) / len(results):.1f}"


def _spread(results: list[dict[str, Any]], kind: str) -> str:
    values = [100 * r[kind]["miou"] for r in results]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.1f} ± {deviation:.1f}"
