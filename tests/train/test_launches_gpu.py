"""On CUDA: a step waits as seldom as was counted without one, views are those of the CPU, items are brought ahead."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brickyard.train.clouds import join_clouds
from brickyard.train.running.ahead import Ahead
from brickyard.train.running.distributed import Group
from brickyard.train.step import Stepper
from brickyard.train.views.views import ViewConfig, make_views
from tests.benchmarks.launches import BARS, OBJECTIVES, case
from tests.benchmarks.sonata_cost import room

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_waits_as_seldom_as_counted(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = case(name, narrow=True, folder=tmp_path)
    device = torch.device("cuda:0")
    stepper = Stepper(made.step, made.objective.build(device), Group(rank=0, world=1, device=device), lambda _: 0)
    for step in range(3):  # kernels are chosen in the first ones
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn" if step == 2 else "default")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert stepper.make(step, 100, iter([list(made.items)]), [0]).learned
    torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) < BARS["waits"], waits


def test_views_are_those_of_the_cpu() -> None:
    clouds = [room(seed, 3000).cloud for seed in range(2)]
    made = [
        make_views(
            join_clouds(clouds, ("xyz", "color", "normal"), device), torch.tensor([5, 6]), ViewConfig(),
            size=0.05, mask_size=0.3, mask_ratio=0.5,
        )
        for device in ("cpu", "cuda:0")
    ]  # fmt: skip
    cpu, cuda = made
    assert cpu.clouds.counts == cuda.clouds.counts
    for name in ("chosen", "cell", "origin"):
        assert torch.equal(getattr(cpu, name), getattr(cuda, name).cpu()), name
    torch.testing.assert_close(cuda.clouds.xyz.cpu(), cpu.clouds.xyz, atol=1e-3, rtol=0)
    torch.testing.assert_close(cuda.clouds.values["color"].cpu(), cpu.clouds.values["color"], atol=1e-4, rtol=0)
    assert float((cuda.masked.cpu() != cpu.masked).float().mean()) < 0.02  # a point on the border of two cubes


def test_items_arrive_ahead_and_whole() -> None:
    source = iter([[torch.full((1 << 22,), float(number))] for number in range(4)])
    ahead = Ahead(source, lambda: None, torch.device("cuda:0"))
    for number in range(4):
        busy = torch.randn(2000, 2000, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 50
        if number:
            ahead.look()
        (items,) = next(ahead)
        assert items.device.type == ("cuda" if number else "cpu")
        assert bool((items == number).all())
