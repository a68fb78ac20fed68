"""`brickyard evaluate`: what a run's network is worth, beside the same network before training.

Every protocol that the recipe names, or else the linear probe alone, beside random weights and raw inputs; a line each
in the run's results.jsonl (see `evaluate.records`), whose table also shows on the page of the run.

A recipe that has a `train` section and could not have made the run is refused before the work: its results would be
filed under settings that they do not have. A recipe without one evaluates any run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from brickyard.evaluate.features import random_student
from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.registry import Chosen, choose
from brickyard.evaluate.records import FEATURES, LINEAR_PROBE, TRAININGS, append_result
from brickyard.evaluate.results import Evaluation
from brickyard.evaluate.splits import split_rows
from brickyard.evaluate.table import class_table, result_table
from brickyard.evaluate.weights import weights_digest
from brickyard.infra.config import Deferred
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.features import draw_features, finished
from brickyard.infra.verbs.text import table
from brickyard.infra.verbs.train import training
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig
from brickyard.train.objectives import ObjectiveConfig
from brickyard.train.running.distributed import Group
from brickyard.train.running.records import read_config
from brickyard.train.running.run_folder import recipe_differences


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The recipe's `evaluate` section.

    Attributes:
        linear_probe: settings of the probe.
        protocols: names of protocols (see `evaluate.protocols`), such as [linear_probe, knn, scannet-decoder-tiny];
            without any, the linear probe alone.
        settings: protocol -> what is set differently for it.
        baselines: what stands beside the pretrained network.
        pictures: so many validation scenes of the probe's dataset are drawn, coloured by features.
        device: "auto" takes CUDA where there is one.
        cache_gib: memory for encoded scenes, for each network.
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

    def resolve(self) -> list[Chosen]:
        """The protocols with their settings; raises `RecipeError` with the line."""
        chosen = {name: choose(name, self.linear_probe) for name in self.protocols or (LINEAR_PROBE,)}
        for name, changed in self.settings.items():
            if name not in chosen:
                raise changed.error(f"settings for {name!r}, which is not among the protocols")
            before = chosen[name]
            loaded = changed.load(before.protocol.config)
            set_here = {key: getattr(loaded, key) for key in changed.plain()}
            chosen[name] = dataclasses.replace(before, config=dataclasses.replace(before.config, **set_here))
        return list(chosen.values())


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    recipe, _ = load_recipe(args.recipe, args.set, raw=False)
    config = recipe.evaluate.load(EvaluateConfig)
    chosen = config.resolve()
    if recipe.train.plain():
        _check_made_by(args.run, *training(recipe.train), recipe=args.recipe)
    corpus = Corpus.open(args.corpus)
    result = evaluate_run(args.run, corpus, config, chosen)
    chief = os.environ.get("RANK", "0") == "0"
    args.json = args.json and chief  # under torchrun only one of the processes answers
    if not chief:
        return result, 0
    if not args.json:
        alone = not config.protocols
        print(table(*(class_table if alone else result_table)(result["protocols"])))
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


def evaluate_run(run_folder: Path, corpus: Corpus, config: EvaluateConfig, chosen: Sequence[Chosen]) -> dict[str, Any]:
    """All protocols on what a run has exported; each a line in the run's results as soon as it is measured.

    Under torchrun, protocols that train something share the work; the others are measured by every rank alike.
    """
    with Group.join(config.device) as group:
        return _evaluate_run(run_folder, corpus, config, chosen, group)


def _evaluate_run(
    run_folder: Path, corpus: Corpus, config: EvaluateConfig, chosen: Sequence[Chosen], group: Group
) -> dict[str, Any]:
    device = group.device
    network, seed = finished(run_folder, device), int(read_config(run_folder)["train"]["seed"])
    networks = {"pretrained": network}
    if "random" in config.baselines:
        networks["random"] = random_student(network.config, seed, device)
    # memory for encoded scenes is of use only where several protocols read them
    sharing = sum(one.protocol.reads_features for one in chosen)
    keep = config.cache_gib if sharing > 1 else 0.0
    trainings = run_folder / TRAININGS
    evaluation = Evaluation(corpus, networks, raw="raw" in config.baselines, keep_gib=keep, trainings=trainings)
    for one in chosen:
        evaluation.check(one)
    whose = {"run": str(run_folder), "seed": seed, "corpus": corpus.fingerprint}
    weights = weights_digest(network)
    entries: list[dict[str, Any]] = []
    for one in chosen:
        measured = evaluation.run(one)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entries.append({**whose, "when": now, "weights": weights, **measured})
        if group.rank == 0:
            append_result(run_folder, entries[-1])
    return {**whose, "protocols": entries}
