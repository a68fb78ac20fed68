"""What a step asks of a GPU, counted on one that is not there; and that the counting can be believed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from brickyard.train.running.ahead import each_tensor
from brickyard.train.transfer import send
from tests.benchmarks.launches import BARS, OBJECTIVES, case, count, few_channels
from tests.benchmarks.pretend import DEVICE, Tally, Twin, pretended_gpu


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_stays_below_the_bars(name: str) -> None:
    parts = count(name, narrow=True)
    for what, bar in BARS.items():
        assert parts["all"][what] < bar, {part: counts.get(what, 0) for part, counts in parts.items()}
    assert parts["all"]["blocking"] == 0


def counted(ask: Callable[[Tensor], object]) -> dict[str, int]:
    """Of something asked of four numbers on the device."""
    with pretended_gpu() as tally:
        x = torch.arange(4, device=DEVICE)
        tally.begin()
        ask(x)
        return {name: value for name, value in tally.total().items() if value}


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda x: x + 1, {"launches": 1}),
        (lambda x: x.view(2, 2).T[0], {}),
        (lambda x: x.sort().values, {"launches": 1}),
        (lambda x: x.sum().item(), {"launches": 2, "waits": 1}),
        (lambda x: bool((x > 9).any()), {"launches": 3, "waits": 1}),
        (lambda x: x.tolist(), {"waits": 1}),
        (lambda x: x.to("cpu", non_blocking=True), {}),
        (lambda x: x.nonzero(), {"launches": 1, "waits": 1}),
        (lambda x: torch.nonzero_static(x, size=3), {"launches": 1}),
        (lambda x: x[x > 1], {"launches": 2, "waits": 1}),
        (lambda x: x[x], {"launches": 1}),
        (lambda x: x.masked_fill_(x > 1, 0), {"launches": 2}),
        (torch.unique, {"launches": 1, "waits": 1}),
        (torch.bincount, {"launches": 1, "waits": 2}),
        (torch.repeat_interleave, {"launches": 1, "waits": 1}),
        (lambda x: torch.repeat_interleave(x, output_size=6), {"launches": 1}),
        (lambda _: torch.tensor([1, 2], device=DEVICE), {"copies": 1, "blocking": 1, "bytes": 16}),
        (lambda _: send(torch.zeros(3), DEVICE), {"copies": 1, "bytes": 12}),
        (lambda x: x[torch.tensor([0, 1])], {"launches": 1, "copies": 1, "blocking": 1, "bytes": 16}),
        (lambda x: x.float()[None] @ x.float(), {"launches": 3, "float32": 1}),
        (lambda x: torch._foreach_add_([x.clone() for _ in range(3)], 1), {"launches": 4}),
    ],
)  # fmt: skip
def test_operations_count_as_what_they_are_on_a_gpu(ask: Callable[[Tensor], object], expected: dict[str, int]) -> None:
    assert counted(ask) == expected


def test_values_are_those_of_the_cpu_and_memory_is_followed() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(1000, 1000), torch.randn(5, 1000)
    layer(x).square().sum().backward()
    expected = layer.weight.grad
    with pretended_gpu() as tally:
        there = nn.Linear(1000, 1000).to(DEVICE)
        there.load_state_dict({name: value.detach() for name, value in layer.state_dict().items()})
        tally.begin()
        before = tally.alive
        there(x.to(DEVICE)).square().sum().backward()
        assert there.weight.device == DEVICE
        assert torch.equal(there.weight.grad.cpu(), expected)  # type: ignore[union-attr, arg-type]
        assert 4_000_000 <= tally.alive - before < 4_100_000  # the gradient
        assert tally.peak >= tally.alive
        assert tally.parts["backward"]["launches"] if "backward" in tally.parts else tally.total()["launches"] > 5


def test_host_and_device_do_not_mix() -> None:
    with pretended_gpu(), pytest.raises(RuntimeError, match="on the host and on the device"):
        torch.ones(3, device=DEVICE) + torch.ones(3)


@pytest.mark.parametrize("name", ["sonata", "stslidr"])
def test_items_may_lie_on_the_device_already(name: str, tmp_path: os.PathLike[str]) -> None:
    """As `train.running.ahead` brings them."""
    from pathlib import Path

    torch.manual_seed(0)
    with few_channels(), pretended_gpu() as tally:
        made = case(name, narrow=True, folder=Path(tmp_path))
        objective = made.objective.build(DEVICE)
        assert objective.items_on_device
        objective.begin_step(3, 10)
        batches, waits = [], []
        for items in (list(made.items), each_tensor(list(made.items), lambda tensor: send(tensor, DEVICE))):
            tally.begin()
            batches.append(objective.collate(items, DEVICE))
            waits.append(tally.total()["waits"])
        assert waits[0] == waits[1]
        here, there = ([], [])  # type: tuple[list[Tensor], list[Tensor]]
        for batch, tensors in zip(batches, (here, there), strict=True):
            each_tensor(batch, lambda tensor, tensors=tensors: tensors.append(tensor) or tensor)  # type: ignore[misc]
        assert len(here) == len(there) > 5
        assert all(isinstance(tensor, Twin) for tensor in there)
        assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(here, there, strict=True))


def test_tallies_begin_anew() -> None:
    assert counted(lambda x: x + 1) == counted(lambda x: x + 1)
    assert Tally().total()["launches"] == 0
