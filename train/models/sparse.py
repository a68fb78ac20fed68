"""Sparse convolutions: spconv, imported once, quietly, and in a form that also runs where there is no GPU.

Two things spconv does not do by itself. Without CUDA its kernels still ask for the current CUDA stream, which raises:
the question is answered with 0. And its default algorithm exists on CUDA only, so on a CPU every layer must be built
with the native one; a network therefore is built for a device. The native algorithm gives equal results bit for bit
from run to run. Importing takes some seconds.

A submanifold layer keeps the set of voxels; `down` halves the resolution (kernel 2, stride 2, so that every voxel has
one parent) and `up` returns to the very voxels `down` came from.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # spconv decorates its functions with torch.cuda.amp names that torch renamed: some ten warnings at each import.
    warnings.simplefilter("ignore", FutureWarning)
    import spconv.pytorch as spconv
    from spconv.pytorch import ops as _ops

# spconv asks `is_fx_tracing` in every layer, and torch answers with advice that only spconv could follow.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

if not torch.cuda.is_available():
    _ops.get_current_stream = lambda: 0

MAX_CELLS = 2**31 - 1
"""Native index building counts cells of batch x grid in 32 bits."""


def sparse_tensor(features: Tensor, indices: Tensor, shape: Sequence[int], batch: int) -> Any:
    """A `spconv.SparseConvTensor`.

    Args:
        features: float32 (V, C).
        indices: int32 (V, 4): scene, then three voxel coordinates, each in 0..shape-1; rows are distinct.
        shape: cells per axis. For `down` to lose no voxel, a multiple of 2 to the number of `down` steps.
        batch: number of scenes.
    """
    # spconv reads the raw memory and never looks at strides: `nonzero`, for one, gives transposed memory.
    return spconv.SparseConvTensor(features.contiguous(), indices.contiguous(), list(shape), batch)


def submanifold(inputs: int, outputs: int, *, kernel: int, key: str, device: torch.device) -> nn.Module:
    """Convolution onto the same voxels; layers with one `key` share the table of neighbours."""
    return cast(
        nn.Module, spconv.SubMConv3d(inputs, outputs, kernel, bias=False, indice_key=key, algo=_algorithm(device))
    )


def down(inputs: int, outputs: int, *, key: str, device: torch.device) -> nn.Module:
    """Convolution with kernel 2 and stride 2 onto the voxels of half the resolution."""
    return cast(
        nn.Module, spconv.SparseConv3d(inputs, outputs, 2, 2, bias=False, indice_key=key, algo=_algorithm(device))
    )


def up(inputs: int, outputs: int, *, key: str, device: torch.device) -> nn.Module:
    """The transpose of the `down` with the same `key`: back to the voxels it had as input."""
    return cast(
        nn.Module, spconv.SparseInverseConv3d(inputs, outputs, 2, bias=False, indice_key=key, algo=_algorithm(device))
    )


def with_features(x: Any, features: Tensor) -> Any:
    """The same voxels with other features (V, C)."""
    return x.replace_feature(features)


def _algorithm(device: torch.device) -> Any:
    return spconv.ConvAlgo.Native if device.type == "cpu" else None
