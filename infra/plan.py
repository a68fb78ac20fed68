"""The plan of a build: every scene, grouped into tasks of one shard each, and the fingerprint of it all.

Planning lists folders and reads tables; no payload is opened. `estimate` then reads, curates and encodes a few scenes
in memory, writes nothing, and extrapolates what it measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import xxhash

from infra.recipe import Recipe, build_config, source_root
from infra.task import make_scene, reason
from ingest.source import Missing, Notice, SceneRef, source_distributions
from shards.encode import FORMAT_VERSION
from shards.errors import RecipeError
from shards.index import Quarantined
from shards.storage import Store

CODE = ("shards", "curate", "ingest", "infra/plan.py", "infra/task.py")
LIBRARIES = ("numpy", "numcodecs", "pyarrow", "scikit-image", "scipy", "pillow", "nuscenes-devkit")


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        tasks: scenes of each shard.
        missing: scenes that cannot be built because files are not there.
        notices: what was seen below the roots and is not used; no scenes.
        fingerprint: configuration, code and inputs (names and sizes of the raw files, calibrations, not their bytes).
    """

    tasks: tuple[tuple[SceneRef, ...], ...]
    missing: tuple[Quarantined, ...]
    notices: tuple[Quarantined, ...]
    fingerprint: dict[str, Any]

    @property
    def refs(self) -> list[SceneRef]:
        return [ref for task in self.tasks for ref in task]


def make_plan(recipe: Recipe, folder: Path) -> Plan:
    """List all scenes of a recipe. Raises `RecipeError` for a root that is not there or holds no scene."""
    refs: list[SceneRef] = []
    missing: list[Quarantined] = []
    notices: list[Quarantined] = []
    for number, config in enumerate(recipe.sources):
        source, options = config.resolve()
        root = source_root(config, folder)
        store = Store(root)
        if not store.exists():
            raise RecipeError(f"sources[{number}] ({config.dataset}): the folder {root} does not exist")
        found = 0
        for item in source.plan(store, options):
            if isinstance(item, Notice):
                notices.append(Quarantined(item.key, item.reason))
                continue
            if config.limit is not None and found >= config.limit:
                break
            found += 1
            if isinstance(item, Missing):
                missing.append(Quarantined(item.key, item.reason))
            else:
                refs.append(item)
        if not found:
            raise RecipeError(f"sources[{number}] ({config.dataset}): {root} holds no scene in this dataset's layout")
    if not recipe.sources:
        raise RecipeError(f"recipe {recipe.name!r} names no sources")
    _refuse_duplicates(refs)
    tasks = _group(refs, recipe.shards.target_mib << 20, recipe.shards.max_scenes)
    code = code_version([source.dataset for source in recipe.sources])
    fingerprint = {"config": build_config(recipe), "code": code, "inputs": _inputs(refs, missing)}
    return Plan(tasks, tuple(missing), tuple(notices), fingerprint)


def code_version(datasets: Sequence[str]) -> dict[str, str]:
    """What code makes the bytes: digests of ours, versions of the libraries and of the distributions of the sources."""
    code = {name: _code_digest(Path(str(files(name.partition("/")[0]))).parent / name) for name in CODE}
    libraries = {name: version(name) for name in LIBRARIES}
    return {"format": str(FORMAT_VERSION)} | code | libraries | source_distributions(datasets)


def _code_digest(root: Path) -> str:
    """Of a file, or of the code in a folder (the simulator makes raw data, not corpora)."""
    digest = xxhash.xxh3_64()
    paths = sorted([*root.rglob("*.py"), *root.rglob("*.json")]) if root.is_dir() else [root]
    for path in paths:
        name = path.relative_to(root.parent).as_posix()
        if not name.startswith("ingest/simulate/"):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _refuse_duplicates(refs: Sequence[SceneRef]) -> None:
    seen: set[str] = set()
    for ref in refs:
        if ref.key in seen:
            raise RecipeError(f"scene {ref.key} is planned twice: two sources of the recipe overlap")
        seen.add(ref.key)


