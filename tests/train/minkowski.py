"""Sparse convolutions as MinkowskiEngine defines them, one voxel after another, in plain numpy.

Voxels are a table from coordinates to features. Number i of a kernel (offsets, inputs, outputs) stands for the offset
whose first coordinate runs fastest; odd kernels are centred, even ones begin at 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Cell = tuple[int, int, int]
Field = dict[Cell, NDArray[np.float64]]


def offsets(edge: int) -> list[Cell]:
    """In the order of the kernel's first axis."""
    places = range(edge) if edge % 2 == 0 else range(-(edge // 2), edge // 2 + 1)
    return [(x, y, z) for z, y, x in itertools.product(places, places, places)]


def convolve(field: Field, kernel: NDArray[np.float64], step: int, *, stride: int = 1) -> Field:
    """Voxels at multiples of `step` -> voxels at multiples of `step * stride`."""
    edge = round(len(kernel) ** (1 / 3))
    coarse = step * stride
    cells = {tuple(int(np.floor(v / coarse)) * coarse for v in cell) for cell in field}
    out = {}
    for cell in cells:
        total = np.zeros(kernel.shape[2])
        for weight, offset in zip(kernel, offsets(edge), strict=True):
            there = tuple(c + step * o for c, o in zip(cell, offset, strict=True))
            if there in field:
                total += field[there] @ weight  # type: ignore[index]
        out[cell] = total
    return out  # type: ignore[return-value]


def spread(field: Field, kernel: NDArray[np.float64], step: int, onto: Field) -> Field:
    """The transpose of a strided convolution from voxels at multiples of `step`: back onto those it came from."""
    out = {cell: np.zeros(kernel.shape[2]) for cell in onto}
    for cell, value in field.items():
        for weight, offset in zip(kernel, offsets(round(len(kernel) ** (1 / 3))), strict=True):
            there = tuple(c + step * o for c, o in zip(cell, offset, strict=True))
            if there in out:
                out[there] += value @ weight  # type: ignore[index]
    return out


class Network:
    """The public residual U-Net in evaluation mode, from weights under its own names.

    Args:
        weights: such as "conv0p1s1.kernel".
        levels: how often the resolution is halved.
        depth: residual blocks of a stage.
    """

    def __init__(self, weights: Mapping[str, Tensor], levels: int, depth: int) -> None:
        self.weights = {name: value.double().numpy() for name, value in weights.items()}
        self.levels, self.depth = levels, depth

    def __call__(self, field: Field) -> Field:
        x = self._relu(self._norm(self._convolve(field, "conv0p1s1", 1), "bn0"))
        kept = [x]
        for level in range(1, self.levels + 1):
            step = 2 ** (level - 1)
            x = self._convolve(x, f"conv{level}p{step}s2", step, stride=2)
            x = self._blocks(self._relu(self._norm(x, f"bn{level}")), f"block{level}", 2 * step)
            kept.append(x)
        kept.pop()
        for number in range(self.levels, 2 * self.levels):
            skip, step = kept.pop(), 2 ** (2 * self.levels - number)
            x = spread(x, self.weights[f"convtr{number}p{step}s2.kernel"], step // 2, skip)
            x = self._relu(self._norm(x, f"bntr{number}"))
            x = {cell: np.concatenate((value, skip[cell])) for cell, value in x.items()}
            x = self._blocks(x, f"block{number + 1}", step // 2)
        return x

    def _blocks(self, x: Field, name: str, step: int) -> Field:
        for number in range(self.depth):
            place = f"{name}.{number}"
            y = self._relu(self._norm(self._convolve(x, f"{place}.conv1", step), f"{place}.norm1"))
            y = self._norm(self._convolve(y, f"{place}.conv2", step), f"{place}.norm2")
            if f"{place}.downsample.0.kernel" in self.weights:
                kernel = self.weights[f"{place}.downsample.0.kernel"]
                x = self._norm({cell: value @ kernel for cell, value in x.items()}, f"{place}.downsample.1")
            x = self._relu({cell: value + x[cell] for cell, value in y.items()})
        return x

    def _convolve(self, x: Field, name: str, step: int, stride: int = 1) -> Field:
        return convolve(x, self.weights[f"{name}.kernel"], step, stride=stride)

    def _norm(self, x: Field, name: str) -> Field:
        w = {part: self.weights[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        scale = w["weight"] / np.sqrt(w["running_var"] + 1e-5)
        return {cell: (value - w["running_mean"]) * scale + w["bias"] for cell, value in x.items()}

    @staticmethod
    def _relu(x: Field) -> Field:
        return {cell: np.maximum(value, 0) for cell, value in x.items()}


def field_of(cells: NDArray[np.int64], features: NDArray[np.float32]) -> Field:
    """A table of voxels from their coordinates (V, 3) and features (V, C)."""
    return {(int(x), int(y), int(z)): row.astype(np.float64) for (x, y, z), row in zip(cells, features, strict=True)}


def rows_of(field: Field, cells: Sequence[Sequence[int]] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Features (V, C) of cells (V, 3)."""
    return np.stack([field[int(x), int(y), int(z)] for x, y, z in cells])
