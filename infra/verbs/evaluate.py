"""`brickyard evaluate`: what a run's network is worth, beside the same network before training.

Every protocol that the recipe names, or else the linear probe alone, beside random weights and raw inputs; a line each
in the run's results.jsonl (see `evaluate.records`), whose table also shows on the page of the run.

A recipe that has a `train` section and could not have made the run is refused before the work: its results would be
filed under settings that they do not have. A recipe without one evaluates any run. A released file instead of a run
(`--weights`) is evaluated by any recipe, into a folder of its own.

With `--predictions`, the recipe's segmenter writes what an official server takes instead (see `infra.answers.verb`).
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
from brickyard.evaluate.pictured import PICTURES
from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.registry import Chosen, choose
from brickyard.evaluate.records import FEATURES, LINEAR_PROBE, TABLES, TRAININGS, append_result
from brickyard.evaluate.results import Evaluation
from brickyard.evaluate.splits import split_rows
from brickyard.evaluate.table import class_table, result_table
from brickyard.evaluate.weights import weights_digest
from brickyard.infra.answers.verb import check_arguments, told, write_predictions
from brickyard.infra.config import Deferred
from brickyard.infra.recipe import load_recipe
from brickyard.infra.verbs.features import draw_features
from brickyard.infra.verbs.judged import Judged
from brickyard.infra.verbs.text import table
from brickyard.infra.verbs.train import training
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.loop import TrainConfig
from brickyard.train.objectives import ObjectiveConfig
from brickyard.train.running.distributed import Group
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
    judged = _judged(args)
    check_arguments(args)
    if recipe.train.plain() and judged.weights is None:
        _check_made_by(args.run, *training(recipe.train), recipe=args.recipe)
    corpus = Corpus.open(args.corpus)
    if args.predictions is not None:
        result = write_predictions(args, judged, corpus, chosen, config.device)
    else:
        result = evaluate_run(judged, corpus, config, chosen)
    chief = os.environ.get("RANK", "0") == "0"
    args.json = args.json and chief  # under torchrun only one of the processes answers
    if not chief:
        return result, 0
    if args.predictions is not None:
        if not args.json:
            print(told(result))
        return result, 0
    if not args.json:
        alone = not config.protocols
        print(table(*(class_table if alone else result_table)(result["protocols"])))
    if config.pictures:
        probed = config.linear_probe
        rows = split_rows(corpus, probed, probed.val_split)[: config.pictures].tolist()
        draw_features(judged.network, corpus, rows, judged.folder / FEATURES)
    return result, 0


def _judged(args: argparse.Namespace) -> Judged:
    if (args.weights is None) != (args.out is None):
        raise RecipeError("--weights FILE and --out DIR go together: there is no run's folder for the results")
    return Judged(folder=args.run if args.weights is None else args.out, weights=args.weights)


def _check_made_by(run: Path, config: TrainConfig, settings: ObjectiveConfig, *, recipe: Path) -> None:
    if changed := recipe_differences(run, config, settings):
        raise RecipeError(
            f"{recipe} did not make {run}; between the run and the recipe differ:\n  " + "\n  ".join(changed) + "\n"
            "Give the recipe of the run, or one without a `train` section, which evaluates any run."
        )


def evaluate_run(judged: Judged, corpus: Corpus, config: EvaluateConfig, chosen: Sequence[Chosen]) -> dict[str, Any]:
    """All protocols on a network; each a line in the results of its folder as soon as it is measured.

    Under torchrun, protocols that train something share the work; the others are measured by every rank alike.
    """
    with Group.join(config.device) as group:
        return _evaluate_run(judged, corpus, config, chosen, group)


def _evaluate_run(
    judged: Judged, corpus: Corpus, config: EvaluateConfig, chosen: Sequence[Chosen], group: Group
) -> dict[str, Any]:
    device = group.device
    network, seed, folder = judged.network(device), judged.seed, judged.folder
    networks, companions = {"pretrained": network}, {"pretrained": judged.companions(device)}
    if "random" in config.baselines:
        networks["random"] = random_student(network.config, seed, device)
        companions["random"] = [random_student(one.config, seed, device) for one in companions["pretrained"]]
    # memory for encoded scenes is of use only where several protocols read them
    sharing = sum(one.protocol.reads_features for one in chosen)
    keep = config.cache_gib if sharing > 1 else 0.0
    evaluation = Evaluation(
        corpus,
        networks,
        raw="raw" in config.baselines,
        keep_gib=keep,
        trainings=folder / TRAININGS,
        tables=folder / TABLES if group.rank == 0 else None,
        companions=companions,
        pictures=folder / PICTURES if group.rank == 0 else None,
    )
    for one in chosen:
        evaluation.check(one)
    whose = {"run": str(folder), "seed": seed, "corpus": corpus.fingerprint}
    weights = weights_digest(network)
    entries: list[dict[str, Any]] = []
    for one in chosen:
        measured = evaluation.run(one)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entries.append({**whose, "when": now, "weights": weights, **measured})
        if group.rank == 0:
            append_result(folder, entries[-1])
    return {**whose, "protocols": entries}
