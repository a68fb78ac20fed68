"""One process, or several that torchrun or Ray Train started: the same loop serves both.

Ranks share every global batch in equal parts (see `shards.stream`) and average gradients. As in the published systems,
negatives of a contrastive loss are those of a rank's own part. The group is the one there is, or the one that the
variables of torchrun describe.

No rank waits for another in vain. All make the same number of passes and steps. Parameters without a gradient are
looked for in every pass, because a scene may give one part of a network nothing to do; a parameter that never asks for
one (a frozen teacher) takes no part. What ranks decide, such as to stop, they decide from what all of them shared.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from train.objectives.objective import Loss, Objective


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
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        chosen = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else kind)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        began = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
        if began:
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        try:
            there = dist.is_available() and dist.is_initialized()
            rank, world = (dist.get_rank(), dist.get_world_size()) if there else (0, 1)
            yield Group(rank=rank, world=world, device=chosen)
        finally:
            if began:
                dist.destroy_process_group()

    def wrap(self, objective: Objective) -> nn.Module:
        """`wrapped(batch)` is the loss, with gradients averaged over ranks; initial weights are those of rank 0."""
        if self.world == 1:
            return _Forward(objective)
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(_Forward(objective), device_ids=ids, find_unused_parameters=True)

    def synchronised(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel with the last of a step's passes only."""
        if isinstance(model, DistributedDataParallel) and not last:
            return model.no_sync()
        return contextlib.nullcontext()

    def share(self, table: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The tables of all ranks, in their order. They travel as JSON: what is unpickled can run code."""
        if self.world == 1:
            return [dict(table)]
        data = torch.frombuffer(bytearray(json.dumps(table).encode()), dtype=torch.uint8).to(self.device)
        size = torch.tensor([len(data)], device=self.device)
        sizes = [torch.empty_like(size) for _ in range(self.world)]
        dist.all_gather(sizes, size)
        longest = max(int(size) for size in sizes)
        padded = nn.functional.pad(data, (0, longest - len(data)))
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return [json.loads(bytes(part[: int(size)].cpu().numpy())) for part, size in zip(parts, sizes, strict=True)]

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


class _Forward(nn.Module):
    """The objective, so that the total is all that a gradient can come from, and that one always can."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self._anchor = [next(parameter for parameter in objective.parameters() if parameter.requires_grad)]

    def forward(self, batch: Any) -> Loss:
        loss: Loss = self.objective(batch)
        total = loss.total if loss.total.requires_grad else loss.total + 0.0 * self._anchor[0].sum()
        metrics = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in loss.metrics.items()}
        return replace(loss, total=total, metrics=metrics)
