"""Interpolation: equal to torch's, differentiable twice, and its slopes are its derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from brickyard.train.rendering import volume as module
from brickyard.train.rendering.volume import (
    Grid,
    Padding,
    corners,
    densify,
    products,
    rows_of,
    spread,
    trilinear,
    weighted_sum,
)

SHAPE = (4, 3, 5)


def _volume(channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(channels, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _cells(count: int, beyond: float, seed: int = 0) -> Tensor:
    """Random places, none within 0.01 of a cell's centre plane, where derivatives jump."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    places = places * (torch.tensor(SHAPE) - 1 + 2 * beyond) - beyond
    right = places - places.floor()
    return places.floor() + right.clamp(0.01, 0.99)


@given(
    seed=st.integers(0, 10**6),
    align=st.booleans(),
    padding=st.sampled_from(["zeros", "border"]),
    beyond=st.floats(0, 2),
)
@settings(deadline=None, max_examples=40)
def test_forward_is_that_of_grid_sample(seed: int, align: bool, padding: Padding, beyond: float) -> None:
    grid = Grid(low=(-1.0, -2.0, 0.0), high=(1.0, 3.0, 0.5), shape=SHAPE, align_corners=align)
    volume = _volume(seed=seed)
    low, high = torch.tensor(grid.low).double(), torch.tensor(grid.high).double()
    points = low + (high - low) * _cells(20, beyond, seed) / (torch.tensor(SHAPE) - 1)
    unit = 2 * (points - low) / (high - low) - 1
    expected = functional.grid_sample(
        volume.permute(0, 3, 2, 1)[None], unit[None, None, None], align_corners=align, padding_mode=padding
    )[0, :, 0, 0].T
    torch.testing.assert_close(trilinear(volume, grid.coordinates(points), padding), expected)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (3.0, 2.0, 4.0), (3.0, 1.0, 2.5)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_cells_give_their_own_values(place: tuple[float, float, float], padding: Padding) -> None:
    value = trilinear(_volume(), torch.tensor([place]).double(), padding)[0]
    x, y, z = (int(v) for v in place)
    expected = _volume()[:, x, y, z] if place[2] == z else (_volume()[:, x, y, 2] + _volume()[:, x, y, 3]) / 2
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_differentiable_twice(padding: Padding) -> None:
    volume, cells = _volume(2).requires_grad_(), _cells(4, 0.7).requires_grad_()
    assert gradcheck(lambda v, c: trilinear(v, c, padding), (volume, cells))
    assert gradgradcheck(lambda v, c: trilinear(v, c, padding), (volume, cells))


def test_second_derivatives_are_those_of_grid_sample() -> None:
    """torch has them since lately, for volume and places; ours must agree wherever a loss holds a gradient."""
    found = []
    for ours in (True, False):
        volume, cells = _volume().requires_grad_(), _cells(10, 0.0).requires_grad_()
        if ours:
            values = trilinear(volume, cells)
        else:
            unit = 2 * cells / (torch.tensor(SHAPE) - 1) - 1
            order = volume.permute(0, 3, 2, 1)[None]
            values = functional.grid_sample(order, unit[None, None, None], align_corners=True)[0, :, 0, 0].T
        (slope,) = torch.autograd.grad(values.square().sum(), cells, create_graph=True)
        found.append(torch.autograd.grad((slope.norm(dim=1) - 1).square().sum(), (volume, cells)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_each_operation_is_differentiable_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_blocks", lambda index, channels: [slice(0, 2), slice(2, 5)])
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(6, (5, 8), generator=generator)
    rows, weights, values = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((6, 2), (5, 8), (5, 2))
    )
    for check in (gradcheck, gradgradcheck):
        assert check(lambda r, w: weighted_sum(r, index, w), (rows, weights))
        assert check(lambda r, v: products(r, index, v), (rows, values))
        assert check(lambda w, v: spread(6, index, w, v), (weights, values))


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_slopes_are_the_derivatives_of_the_weights(padding: Padding) -> None:
    cells = _cells(10, 0.0 if padding == "border" else 0.8).requires_grad_()
    around = corners(cells, SHAPE, padding, slopes=True)
    assert around.slopes is not None
    for corner in range(8):
        (expected,) = torch.autograd.grad(around.weights[:, corner].sum(), cells, retain_graph=True)
        torch.testing.assert_close(around.slopes[:, corner], expected)


def test_a_product_with_slopes_is_the_gradient() -> None:
    """How the field takes the gradient of what it makes of a volume."""
    volume, cells = _volume(), _cells(10, 0.0).requires_grad_()
    around = corners(cells, SHAPE, "border", slopes=True)
    direction = torch.randn(10, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad((trilinear(volume, cells, "border") * direction).sum(), cells)
    assert around.slopes is not None
    steps = products(rows_of(volume), around.index, direction)
    torch.testing.assert_close((steps[..., None] * around.slopes).sum(1), expected)


@pytest.mark.parametrize("align", [True, False])
def test_densified_features_are_found_where_they_were(align: bool) -> None:
    """A cell takes the mean of its points, and a look at its centre finds it: both go by one grid."""
    grid = Grid(low=(-1.0, 0.0, 2.0), high=(3.0, 2.0, 3.0), shape=SHAPE, align_corners=align)
    cells = torch.tensor([[0, 0, 0], [3, 2, 4], [1, 2, 3], [1, 2, 3]])
    points = torch.tensor(grid.low) + (cells + (0.0 if align else 0.5)) / grid.per_unit(torch.zeros(1))
    scene = torch.tensor([0, 1, 1, 1])
    features = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [5.0, 50.0]]).requires_grad_()
    volume = densify(features, points, scene, 2, grid)
    assert volume.shape == (2, 2, *SHAPE) and volume.is_contiguous(memory_format=torch.channels_last_3d)
    assert rows_of(volume[0]).data_ptr() == volume.data_ptr()
    found = torch.stack(
        [trilinear(volume[b], grid.coordinates(p[None]))[0] for b, p in zip(scene, points, strict=True)]
    )
    expected = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [4.0, 40.0]])
    torch.testing.assert_close(found, expected)
    assert int((volume != 0).any(1).sum()) == 3
    volume.sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.tensor([[1.0] * 2, [1.0] * 2, [0.5] * 2, [0.5] * 2]))


def test_a_grid_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="two cells"):
        Grid(low=(0.0, 0.0, 0.0), high=(1.0, 1.0, 1.0), shape=(1, 4, 4))
    with pytest.raises(ValueError, match="low < high"):
        Grid(low=(0.0, 0.0, 0.0), high=(1.0, 0.0, 1.0), shape=(4, 4, 4))
