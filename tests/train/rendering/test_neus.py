"""Opacity and weights: in their ranges, largest at the surface, and right in depth; samples where they are needed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brickyard.train.rendering.neus import alphas, composite, expected_depth, weights
from brickyard.train.rendering.sampling import guess, merge, resample, stratified


@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-4, 0.1, 10.0, 1e4]),
    sharpness=st.sampled_from([1e-6, 20.0, 1e3, 1e6]),
    anneal=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(deadline=None, max_examples=100)
def test_alphas_and_weights_keep_their_ranges(seed: int, scale: float, sharpness: float, anneal: float) -> None:
    """Whatever the distances: alpha in [0, 1], weights from 0 adding up to 1 at most, gradients finite."""
    generator = torch.Generator().manual_seed(seed)
    sdf, slope = (scale * torch.randn(5, 40, generator=generator) for _ in range(2))
    sdf.requires_grad_()
    inv_s = torch.tensor(sharpness, requires_grad=True)
    alpha = alphas(sdf, slope, torch.rand(5, 40, generator=generator), inv_s, anneal)
    weight = weights(alpha)
    assert bool(((alpha >= 0) & (alpha <= 1)).all())
    assert bool((weight >= 0).all() & (weight.sum(1) <= 1 + 1e-5).all())
    expected_depth(weight, torch.linspace(0, 1, 40).expand(5, 40)).sum().backward()
    assert sdf.grad is not None and inv_s.grad is not None
    assert bool(torch.isfinite(sdf.grad).all() & torch.isfinite(inv_s.grad))


def test_weights_add_up_to_what_does_not_get_through() -> None:
    alpha = torch.rand(6, 30, dtype=torch.float64) * 0.3
    through = (1 - alpha).prod(1)
    torch.testing.assert_close(weights(alpha).sum(1), 1 - through)
    torch.testing.assert_close(weights(torch.ones(1, 4)), torch.tensor([[1.0, 1e-7, 1e-14, 1e-21]]))


def _plane(surface: Tensor, ends: Tensor, sharpness: float, slant: float = 1.0) -> tuple[Tensor, Tensor]:
    """(weights, distances) of rays that meet a plane after `surface` (R,), at an angle of cosine `slant`."""
    distance, lengths = ends[:, :-1], ends[:, 1:] - ends[:, :-1]
    sdf = (surface[:, None] - distance) * slant
    return weights(alphas(sdf, torch.full_like(sdf, -slant), lengths, torch.tensor(sharpness))), distance


@pytest.mark.parametrize("slant", [1.0, 0.3])
@pytest.mark.parametrize("sharpness", [300.0, 3000.0, 1e5])
def test_a_plane_renders_its_depth_within_a_sample_spacing(slant: float, sharpness: float) -> None:
    surface = torch.linspace(0.3, 0.7, 101)
    ends = stratified(torch.full((101,), 0.01), torch.ones(101), 96)
    weight, distance = _plane(surface, ends, sharpness, slant)
    spacing = 0.99 / 96
    assert float((expected_depth(weight, distance) - surface).abs().max()) < spacing
    assert float(weight.sum(1).min()) > 0.99
    most = distance.gather(1, weight.argmax(1, keepdim=True))[:, 0]
    assert float((most - surface).abs().max()) <= spacing, "the heaviest sample is one beside the surface"


@pytest.mark.parametrize("slant", [1.0, 0.4])
def test_the_rendered_surface_is_unbiased(slant: float) -> None:
    """On average over where samples lie the depth is that of the surface, to a hundredth of the spacing; and the error
    does not grow with blur, as it would if density were a function of distance alone."""
    surface = torch.linspace(0.45, 0.55, 2001)
    ends = stratified(torch.zeros(2001), torch.ones(2001), 100)
    for sharpness in (200.0, 1000.0, 1e4):
        weight, distance = _plane(surface, ends, sharpness, slant)
        weight = torch.where(weight > 1e-4, weight, 0)  # without what empty space is given to keep quotients finite
        assert abs(float((expected_depth(weight, distance) - surface).mean())) < 5e-4, sharpness


def test_rays_that_leave_a_surface_see_nothing_of_it() -> None:
    ends = stratified(torch.zeros(1), torch.ones(1), 50)
    distance = ends[:, :-1]
    alpha = alphas(distance + 0.01, torch.ones_like(distance), ends.diff(dim=1), torch.tensor(200.0))
    assert float(weights(alpha).sum()) < 1e-3


def test_composite_is_a_weighted_sum() -> None:
    weight, values = torch.rand(3, 5), torch.rand(3, 5, 2)
    torch.testing.assert_close(composite(weight, values), (weight[..., None] * values).sum(1))


def test_samples_are_the_same_for_a_seed_wherever_its_ray_is() -> None:
    near, far = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 1.5, 2.0])
    seeds = torch.tensor([5, 6, 7])
    ends = stratified(near, far, 16, seeds)
    assert torch.equal(stratified(near[1:2], far[1:2], 16, seeds[1:2]), ends[1:2])
    assert bool((ends.diff(dim=1) >= 0).all()) and bool((ends >= near[:, None]).all() & (ends <= far[:, None]).all())
    assert not torch.equal(ends, stratified(near, far, 16, seeds + 1))
    weight = torch.rand(3, 16)
    more = resample(ends, weight, 8, seeds)
    assert torch.equal(resample(ends[1:2], weight[1:2], 8, seeds[1:2]), more[1:2])


@given(seed=st.integers(0, 10**6), empty=st.booleans(), random=st.booleans())
@settings(deadline=None, max_examples=50)
def test_resampled_sections_stay_on_the_ray_and_in_order(seed: int, empty: bool, random: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    ends = stratified(torch.tensor([0.1, 0.5]), torch.tensor([0.9, 0.5]), 12)  # the second ray has no length
    weight = torch.rand(2, 12, generator=generator) ** 8 * (0 if empty else 1)
    more = resample(ends, weight, 9, torch.tensor([1, 2]) if random else None)
    assert more.shape == (2, 10) and bool((more.diff(dim=1) >= 0).all())
    assert bool((more >= ends[:, :1]).all() & (more <= ends[:, -1:]).all())
    both, order = merge(ends, more)
    assert both.shape == (2, 22) and bool((both.diff(dim=1) >= 0).all())
    starts = torch.cat((ends[:, :-1], more[:, :-1]), 1)
    assert torch.equal(starts.gather(1, order), both[:, :-1])


def test_resampling_follows_the_weights() -> None:
    """Twice the weight, twice the samples, also with random places."""
    ends = torch.linspace(0, 1, 5).expand(200, 5).contiguous()
    weight = torch.tensor([0.0, 0.2, 0.4, 0.0]).expand(200, 4)
    drawn = resample(ends, weight, 29, torch.arange(200))
    first, second = ((drawn >= a) & (drawn < a + 0.25) for a in (0.25, 0.5))
    assert int(first.sum()) / int(second.sum()) == pytest.approx(0.5, abs=0.05)
    assert int((~(first | second)).sum()) <= 5


def test_more_samples_go_to_where_a_surface_is() -> None:
    ends = stratified(torch.zeros(1), torch.ones(1), 32)
    sdf = 0.6 - ends[:, :-1]
    weight = guess(ends, sdf, 64.0)
    more = resample(ends, weight, 16)
    assert float(((more - 0.6).abs() < 0.08).float().mean()) > 0.6
    assert float(weight[0, -1]) == 0 and float(weight.sum()) <= 1 + 1e-6
