"""Which vectors are nearly the same, among up to millions: exactly for few, by cells for many.

For many, every vector goes to the two of some thousand centres that it is most similar to (`find_cells`, which serves
all curators), and is compared with those that have one of these two in common with it. Two vectors of cosine 0.97 share
one nearly always (docs/curation.md); the less similar they are, the more are missed. All of it is products of matrices
in numpy, and a million scenes take two minutes: no library of approximate search is asked for, whose graphs depend on
the order in which threads come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float32

EXACT = 100_000
"""Up to so many vectors are compared each with each."""
MOST = 64
"""Neighbours that are kept of a vector."""
_BLOCK, _SAMPLE, _ROUNDS = 2048, 50_000, 3
_PRODUCTS = 1 << 26
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], Float32]
Same = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""(first, second) of pairs -> which of them are the same in every other respect, too."""


def find_cells(vectors: Float32) -> tuple[Float32, NDArray[np.int64]]:
    """(centres (C, D), of every vector the nearest two (N, 2)); the centres by spherical k-means on an even sample.

    There are twice the root of N, so that finding cells costs about as much as comparing in them.
    """
    sample = vectors[:: max(1, len(vectors) // _SAMPLE)]
    count = min(2 * math.isqrt(len(vectors)), len(sample))
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(int)].copy()
    for _ in range(_ROUNDS):
        cell = nearest_cells(sample, centres)[:, 0]
        order = np.argsort(cell, kind="stable")
        begins = np.searchsorted(cell[order], np.arange(count))
        full = np.diff(np.append(begins, len(order))) > 0
        centres[full] = np.add.reduceat(sample[order], begins[full])
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    return np.asarray(centres, np.float32), nearest_cells(vectors, centres)


def nearest_cells(vectors: Float32, centres: Float32) -> NDArray[np.int64]:
    """int64 (N, 2): the most similar centre, and the next one."""
    found = np.empty((len(vectors), 2), np.int64)
    block = max(1, (1 << 22) // len(centres))
    for begin in range(0, len(vectors), block):
        cosine = vectors[begin : begin + block] @ centres.T
        found[begin : begin + block, 0] = best = cosine.argmax(axis=1)
        cosine[np.arange(len(cosine)), best] = -2
        found[begin : begin + block, 1] = cosine.argmax(axis=1) if len(centres) > 1 else best
    return found


def similar_pairs(vectors: Float32, least: float, same: Same, nearest: NDArray[np.int64]) -> Pairs:
    """(first, second, cosine) of pairs first > second whose cosine is `least` or more, sorted; of every first and cell,
    at most 64, those with the smallest numbers.

    Args:
        vectors: (N, D), of length 1, or 0 for what is similar to nothing.
        same: which of these pairs count.
        nearest: cells of the vectors.
    """
    found = [_compare(vectors, mine, others, least, same) for mine, others in _meetings(nearest, nearest)]
    return _joined(found, len(vectors))


def pairs_between(
    vectors: Float32, others: Float32, least: float, cells: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> Pairs:
    """(row, row of others, cosine) whose cosine is `least` or more, sorted; of every row at most 64.

    Args:
        cells: of both, in the same centres; None compares each with each.
    """
    meetings: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]
    if cells is None:
        every, block = np.arange(len(others)), max(1, _PRODUCTS // max(1, len(others)))
        meetings = ((np.arange(b, min(b + block, len(vectors))), every) for b in range(0, len(vectors), block))
    else:
        meetings = _meetings(*cells)
    found = []
    for mine, theirs in meetings:
        one, other, value = alike(vectors[mine], others[theirs], least)
        found.append(_few(mine[one], theirs[other], value))
    return _joined(found, len(others))


def _meetings(
    mine: NDArray[np.int64], theirs: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of one cell, in blocks, and the others that have it among their two."""
    count = int(max(mine.max(initial=0), theirs.max(initial=0))) + 1
    for rows, others in zip(_members(mine[:, 0], count), _members(theirs.ravel(), count, 2), strict=True):
        for begin in range(0, len(rows) if len(others) else 0, _BLOCK):
            yield rows[begin : begin + _BLOCK], others


def _compare(vectors: Float32, rows: NDArray[np.int64], others: NDArray[np.int64], least: float, same: Same) -> Pairs:
    """Pairs of one of `rows` with one of `others`, whichever is the first of them."""
    one, other, value = alike(vectors[rows], vectors[others], least)
    a, b = rows[one], others[other]
    apart = a != b
    first, second, value = np.maximum(a, b)[apart], np.minimum(a, b)[apart], value[apart]
    right = same(first, second)
    return _few(first[right], second[right], value[right])


def alike(vectors: Float32, others: Float32, least: float) -> Pairs:
    """(row, row of others, cosine) whose cosine is `least` or more, sorted."""
    cosine = vectors @ others.T
    one, other = np.nonzero(cosine >= least)
    return one, other, cosine[one, other]


def _few(first: NDArray[np.int64], second: NDArray[np.int64], value: Float32) -> Pairs:
    """Sorted, and of every first no more than `MOST`."""
    order = np.lexsort((second, first))
    first, second, value = first[order], second[order], value[order]
    few = np.arange(len(first)) - np.searchsorted(first, first, side="left") < MOST
    return first[few], second[few], value[few]


def _joined(found: list[Pairs], width: int) -> Pairs:
    """All pairs, each once, sorted."""
    first = np.concatenate([f for f, _, _ in found]) if found else np.zeros(0, np.int64)
    second = np.concatenate([s for _, s, _ in found]) if found else np.zeros(0, np.int64)
    cosine = np.concatenate([c for _, _, c in found]) if found else np.zeros(0, np.float32)
    _, keep = np.unique(first * max(width, 1) + second, return_index=True)
    return first[keep], second[keep], cosine[keep]


def _members(cell: NDArray[np.int64], count: int, repeat: int = 1) -> list[NDArray[np.int64]]:
    order = np.argsort(cell, kind="stable")
    return np.split(order // repeat, np.searchsorted(cell[order], np.arange(1, count)))
