"""One process, or several that torchrun or Ray Train started: the same loop serves both.

Ranks share every global batch in equal parts (see `shards.stream`) and average gradients. As in the published systems,
negatives of a contrastive loss are those of a rank's own part, unless it gathers them. The group is the one there is,
or the one that the variables of torchrun describe.

No rank waits for another in vain. All make the same number of passes and steps, and gradients are averaged once a step,
after its last pass, whatever each pass had to do: a scene may leave one part of a network without a gradient on one
rank. Torch's DistributedDataParallel would hide that transfer behind the backward pass, but must be told which passes
are the last and search every graph for parts without a gradient. The transfer is 8 bytes a parameter and step on each
rank: 17 ms for 108 million over 50 GB/s, beside steps of a second. Nor could it be hidden safely by hooks of our own:
synchronised batch norms exchange sums in the backward pass, too, and where a part has no gradient on one rank, its
buckets would be full at another point among these exchanges than elsewhere, so ranks would wait for different things.

A frozen teacher takes no part. What ranks decide, such as to stop, they decide from what all of them shared.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

_BUCKET = 8 << 20
"""Elements of gradients that travel together."""


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
            # batches of ever other sizes would leave fixed segments in pieces, until memory seems to run out
            os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
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

    def equalise(self, model: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over ranks, none counting as 0; one that no rank has stays none."""
        if self.world == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        used = [parameter for parameter, any_has in zip(parameters, has.tolist(), strict=True) if any_has]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        travelling = []
        for bucket in _buckets(used):
            flat = torch.cat([parameter.grad.reshape(-1) for parameter in bucket if parameter.grad is not None])
            travelling.append((bucket, flat, dist.all_reduce(flat.div_(self.world), async_op=True)))
        for bucket, flat, arrival in travelling:
            arrival.wait()
            parts = torch.split_with_sizes(flat, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)

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


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type, in their order, until a bucket is full."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (bucket[0].dtype != parameter.dtype or sum(p.numel() for p in bucket) >= _BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
