"""A recipe: which raw data, how it is curated and sharded, what is trained on it and how that is evaluated.

One YAML file serves every verb; `plan` and `build` read the first half of it, `train` and `evaluate` the second.
A recipe can extend another one, be changed by options and take its roots from the environment (`infra.layers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from brickyard.curate.pipeline import CurateConfig
from brickyard.curate.superpixel_files import SuperpixelFiles
from brickyard.infra.config import Deferred, dump
from brickyard.infra.layers import compose_recipe, with_absolute_roots, with_variables
from brickyard.ingest.source import Source, find_source
from brickyard.shards.containers import ContainerName
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store
from brickyard.shards.uri import Location, redacted


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One raw dataset.

    Attributes:
        dataset: name of an installed source (see `brickyard sources`).
        root: its root folder, or a URI; `${NAME}` in it is a variable of the environment.
        options: the source's own options.
        limit: take only the first so many scenes.
        expected: split -> scenes that there should be; `brickyard plan` sets them beside what it found.
    """

    dataset: str
    root: str
    options: Deferred = field(default_factory=Deferred)
    limit: int | None = None
    expected: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise ValueError("limit must be positive")
        if any(scenes < 0 for scenes in self.expected.values()):
            raise ValueError("expected scenes must not be negative")

    def resolve(self) -> tuple[Source, Any]:
        """The source and its checked options; raises `RecipeError` with the line."""
        try:
            source = find_source(self.dataset)
        except RecipeError as problem:
            raise self.options.error(str(problem)) from problem
        return source, self.options.load(source.options)


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """How scenes become shards.

    Attributes:
        target_mib: raw bytes that go into one shard, about; also the unit of work of the job.
        max_scenes: scenes in one shard at most, up to 4096.
        container: "parquet", or "webdataset" (tar files for stock webdataset); the same scenes, the same stream.
        compressor: "zstd" is smaller, "lz4" decodes faster.
        scene_timeout_s: a scene that takes longer is quarantined.
    """

    target_mib: int = 128
    max_scenes: int = 64
    container: ContainerName = "parquet"
    compressor: Literal["zstd", "lz4"] = "zstd"
    scene_timeout_s: float = 900.0

    def __post_init__(self) -> None:
        if not 1 <= self.target_mib <= 1024:
            raise ValueError("target_mib must be between 1 and 1024")
        if not 1 <= self.max_scenes <= 4096:
            raise ValueError("max_scenes must be between 1 and 4096")
        if self.scene_timeout_s <= 0:
            raise ValueError("scene_timeout_s must be positive")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: shown in reports.
        sources: raw datasets, in the order their scenes stand in the corpus.
        splits: "all", or "train": then scenes of other splits are not planned, as if they were not there.
        curate: what is worked out of the raw data before scenes are written.
        shards: how scenes become shards.
        train, evaluate: read by the verbs of these names.
    """

    name: str
    sources: tuple[SourceConfig, ...] = ()
    splits: Literal["all", "train"] = "all"
    curate: CurateConfig = field(default_factory=CurateConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    train: Deferred = field(default_factory=Deferred)
    evaluate: Deferred = field(default_factory=Deferred)


def load_recipe(path: Path, settings: Sequence[str] = (), *, raw: bool = True) -> tuple[Recipe, Path]:
    """(recipe, folder that relative roots start from); raises `RecipeError`.

    Args:
        settings: what `--set` changes, such as "train.lr=0.001".
        raw: whether raw data will be read. If not, variables in roots need not be set where this runs.
    """
    composed = compose_recipe(path, settings)
    recipe = (with_variables(composed) if raw else composed).load(Recipe)
    maps = recipe.curate.superpixels
    if isinstance(maps, SuperpixelFiles):
        found = replace(maps, root=absolute_root(maps.root, path.resolve().parent))
        if raw and not Store(found.root).exists():
            raise RecipeError(f"{path.name}: curate.superpixels.root: {found.root} is not there")
        recipe = replace(recipe, curate=replace(recipe.curate, superpixels=found))
    for source in recipe.sources:
        source.resolve()
    return recipe, path.resolve().parent


def resolved_recipe(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe as one document that runs from any folder, as JSON: what it extends and `settings` are in it, roots
    are absolute. Variables stay variables, and credentials are left out: it may be kept and shown."""
    resolved: dict[str, Any] = redacted(
        with_absolute_roots(compose_recipe(path, settings), path.resolve().parent).plain()
    )
    return resolved


def source_root(source: SourceConfig, folder: Path) -> str:
    """The root as an absolute path or URI (a `Location`, fit to be shown)."""
    return absolute_root(source.root, folder)


def absolute_root(root: str, folder: Path) -> str:
    """A root as an absolute path, a relative one from `folder` on, or URI (a `Location`, fit to be shown)."""
    if "://" in root:
        return Location(root)
    return str((folder / Path(root).expanduser()).resolve())


def build_config(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the bytes of its corpus (not where the raw data lie), as JSON."""
    config: dict[str, Any] = redacted(
        {
            "sources": [
                {"dataset": s.dataset, "options": dump(s.resolve()[1]), "limit": s.limit} for s in recipe.sources
            ],
            "curate": dump(recipe.curate),
            "shards": dump(recipe.shards),
            **({} if recipe.splits == "all" else {"splits": recipe.splits}),  # so that older builds stay what they are
        }
    )
    return config
