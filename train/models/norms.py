"""Batch norm over the rows of all ranks, as the published image-to-lidar systems train with several GPUs.

Statistics of one rank's rows alone would make what is learned depend on the number of ranks, and rank 0's running
statistics would be exported. Mean and variance are computed from sums over ranks, in two steps, so that the variance is
one of differences from the common mean; the backward pass exchanges two sums. A rank without rows takes part with sums
of 0, so nobody waits in vain, as long as every rank runs the layer, and its backward pass, equally often.

Source of the gradient: Ioffe & Szegedy, "Batch Normalization", ICML 2015, with sums over the rows of all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` of rows (N, C); in training, over all ranks where `synchronised` is set and there are several.

    Attributes:
        synchronised: set by `synchronise`; no part of the weights.
    """

    synchronised = False

    def forward(self, rows: Tensor) -> Tensor:
        if not (self.training and self.synchronised and _ranks() > 1):
            return super().forward(rows)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        normed, mean, variance, count = _Synchronised.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.bias, self.eps
        )
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
        out: Tensor = normed
        return out


class SplitNorm(nn.Module):
    """Several batch norms over one tensor: every scene's rows go through one of them.

    Rooms of a scanner and rooms of a game have other statistics; with norms of their own they can share all other
    weights. Source: Wu et al., "Towards Large-scale 3D Representation Learning with Multi-dataset Point Prompt
    Training", CVPR 2024, arXiv 2308.09718 (decoupled norms), as PonderV2 trains jointly.

    Attributes:
        norm_of: int64 (scenes,), the norm of each scene of the batch that comes next; set by the network.
    """

    norm_of: Tensor

    def __init__(self, count: int, channels: int, **settings: Any) -> None:
        super().__init__()
        self.norms = nn.ModuleList(BatchNorm(channels, **settings) for _ in range(count))

    def forward(self, rows: Tensor, scene: Tensor) -> Tensor:
        """Rows (N, C) of scenes int (N,)."""
        which = self.norm_of[scene.long()]
        out = torch.zeros_like(rows)
        for number, norm in enumerate(self.norms):
            assert isinstance(norm, BatchNorm)
            own = (which == number).nonzero().squeeze(1)
            # A norm without two rows learns nothing from this batch; ranks that average statistics all take part.
            if len(own) > 1 or not self.training or (norm.synchronised and _ranks() > 1):
                out = out.index_copy(0, own, norm(rows[own]))
            elif len(own):
                out = out.index_copy(0, own, _as_known(norm, rows[own]))
        return out


def _as_known(norm: BatchNorm, rows: Tensor) -> Tensor:
    return functional.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
    )


def synchronise(network: nn.Module, wanted: bool) -> None:
    """Set whether the batch norms of a network see the rows of all ranks."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = wanted


class _Synchronised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = torch.cat((rows.sum(0), rows.new_tensor([float(len(rows))])))
        dist.all_reduce(sums)
        count = sums[-1].clamp(min=1)
        mean = sums[:-1] / count
        centred = rows - mean
        squares = centred.square().sum(0)
        dist.all_reduce(squares)
        variance = squares / count
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(rows, mean, inverse, weight, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return centred * (inverse * weight) + bias, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, mean, inverse, weight, count = ctx.saved_tensors
        gradient = gradients[0]
        standard = (rows - mean) * inverse
        own_bias, own_weight = gradient.sum(0), (gradient * standard).sum(0)
        sums = torch.stack((own_bias, own_weight))
        dist.all_reduce(sums)
        common = gradient - sums[0] / count - standard * (sums[1] / count)
        return common * (inverse * weight), own_weight, own_bias, None


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
