"""Which vectors are nearly the same, among up to millions: exactly for few, by cells for many.

For many, every vector goes to the two of some thousand centres that it is most similar to, and is compared with those
that have one of these two in common with it. Two vectors of cosine 0.95 share one nearly always (measured in
`tests.benchmarks.curation`); the less similar they are, the more are missed. All of it is products of matrices in
numpy, in an order that does not depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import Float32

EXACT = 20_000
_BLOCK, _SAMPLE, _ROUNDS = 2048, 100_000, 4
MOST = 64
"""Neighbours that are kept of a vector."""
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], Float32]


def similar_pairs(vectors: Float32, least: float, *, exact: int = EXACT) -> Pairs:
    """(first, second, cosine) of pairs first > second whose cosine is `least` or more, sorted; of every first, at most
    64, those with the smallest numbers.

    Args:
        vectors: (N, D), of length 1, or 0 for what is similar to nothing.
        exact: up to so many are compared each with each.
    """
    found = list(_exact(vectors, least) if len(vectors) <= exact else _by_cells(vectors, least))
    return _joined(found, len(vectors))


def _exact(vectors: Float32, least: float) -> Iterator[Pairs]:
    rows = np.arange(len(vectors))
    for begin in range(0, len(vectors), _BLOCK):
        mine = rows[begin : begin + _BLOCK]
        yield _compare(vectors, mine, rows[: begin + len(mine)], least)


def _by_cells(vectors: Float32, least: float) -> Iterator[Pairs]:
    centres = cell_centres(vectors, _count(len(vectors)))
    nearest = _nearest(vectors, centres)
    first_in, all_in = _members(nearest[:, 0], len(centres)), _members(nearest.ravel(), len(centres), 2)
    for mine, others in zip(first_in, all_in, strict=True):
        for begin in range(0, len(mine), _BLOCK):
            yield _compare(vectors, mine[begin : begin + _BLOCK], others, least)


def _count(vectors: int) -> int:
    """Of cells, so that finding them costs about as much as comparing in them."""
    return 2 * math.isqrt(vectors)


def _compare(vectors: Float32, rows: NDArray[np.int64], others: NDArray[np.int64], least: float) -> Pairs:
    """Pairs of one of `rows` with one of `others`, whichever is the first of them."""
    one, other, value = _alike(vectors[rows], vectors[others], least)
    a, b = rows[one], others[other]
    apart = a != b
    return _few(np.maximum(a, b)[apart], np.minimum(a, b)[apart], value[apart])


def _alike(vectors: Float32, others: Float32, least: float) -> Pairs:
    cosine = vectors @ others.T
    one, other = np.nonzero(cosine >= least)
    return one, other, cosine[one, other]


def _few(first: NDArray[np.int64], second: NDArray[np.int64], value: Float32) -> Pairs:
    """Sorted, and of every first no more than `MOST`."""
    order = np.lexsort((second, first))
    first, second, value = first[order], second[order], value[order]
    few = np.arange(len(first)) - np.searchsorted(first, first, side="left") < MOST
    return first[few], second[few], value[few]


def pairs_between(vectors: Float32, others: Float32, least: float, *, exact: int = EXACT) -> Pairs:
    """(row, row of others, cosine) whose cosine is `least` or more, sorted; of every row at most 64. As
    `similar_pairs`, exactly where rows times others are no more than `exact` squared."""
    found: list[Pairs] = []
    if not len(vectors) or not len(others) or len(vectors) * len(others) <= exact**2:
        for begin in range(0, len(vectors), _BLOCK):
            one, other, value = _alike(vectors[begin : begin + _BLOCK], others, least)
            found.append(_few(one + begin, other, value))
    else:
        centres = cell_centres(vectors, _count(len(vectors)))
        mine = _members(cells(vectors, centres), len(centres))
        theirs = _members(_nearest(others, centres).ravel(), len(centres), 2)
        for rows, columns in zip(mine, theirs, strict=True):
            for begin in range(0, len(rows), _BLOCK):
                some = rows[begin : begin + _BLOCK]
                one, other, value = _alike(vectors[some], others[columns], least)
                found.append(_few(some[one], columns[other], value))
    return _joined(found, len(others))


def _joined(found: list[Pairs], width: int) -> Pairs:
    """All pairs, each once, sorted."""
    first = np.concatenate([f for f, _, _ in found]) if found else np.zeros(0, np.int64)
    second = np.concatenate([s for _, s, _ in found]) if found else np.zeros(0, np.int64)
    cosine = np.concatenate([c for _, _, c in found]) if found else np.zeros(0, np.float32)
    _, keep = np.unique(first * max(width, 1) + second, return_index=True)
    return first[keep], second[keep], cosine[keep]


def cell_centres(vectors: Float32, count: int) -> Float32:
    """(count, D) of length 1: spherical k-means on an even sample."""
    sample = vectors[:: max(1, len(vectors) // _SAMPLE)]
    count = min(count, len(sample))
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(int)].copy()
    for _ in range(_ROUNDS):
        cell = _nearest(sample, centres)[:, 0]
        order = np.argsort(cell, kind="stable")
        begins = np.searchsorted(cell[order], np.arange(count))
        full = np.diff(np.append(begins, len(order))) > 0
        centres[full] = np.add.reduceat(sample[order], begins[full])
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    return np.asarray(centres, np.float32)


def cells(vectors: Float32, centres: Float32) -> NDArray[np.int64]:
    """int64 (N,): the centre that each is most similar to."""
    return _nearest(vectors, centres)[:, 0]


def _nearest(vectors: Float32, centres: Float32) -> NDArray[np.int64]:
    """int64 (N, 2): the most similar centre, and the next one."""
    found = np.empty((len(vectors), 2), np.int64)
    block = max(1, (1 << 24) // len(centres))
    for begin in range(0, len(vectors), block):
        cosine = vectors[begin : begin + block] @ centres.T
        rows = np.arange(len(cosine))
        found[begin : begin + block, 0] = best = cosine.argmax(axis=1)
        cosine[rows, best] = -2
        found[begin : begin + block, 1] = cosine.argmax(axis=1) if len(centres) > 1 else best
    return found


def _members(cell: NDArray[np.int64], count: int, repeat: int = 1) -> list[NDArray[np.int64]]:
    order = np.argsort(cell, kind="stable")
    return np.split(order // repeat, np.searchsorted(cell[order], np.arange(1, count)))
