"""Rows of numbers, as lidars' files hold them -> columns, as a Scene holds them.

numpy is quick on long runs, not on rows of four: whatever it does with the columns of such a table in place takes two
to ten times as long as the same on arrays of their own. So a reader asks about the table as a whole (`within`), copies
the columns out once (`split`), in pieces that stay in the processor's cache, and asks the rest of the copies.
"""

from __future__ import annotations

import numpy as np

from brickyard.shards.scene import Float32

_PIECE = 16384
"""Rows; a quarter of a megabyte."""


def within(rows: Float32, limit: float) -> bool:
    """Whether every number of a table is -limit..limit; False for NaN."""
    return bool(len(rows) and rows.max() <= limit and rows.min() >= -limit)


def split(rows: Float32) -> tuple[Float32, list[Float32]]:
    """A table float32 (N, C) as xyz (N, 3), of its first three columns, and the other columns (N,), all copied."""
    xyz = np.empty((len(rows), 3), np.float32)
    others = [np.empty(len(rows), np.float32) for _ in range(3, rows.shape[1])]
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        end = start + len(piece)
        for axis in range(3):
            xyz[start:end, axis] = piece[:, axis]
        for number, column in enumerate(others, 3):
            column[start:end] = piece[:, number]
    return xyz, others
