"""A selection: which scenes of a corpus to train on, how often, and why. Shards never move; curation writes these.

One Parquet file: a row per chosen scene with its weight and the reason, and in the file's metadata the corpus it
belongs to. Weight 1 is one visit an epoch, 3 are three, 0.25 is a visit in every fourth epoch's worth of seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.described import described, numbers
from brickyard.shards.documents import document_bytes, read_document
from brickyard.shards.errors import NONSENSE, CorpusError
from brickyard.shards.guard import open_parquet, read_columns
from brickyard.shards.scene_list import SceneList
from brickyard.shards.seal import read_sealed, write_sealed
from brickyard.shards.storage import Store

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
_NOTE = {"corpus": str, "about": dict}
_MAX_BYTES = 1 << 30
_MAX_WEIGHT = 1000.0


@dataclass(frozen=True)
class Selection:
    """Chosen scenes.

    Attributes:
        corpus: digest of the manifest it was made over.
        keys: "dataset/scene_id", each once.
        weights: float32 (N,), above 0 and at most 1000.
        reasons: why each was chosen (or weighted), in words.
        about: how it was made, as JSON.
    """

    corpus: str
    keys: tuple[str, ...]
    weights: NDArray[np.float32]
    reasons: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.weights) == len(self.reasons) == len(set(self.keys)):
            raise CorpusError("a selection has one weight and one reason for each scene, and each scene once")
        if len(self.weights) and not (self.weights > 0).all() & (self.weights <= _MAX_WEIGHT).all():
            raise CorpusError(f"weights of a selection must be above 0 and at most {_MAX_WEIGHT:g}")

    def rows(self, corpus: Corpus, seed: int = 0) -> NDArray[np.int64]:
        """Rows of the index for a stream, repeated by weight; what is left of a weight below one is drawn by
        (seed, key), so the same seed gives the same rows.

        Raises:
            CorpusError: the selection belongs to another corpus, which this one has not grown from either, or names a
                scene that this one has not.
        """
        if not corpus.known_as(self.corpus):
            raise CorpusError(
                f"the selection was made over the corpus {self.corpus}, {corpus.store.uri} is "
                f"{corpus.manifest['digest']}: select again"
            )
        place = {key: row for row, key in enumerate(corpus.keys)}
        if unknown := [key for key in self.keys if key not in place]:
            raise CorpusError(f"the selection names {unknown[0]}, which {corpus.store.uri} does not hold")
        found: list[int] = []
        for key, weight in zip(self.keys, self.weights.tolist(), strict=True):
            whole = int(weight)
            drawn = xxhash.xxh3_64_intdigest(f"{seed}/{key}".encode()) / 2**64 < weight - whole
            found += [place[key]] * (whole + drawn)
        return np.array(found, np.int64)


def select(
    corpus: Corpus,
    *,
    datasets: Sequence[str] = (),
    splits: Sequence[str] = (),
    domains: Sequence[str] = (),
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    only: SceneList | None = None,
    without: SceneList | None = None,
) -> Selection:
    """The scenes that meet every condition.

    Args:
        datasets, splits, domains: allowed values; empty allows all.
        at_least, at_most: limits on columns of numbers and on figures, such as {"n_points": 1000, "sharpness": 0.3}; a
            scene whose value is unknown does not meet one.
        weights: weight of the scenes of a dataset or domain, such as {"outdoor": 0.5}; their product where both are
            named, 1 where neither is.
        only, without: lists of scenes to choose from, and to leave out.

    Raises:
        CorpusError: an unknown column, a weight for a name that no chosen scene has, or a list that names no scene.
    """
    mask = np.ones(len(corpus), bool)
    for column, allowed in (("dataset", datasets), ("split", splits), ("domain", domains)):
        if allowed:
            mask &= pc.is_in(corpus.index.column(column), pa.array(list(allowed))).to_numpy(zero_copy_only=False)
    table = described(corpus) if at_least or at_most else corpus.index
    for limits, compare in ((at_least or {}, pc.greater_equal), (at_most or {}, pc.less_equal)):
        for column, limit in limits.items():
            mask &= pc.fill_null(compare(numbers(table, column), limit), False).to_numpy(zero_copy_only=False)
    for listed, wanted in ((only, True), (without, False)):
        if listed is not None:
            mask &= listed.mask(corpus) == wanted
    conditions = {
        "only": only and f"{only.name} ({len(only.names)} names)",
        "without": without and f"{without.name} ({len(without.names)} names)",
        "datasets": list(datasets), "splits": list(splits), "domains": list(domains),
        "at_least": dict(at_least or {}), "at_most": dict(at_most or {}),
    }  # fmt: skip
    used = {name: value for name, value in conditions.items() if value}
    keys = tuple(corpus.keys[row] for row in np.flatnonzero(mask))
    reason = json.dumps(used, sort_keys=True) if used else "all"
    weight = _weights(corpus, mask, weights or {})
    about = {"conditions": used} | ({"weights": dict(weights)} if weights else {})
    return Selection(corpus.manifest["digest"], keys, weight, (reason,) * len(keys), about)


def _weights(corpus: Corpus, mask: NDArray[np.bool_], weights: Mapping[str, float]) -> NDArray[np.float32]:
    result, known = np.ones(int(mask.sum()), np.float32), set[str]()
    for column in ("dataset", "domain"):
        names = np.asarray(corpus.index.column(column).to_pylist(), object)[mask]
        known |= set(names)
        result *= np.array([weights.get(name, 1.0) for name in names], np.float32)
    if unknown := sorted(weights.keys() - known):
        raise CorpusError(f"a weight for {unknown[0]!r}, but the chosen scenes are of {', '.join(sorted(known))}")
    return result


def write_selection(store: Store, name: str, selection: Selection) -> None:
    """Write to a file of a store; it appears whole or not at all."""
    arrays = [
        pa.array(selection.keys, pa.string()),
        pa.array(selection.weights),
        pa.array(selection.reasons, pa.string()),
    ]
    about = {"corpus": selection.corpus, "about": dict(selection.about)}
    try:
        note = document_bytes(about, indent=None, sort=True).decode()
        data = write_sealed(pa.Table.from_arrays(arrays, schema=_SCHEMA), {"brickyard-selection": note}, rows=1 << 20)
    except ValueError as problem:
        raise CorpusError(f"the selection {name} cannot be written: {problem}") from problem
    if data.size > _MAX_BYTES:
        raise CorpusError(f"the selection {name} has {data.size} bytes, too many: select by fewer words")
    store.write(name, data)


def read_selection(store: Store, name: str) -> Selection:
    """Read what `write_selection` wrote; raises `CorpusError` naming a file that is missing, damaged or none."""
    data = read_sealed(store, name, _MAX_BYTES)
    try:
        file = open_parquet(data)
        note = read_document((file.metadata.metadata or {})[b"brickyard-selection"], "its note", _NOTE)
        table = read_columns(file, _SCHEMA.names).cast(_SCHEMA)
        keys, reasons = (tuple(table.column(c).to_pylist()) for c in ("key", "reason"))
        return Selection(note["corpus"], keys, table.column("weight").to_numpy(), reasons, note["about"])
    except (pa.ArrowException, OSError, CorpusError, *NONSENSE) as problem:
        raise CorpusError(f"{store.uri}/{name} is damaged or no selection: {problem}") from problem
