"""Deduplicate: of scenes that show the same, one stays.

Scenes come in the order of preference; one is left out if it is nearly the same as one that stayed. So nothing is left
out for the sake of something that is out itself, and no chain of small differences swallows a drive.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.candidates import Candidates, Rows
from brickyard.curate.selections.neighbours import similar_pairs
from brickyard.shards.described import vectors as stored_vectors
from brickyard.shards.scene import Float32

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """What counts as the same.

    Attributes:
        by: "embedding" (what pictures show), "signature" (the shape of the cloud), or "place" (a vehicle that has not
            moved on: only within a sequence).
        least: cosine from which two scenes show the same; of embeddings, the mean of all is subtracted first.
        signature: with embeddings, the cosine that signatures must reach, too, where both scenes have one; 0 asks none.
        metres, seconds: with "place", scenes nearer than this in both are the same; unknown times are far.
        within: "corpus", "dataset" or "sequence": where a copy is looked for.
        prefer: of two that are the same, the one with more of this number stays; then the one earlier in the index.
    """

    by: Literal["embedding", "signature", "place"] = "embedding"
    least: float = 0.97
    signature: float = 0.95
    metres: float = 0.5
    seconds: float = 3600.0
    within: Literal["corpus", "dataset", "sequence"] = "corpus"
    prefer: str = "n_points"

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1 or not 0 <= self.signature <= 1 or self.metres < 0 or self.seconds < 0:
            raise ValueError("least and signature are cosines up to 1, metres and seconds not negative")


def deduplicate(scenes: Candidates, config: DeduplicateConfig) -> None:
    """Leave out copies. Raises `CorpusError` where nothing is known to compare by."""
    rows = scenes.alive
    value = np.nan_to_num(scenes.number(config.prefer)[rows], nan=-np.inf)
    rows = rows[np.argsort(-value, kind="stable")]
    first, second, how = _pairs(scenes, rows, config)
    kept = leaders(len(rows), first, second)
    out = np.flatnonzero(kept >= 0)
    said = dict(zip(zip(first.tolist(), second.tolist(), strict=True), how.tolist(), strict=True))
    keys, datasets = scenes.table.column("key"), scenes.text("dataset")
    place = {int(rows[k]): k for k in out.tolist()}

    def why(row: int) -> str:
        k = place[row]
        other = int(kept[k])
        unit = " m apart" if config.by == "place" else ""
        return f"deduplicate: as {keys[int(rows[other])].as_py()} by {config.by}, {said[k, other]:.4g}{unit}"

    scenes.refuse(rows[out], why)
    share = Counter(datasets[rows[out]])
    told = ", ".join(f"{name} {count}/{(datasets[rows] == name).sum()}" for name, count in sorted(share.items()))
    scenes.notes.append(f"deduplicate by {config.by}: {len(out)} of {len(rows)} out" + (f" ({told})" if told else ""))


def leaders(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (count,): for each that is left out, the earlier one that stays and is the same; -1 for those that stay.

    Args:
        first, second: pairs that are the same, first > second, sorted by first, then second.
    """
    kept = np.full(count, -1, np.int64)
    bounds = np.searchsorted(first, np.arange(count + 1))
    for k in np.unique(first).tolist():
        others = second[bounds[k] : bounds[k + 1]]
        stayed = others[kept[others] < 0]
        if len(stayed):
            kept[k] = stayed[0]
    return kept


def _pairs(
    scenes: Candidates, rows: Rows, config: DeduplicateConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """(first, second, how near) by number in `rows`."""
    if config.by == "place":
        return _near_places(scenes, rows, config)
    vectors, _ = scenes.unit_vectors(config.by, scenes.mean(config.by) if config.by == "embedding" else None)
    cells = scenes.cells() if config.by == "embedding" else None
    first, second, cosine = similar_pairs(vectors[rows], config.least, None if cells is None else cells[1][rows])
    keep = np.ones(len(first), bool)
    if config.within != "corpus":
        group = scenes.codes("dataset", *(("sequence",) if config.within == "sequence" else ()))[rows]
        keep &= group[first] == group[second]
    if config.by == "embedding" and config.signature > 0:
        keep &= _same_shape(scenes, rows[first], rows[second], config.signature)
    return first[keep], second[keep], cosine[keep]


def _same_shape(scenes: Candidates, one: Rows, other: Rows, least: float) -> NDArray[np.bool_]:
    """bool (P,): whether signatures of two rows are similar, or not known of both."""
    if scenes.lacks("signature"):
        return np.ones(len(one), bool)
    shapes, known = scenes.unit_vectors("signature")
    alike = np.einsum("ij,ij->i", shapes[one], shapes[other]) >= least
    return np.asarray(alike | ~(known[one] & known[other]))


def _near_places(
    scenes: Candidates, rows: Rows, config: DeduplicateConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    from scipy.spatial import KDTree

    places, known = stored_vectors(scenes.table, "place")
    times = scenes.number("timestamp_ns")[rows]
    group = scenes.codes("dataset", "sequence")[rows]
    found: list[NDArray[np.int64]] = []
    for number in np.unique(group):
        mine = np.flatnonzero((group == number) & known[rows])
        if len(mine) > 1:
            pairs = KDTree(places[rows[mine]]).query_pairs(config.metres, output_type="ndarray")
            found.append(mine[np.sort(pairs, axis=1)[:, ::-1]])
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    with np.errstate(invalid="ignore"):
        near = np.abs(times[pairs[:, 0]] - times[pairs[:, 1]]) <= config.seconds * SECOND_NS
    pairs = pairs[near]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    apart = np.linalg.norm(places[rows[pairs[:, 0]]] - places[rows[pairs[:, 1]]], axis=1)
    return pairs[:, 0], pairs[:, 1], apart.astype(np.float32)
