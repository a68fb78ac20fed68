"""Deduplicate: of scenes that show the same, one stays; how many are out of each dataset is its redundancy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.candidates import Candidates, Rows
from brickyard.curate.selections.leaders import Leaders, leaders, similar_leaders
from brickyard.curate.selections.pictures import same_pictures
from brickyard.curate.selections.places import standing
from brickyard.shards.described import vectors as stored_vectors
from brickyard.shards.errors import CorpusError

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """What counts as the same.

    Attributes:
        by: "pictures" (the same ones, perhaps compressed again), "embedding" (what pictures show), "signature" (the
            shape of the cloud), or "place" (a vehicle that has not moved on: only within a sequence).
        least: of pictures, the share that must be the same (0.75); of the others, the cosine from which two scenes show
            the same (0.97); of embeddings, the mean of all is subtracted first.
        signature: with embeddings, the cosine that signatures must reach, too, where both scenes have one; 0 asks none.
        metres, seconds: with "place", scenes nearer than this in both are the same; unknown times are far.
        within: "corpus", "dataset" or "sequence": where a copy is looked for.
        prefer: of two that are the same, the one with more of this number stays; then the one whose key sorts first.
    """

    by: Literal["pictures", "embedding", "signature", "place"] = "embedding"
    least: float | None = None
    signature: float = 0.95
    metres: float = 0.5
    seconds: float = 3600.0
    within: Literal["corpus", "dataset", "sequence"] = "corpus"
    prefer: str = "n_points"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or not 0 <= self.signature <= 1 or self.metres < 0 or self.seconds < 0:
            raise ValueError("least and signature lie in 0..1, metres and seconds are not negative")

    @property
    def threshold(self) -> float:
        """`least`, or what it is by default."""
        return self.least if self.least is not None else 0.75 if self.by == "pictures" else 0.97


def deduplicate(scenes: Candidates, config: DeduplicateConfig) -> None:
    """Leave out copies. Raises `CorpusError` where nothing is known to compare by."""
    rows = scenes.alive
    value = np.nan_to_num(scenes.number(config.prefer)[rows], nan=-np.inf)
    rows = rows[np.argsort(-value, kind="stable")]
    find = {"place": _near_places, "pictures": _same_pictures}.get(config.by, _look_alikes)
    other, near = find(scenes, rows, config)
    out = np.flatnonzero(other >= 0)
    place = dict(zip(rows[out].tolist(), out.tolist(), strict=True))
    unit = " m apart" if config.by == "place" else ""

    def why(row: int) -> str:
        k = place[row]
        return f"deduplicate: as {scenes.keys[int(rows[other[k]])]} by {config.by}, {near[k]:.4g}{unit}"

    scenes.refuse(rows[out], why)
    datasets = scenes.text("dataset")
    whole, copies = Counter(datasets[rows]), Counter(datasets[rows[out]])
    told = ", ".join(f"{name} {copies[name] / n:.1%}" for name, n in sorted(whole.items()))
    scenes.notes.append(f"deduplicate by {config.by}: {len(out)} of {len(rows)} out; redundancy {told}")


def _look_alikes(scenes: Candidates, rows: Rows, config: DeduplicateConfig) -> Leaders:
    embedded = config.by == "embedding"
    vectors, _ = scenes.unit_vectors(config.by, scenes.mean(config.by) if embedded else None)
    cells = scenes.cells() if embedded else None
    group = _groups(scenes, config)[rows]

    def same(first: Rows, second: Rows) -> NDArray[np.bool_]:
        found = group[first] == group[second]
        if embedded and config.signature > 0:
            found &= _same_shape(scenes, rows[first], rows[second], config.signature)
        return np.asarray(found)

    return similar_leaders(vectors[rows], config.threshold, same, None if cells is None else cells[1][rows])


def _groups(scenes: Candidates, config: DeduplicateConfig) -> NDArray[np.int64]:
    """Of every scene a number; only those with the same one are compared."""
    columns = {"corpus": (), "dataset": ("dataset",), "sequence": ("dataset", "sequence")}[config.within]
    return scenes.codes(*columns) if columns else np.zeros(len(scenes), np.int64)


def _same_pictures(scenes: Candidates, rows: Rows, config: DeduplicateConfig) -> Leaders:
    group, hashes = _groups(scenes, config)[rows], scenes.hashes().take(rows)
    first, second, share = same_pictures(hashes, None, config.threshold)
    right = group[first] == group[second]
    return leaders(len(rows), first[right], second[right], share[right])


def _same_shape(scenes: Candidates, one: Rows, other: Rows, least: float) -> NDArray[np.bool_]:
    """bool (P,): whether signatures of two rows are similar, or not known of both."""
    if scenes.lacks("signature"):
        return np.ones(len(one), bool)
    shapes, known = scenes.unit_vectors("signature")
    alike = np.einsum("ij,ij->i", shapes[one], shapes[other]) >= least
    return np.asarray(alike | ~(known[one] & known[other]))


def _near_places(scenes: Candidates, rows: Rows, config: DeduplicateConfig) -> Leaders:
    places, known = stored_vectors(scenes.table, "place")
    if places.shape[1] != 3:
        raise CorpusError("no scene has a place, three numbers: run `brickyard describe`, or ask for none of it")
    where = np.full((len(rows), 3), np.nan)
    where[known[rows]] = places[rows[known[rows]]]
    times, sequence = scenes.number("timestamp_ns")[rows] / SECOND_NS, scenes.codes("dataset", "sequence")[rows]
    return standing(where, times, sequence, config.metres, config.seconds)
