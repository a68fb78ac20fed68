"""Rows of all ranks as one: negatives from everybody, with gradients that find their way back.

A contrastive loss on several ranks has, as published, the negatives of a rank's own scenes. With the rows of all ranks
side by side it has those of the whole batch, on any number of ranks: every rank keeps its own anchors, compares them
with everybody's queries, and divides by what all ranks sum up to, times their number, because the loop averages
gradients over ranks. A rank without rows takes part with none, so nobody waits in vain, as long as every rank makes the
same calls.

Ranks have different numbers of rows; they travel padded to the largest number. A queries' row is 64 floats and a
descriptor's 2,048, so 7,000 of both are 60 MB a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Shares:
    """How many rows each rank has, and which rank this is."""

    counts: tuple[int, ...]
    rank: int = 0

    @classmethod
    def of(cls, count: int, device: torch.device, *, gather: bool) -> Shares:
        """The shares of all ranks, where there are several and rows are to be gathered; else this one's alone."""
        if not (gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return cls((count,))
        mine = torch.tensor([count], device=device)
        counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, mine)
        return cls(tuple(int(number) for number in counts), dist.get_rank())

    @property
    def world(self) -> int:
        return len(self.counts)

    @property
    def start(self) -> int:
        """The place of this rank's first row among all."""
        return sum(self.counts[: self.rank])

    @property
    def total(self) -> int:
        return sum(self.counts)

    def all(self, rows: Tensor) -> Tensor:
        """The rows (n, D) of all ranks, in their order, (total, D); differentiable."""
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over ranks, without gradient."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: Shares) -> Tensor:
        ctx.shares = shares
        padded = rows.new_zeros(max(shares.counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in shares.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, shares.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """What all ranks' losses ask of this rank's rows."""
        shares: Shares = ctx.shares
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[shares.start : shares.start + shares.counts[shares.rank]], None
