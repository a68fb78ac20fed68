"""Rendering: a room known exactly, the plain writing of the same thing, pieces, rays that miss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from brickyard.evaluate.images import normal_angle
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.rendering.field import CONFIGS, Field, FieldConfig
from brickyard.train.rendering.rays import Rays
from brickyard.train.rendering.render import CONFIGS as SAMPLING
from brickyard.train.rendering.render import RenderConfig, Rendered, render
from brickyard.train.rendering.volume import Grid
from tests.train.rendering import solids
from tests.train.rendering.plain import render_plainly

GRID = Grid(low=(-0.55, -0.55, -0.55), high=(0.55, 0.55, 0.55), shape=(6, 7, 5))
FEW = RenderConfig(even=12, extra=6)


def _volume(scenes: int, channels: int, grid: Grid = GRID) -> Tensor:
    torch.manual_seed(0)
    volume = torch.randn(scenes, channels, *grid.shape).contiguous(memory_format=torch.channels_last_3d)
    return volume.requires_grad_()


def _rays(count: int, *counts: int) -> Rays:
    torch.manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=1)
    return solids.rays_of(0.3 * (torch.rand(count, 3) - 0.5), directions, *counts)


def _known(distance: Any = solids.distance_to, sharpness: float = 2000.0) -> Field:
    return cast(Field, solids.Known(sharpness, distance))


def test_a_room_looks_as_rays_cast_into_it_say() -> None:
    """Walls and a ball: depth, normals and colours of the rendering against exact intersections."""
    origins, directions = solids.views(2, 24)
    truth = solids.cast(origins, directions)
    found = render(
        _known(), torch.zeros(1, 1, *GRID.shape), GRID, solids.rays_of(origins, directions), config=RenderConfig()
    )
    error = (found.depth - truth.distance).abs()
    assert truth.ball.sum() > 50 and (~truth.ball).sum() > 500
    assert float(error.median()) < 1e-3 and float(error.quantile(0.98)) < 0.01  # of a room of 1 x 0.8 x 0.5
    inner = error < 0.01  # not on the ball's outline or where walls meet: a ray between two surfaces sees both
    assert float(normal_angle(found.normal[inner], truth.normal[inner])) < 3
    assert found.color is not None
    assert float((found.color - truth.color)[inner].abs().mean()) < 0.02
    assert float(found.opacity.min()) > 0.99


@pytest.mark.parametrize("axis", [0, 2])
def test_a_plane_renders_its_depth_within_a_sample_spacing(axis: int) -> None:
    """With even samples alone, and closer with those added where the surface is."""
    directions = torch.nn.functional.normalize(torch.eye(3)[axis] + 0.3 * torch.randn(40, 3), dim=1)
    rays = solids.rays_of(torch.full((40, 3), -0.2), directions)
    exact = (0.31 + 0.2) / directions[:, axis]
    rays = rays.of(((rays.origins + exact[:, None] * directions).abs() < 0.5).all(1).nonzero()[:, 0])
    exact = (0.31 + 0.2) / rays.directions[:, axis]
    plane = _known(lambda points: 0.31 - points[..., axis], 3e4)
    worst = []
    for config in (RenderConfig(even=96, extra=0, rounds=0), RenderConfig()):
        found = render(plane, torch.zeros(1, 1, *GRID.shape), GRID, rays, config=config)
        worst.append(float((found.depth - exact).abs().max()))
        torch.testing.assert_close(found.normal, -torch.eye(3)[axis].expand(len(exact), 3), atol=0.01, rtol=0)
    spacing = 1.9 / 96  # of the longest ray in the box
    assert worst[0] < spacing and worst[1] < spacing / 2


@pytest.mark.parametrize("preset", sorted(CONFIGS))
@pytest.mark.parametrize("features", [0, 5])
def test_the_plain_writing_gives_the_same(preset: str, features: int) -> None:
    """Values and every gradient: folded decoders and the written-out gradient against layers and autograd."""
    torch.manual_seed(0)
    field, volume = Field(replace(CONFIGS[preset], features=features), 8), _volume(1, 8)
    rays, seeds = _rays(20), torch.arange(20)
    even = replace(FEW, rounds=0, chunk=7)  # places found by resampling would differ by what rounding leaves
    found = render(field, volume, GRID, rays, config=even, seeds=seeds)
    plain = render_plainly(field, volume, GRID, rays, config=even, seeds=seeds)
    inputs = [volume, *field.parameters()]

    def gradients(values: dict[str, Tensor]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(3)
        loss = torch.stack([(v * torch.randn(v.shape, generator=generator)).mean() for v in values.values()]).sum()
        loss = loss + (values["gradient"].norm(dim=-1) - 1).square().mean()
        return list(torch.autograd.grad(loss, inputs))

    mine = {name: cast(Tensor, getattr(found, name)) for name in plain}
    for name, value in plain.items():
        assert _apart(mine[name], value) < 1e-3, name
    for ours, theirs in zip(gradients(mine), gradients(plain), strict=True):
        assert _apart(ours, theirs) < 2e-3


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """Length of the difference by the length of what is expected."""
    return float(((ours - theirs).norm() / theirs.norm().clamp(min=1e-6)).detach())


def _loss(found: Rendered) -> Tensor:
    assert found.color is not None
    return found.depth.sum() + found.color.square().sum() + (found.gradient.norm(dim=2) - 1).square().mean()


def test_pieces_change_nothing_but_memory() -> None:
    """Any size of a piece: the same values bit for bit, the same gradients up to the order of sums."""
    field, rays, seeds = Field("tiny", 4), _rays(30, 18, 12), torch.arange(30)
    results = []
    for chunk in (0, 5, 18):
        volume = _volume(2, 4)
        found = render(field, volume, GRID, rays, config=replace(FEW, chunk=chunk), seeds=seeds)
        gradients = torch.autograd.grad(_loss(found), [volume, *field.parameters()])
        results.append((found, gradients))
    for found, gradients in results[1:]:
        torch.testing.assert_close(found.depth, results[0][0].depth, atol=1e-6, rtol=1e-5)
        assert torch.equal(found.distance, results[0][0].distance)
        for a, b in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-9, rtol=1e-3)


def test_a_scene_is_rendered_alike_beside_others() -> None:
    """The volume of each ray is its own scene's, and no batch-mate changes a value."""
    field, volume, rays, seeds = Field("tiny", 4), _volume(3, 4), _rays(30, 10, 0, 20), torch.arange(30)
    found = render(field, volume, GRID, rays, config=FEW, seeds=seeds)
    alone = render(field, volume[2:], GRID, rays.of(torch.arange(10, 30)), config=FEW, seeds=seeds[10:])
    torch.testing.assert_close(found.depth[10:], alone.depth, atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found.depth[10:].sum(), volume)
    assert float(gradient[:2].abs().max()) == 0 and float(gradient[2].abs().max()) > 0


