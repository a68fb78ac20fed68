"""Unit vectors in two bytes: the octahedral map (Cigolle et al., "A Survey of Efficient Representations for
Independent Unit Vectors", JCGT 2014, their "oct-P": the nearest of the neighbouring codes is chosen).

The sphere is projected to an octahedron, that is unfolded to the square [-1, 1]^2, and each coordinate is rounded to
one of 255 values. The largest error is 0.67 degrees. Decoding is one lookup in a table of 65,536 vectors. The code
(-128, -128) stands for "no normal".
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_NONE = -128


def encode_normals(normals: NDArray[np.float32]) -> NDArray[np.int8]:
    """(N, 3) unit vectors, or zeros where there is none -> int8 (N, 2)."""
    vectors = normals.astype(np.float64)
    length = np.abs(vectors).sum(axis=1, keepdims=True)
    absent = length[:, 0] == 0
    vectors = vectors / np.where(length == 0, 1, length)
    flat = vectors[:, :2]
    folded = (1 - np.abs(flat[:, ::-1])) * np.where(flat >= 0, 1.0, -1.0)
    square = np.where(vectors[:, 2:] < 0, folded, flat) * 127
    table = _table()
    best = np.zeros((len(vectors), 2), np.int8)
    best_cosine = np.full(len(vectors), -np.inf)
    for offset in ((0, 0), (0, 1), (1, 0), (1, 1)):
        candidate = np.clip(np.floor(square) + offset, -127, 127).astype(np.int8)
        cosine = np.einsum("nc,nc->n", table[_slot(candidate)], normals)
        better = cosine > best_cosine
        best[better], best_cosine[better] = candidate[better], cosine[better]
    best[absent] = _NONE
    return best


def decode_normals(codes: NDArray[np.int8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """int8 (N, 2) -> float32 (N, 3), into `out` if given."""
    vectors = np.empty((len(codes), 3), np.float32) if out is None else out
    np.take(_table(), _slot(codes), axis=0, out=vectors, mode="clip")
    return vectors


def _slot(codes: NDArray[np.int8]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(codes).view(np.uint16).reshape(len(codes))


@cache
def _table() -> NDArray[np.float32]:
    """float32 (65536, 3): the vector of every code, addressed by its two bytes read as one little-endian integer."""
    codes = np.arange(65536, dtype="<u2").view(np.int8).reshape(-1, 2).astype(np.float64)
    square = np.clip(codes, -127, 127) / 127
    z = 1 - np.abs(square).sum(axis=1)
    unfold = np.maximum(-z, 0)[:, None] * np.where(square >= 0, -1.0, 1.0)
    vectors: NDArray[np.float64] = np.concatenate([square + unfold, z[:, None]], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[(codes == _NONE).all(axis=1)] = 0
    return vectors.astype(np.float32)
