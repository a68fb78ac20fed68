"""`brickyard evaluate`: what a run's student is worth, beside the same network before training.

Without `protocols`, the linear probe alone, into probe.json. With them, every named protocol, beside random weights and
raw inputs, into results.json, whose table also shows on the page of the run.

A recipe that has a `train` section and could not have made the run is refused before the work: its results would be
filed under settings that they do not have. A recipe without one evaluates any run.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from brickyard.evaluate.features import random_student
from brickyard.evaluate.linear_probe import ProbeConfig, ProbeResult, probe
from brickyard.evaluate.protocols import LINEAR_PROBE, preset
from brickyard.evaluate.records import FEATURES, PROBE, RESULTS
from brickyard.evaluate.results import Evaluation, result_table
from brickyard.evaluate.splits import DataConfig, split_rows
from brickyard.evaluate.supervised import SupervisedConfig
from brickyard.infra.config import Deferred
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.features import draw_features, finished_student
from brickyard.infra.verbs.text import table
from brickyard.infra.verbs.train import training
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import write_document
from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig
from brickyard.train.objectives import ObjectiveConfig
from brickyard.train.running.records import read_config
from brickyard.train.running.run_folder import recipe_differences
from brickyard.train.students.base import Student


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The recipe's `evaluate` section.

    Attributes:
        linear_probe: settings of the probe.
        protocols: names of protocols (see `evaluate.protocols`), such as [linear_probe, knn, scannet-decoder-tiny].
        settings: protocol -> what is set differently for it.
        baselines: what stands beside the pretrained student.
        pictures: so many validation scenes of the probe's dataset are drawn, coloured by features.
        device: "auto" takes CUDA where there is one.
        cache_gib: memory for encoded scenes, for each student.
    """

    linear_probe: ProbeConfig = field(default_factory=ProbeConfig)
    protocols: tuple[str, ...] = ()
    settings: dict[str, Deferred] = field(default_factory=dict)
    baselines: tuple[Literal["random", "raw"], ...] = ("random", "raw")
    pictures: int = 0
    device: str = "auto"
    cache_gib: float = 4.0

    def __post_init__(self) -> None:
        if self.pictures < 0 or self.cache_gib < 0:
            raise ValueError("pictures and cache_gib must not be negative")

    def resolve(self) -> dict[str, DataConfig]:
        """Protocol -> its settings; raises `RecipeError` with the line."""
        chosen = {name: preset(name, self.linear_probe) for name in self.protocols}
        for name, changed in self.settings.items():
            if name not in chosen:
                raise changed.error(f"settings for {name!r}, which is not among the protocols")
            loaded = changed.load(type(chosen[name]))
            chosen[name] = dataclasses.replace(chosen[name], **{key: getattr(loaded, key) for key in changed.plain()})
        return chosen


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, _ = load_recipe(args.recipe, args.set, raw=False)
    config = recipe.evaluate.load(EvaluateConfig)
    protocols = config.resolve()
    if recipe.train.plain():
        _check_made_by(args.run, *training(recipe.train), recipe=args.recipe)
    corpus = Corpus.open(args.corpus)
    result: dict[str, Any]
    if protocols:
        result = evaluate_run(args.run, corpus, config, protocols, talk=not args.json)
    else:
        result = probe_run(args.run, corpus, config.linear_probe, device=_device(config.device))
        if not args.json:
            print(probe_table([result]))
    if config.pictures:
        probed = config.linear_probe
        rows = split_rows(corpus, probed, probed.val_split)[: config.pictures].tolist()
        draw_features(args.run, corpus, rows, args.run / FEATURES)
    return result, 0


def _check_made_by(run: Path, config: TrainConfig, settings: ObjectiveConfig, *, recipe: Path) -> None:
    if changed := recipe_differences(run, config, settings):
        raise RecipeError(
            f"{recipe} did not make {run}; between the run and the recipe differ:\n  " + "\n  ".join(changed) + "\n"
            "Give the recipe of the run, or one without a `train` section, which evaluates any run."
        )


