"""The layers of a point transformer: projection, pooling, position encoding, attention within patches, block.

They take features (V, C) and the `Level` these live on. Attention is torch's `scaled_dot_product_attention`, so on a
GPU it is flash attention under bfloat16 autocast; the position encoding's convolution is always float32, because
under autocast spconv computes in float16. Rows go to patches and back by gathers whose gradients are gathers too:
torch's own would sort or add atomically. Memory of a block: some 20 C values per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from brickyard.train.models import sparse
from brickyard.train.models.point_levels import Level
from brickyard.train.models.walks import Walk


class Projection(nn.Sequential):
    """Linear layer, LayerNorm, GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU())


class Pool(nn.Module):
    """Rows -> rows of the next coarser level: a linear layer, the maximum over the children, LayerNorm, GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs)

    def forward(self, x: Tensor, coarse: Level) -> Tensor:
        assert coarse.children is not None
        result: Tensor = self.norm(coarse.children.reduce(self.linear(x), "max"))
        return functional.gelu(result)


class Position(nn.Module):
    """Conditional position encoding: what the neighbouring cells hold. Submanifold convolution, linear, LayerNorm.

    Points that share a cell enter the convolution as their mean and all get its result.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        super().__init__()
        self.convolution = sparse.submanifold(channels, channels, kernel=3, key="position", device=device)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.linear, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor, level: Level) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if level.shared is None else level.shared.reduce(x.float(), "mean")
            x = self.convolution(sparse.with_features(level.voxels, x)).features + self.bias
        result: Tensor = self.norm(self.linear(x if level.shared is None else level.shared.spread(x)))
        return result


class Attention(nn.Module):
    """Multi-head self-attention within the patches of a walk."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, walk: Walk) -> Tensor:
        slots, ways = _to_patches(self.qkv(x), walk), ((walk.full, None), (walk.short, walk.real))
        pieces = zip(torch.split(slots, [patches.numel() for patches, _ in ways]), ways, strict=True)
        parts = [self._attend(piece, *way) for piece, way in pieces if len(piece)]
        result: Tensor = self.out(_from_patches(torch.cat(parts) if len(parts) > 1 else parts[0], walk))
        return result

    def _attend(self, slots: Tensor, patches: Tensor, real: Tensor | None) -> Tensor:
        """(patches * length, 3 C) -> (patches * length, C)."""
        qkv = slots.view(*patches.shape, 3, self.heads, -1).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in qkv)
        mask = None if real is None else real[:, None, None, :]
        result = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return result.transpose(1, 2).reshape(len(slots), -1)


class Block(nn.Module):
    """Position encoding, attention, MLP; each is added to what came in, the latter two after a LayerNorm of it.

    Args:
        channels, heads: sizes.
        ratio: hidden channels of the MLP over its channels.
        turn: number of the level's walk that attention takes (modulo their number).
        drop_path: probability that a row skips attention, and that it skips the MLP, in training.
        device: for spconv.
    """

    def __init__(
        self, channels: int, heads: int, *, ratio: int, turn: int, drop_path: float, device: torch.device
    ) -> None:
        super().__init__()
        self.turn, self.drop_path = turn, drop_path
        self.position = Position(channels, device)
        self.norm1, self.attention = nn.LayerNorm(channels), Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels)
        )

    def forward(self, x: Tensor, level: Level) -> Tensor:
        walk = level.walks[self.turn % len(level.walks)]
        x = x + self.position(x, level)
        first, second = self._kept(x)
        x = x + _times(self.attention(self.norm1(x), walk), first)
        return x + _times(self.mlp(self.norm2(x)), second)

    def _kept(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Factors (V, 1) of both branches: 0 where a row skips it; None where none does."""
        if not self.training or self.drop_path == 0:
            return None, None
        kept = torch.rand(2, len(x), 1, device=x.device) >= self.drop_path
        first, second = (kept / (1 - self.drop_path)).unbind(0)
        return first, second


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor.to(x.dtype)


def stage(channels: int, heads: int, rates: Sequence[float], *, ratio: int, device: torch.device) -> nn.ModuleList:
    """The blocks of a stage, one for each drop path rate; they take turns with the walks."""
    return nn.ModuleList(
        Block(channels, heads, ratio=ratio, turn=turn, drop_path=rate, device=device) for turn, rate in enumerate(rates)
    )


def run(blocks: nn.Module, x: Tensor, level: Level, *, again: bool) -> Tensor:
    """The blocks one after another; with `again` the backward pass computes each a second time instead of remembering
    it, with the same random numbers."""
    for block in cast(nn.ModuleList, blocks):
        x = checkpoint(block, x, level, use_reentrant=False) if again else block(x, level)
    return x


def drop_paths(highest: float, depths: Sequence[int]) -> list[list[float]]:
    """Drop path rates of every block of every stage: 0 at the first, the highest at the last, evenly in between."""
    last = max(sum(depths) - 1, 1)
    rates = iter(highest * i / last for i in range(sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]


def initialise(network: nn.Module) -> None:
    """Weights of linear layers and convolutions from a normal distribution (std 0.02, cut at +-2), biases 0."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not isinstance(module, nn.LayerNorm):
            nn.init.trunc_normal_(weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class _ToPatches(torch.autograd.Function):
    """Rows -> slots. A row stands in its own slot, and at most once more as borrowed context; nobody attends to the
    filling, which therefore has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, walk: Walk) -> Tensor:
        ctx.save_for_backward(walk.slot, walk.borrowed, walk.lent)
        return x.index_select(0, walk.rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        slot, borrowed, lent = ctx.saved_tensors
        result = grad.index_select(0, slot)
        if len(lent):
            result.index_add_(0, lent, grad.index_select(0, borrowed))  # a row is lent once: in no particular order
        return result, None


class _FromPatches(torch.autograd.Function):
    """Slots -> rows: each row's own slot."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: Tensor) -> Tensor:
        ctx.save_for_backward(slot)
        ctx.slots = len(x)
        return x.index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slot,) = ctx.saved_tensors
        result = grad.new_zeros(ctx.slots, grad.shape[1])
        result[slot] = grad
        return result, None


def _to_patches(x: Tensor, walk: Walk) -> Tensor:
    result: Tensor = _ToPatches.apply(x, walk)  # type: ignore[no-untyped-call]
    return result


def _from_patches(x: Tensor, walk: Walk) -> Tensor:
    result: Tensor = _FromPatches.apply(x, walk.slot)  # type: ignore[no-untyped-call]
    return result
