"""Weights in the type of autocast, all at once.

Autocast casts every weight where it is used, a small operation for each, and another for each gradient: for 48 blocks a
thousand in a step. The same copies can be made by few operations over lists; what is computed is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def cast_at_once(network: nn.Module, device: torch.device) -> Iterator[None]:
    """A region in which the linear layers of a network have their weights in the type that autocast gives them; as it
    was where autocast is off. A backward pass that computes layers again must not leave the region before."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    layers = [module for module in network.modules() if type(module) is nn.Linear]
    places = [(layer._parameters, name, weight) for layer in layers for name, weight in layer.named_parameters()]
    weights = [weight for _, _, weight in places]
    cast = _Cast.apply(torch.get_autocast_dtype(device.type), *weights)  # type: ignore[no-untyped-call]
    try:
        for (table, name, _), copy in zip(places, cast, strict=True):
            table[name] = copy
        yield
    finally:
        for table, name, weight in places:
            table[name] = weight


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [weight.dtype for weight in weights]
        return _copies(weights, [dtype] * len(weights))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_copies(gradients, ctx.dtypes))


def _copies(values: tuple[Tensor, ...], dtypes: list[torch.dtype]) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(value, dtype=dtype) for value, dtype in zip(values, dtypes, strict=True)]
    torch._foreach_copy_(copies, values)
    return tuple(copies)
