"""One process, or several that torchrun started: the same loop serves both.

Ranks share every global batch in equal parts (see `shards.stream`) and average gradients. As in the published systems,
negatives of a contrastive loss are those of a rank's own part. The group is read from the variables torchrun sets.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Group:
    """Who trains together.

    Attributes:
        rank, world: this process among all.
        device: of this process.
    """

    rank: int
    world: int
    device: torch.device

    @staticmethod
    @contextlib.contextmanager
    def join(device: str = "auto") -> Iterator[Group]:
        """The group for the time of a run; leaves it again where it was not there before."""
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        chosen = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else kind)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        began = world > 1 and not dist.is_initialized()
        if began:
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        try:
            yield Group(rank=rank, world=world, device=chosen)
        finally:
            if began:
                dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over ranks; initial weights are those of rank 0."""
        if self.world == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def synchronised(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel with the last of the accumulated batches only."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
            return model.no_sync()
        return contextlib.nullcontext()

    def any(self, value: bool) -> bool:
        """True on every rank if it is on any."""
        if self.world == 1:
            return value
        flag = torch.tensor(float(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag > 0)

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()
