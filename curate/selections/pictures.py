"""Which scenes show the same pictures: their perceptual hashes differ in a few bits.

Compression, another size, a little noise change one bit or none of 64; other pictures differ in 17 and more. Two scenes
are compared if a third (21 bits) of one of their hashes agrees, so none is missed of which a picture differs in two or
fewer. It takes time in proportion to the number of scenes: nobody compares each with each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brickyard.curate.selections.neighbours import MOST, Pairs
from brickyard.shards.errors import CorpusError

BITS = 4
"""Two pictures are the same if their hashes differ in no more."""
_PICTURES, _BLOCK = 4, 1 << 16
_THIRDS = ((0, 21), (21, 21), (42, 22))
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


@dataclass(frozen=True)
class Hashes:
    """Of N scenes.

    Attributes:
        values: uint64 (N, 4), the first `count` of which are hashes of pictures.
        count: int64 (N,).
    """

    values: NDArray[np.uint64]
    count: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Hashes:
        return Hashes(self.values[rows], self.count[rows])


def stored_hashes(table: pa.Table) -> Hashes:
    """Of a described index; of a scene's hashes, the first four. Raises `CorpusError` for a hash that is none."""
    lists = table.column("hashes").combine_chunks()
    if lists.values.null_count:
        raise CorpusError("hashes of some scenes are none: describe the corpus again")
    lengths = np.diff(np.asarray(lists.offsets, np.int64)) if len(lists) else np.zeros(0, np.int64)
    known = np.asarray(lists.is_valid(), bool)
    count = np.where(known, np.minimum(lengths, _PICTURES), 0)
    places = np.asarray(lists.offsets, np.int64)[:-1, None] + np.arange(_PICTURES)
    there = np.arange(_PICTURES) < count[:, None]
    values = np.zeros((len(table), _PICTURES), np.uint64)
    values[there] = np.asarray(lists.values, np.uint64)[places[there]]
    return Hashes(values, count)


def same_pictures(mine: Hashes, theirs: Hashes | None, least: float) -> Pairs:
    """(row, row of theirs, share) of scenes of which at least this share of the pictures is the same, of the scene that
    has fewer; sorted. Of a picture, the first 64 that may be the same are looked at.

    Args:
        theirs: None compares each of mine with those before it.
    """
    before, theirs = theirs is None, mine if theirs is None else theirs
    codes = np.unique(np.concatenate([_meetings(mine, theirs, *third) for third in _THIRDS]))
    width = max(1, len(theirs.count))
    if before:
        codes = codes[codes // width > codes % width]
    found: list[Pairs] = []
    for begin in range(0, len(codes), _BLOCK):
        one, other = codes[begin : begin + _BLOCK] // width, codes[begin : begin + _BLOCK] % width
        share = _shares(mine.take(one), theirs.take(other))
        right = share >= least
        found.append((one[right], other[right], share[right].astype(np.float32)))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    one, other, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return one, other, share


def _meetings(mine: Hashes, theirs: Hashes, shift: int, bits: int) -> NDArray[np.int64]:
    """row * len(theirs) + row of theirs, for scenes that have a hash each with these bits in common."""
    (owner, part), (other, key) = (_parts(one, shift, bits) for one in (mine, theirs))
    begin = np.searchsorted(key, part, side="left")
    count = np.minimum(np.searchsorted(key, part, side="right") - begin, MOST)
    ramp = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    met = other[np.repeat(begin, count) + ramp]
    return np.asarray(np.unique(np.repeat(owner, count) * len(theirs.count) + met))


def _parts(hashes: Hashes, shift: int, bits: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """(row, these bits) of every hash, sorted by the bits."""
    row, picture = np.nonzero(np.arange(_PICTURES) < hashes.count[:, None])
    part = hashes.values[row, picture] >> np.uint64(shift) & np.uint64((1 << bits) - 1)
    order = np.argsort(part, kind="stable")
    return row[order], part[order]


def _shares(one: Hashes, other: Hashes) -> NDArray[np.float64]:
    """float64 (P,): of the scene with fewer pictures, how many the other one has, too."""
    apart = one.values[:, :, None] ^ other.values[:, None, :]
    bits = _ONES[apart[..., None].view(np.uint8)].sum(axis=-1)
    there = np.arange(_PICTURES) < one.count[:, None], np.arange(_PICTURES) < other.count[:, None]
    same = (bits <= BITS) & there[0][:, :, None] & there[1][:, None, :]
    return np.where(
        one.count <= other.count,
        same.any(axis=2).sum(axis=1) / np.maximum(one.count, 1),
        same.any(axis=1).sum(axis=1) / np.maximum(other.count, 1),
    )