def test_rays_that_miss_show_the_background_and_teach_nothing() -> None:
    rays = _rays(12)
    rays.origins[3] = torch.tensor([5.0, 5.0, 5.0])
    rays.directions[3] = torch.tensor([1.0, 0.0, 0.0])
    rays.origins[7] = torch.tensor([0.0, 0.0, 2.0])
    rays.directions[7] = torch.tensor([0.0, 1.0, 0.0])  # parallel to the box's faces
    field, volume = Field(replace(CONFIGS["tiny"], features=3), 4), _volume(1, 4)
    found = render(field, volume, GRID, rays, config=replace(FEW, background=(0.2, 0.4, 0.6)))
    missed = torch.tensor([3, 7])
    assert found.hit.tolist() == [n not in (3, 7) for n in range(12)] and len(found.sdf) == 10
    assert found.color is not None and found.features is not None
    torch.testing.assert_close(found.color[missed], torch.tensor([[0.2, 0.4, 0.6]] * 2))
    for values in (found.depth, found.opacity, found.normal, found.features):
        assert not bool(values[missed].any())
    gradients = torch.autograd.grad(
        _loss(found) + found.features.sum() + found.normal.sum(), [volume, *field.parameters()]
    )
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_nothing_to_render_is_an_error_that_says_so() -> None:
    field, volume, rays = Field("tiny", 4), _volume(1, 4), _rays(3)
    rays.origins[:] = 9
    rays.directions[:] = torch.tensor([1.0, 0, 0])
    with pytest.raises(BrickyardError, match="none of 3 rays hits the box"):
        render(field, volume, GRID, rays, config=FEW)
    rays.origins[1] = torch.nan
    with pytest.raises(BrickyardError, match="1 of 3 rays are not finite"):
        render(field, volume, GRID, rays, config=FEW)
    with pytest.raises(ValueError, match="shape"):
        render(field, _volume(2, 4), GRID, rays, config=FEW)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("sharpness", [-1.0, 0.3, 1.5])
def test_rounded_and_extreme_inputs_stay_finite(scale: float, sharpness: float) -> None:
    """Features and weights as bfloat16 leaves them, huge or tiny, surfaces as sharp as they get."""
    torch.manual_seed(0)
    field = Field(replace(CONFIGS["published-indoor"], inv_s=sharpness), 8)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.copy_(parameter.bfloat16().float())
    volume = (scale * _volume(1, 8)).detach().bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = render(field, volume, GRID, _rays(10), config=FEW, seeds=torch.arange(10))
        loss = _loss(found) + found.normal.sum()
    assert found.depth.dtype == torch.float32 and bool((found.opacity <= 1 + 1e-5).all())
    gradients = torch.autograd.grad(loss, [volume, *field.parameters()], allow_unused=True)
    assert all(bool(torch.isfinite(v).all()) for v in (loss, *gradients) if v is not None)


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_gradient_is_that_of_finite_differences(blocks: int) -> None:
    torch.manual_seed(0)
    config = FieldConfig(hidden=8, sdf_blocks=blocks, geometry=2, coordinates=True, expand=6)
    field, volume = Field(config, 4), _volume(1, 4).detach()
    folded, rows = field.folded(), volume[0].permute(1, 2, 3, 0).reshape(-1, 4)
    points = 0.8 * (torch.rand(200, 3) - 0.5)
    step = 1e-3
    found = folded.samples(rows, GRID, points)
    torch.testing.assert_close(found.sdf, folded.distances(rows, GRID, points))
    for axis in range(3):
        offset = step * torch.eye(3)[axis]
        ahead, behind = (folded.distances(rows, GRID, points + sign * offset) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        assert float((slope - found.gradient[:, axis]).abs().median()) < 2e-3  # a few lie across a cell's middle


def test_names_and_sizes_that_do_not_exist() -> None:
    with pytest.raises(RecipeError, match="published-indoor"):
        Field("published", 8)
    with pytest.raises(ValueError, match="even"):
        FieldConfig(expand=3, hidden=4, sdf_blocks=1, geometry=2)
    with pytest.raises(ValueError, match="positive"):
        FieldConfig(hidden=4, sdf_blocks=0, geometry=2)
    with pytest.raises(ValueError, match="equal rounds"):
        RenderConfig(extra=7, rounds=2)
    assert set(SAMPLING) == set(CONFIGS)
