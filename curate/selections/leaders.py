"""Of scenes in the order of preference, one is left out if it is nearly the same as an earlier one that stays.

So nothing is left out for the sake of something that is out itself, and no chain of small differences swallows a drive.
Up to `EXACT` scenes each is compared with all that stay, which a 128-number embedding pays for with half a minute of a
core; more are compared in cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.neighbours import EXACT, Same, alike, find_cells, similar_pairs
from brickyard.shards.scene import Float32

_BLOCK = 512
Leaders = tuple[NDArray[np.int64], Float32]
"""Of every scene the earlier one that stays and is the same, -1 for those that stay; and how near they are."""


def similar_leaders(vectors: Float32, least: float, same: Same, nearest: NDArray[np.int64] | None = None) -> Leaders:
    """By cosine.

    Args:
        vectors: (N, D), of length 1, or 0 for what is similar to nothing.
        least: cosine from which two are the same, if `same` says so, too.
        nearest: cells of the vectors, where these are known; else they are found for more than `EXACT`.
    """
    if nearest is None and len(vectors) <= EXACT:
        return _exactly(vectors, least, same)
    cells = find_cells(vectors)[1] if nearest is None else nearest
    return leaders(len(vectors), *similar_pairs(vectors, least, same, cells))


def leaders(count: int, first: NDArray[np.int64], second: NDArray[np.int64], near: Float32) -> Leaders:
    """By pairs that are the same.

    Args:
        first, second, near: first > second, sorted by first, then second; and how near the two are.
    """
    kept, told = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    each, begins = np.unique(first, return_index=True)
    ends = np.append(begins, len(first))[1:]
    for k, begin, end in zip(each.tolist(), begins.tolist(), ends.tolist(), strict=True):
        stays = np.flatnonzero(kept[second[begin:end]] < 0)
        if len(stays):
            kept[k], told[k] = second[begin + stays[0]], near[begin + stays[0]]
    return kept, told


def _exactly(vectors: Float32, least: float, same: Same) -> Leaders:
    kept, told = np.full(len(vectors), -1, np.int64), np.zeros(len(vectors), np.float32)
    stay, count, theirs = np.zeros(len(vectors), np.int64), 0, np.empty_like(vectors)
    for begin in range(0, len(vectors), _BLOCK):
        mine = np.arange(begin, min(begin + _BLOCK, len(vectors)))
        first, second, near = alike(vectors[mine], theirs[:count], least)
        right = same(mine[first], stay[second])
        out, place = np.unique(first[right], return_index=True)
        kept[mine[out]], told[mine[out]] = stay[second[right][place]], near[right][place]
        left = mine[kept[mine] < 0]
        first, second, near = alike(vectors[left], vectors[left], least)
        right = (second < first) & same(left[first], left[second])
        other, how = leaders(len(left), first[right], second[right], near[right])
        out = np.flatnonzero(other >= 0)
        kept[left[out]], told[left[out]] = left[other[out]], how[out]
        new = left[other < 0]
        stay[count : count + len(new)], theirs[count : count + len(new)] = new, vectors[new]
        count += len(new)
    return kept, told
