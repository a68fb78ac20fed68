"""Batch norms over ranks: the statistics, outputs and gradients of one rank that has all the rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from brickyard.train.models.norms import BatchNorm, synchronise
from tests.train.spy import ranks

ROWS, CHANNELS = 60, 5
CUTS = {1: [60], 2: [7, 53], 4: [20, 0, 1, 39]}


def rows() -> torch.Tensor:
    """Far from 0 beside their spread, where sums of squares would cancel."""
    return 300 + torch.randn(ROWS, CHANNELS, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(BatchNorm(CHANNELS, momentum=0.3), nn.Linear(CHANNELS, CHANNELS), BatchNorm(CHANNELS))


def learn(mine: torch.Tensor, net: nn.Sequential) -> dict[str, torch.Tensor]:
    mine = mine.clone().requires_grad_()
    net(mine).pow(3).sum().backward()
    assert mine.grad is not None
    return {"rows": mine.grad, **{name: p.grad for name, p in net.named_parameters() if p.grad is not None}} | dict(
        net.named_buffers()
    )


def one_rank(folder: str) -> None:
    dist.init_process_group("gloo")
    rank, net = dist.get_rank(), network()
    synchronise(net, True)
    found = learn(rows().split(CUTS[dist.get_world_size()])[rank], net)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_are_one_rank_with_all_rows(world: int, tmp_path: Path) -> None:
    """Also where a rank has one row, or none."""
    assert ranks(world, one_rank, str(tmp_path)) == [0] * world
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    expected = learn(rows(), network())
    torch.testing.assert_close(torch.cat([part["rows"] for part in found]), expected["rows"], rtol=1e-3, atol=1e-4)
    for name, value in expected.items():
        if name.endswith(("weight", "bias")):
            total = torch.stack([part[name] for part in found]).sum(0)
            torch.testing.assert_close(total, value, rtol=1e-3, atol=1e-3)
        elif name != "rows":
            for part in found:
                torch.testing.assert_close(part[name], value, rtol=1e-4, atol=1e-5)


def test_alone_it_is_torchs_own() -> None:
    ours, theirs = network(), nn.BatchNorm1d(CHANNELS, momentum=0.3)
    synchronise(ours, True)
    assert torch.equal(ours[0](rows()), theirs(rows()))
    assert ours[0].state_dict().keys() == theirs.state_dict().keys()
