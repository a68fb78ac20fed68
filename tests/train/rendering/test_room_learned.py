"""The smallest form of the benchmark: a room is learned from views of it, and pieces hold less memory."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
import torch

from brickyard.train.rendering.field import Field
from brickyard.train.rendering.render import RenderConfig, render
from brickyard.train.rendering.volume import Grid
from tests.benchmarks import rendering
from tests.train.rendering.solids import rays_of, views


def test_a_room_is_learned() -> None:
    """Views held out: the untrained network errs by more than a metre, the trained one by centimetres."""
    before, after = rendering.learn(Namespace(steps=100, rays=128, cells=12, size=24, threads=1))
    assert before["depth_cm"] > 80 and before["psnr"] < 15
    assert after["depth_cm"] < 25 and after["psnr"] > 17
    assert after["normal_degrees"] < before["normal_degrees"] / 2


def test_the_benchmark_measures_all_variants() -> None:
    for variant in rendering.VARIANTS:
        options = Namespace(preset="tiny", rays=8, chunk=4, features=2, steps=1, threads=1)
        row = rendering.measure(variant, options)
        assert row["seconds"] > 0 and row["bytes"] >= 0


def _held(rays: int, chunk: int) -> int:
    """Bytes kept for the backward pass, beside volume and weights."""
    grid = Grid(low=(-0.55, -0.45, -0.55), high=(0.55, 0.45, 0.05), shape=(6, 6, 6))
    volume, field = torch.randn(1, 4, *grid.shape, requires_grad=True), Field("tiny", 4)
    origins, directions = views(1, 16)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def unused(tensor: Any) -> Any:
        return tensor

    # A piece that will be computed again has hooks of its own, closer to it: what it keeps is not seen here.
    with torch.autograd.graph.saved_tensors_hooks(note, unused):
        found = render(
            field, volume, grid, rays_of(origins[:rays], directions[:rays]), config=RenderConfig(chunk=chunk)
        )
    assert found.depth.requires_grad
    return sum(kept.values())


def test_what_is_held_is_that_of_a_piece() -> None:
    """Twice the rays hold twice the memory in one go, but nearly the same in pieces: results are all that is added."""
    whole = _held(128, 0)
    assert _held(256, 0) > 1.8 * whole
    pieces = [_held(128, 32), _held(256, 32)]
    assert pieces[0] < 0.4 * whole
    per_ray = (pieces[1] - pieces[0]) / 128
    assert per_ray < 0.1 * whole / 128


@pytest.mark.parametrize("chunk", [0, 32])
def test_a_rendering_without_gradients_holds_nothing(chunk: int) -> None:
    with torch.no_grad():
        grid = Grid(low=(-0.55, -0.45, -0.55), high=(0.55, 0.45, 0.05), shape=(6, 6, 6))
        origins, directions = views(1, 10)
        found = render(
            Field("tiny", 4), torch.randn(1, 4, 6, 6, 6), grid, rays_of(origins, directions),
            config=RenderConfig(chunk=chunk),
        )  # fmt: skip
    assert not found.depth.requires_grad and found.color is not None and not found.color.requires_grad
