"""The plan of a build: every scene, grouped into tasks of one shard each, and the fingerprint of it all.

Planning lists folders and reads tables; no payload is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from brickyard.infra.extras import refuse_missing
from brickyard.infra.fingerprint import code_of
from brickyard.infra.recipe import Recipe, SourceConfig, build_config, source_root
from brickyard.infra.task import inputs, reason
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.index import Quarantined
from brickyard.shards.reasons import sentence
from brickyard.shards.storage import Store


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        tasks: scenes of each shard.
        kept: what the parts are signed with that were there before the corpus grew (see `infra.grown`); tasks of their
            numbers hold those of their scenes that are planned as they were.
        missing: scenes that cannot be built because files are not there.
        notices: what was seen below the roots and is not used; no scenes.
        fingerprint: configuration, code of every dataset (see `infra.fingerprint`) and inputs (names and sizes of the
            raw files, calibrations, not their bytes); once former code was accepted, also that (see `infra.accepted`).
    """

    tasks: tuple[tuple[SceneRef, ...], ...]
    missing: tuple[Quarantined, ...]
    notices: tuple[Quarantined, ...]
    fingerprint: dict[str, Any]
    kept: tuple[str, ...] = ()

    @property
    def refs(self) -> list[SceneRef]:
        return [ref for task in self.tasks for ref in task]


def make_plan(recipe: Recipe, folder: Path) -> Plan:
    """List all scenes of a recipe. A source whose plan ends in an error costs its own scenes, not those of the others.

    Raises:
        RecipeError: a wrong option, a root that is not there or holds nothing in its dataset's layout.
        BrickyardError: no scene is left to be built.
    """
    if not recipe.sources:
        raise RecipeError(f"recipe {recipe.name!r} names no sources")
    listed = _Listed()
    for number, config in enumerate(recipe.sources):
        _list_source(number, config, folder, listed, train_only=recipe.splits == "train")
    if not listed.refs:
        raise BrickyardError(f"no scene can be built; missing: {_sentence(listed.missing)}")
    _refuse_duplicates(listed.refs)
    tasks = group(listed.refs, recipe.shards.target_mib << 20, recipe.shards.max_scenes)
    code = {dataset: code_of(dataset, recipe.curate) for dataset in sorted({s.dataset for s in recipe.sources})}
    fingerprint = {"config": build_config(recipe), "code": code, "inputs": _inputs(listed.refs, listed.missing)}
    return Plan(tasks, tuple(listed.missing), tuple(listed.notices), fingerprint)


@dataclass
class _Listed:
    """What the plans of the sources gave so far."""

    refs: list[SceneRef] = field(default_factory=list)
    missing: list[Quarantined] = field(default_factory=list)
    notices: list[Quarantined] = field(default_factory=list)


def _list_source(number: int, config: SourceConfig, folder: Path, listed: _Listed, *, train_only: bool) -> None:
    """Add the scenes of one source, and what its store could not list."""
    source, options = config.resolve()
    where, before = f"sources[{number}] ({config.dataset})", len(listed.notices)
    store, found, others, failed = None, 0, 0, None
    try:
        store = Store(source_root(config, folder))
        if not store.exists():
            raise RecipeError(f"{where}: the folder {store.uri} does not exist")
        for item in source.plan(store, options):
            if isinstance(item, Notice):
                listed.notices.append(Quarantined(item.key, item.reason))
                continue
            if train_only and isinstance(item, SceneRef) and item.split != "train":
                others += 1
                continue
            if config.limit is not None and found >= config.limit:
                break
            found += 1
            if isinstance(item, Missing):
                listed.missing.append(Quarantined(item.key, item.reason))
            else:
                listed.refs.append(item)
    except RecipeError as problem:
        raise RecipeError(f"{problem}{_unlisted(store)}") from problem
    except (Exception, SystemExit) as problem:  # a damaged table, a store that does not answer, a plugin's own trouble
        refuse_missing(problem, config.dataset)
        failed = f"its plan ends in an error, after {found:,} scenes: {reason(problem)}"
    unlisted = [] if store is None else sorted(store.unlisted.items())
    listed.notices += [Quarantined(f"{config.dataset}/{place}", why) for place, why in unlisted]
    if not found and others and failed is None:
        failed = f'none of its {others:,} scenes is of the split "train", which the recipe\'s `splits` asks for'
    if not found and failed is None:
        seen = listed.notices[before:]
        if not seen:
            raise RecipeError(f"{where}: {store and store.uri} holds no scene in this dataset's layout")
        failed = f"none of what it holds is a scene; not used: {_sentence(seen)}"
    if failed is not None:
        listed.missing.append(Quarantined(f"{config.dataset}/sources[{number}]", failed))


def _unlisted(store: Store | None) -> str:
    if store is None or not store.unlisted:
        return ""
    return f"; not listed: {sentence(((f'./{place}', why) for place, why in store.unlisted.items()), 'places')}"


def _sentence(items: Sequence[Quarantined]) -> str:
    return sentence((item.key, item.reason) for item in items)


def _refuse_duplicates(refs: Sequence[SceneRef]) -> None:
    seen: set[str] = set()
    for ref in refs:
        if ref.key in seen:
            raise RecipeError(f"scene {ref.key} is planned twice: two sources of the recipe overlap")
        seen.add(ref.key)


def group(refs: Sequence[SceneRef], target: int, most: int) -> tuple[tuple[SceneRef, ...], ...]:
    """Consecutive scenes, cut where the raw bytes reach the target, the count its limit, or the dataset changes."""
    tasks: list[tuple[SceneRef, ...]] = []
    current: list[SceneRef] = []
    size = 0
    for ref in refs:
        full = size + ref.bytes_estimate > target or len(current) >= most
        if current and (full or ref.dataset != current[0].dataset):
            tasks.append(tuple(current))
            current, size = [], 0
        current.append(ref)
        size += ref.bytes_estimate
    return (*tasks, tuple(current)) if current else tuple(tasks)


def _inputs(refs: Sequence[SceneRef], missing: Sequence[Quarantined]) -> dict[str, Any]:
    """Counts, and a digest over every scene's files, sizes and details (not over where the root lies).

    A part keeps those of its own scenes; `infra.mended` says which changes of them a build may take in.
    """
    digest = xxhash.xxh3_64("".join(inputs(refs).values()).encode())
    for item in missing:
        digest.update(item.key.encode())
    return {"scenes": len(refs), "missing": len(missing), "digest": digest.hexdigest()}


def task_memory(raw_bytes: int, per_byte: float | None = None) -> int:
    """Memory to declare for a task: the libraries, the shard three times over (scenes, Parquet, file), one scene.

    Args:
        per_byte: what tasks of this dataset were seen to hold for a raw byte, above the libraries; a quarter is added.
    """
    return (512 << 20) + round((3 if per_byte is None else 1.25 * per_byte) * raw_bytes) + (256 << 20)
