"""Rows of a described index, made by hand: what curators look at, without scenes behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from brickyard.curate.selections.candidates import Candidates
from brickyard.curate.selections.curate import CurationRecipe, run_curators
from brickyard.infra.config import load
from brickyard.shards.index import SCHEMA

Rows = Sequence[Mapping[str, Any]]
DEFAULT = {
    "dataset": "a", "version": "1", "split": "train", "sequence": "", "domain": "indoor", "licence": "CC0-1.0",
    "n_points": 1000, "n_views": 1, "n_pairs": 0, "raw_bytes": 1 << 20, "dropped": "{}", "shard": "none", "blobs": [],
}  # fmt: skip


def row(name: str, *, figures: Mapping[str, float] | None = None, **columns: Any) -> dict[str, Any]:
    """A scene of dataset "a", split "train", 1000 points and pictures of its own, where nothing else is said."""
    whole = {
        **DEFAULT,
        "scene_id": name,
        "hashes": hashes(name),
        **columns,
        "figures": sorted((figures or {}).items()) or None,
    }
    return whole | {"key": f"{whole['dataset']}/{name}"}


def hashes(name: str) -> list[int]:
    """Those of four pictures, unlike any others."""
    return [xxhash.xxh3_64_intdigest(f"{name} {k}".encode()) for k in range(4)]


def table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def vectors(count: int, *, seed: int = 0, width: int = 16) -> np.ndarray:
    """float16 (count, width) of length 1, unlike each other."""
    found = np.random.default_rng(seed).normal(size=(count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def many(count: int, *, seed: int = 0, copies: int = 0) -> list[dict[str, Any]]:
    """Scenes of three datasets with embeddings; the last `copies` look nearly as the first ones."""
    rng = np.random.default_rng(seed)
    looks = vectors(count, seed=seed).astype(np.float32)
    if copies:
        looks[-copies:] = looks[:copies] + rng.normal(scale=0.005, size=(copies, looks.shape[1]))
    return [
        row(
            f"{k:05d}", dataset="abc"[k * k % 3], split="val" if k % 11 == 5 else "train", sequence=f"s{k // 3}",
            n_points=int(rng.integers(1, 6)) * 1000, embedding=looks[k].astype(np.float16).tolist(),
            figures={"sharpness": float(rng.uniform())},
        )
        for k in range(count)
    ]  # fmt: skip


def curated(
    rows: Sequence[Mapping[str, Any]], steps: str, against: Sequence[Mapping[str, Any]] | None = None
) -> Candidates:
    """By a recipe: `steps` is a YAML list, such as "[guard: {}]"."""
    recipe = load(f"curators: {steps}", CurationRecipe, where="recipe")
    return run_curators(table(rows), recipe, None if against is None else table(against))


def outcome(scenes: Candidates) -> dict[str, tuple[float, str]]:
    """Scene id -> weight and reason."""
    ids = scenes.table.column("scene_id").to_pylist()
    return dict(zip(ids, zip(scenes.weight.tolist(), scenes.reason, strict=True), strict=True))


def out(scenes: Candidates) -> dict[str, str]:
    """Scene id -> reason, of what is out."""
    return {name: why for name, (weight, why) in outcome(scenes).items() if not weight}
