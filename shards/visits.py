"""Which scene is visited at which place: one corpus or a mixture of several, as a pure function of place and seed.

Each portion of a mixture (a corpus, or some rows of one) runs through its own epochs, each a permutation of its scenes.
A fixed pattern of a thousand places says which portion is next: its share of the places is its weight, to the
thousandth, and the pattern itself is shuffled by the seed. Any place can be asked for directly, in O(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.order import permute, permute_many

PATTERN = 1000


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Part of a mixture.

    Attributes:
        rows: rows of the corpus's index, in any order, repeated for more weight; None for all.
        weight: share of the visits, relative to the other portions' weights.
    """

    corpus: Corpus
    rows: NDArray[np.int64] | None = None
    weight: float = 1.0


class Visits:
    """The endless sequence of visits to some portions.

    Args:
        portions: at least one; raises `CorpusError` for one without scenes.
        shuffle: False visits the rows of each portion in their own order.

    Attributes:
        corpora, rows: of each portion.
        shares: of each portion, its visits among `sum(shares)`.
    """

    def __init__(self, portions: Sequence[Portion], seed: int, *, shuffle: bool = True) -> None:
        if not 0 <= seed < 2**63:
            raise ValueError(f"a seed must be at least 0 and less than 2**63, found {seed}")
        self.corpora = [portion.corpus for portion in portions]
        self.rows = [
            np.arange(len(p.corpus)) if p.rows is None else np.ascontiguousarray(p.rows, np.int64) for p in portions
        ]
        for corpus, rows in zip(self.corpora, self.rows, strict=True):
            if not len(rows):
                raise CorpusError(f"the selection of {corpus.store.uri} is empty: there is nothing to stream")
        if len(portions) > PATTERN:
            raise ValueError(f"a mixture has at most {PATTERN} portions, found {len(portions)}")
        self._seeds = [seed if i == 0 else _derived(seed, i) for i in range(len(portions))]
        self.seed, self.shuffle = seed, shuffle
        weights = np.array([portion.weight for portion in portions], np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError(f"weights of a mixture must be positive, found {weights.tolist()}")
        self.shares = shares(weights)
        self._pattern, self._rank = _pattern(self.shares, seed)

    @property
    def epoch_length(self) -> int:
        """Places until every scene was visited once; of a single portion only."""
        if len(self.rows) > 1:
            raise ValueError("a mixture has no epochs: each of its portions has its own")
        return len(self.rows[0])

    def at(self, place: int) -> tuple[int, int]:
        """(portion, row of its index) at a place."""
        cycle, within = divmod(place, len(self._pattern))
        portion = int(self._pattern[within])
        local = cycle * int(self.shares[portion]) + int(self._rank[within])
        rows = self.rows[portion]
        epoch, element = divmod(local, len(rows))
        if self.shuffle:
            element = permute(element, len(rows), self._seeds[portion], epoch)
        return portion, int(rows[element])

    def values(self, tables: Sequence[NDArray[np.int64]], start: int, stop: int) -> NDArray[np.int64]:
        """What tables, for each portion one with an entry for every row of its index, hold of the scenes at places
        start..stop-1."""
        places = np.arange(start, stop)
        cycle, within = np.divmod(places, len(self._pattern))
        portions = self._pattern[within]
        found = np.empty(len(places), np.int64)
        for portion, rows in enumerate(self.rows):
            mine = np.flatnonzero(portions == portion)
            local = cycle[mine] * self.shares[portion] + self._rank[within[mine]]
            epoch, element = np.divmod(local, len(rows))
            if self.shuffle:
                for one in np.unique(epoch):
                    chosen = epoch == one
                    element[chosen] = permute_many(element[chosen], len(rows), self._seeds[portion], int(one))
            found[mine] = tables[portion][rows[element]]
        return found

    def substitute(self, portion: int, place: int, attempt: int) -> int:
        """Another row of the same portion, by place and attempt alone, for a scene that cannot be read."""
        digest = xxhash.xxh3_64_intdigest(f"{self.seed}/{place}/{attempt}".encode())
        return int(self.rows[portion][digest % len(self.rows[portion])])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a saved place belongs to, as JSON: a place means nothing in another sequence."""
        digest = xxhash.xxh3_64()
        for rows in self.rows:
            digest.update(rows.astype("<i8").tobytes() + b"|")
        digest.update(self._pattern.astype("<i8").tobytes())
        fingerprints = "/".join(corpus.fingerprint for corpus in self.corpora)
        corpora = fingerprints if len(self.corpora) == 1 else xxhash.xxh3_64_hexdigest(fingerprints.encode())
        return {"corpus": corpora, "rows": digest.hexdigest(), "seed": self.seed, "shuffle": self.shuffle}


def _derived(seed: int, number: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}/{number}".encode()) >> 1


def shares(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of each portion in a pattern of `PATTERN`; a single portion has a pattern of one."""
    if len(weights) == 1:
        return np.ones(1, np.int64)
    exact = weights / weights.sum() * PATTERN
    share: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while share.sum() != PATTERN:  # the largest remainders get the places that rounding left over
        step = 1 if share.sum() < PATTERN else -1
        share[np.argmax(np.where(share + step >= 1, step * (exact - share), -np.inf))] += step
    return share


def _pattern(share: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(portion at every place of the pattern, how often it came before)."""
    if len(share) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    pattern = np.repeat(np.arange(len(share)), share)
    pattern = pattern[permute_many(np.arange(PATTERN), PATTERN, _derived(seed, 0), 0)]
    rank = np.empty(PATTERN, np.int64)
    for portion in range(len(share)):
        mine = pattern == portion
        rank[mine] = np.arange(int(mine.sum()))
    return pattern, rank
