"""Linear probes in closed form: least squares with a little of the weights' own length, from sums over batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
STRENGTH = 1e-4
"""Of the penalty, as a share of the mean square of an input."""


class Ridge:
    """Adds up what decides the weights; a constant is added to the inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._squares = np.zeros((inputs + 1, inputs + 1))
        self._products = np.zeros((inputs + 1, outputs))
        self.rows = 0

    def add(self, inputs: Float64, outputs: Float64) -> None:
        """Rows of inputs (N, D) and what is wanted of them (N, K)."""
        table = _with_constant(inputs)
        self._squares += table.T @ table
        self._products += table.T @ outputs
        self.rows += len(table)

    def weights(self) -> Float64:
        """(D + 1, K); raises `ValueError` without any row."""
        if not self.rows:
            raise ValueError("nothing to learn from")
        size = len(self._squares)
        penalty = STRENGTH * np.trace(self._squares) / size * np.eye(size)
        penalty[-1, -1] = 0
        found: Float64 = np.linalg.solve(self._squares + penalty, self._products)
        return found


def predicted(inputs: Float64, weights: Float64) -> Float64:
    """(N, K) of inputs (N, D)."""
    return _with_constant(inputs) @ weights


def _with_constant(inputs: Float64) -> Float64:
    return np.concatenate([inputs.astype(np.float64), np.ones((len(inputs), 1))], axis=1)
