"""What a plan will cost: a few scenes are made in memory, nothing is written, what was measured is extrapolated.

Where no sample can be made (the data are not here yet, or only their listing is), rates measured elsewhere stand in:
those that `brickyard plan --json` prints.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brickyard.infra.events import FOLDER
from brickyard.infra.extras import refuse_missing
from brickyard.infra.plan import Plan, task_memory
from brickyard.infra.recipe import Recipe
from brickyard.infra.story import measured_rates, read_story
from brickyard.infra.task import make_scene, reason
from brickyard.ingest.source import SceneRef
from brickyard.shards.documents import Every, Maybe, read_file
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

_LONGEST = 5
Rates = Mapping[str, Mapping[str, float]]
"""Dataset -> "seconds" (of one core), "bytes_out", and, where it is known, "memory"; each for a raw byte."""


def estimate(plan: Plan, recipe: Recipe, *, cpus: int, samples: int = 1, rates: Rates | None = None) -> dict[str, Any]:
    """Extrapolate a build.

    Args:
        samples: scenes of each dataset that are made in memory.
        rates: of datasets of which none can be made, from `read_rates`.

    Returns:
        {"scenes", "missing", "shards", "points", "bytes_in", "bytes_out", "core_seconds", "seconds",
        "memory_bytes", "datasets": [...], "splits": [...], "longest": [...], "rates"}; what follows from rates is None
        where there are none.
    """
    groups: dict[str, list[SceneRef]] = {}
    for ref in plan.refs:
        groups.setdefault(ref.dataset, []).append(ref)
    rows = [_estimate_dataset(name, refs, recipe, samples, rates or {}) for name, refs in groups.items()]
    known = {row["dataset"]: row["rates"] for row in rows if row["rates"]}
    largest = max((sum(r.bytes_estimate for r in task) for task in plan.tasks), default=0)
    core_seconds = _total(rows, "core_seconds")
    longest = _longest(plan, known)
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
        "seconds": None if core_seconds is None else max(core_seconds / max(1, cpus), *_seconds(longest)),
        "memory_bytes": task_memory(largest),
        "datasets": rows,
        "splits": compare_splits(plan, recipe),
        "longest": longest,
        "rates": known,
    }


def read_rates(place: str) -> Rates:
    """Rates of a corpus by the log of its build (a folder or URI), or of what `brickyard plan --json` printed.

    Raises:
        RecipeError: it is neither.
    """
    if (store := Store(place)).exists(FOLDER):
        return measured_rates(read_story(store).tasks)
    hint = "it should hold what `brickyard plan --json` printed, or be a corpus with the log of its build"
    shape = {"rates": Every({"seconds": float, "bytes_out": float, "memory": Maybe(float)})}
    found: Rates = read_file(Path(place), shape, error=RecipeError, hint=hint)["rates"]
    for name, each in found.items():
        if min(each.values()) < 0:
            raise RecipeError(f"{place}: rates.{name} must not be negative")
    return found


def compare_splits(plan: Plan, recipe: Recipe) -> list[dict[str, Any]]:
    """Scenes by dataset and split, beside those that the recipe expects (None where it does not say)."""
    found = Counter((ref.dataset, ref.split) for ref in plan.refs)
    expected: Counter[tuple[str, str]] = Counter()
    for source in recipe.sources:
        wanted = {s: scenes for s, scenes in source.expected.items() if recipe.splits == "all" or s == "train"}
        expected.update({(source.dataset, split): scenes for split, scenes in wanted.items()})
    names = list(dict.fromkeys(name for name, _ in [*found, *expected]))
    pairs = sorted(found.keys() | expected.keys(), key=lambda pair: (names.index(pair[0]), pair[1]))
    return [
        {"dataset": name, "split": split, "scenes": found[name, split], "expected": expected.get((name, split))}
        for name, split in pairs
    ]


def _longest(plan: Plan, rates: Rates) -> list[dict[str, Any]]:
    """The tasks that take longest, or have most raw bytes where rates are unknown."""
    sizes = [(sum(ref.bytes_estimate for ref in refs), refs) for refs in plan.tasks]
    tasks: list[dict[str, Any]] = [
        {
            "first": refs[0].key,
            "scenes": len(refs),
            "bytes_in": size,
            "core_seconds": size * rates[refs[0].dataset]["seconds"] if refs[0].dataset in rates else None,
        }
        for size, refs in sizes
    ]
    return sorted(tasks, key=lambda t: (-(t["core_seconds"] or 0.0), -t["bytes_in"], t["first"]))[:_LONGEST]


def _seconds(tasks: Sequence[Mapping[str, Any]]) -> list[float]:
    return [task["core_seconds"] or 0.0 for task in tasks]


def _estimate_dataset(
    name: str, refs: Sequence[SceneRef], recipe: Recipe, samples: int, rates: Rates
) -> dict[str, Any]:
    measured, problems = _measure(refs, recipe, samples)
    known = measured or rates.get(name)
    total = sum(ref.bytes_estimate for ref in refs)
    return {
        "dataset": name,
        "scenes": len(refs),
        "points": sum(ref.points_estimate for ref in refs),
        "bytes_in": total,
        "bytes_out": round(known["bytes_out"] * total) if known else None,
        "core_seconds": known["seconds"] * total if known else None,
        "rates": dict(known) if known else None,
        "elsewhere": measured is None and known is not None,
        "problems": problems,
    }


def _measure(refs: Sequence[SceneRef], recipe: Recipe, samples: int) -> tuple[dict[str, float] | None, list[str]]:
    """(rates, why samples failed)."""
    seconds, bytes_in, bytes_out, problems = 0.0, 0, 0, []
    for ref in refs[:: max(1, len(refs) // max(1, samples))][:samples]:
        begin = time.perf_counter()
        try:
            encoded = make_scene(ref, recipe.curate, recipe.shards)
        except Exception as problem:  # the build would quarantine the scene
            refuse_missing(problem, ref.key)
            problems.append(f"{ref.key}: {reason(problem)}")
            continue
        seconds += time.perf_counter() - begin
        bytes_in += max(1, ref.bytes_estimate)
        bytes_out += len(encoded.header) + sum(map(len, encoded.blobs.values()))
    measured = {"seconds": seconds / bytes_in, "bytes_out": bytes_out / bytes_in} if bytes_in else None
    return measured, problems


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = [row[name] for row in rows]
    return None if any(v is None for v in values) else sum(values)
