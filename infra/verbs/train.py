"""`brickyard train`: the recipe's objective, on a corpus; in this process, under torchrun, or with Ray Train.

The run's folder keeps `recipe.yaml`: the recipe as it was used, with all that it extends, every option and every
default of its `train` section written out. It makes the same run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brickyard.infra.config import Deferred, dump, to_yaml
from brickyard.infra.recipe import load_recipe, resolved_recipe
from brickyard.infra.verbs.text import duration
from brickyard.shards.atomic import write_whole
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.selection import read_selection
from brickyard.shards.storage import Store
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import CONFIGS, ObjectiveConfig

RECIPE = "recipe.yaml"


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    chief = os.environ.get("RANK", "0") == "0"
    args.json = args.json and chief  # under torchrun only one of the processes answers
    recipe, _ = load_recipe(args.recipe, args.set, raw=False)
    config, objective = training(recipe.train)
    if args.seed is not None:
        config = dataclasses.replace(config, seed=args.seed)
    resolved = to_yaml(resolved_recipe(args.recipe, args.set) | {"train": section_of(config, objective)}).encode()
    cache = None if args.cache is None else CacheConfig(folder=args.cache, max_bytes=args.cache_gib << 30)
    corpus, rows = Corpus.open(args.corpus, cache=cache), None
    if args.selection is not None:
        path = args.selection.resolve()
        rows = read_selection(Store(path.parent), path.name).rows(corpus, config.seed)
    if chief and not any((args.out / "checkpoints").glob("step-*")):
        write_whole(args.out / RECIPE, resolved)
    if args.workers is not None or args.address is not None:
        from brickyard.infra.ray_train import Training, train_on_ray

        job = Training(
            config=config,
            settings=objective,
            corpus=corpus.store.uri,
            out=str(args.out.resolve()),
            rows=rows,
            cache=cache,
        )
        summary = train_on_ray(job, workers=args.workers or 1, address=args.address)
    else:
        summary = train(config, objective, corpus, Path(args.out), rows=rows)
    if chief:  # a run that went on may have other settings where they decide no number
        write_whole(args.out / RECIPE, resolved)
    if not args.json and chief:
        print(
            f"{args.out}: {summary['objective']}, {summary['steps']} steps over {summary['scenes']} scenes in "
            f"{duration(summary['seconds'])}, last loss {summary['last_loss']}"
        )
    return {"run": str(args.out)} | summary, 0


@dataclass(frozen=True, kw_only=True)
class TrainSection(TrainConfig):
    """The recipe's `train` section: the loop's settings, and what is learned.

    Attributes:
        objective: `name` of an objective, and its settings.
    """

    objective: Deferred


def training(section: Deferred) -> tuple[TrainConfig, ObjectiveConfig]:
    """(loop, objective) of a recipe's `train` section; raises `RecipeError` with the line."""
    loaded = section.load(TrainSection)
    _, objective = loaded.objective.choose("name", CONFIGS)
    loop = {f.name: getattr(loaded, f.name) for f in dataclasses.fields(TrainConfig)}
    return TrainConfig(**loop), objective


def section_of(config: TrainConfig, objective: ObjectiveConfig) -> dict[str, Any]:
    """The other way: a `train` section with every setting written out, as JSON."""
    written: dict[str, Any] = dump(config) | {"objective": {"name": objective.name} | dump(objective)}
    return written
