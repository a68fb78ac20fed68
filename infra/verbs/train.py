"""`brickyard train`: the recipe's objective, on a corpus or several by weight; in this process, under torchrun, or with
Ray Train.

The run's folder keeps `recipe.yaml`: the recipe as it was used, with all that it extends, every option, the corpora and
every default of its `train` section written out. It makes the same run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brickyard.evaluate.protocols.linear_probe import ProbeConfig
from brickyard.evaluate.protocols.registry import choose
from brickyard.evaluate.watched import Watched
from brickyard.infra.config import Deferred, dump, to_yaml
from brickyard.infra.corpora import CorpusConfig, from_arguments, open_portions
from brickyard.infra.layers import CORPORA, compose_recipe, with_absolute_roots, with_variables
from brickyard.infra.recipe import Recipe, load_recipe, resolved_recipe
from brickyard.infra.verbs.text import duration
from brickyard.shards.atomic import write_whole
from brickyard.shards.cache import CacheConfig
from brickyard.shards.errors import RecipeError
from brickyard.shards.uri import redacted
from brickyard.train.loop import TrainConfig, train
from brickyard.train.objectives import CONFIGS, ObjectiveConfig
from brickyard.train.running.records import read_config

RECIPE = "recipe.yaml"


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    chief = os.environ.get("RANK", "0") == "0"
    args.json = args.json and chief  # under torchrun only one of the processes answers
    recipe, _ = load_recipe(args.recipe, args.set, raw=False)
    config, objective = training(recipe.train)
    measured = watched(recipe.train)
    if args.seed is not None:
        config = dataclasses.replace(config, seed=args.seed)
    cache = None if args.cache is None else CacheConfig(folder=args.cache, max_bytes=args.cache_gib << 30)
    given = from_arguments(args.corpus) or corpora_of(args.recipe, args.set)
    begun = any((args.out / "checkpoints").glob("step-*"))
    corpora_then = read_config(args.out)["corpus"].split("/") if begun else []
    used, portions = open_portions(given, args.selection, config, cache, corpora_then)
    if chief:
        for store in [portion.corpus.store for portion in portions if portion.corpus.newer]:
            print(f"{store.uri} has grown since: the scenes of then are trained on", file=sys.stderr)
    kept = resolved_recipe(args.recipe, args.set)
    written = kept.get("train", {}).get("corpora")
    corpora = written if written and not args.corpus and used == given else redacted(dump(used))
    also = {"watch": watch} if (watch := kept.get("train", {}).get("watch")) else {}
    resolved = to_yaml(kept | {"train": section_of(config, objective) | {"corpora": corpora} | also}).encode()
    if chief and not begun:
        write_whole(args.out / RECIPE, resolved)
    if args.workers is not None or args.address is not None:
        from brickyard.infra.ray_train import Part, Training, train_on_ray

        job = Training(
            config=config,
            settings=objective,
            parts=tuple(map(Part.of, portions)),
            out=str(args.out.resolve()),
            cache=cache,
            continue_with=args.continue_with,
            watched=measured,
        )
        summary = train_on_ray(job, workers=args.workers or 1, address=args.address)
    else:
        watch = measured.watch(portions[0].corpus) if measured else None
        summary = train(config, objective, portions, Path(args.out), continue_with=args.continue_with, watch=watch)
    if chief:  # a run that went on may have other settings where they decide no number
        write_whole(args.out / RECIPE, resolved)
    if not args.json and chief:
        print(
            f"{args.out}: {summary['objective']}, {summary['steps']} steps over {summary['scenes']} scenes in "
            f"{duration(summary['seconds'])}, last loss {summary['last_loss']}"
        )
    return {"run": str(args.out)} | summary, 0


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """The recipe's `train.watch` section: a protocol on a few scenes, every so many steps, in the log and on the page.

    Attributes:
        every: steps, a multiple of `checkpoint_every`: the checkpoint with the best number is kept.
        network: "student", or "teacher" where the objective has one that follows the student.
        protocol: name of a protocol, such as "knn" or "linear_probe".
        settings: of the protocol; say `taxonomy` and `dataset`.
        train_scenes, val_scenes: of the first corpus, at most so many scenes, drawn once and for all; the settings
            `fraction` and `val_scenes` of the protocol count more.
    """

    every: int
    network: Literal["student", "teacher"] = "student"
    protocol: str = "knn"
    settings: Deferred = field(default_factory=Deferred)
    train_scenes: int = 20
    val_scenes: int = 10

    def __post_init__(self) -> None:
        if min(self.every, self.train_scenes, self.val_scenes) < 1:
            raise ValueError("every, train_scenes and val_scenes must be positive")

    def resolve(self) -> Watched:
        """The protocol with its settings; raises `RecipeError` with the line."""
        try:
            chosen = choose(self.protocol, ProbeConfig())
        except RecipeError as problem:
            raise self.settings.error(str(problem)) from problem
        loaded = self.settings.load(chosen.protocol.config)
        set_here = {key: getattr(loaded, key) for key in self.settings.plain()}
        config = dataclasses.replace(chosen.config, **set_here)
        return Watched(
            every=self.every,
            network=self.network,
            chosen=dataclasses.replace(chosen, config=config),
            train_scenes=self.train_scenes,
            val_scenes=self.val_scenes,
        )


@dataclass(frozen=True, kw_only=True)
class TrainSection(TrainConfig):
    """The recipe's `train` section: the loop's settings, and what is learned.

    Attributes:
        objective: `name` of an objective, and its settings.
        corpora: what to train on, unless the command line says it; several are mixed by weight.
        watch: what is measured while training goes on, if anything.
    """

    objective: Deferred
    corpora: tuple[CorpusConfig, ...] = ()
    watch: WatchConfig | None = None


def training(section: Deferred) -> tuple[TrainConfig, ObjectiveConfig]:
    """(loop, objective) of a recipe's `train` section; raises `RecipeError` with the line."""
    loaded = section.load(TrainSection)
    _, objective = loaded.objective.choose("name", CONFIGS)
    loop = {f.name: getattr(loaded, f.name) for f in dataclasses.fields(TrainConfig)}
    return TrainConfig(**loop), objective


def watched(section: Deferred) -> Watched | None:
    """What the section wants measured while training goes on; raises `RecipeError` with the line."""
    watch = section.load(TrainSection).watch
    return None if watch is None else watch.resolve()


def corpora_of(path: Path, settings: Sequence[str] = ()) -> tuple[CorpusConfig, ...]:
    """A recipe's `train.corpora`, with their variables replaced and absolute places; raises `RecipeError`."""
    folder = path.resolve().parent
    whole = with_absolute_roots(with_variables(compose_recipe(path, settings), roots=CORPORA), folder)
    return tuple(entry.located(folder) for entry in whole.load(Recipe).train.load(TrainSection).corpora)


def section_of(config: TrainConfig, objective: ObjectiveConfig) -> dict[str, Any]:
    """The other way: a `train` section with every setting written out, as JSON."""
    written: dict[str, Any] = dump(config) | {"objective": {"name": objective.name} | dump(objective)}
    return written
