"""The scenes that curators choose from: columns of the index as arrays, and what has been decided of each so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from brickyard.curate.describe.describe import FIGURES
from brickyard.curate.selections.neighbours import EXACT, find_cells
from brickyard.curate.selections.pictures import Hashes, stored_hashes
from brickyard.shards.described import numbers, vectors
from brickyard.shards.errors import CorpusError

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
_DECLARED = frozenset(figure.name for figure in FIGURES)


@dataclass
class Candidates:
    """N scenes under curation, in the order of their keys: so it does not matter in which order a corpus holds them.

    Attributes:
        table: the index, with what the corpus was described by.
        keys: of the scenes, sorted.
        weight: float64 (N,), 0 for a scene that is out.
        reason: of every scene, why it is out, or what gave it its weight.
        refused_at: int16 (N,), the number of the curator that left it out, -1 for what is in.
        step: number of the curator that is at work.
        notes: what each curator reports, for people.
    """

    table: pa.Table
    keys: list[str] = field(init=False)
    weight: NDArray[np.float64] = field(init=False)
    reason: list[str] = field(init=False)
    refused_at: NDArray[np.int16] = field(init=False)
    step: int = 0
    notes: list[str] = field(default_factory=list)
    _units: dict[tuple[str, bytes | None], tuple[NDArray[np.float32], Bools]] = field(default_factory=dict, repr=False)
    _means: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    _hashes: Hashes | None = field(default=None, repr=False)
    _cells: tuple[NDArray[np.float32], NDArray[np.int64]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        keys = self.table.column("key").to_pylist()
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self.keys = [keys[row] for row in order]
        if self.keys != keys:
            self.table = self.table.take(order)
        self.weight, self.reason = np.ones(len(self.table)), [""] * len(self.table)
        self.refused_at = np.full(len(self.table), -1, np.int16)

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def alive(self) -> Rows:
        """Rows that are still in, int64."""
        return np.flatnonzero(self.weight > 0)

    def refuse(self, rows: Rows, why: Callable[[int], str]) -> None:
        """Leave rows out; `why(row)` is kept."""
        for row in rows.tolist():
            self.reason[row] = why(row)
        self.weight[rows], self.refused_at[rows] = 0, self.step

    def text(self, column: str) -> NDArray[np.object_]:
        """A column of text."""
        return np.array(self.table.column(column).to_pylist(), object)

    def codes(self, *columns: str) -> NDArray[np.int64]:
        """int64 (N,), equal where all these columns are; numbered by first appearance."""
        joined = pc.binary_join_element_wise(*(self.table.column(name) for name in columns), "\0")
        return np.asarray(joined.combine_chunks().dictionary_encode().indices, np.int64)

    def number(self, column: str) -> NDArray[np.float64]:
        """A column of numbers or a figure, NaN where unknown. Raises `CorpusError` for a name that there is not."""
        return np.asarray(
            pc.cast(numbers(self.table, column, _DECLARED), pa.float64(), safe=False).to_numpy(zero_copy_only=False),
            np.float64,
        )

    def lacks(self, column: str) -> bool:
        """Whether no scene has such a descriptor."""
        return bool(self.table.column(column).null_count == len(self))

    def mean(self, column: str) -> NDArray[np.float32]:
        """float32 (D,), of the known descriptors: what all pictures share makes none of them similar. Raises as
        `unit_vectors`."""
        if column not in self._means:
            found, known = self._vectors(column)
            self._means[column] = np.asarray(found.sum(axis=0, dtype=np.float64) / known.sum(), np.float32)
        return self._means[column]

    def unit_vectors(self, column: str, mean: NDArray[np.float32] | None = None) -> tuple[NDArray[np.float32], Bools]:
        """(float32 (N, D) of length 1, known (N,)) of `embedding` or `signature`, less a mean; unknown rows are zeros.

        Raises:
            CorpusError: no scene has one.
        """
        place = column, None if mean is None else mean.tobytes()
        if place not in self._units:
            found, known = self._vectors(column)
            if mean is not None:
                found -= mean
                found[~known] = 0
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
            self._units[place] = found, known
        return self._units[place]

    def cells(self) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """(centres, nearest two of every row) of the embeddings, as `neighbours.find_cells`; None for few scenes."""
        if len(self) <= EXACT:
            return None
        if self._cells is None:
            self._cells = find_cells(self.unit_vectors("embedding", self.mean("embedding"))[0])
        return self._cells

    def hashes(self) -> Hashes:
        """Of the scenes' pictures. Raises `CorpusError` where no scene has one."""
        if self._hashes is None:
            if self.lacks("hashes"):
                raise CorpusError("no picture of a scene has a hash: run `brickyard describe`, or ask for none of it")
            self._hashes = stored_hashes(self.table)
        return self._hashes

    def _vectors(self, column: str) -> tuple[NDArray[np.float32], Bools]:
        found, known = vectors(self.table, column)
        if not known.any():
            raise CorpusError(f"{column} is known of no scene: run `brickyard describe`, or ask for none of it")
        return found, known

    def is_in(self, column: str, allowed: Sequence[str]) -> Bools:
        """bool (N,): rows whose text is one of these; all where none is given."""
        if not allowed:
            return np.ones(len(self), bool)
        return np.asarray(pc.is_in(self.table.column(column), pa.array(list(allowed))))