def _group(refs: Sequence[SceneRef], target: int, most: int) -> tuple[tuple[SceneRef, ...], ...]:
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
    """Counts, and a digest over every scene's files, sizes and details (not over where the root lies)."""
    digest = xxhash.xxh3_64()
    for ref in refs:
        entry = [
            ref.key,
            ref.split,
            ref.sequence,
            dict(ref.files),
            ref.details,
            ref.points_estimate,
            ref.bytes_estimate,
        ]
        digest.update(json.dumps(entry, sort_keys=True, default=str).encode())
    for item in missing:
        digest.update(item.key.encode())
    return {"scenes": len(refs), "missing": len(missing), "digest": digest.hexdigest()}


def estimate(plan: Plan, recipe: Recipe, *, cpus: int, samples: int = 1) -> dict[str, Any]:
    """Extrapolate a build from `samples` scenes of each dataset, made in memory.

    Returns:
        {"scenes", "missing", "shards", "points", "bytes_in", "bytes_out", "core_seconds", "seconds",
        "memory_bytes", "datasets": [...]}; `bytes_out` and `core_seconds` are None where no sample could be made.
    """
    groups: dict[str, list[SceneRef]] = {}
    for ref in plan.refs:
        groups.setdefault(ref.dataset, []).append(ref)
    rows = [_estimate_dataset(name, refs, recipe, samples) for name, refs in groups.items()]
    largest = max((sum(r.bytes_estimate for r in task) for task in plan.tasks), default=0)
    core_seconds = _total(rows, "core_seconds")
    return {
        "recipe": recipe.name,
        "scenes": len(plan.refs),
        "missing": [{"key": q.key, "reason": q.reason} for q in plan.missing],
        "notices": [{"key": q.key, "reason": q.reason} for q in plan.notices],
        "shards": len(plan.tasks),
        "points": sum(ref.points_estimate for ref in plan.refs),
        "bytes_in": sum(ref.bytes_estimate for ref in plan.refs),
        "bytes_out": _total(rows, "bytes_out"),
        "core_seconds": core_seconds,
        "cpus": cpus,
        "seconds": None if core_seconds is None else core_seconds / max(1, min(cpus, len(plan.tasks))),
        "memory_bytes": task_memory(largest),
        "datasets": rows,
    }


def task_memory(raw_bytes: int) -> int:
    """Memory to declare for a task: the libraries, the shard three times over (scenes, Parquet, file), one scene."""
    return (512 << 20) + 3 * raw_bytes + (256 << 20)


def _estimate_dataset(name: str, refs: Sequence[SceneRef], recipe: Recipe, samples: int) -> dict[str, Any]:
    seconds, bytes_in, bytes_out, problems = 0.0, 0, 0, []
    for ref in refs[:: max(1, len(refs) // max(1, samples))][:samples]:
        begin = time.perf_counter()
        try:
            encoded = make_scene(ref, recipe.curate, recipe.shards)
        except Exception as problem:  # the build would quarantine the scene
            problems.append(f"{ref.key}: {reason(problem)}")
            continue
        seconds += time.perf_counter() - begin
        bytes_in += max(1, ref.bytes_estimate)
        bytes_out += len(encoded.header) + sum(map(len, encoded.blobs.values()))
    total = sum(ref.bytes_estimate for ref in refs)
    return {
        "dataset": name,
        "scenes": len(refs),
        "points": sum(ref.points_estimate for ref in refs),
        "bytes_in": total,
        "bytes_out": round(bytes_out * total / bytes_in) if bytes_in else None,
        "core_seconds": seconds * total / bytes_in if bytes_in else None,
        "problems": problems,
    }


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = [row[name] for row in rows]
    return None if any(v is None for v in values) else sum(values)