def evaluate_run(
    run_folder: Path, corpus: Corpus, config: EvaluateConfig, protocols: Mapping[str, DataConfig], *, talk: bool
) -> dict[str, Any]:
    """All protocols; also written to the run's `results.json`, and the linear probe's part to `probe.json`."""
    student, seed = _finished(run_folder, _device(config.device))
    students = {"pretrained": student}
    if "random" in config.baselines:
        students["random"] = random_student(student.config, seed, student.device)
    # memory for encoded scenes is of use only where several protocols read them
    frozen = sum(not isinstance(settings, SupervisedConfig) for settings in protocols.values())
    keep = config.cache_gib if frozen > 1 else 0.0
    evaluation = Evaluation(corpus, students, raw="raw" in config.baselines, keep_gib=keep)
    result: dict[str, Any] = {"run": str(run_folder), "seed": seed, "corpus": corpus.fingerprint, "protocols": []}
    for name, settings in protocols.items():
        entry = evaluation.run(name, settings)
        result["protocols"].append(entry)
        write_document(run_folder / RESULTS, result, indent=1)  # what is done is kept
        if name == LINEAR_PROBE and "random" in students:
            _write_probe(run_folder, seed, entry)
    if talk:
        print(table(*result_table(result["protocols"])))
    return result


def _write_probe(run_folder: Path, seed: int, entry: Mapping[str, Any]) -> None:
    pretrained, random = (
        {name: entry["results"][init][name] for name in ("miou", "iou")} for init in ("pretrained", "random")
    )
    result = {
        "run": str(run_folder),
        "seed": seed,
        "taxonomy": entry["taxonomy"],
        "train_scenes": entry["train_scenes"],
        "val_scenes": entry["val_scenes"],
        **_compared(pretrained, random),
    }
    write_document(run_folder / PROBE, result, indent=1)


def _compared(pretrained: dict[str, Any], random: dict[str, Any]) -> dict[str, Any]:
    """The two sides of a probe, and what pretraining gained; None where a score is unknown."""
    known = pretrained["miou"] is not None and random["miou"] is not None
    gain = pretrained["miou"] - random["miou"] if known else None
    return {"pretrained": pretrained, "random": random, "gain": gain}


def _finished(run_folder: Path, device: torch.device) -> tuple[Student, int]:
    """The student of a run and the run's seed."""
    return finished_student(run_folder, device), int(read_config(run_folder)["train"]["seed"])


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def probe_run(
    run_folder: Path, corpus: Corpus, config: ProbeConfig, *, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Probe `final/` of a run and its random initialisation; also written to the run's `probe.json`."""
    student, seed = _finished(run_folder, torch.device(device))
    trained = probe(student, corpus, config)
    untrained = probe(random_student(student.config, seed, device), corpus, config)
    result = {
        "run": str(run_folder),
        "seed": seed,
        "taxonomy": config.taxonomy,
        "train_scenes": trained.scenes[0],
        "val_scenes": trained.scenes[1],
        **_compared(_entry(trained), _entry(untrained)),
    }
    write_document(run_folder / PROBE, result, indent=1)
    return result


def _entry(result: ProbeResult) -> dict[str, Any]:
    return {"miou": _known(result.miou), "iou": {name: _known(value) for name, value in result.iou.items()}}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def probe_table(results: list[dict[str, Any]]) -> str:
    """Per-class IoU in percent, means over runs, random initialisation beside pretraining."""
    names = [n for n in results[0]["pretrained"]["iou"] if results[0]["pretrained"]["iou"][n] is not None]
    rows = [[name, *(_mean(results, kind, name) for kind in ("random", "pretrained"))] for name in names]
    rows.append(["mean IoU", *(_spread(results, kind) for kind in ("random", "pretrained"))])
    return table(["linear probe, IoU %", "random", "pretrained"], rows)


def _mean(results: list[dict[str, Any]], kind: str, name: str) -> str:
    return f"{100 * sum(r[kind]['iou'][name] or 0.0 for r in results) / len(results):.1f}"


def _spread(results: list[dict[str, Any]], kind: str) -> str:
    values = [100 * r[kind]["miou"] for r in results if r[kind]["miou"] is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.1f} ± {deviation:.1f}"
