"""Views: which points they show, where these are moved, what is hidden; against brute force and other libraries."""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.views.color import ColorConfig, recolor
from brickyard.train.views.crops import CropConfig, crops, grid_sample
from brickyard.train.views.geometry import GeometryConfig, move, turns
from brickyard.train.views.masks import mask_cubes, shaken
from brickyard.train.views.noise import derive, normal
from brickyard.train.views.views import ViewConfig, Views, make_views, withheld

INPUTS = ("xyz", "color", "normal", "valid")
STILL = GeometryConfig(scale=(1, 1), turn=0, tilt_chance=0, flip=0, jitter=0, elastic=())


def cloud(seed: int, points: int, *, color: bool = True) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0]) + seed
    values = {"normal": torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)}
    if color:
        values["color"] = torch.rand(points, 3, generator=generator)
    return Cloud(key=str(seed), domain="indoor", xyz=xyz, values=values)


def clouds(*sizes: int, **kwargs: Any) -> Clouds:
    return join_clouds([cloud(i, n, **kwargs) for i, n in enumerate(sizes)], INPUTS, "cpu")


def seeds(number: int, first: int = 7) -> Tensor:
    return torch.arange(first, first + number)


def views(scenes: Clouds, given_seeds: Tensor, config: ViewConfig | None = None) -> Views:
    return make_views(scenes, given_seeds, config or ViewConfig(), size=0.1, mask_size=0.4, mask_ratio=0.5)


# Crops


def test_grid_sampling_keeps_one_random_point_of_every_cell() -> None:
    scenes = clouds(3000, 1, 2000)
    cells = [tuple(c) for c in torch.cat((scenes.scene[:, None], scenes.cells(0.5)), 1).tolist()]
    kept, place, counts = grid_sample(scenes, 0.5, seeds(3))
    assert counts == tuple(torch.bincount(scenes.scene[kept]).tolist())
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert sorted(cells[k] for k in kept.tolist()) == sorted(set(cells))
    assert [cells[k] for k in kept[place].tolist()] == cells
    other, *_ = grid_sample(scenes, 0.5, seeds(3, 99))
    assert (kept[: len(other)] != other).float().mean() > 0.5  # another draw
    alone = join_clouds([cloud(2, 2000)], INPUTS, "cpu")
    again, *_ = grid_sample(alone, 0.5, seeds(3)[2:])
    assert torch.equal(scenes.xyz[kept][scenes.scene[kept] == 2], alone.xyz[again])


def test_views_are_the_nearest_points_of_their_centres() -> None:
    scenes = clouds(500, 40, 900)
    config = CropConfig(points=600, locals=3)
    masks = crops(scenes, config, seeds(3))
    assert len(masks) == 5
    for number, (mask, sizes) in enumerate(masks):
        assert sizes == tuple(torch.bincount(scenes.scene[mask], minlength=3).tolist())
        low, high = config.global_share if number < 2 else config.local_share
        for scene, size in enumerate(scenes.counts):
            own = scenes.scene == scene
            count = int((mask & own).sum())
            assert int(low * min(size, 600)) <= count <= int(high * min(size, 600))
            inside, outside = scenes.xyz[mask & own], scenes.xyz[~mask & own]
            # Some point of the view is its centre: all others of the view are nearer to it than any outside.
            apart = torch.cdist(inside.double(), scenes.xyz[own].double())
            shown = apart[:, mask[own]].amax(1)
            hidden = apart[:, ~mask[own]].amin(1) if len(outside) else shown + 1
            assert bool((shown <= hidden).any())


def test_a_global_view_of_a_large_scene_has_at_least_26214_points() -> None:
    scenes = clouds(70_000)
    sizes = [int(crops(scenes, CropConfig(locals=1), seeds(1, s))[v][0].sum()) for s in range(6) for v in range(3)]
    assert all(26_214 <= size <= 65_536 for i, size in enumerate(sizes) if i % 3 < 2)
    assert all(6_553 <= size <= 26_214 for i, size in enumerate(sizes) if i % 3 == 2)


def test_local_views_spread_over_the_first_global_one() -> None:
    """With shares that just cover it, no centre falls into what an earlier local view shows until all is shown."""
    scenes = clouds(400)
    config = CropConfig(locals=6, local_share=(0.1, 0.1))
    together, apart = [], []
    for seed in range(20):
        masks = [mask for mask, _ in crops(scenes, config, seeds(1, seed))]
        together.append(int(torch.stack(masks[2:]).any(0).sum()))
        apart.append(sum(int(mask.sum()) for mask in masks[2:]))
        assert all(int((mask & masks[0]).sum()) > 0 for mask in masks[1:])
    assert np.mean(together) / np.mean(apart) > 0.6  # centres drawn anywhere give 0.47


def test_nothing_is_drawn_from_scenes_that_are_too_large_for_their_cells() -> None:
    far = Cloud(key="x", domain="outdoor", xyz=torch.tensor([[0.0, 0, 0], [1e6, 0, 0]]), values={})
    with pytest.raises(BrickyardError, match=r"cells of 0\.1 m"):
        grid_sample(join_clouds([far], (), "cpu"), 0.1, seeds(1))


# Geometry


def test_turns_are_rotations_and_flips_with_the_given_chances() -> None:
    config = GeometryConfig()
    matrix = turns(config, seeds(4000)).double()
    torch.testing.assert_close(
        matrix @ matrix.transpose(1, 2), torch.eye(3).double().expand(4000, 3, 3), atol=1e-6, rtol=0
    )
    assert abs(float((torch.linalg.det(matrix) < 0).double().mean()) - 0.5) < 0.03
    tilt = torch.rad2deg(torch.acos(matrix[:, 2, 2].clamp(-1, 1)))
    assert float(tilt.max()) < math.hypot(180 / 64, 180 / 64) + 0.01
    assert bool((matrix[:, 2, 2] > 0.99).all())
    untilted = turns(replace(config, tilt_chance=0.0, flip=0.0), seeds(4000))
    yaw = torch.atan2(untilted[:, 1, 0], untilted[:, 0, 0])
    assert abs(float((yaw == 0).double().mean()) - 0.2) < 0.03
    assert float(yaw.abs().max()) > 3.1


def test_points_and_normals_turn_together_about_the_middle_of_the_floor() -> None:
    scenes = clouds(300, 200)
    config = replace(STILL, scale=(1.1, 1.1), turn=1.0, flip=0.5)
    moved, matrix = move(scenes, config, seeds(2)), turns(config, seeds(2))
    for scene in range(2):
        own = scenes.scene == scene
        xyz = scenes.xyz[own]
        middle = (xyz.amin(0) + xyz.amax(0)) / 2
        middle[2] = xyz[:, 2].min()
        torch.testing.assert_close(moved.xyz[own], (xyz - middle) * 1.1 @ matrix[scene].T, atol=1e-5, rtol=0)
        torch.testing.assert_close(moved.values["normal"][own], scenes.values["normal"][own] @ matrix[scene].T)


def test_jitter_is_small_and_cut_off() -> None:
    scenes = clouds(20_000)
    noise = move(scenes, replace(STILL, jitter=0.005), seeds(1)).xyz - move(scenes, STILL, seeds(1)).xyz
    assert abs(float(noise.std()) - 0.005) < 2e-4
    assert float(noise.abs().max()) <= 0.02 + 1e-6


def test_elastic_distortion_equals_filters_and_interpolation_of_scipy() -> None:
    scenes = clouds(400)
    config = replace(STILL, elastic=((0.5, 0.3),), elastic_chance=1.0)
    still, moved = move(scenes, STILL, seeds(1)).xyz, move(scenes, config, seeds(1)).xyz
    low, high = still.amin(0).numpy(), still.amax(0).numpy()
    shape = ((high - low) // 0.5).astype(int) + 3
    seed = derive(derive(seeds(1), "elastic", 1)[0], "grid", torch.arange(int(shape.prod())))
    noise = normal(seed, 3).numpy().reshape(*shape, 3)
    for _ in range(2):
        for axis in range(3):
            noise = uniform_filter1d(noise, 3, axis=axis, mode="constant")
    axes = [low[i] + (np.arange(shape[i]) - 1) * 0.5 for i in range(3)]
    expected = still.numpy() + RegularGridInterpolator(axes, noise)(still.numpy()) * 0.3
    np.testing.assert_allclose(moved.numpy(), expected, atol=2e-5)
    assert torch.equal(move(scenes, replace(config, elastic_chance=0.0), seeds(1)).xyz, still)


def test_a_scene_too_large_for_elastic_distortion_is_left_as_it_is() -> None:
    far = Cloud(key="x", domain="outdoor", xyz=torch.tensor([[0.0, 0, 0], [90, 90, 90]]), values={})
    scenes = join_clouds([far], (), "cpu")
    config = replace(STILL, elastic=((0.2, 0.4),), elastic_chance=1.0)
    with pytest.warns(UserWarning, match=r"set views\.geometry\.elastic to"):
        moved = move(scenes, config, seeds(1))
    assert torch.equal(moved.xyz, move(scenes, STILL, seeds(1)).xyz)


# Colour


def test_colours_change_as_their_formulas_say() -> None:
    scenes = clouds(500)
    color = scenes.values["color"]
    off = ColorConfig(brightness=0, contrast=0, saturation=0, hue=0, chance=1.0, shift=0, shift_chance=0)
    torch.testing.assert_close(recolor(scenes, off, seeds(1)).values["color"], color, atol=2e-6, rtol=0)

    bright = recolor(scenes, replace(off, brightness=0.4), seeds(1)).values["color"]
    inside = (bright > 0) & (bright < 1)
    factors = (bright / color)[inside]
    assert float(factors.std()) < 1e-5
    assert 0.6 <= float(factors.mean()) <= 1.4

    hued = recolor(scenes, replace(off, hue=0.3), seeds(1)).values["color"]
    before = np.array([colorsys.rgb_to_hsv(*c) for c in color.tolist()])
    after = np.array([colorsys.rgb_to_hsv(*c) for c in hued.tolist()])
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-4)
    turned = (after[:, 0] - before[:, 0] + 0.5) % 1 - 0.5
    assert np.std(turned) < 1e-3
    assert 0 < abs(np.mean(turned)) <= 0.3

    grey = torch.tensor([0.2989, 0.587, 0.114])
    flat = recolor(scenes, replace(off, saturation=0.2), seeds(1)).values["color"]
    inside = ((flat > 0) & (flat < 1)).all(1)
    torch.testing.assert_close((flat @ grey)[inside], (color @ grey)[inside], atol=2e-4, rtol=0)
    shifted = recolor(scenes, replace(off, shift=0.05, shift_chance=1.0), seeds(1)).values["color"]
    inside = ((shifted > 0) & (shifted < 1)).all(1)
    assert float((shifted - color)[inside].std(0).max()) < 1e-5


def test_scenes_without_colour_stay_without() -> None:
    scenes = join_clouds([cloud(0, 50), cloud(1, 50, color=False)], INPUTS, "cpu")
    changed = recolor(scenes, ColorConfig(), seeds(2))
    assert bool((changed.values["color"][scenes.scene == 1] == 0).all())
    assert changed.valid["color"].tolist() == [True, False]


# Masks


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_whole_cubes_are_masked_and_as_many_as_asked(sizes: list[int], ratio: float, seed: int) -> None:
    scenes = clouds(*sizes)
    masked = mask_cubes(scenes, 0.4, ratio, seeds(len(sizes), seed))
    cells = scenes.cells(0.4)
    for scene in range(len(sizes)):
        own = scenes.scene == scene
        _, cube = torch.unique(cells[own], dim=0, return_inverse=True)
        count = int(cube.max()) + 1
        hidden = torch.zeros(count).index_add(0, cube, masked[own].float())
        whole = torch.bincount(cube).float()
        assert bool(((hidden == 0) | (hidden == whole)).all())
        assert int((hidden > 0).sum()) == math.floor(ratio * count)


def test_only_masked_points_are_shaken_and_within_limits() -> None:
    scenes = clouds(5000)
    masked = mask_cubes(scenes, 0.4, 0.5, seeds(1))
    moved = shaken(scenes, masked, 0.01, 0.02, seeds(1)) - scenes.xyz
    assert bool((moved[~masked] == 0).all())
    assert 0.008 < float(moved[masked].std()) < 0.0101
    assert float(moved.abs().max()) <= 0.02 + 1e-6


# All together


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_scene_has_the_same_views_in_any_batch(seed: int) -> None:
    config = ViewConfig(withhold={"color": 0.5})
    items = [cloud(0, 700), cloud(1, 300, color=False), cloud(2, 500)]
    joined = views(join_clouds(items, INPUTS, "cpu"), seeds(3, seed), config)
    alone = views(join_clouds(items[1:2], INPUTS, "cpu"), seeds(3, seed)[1:2], config)
    for number in range(6):
        mine, theirs = joined.clouds.scene == number * 3 + 1, alone.clouds.scene == number
        for name in ("xyz", "masked", "origin"):
            assert torch.equal(getattr(joined, name)[mine], getattr(alone, name)[theirs])
        for name in ("color", "normal"):
            assert torch.equal(joined.shown.values[name][mine], alone.shown.values[name][theirs])
            assert joined.shown.valid[name][number * 3 + 1] == alone.shown.valid[name][number]


def test_both_global_views_have_the_same_changed_colours_and_local_ones_others() -> None:
    scenes = clouds(2000)
    made = views(scenes, seeds(1), ViewConfig(geometry=STILL))
    color = made.clouds.values["color"]
    chosen = [made.chosen[made.clouds.scene == v] for v in range(6)]
    parts = [color[made.clouds.scene == v] for v in range(6)]

    def common(a: int, b: int) -> tuple[Tensor, Tensor]:
        both = np.intersect1d(chosen[a].numpy(), chosen[b].numpy(), return_indices=True)
        assert len(both[0]) > 20
        return parts[a][both[1]], parts[b][both[2]]

    assert torch.equal(*common(0, 1))
    assert not torch.allclose(*common(0, 2), atol=1e-3)
    torch.testing.assert_close(made.origin, scenes.xyz[first_points(made)][made.chosen])
    assert bool((made.masked[made.clouds.scene >= 2] == 0).all())
    assert 0.2 < float(made.masked[made.clouds.scene < 2].float().mean()) < 0.8


def first_points(made: Views) -> Tensor:
    """A point of every cell; cells are thinned to one point, whose coordinates `origin` has."""
    scenes = clouds(2000)
    kept, place, _ = grid_sample(scenes, 0.1, seeds(1))
    assert torch.equal(place, made.cell)
    return kept


def test_withheld_modalities_are_zeros_behind_a_flag() -> None:
    scenes = join_clouds([cloud(i, 20) for i in range(200)], INPUTS, "cpu")
    left = withheld(scenes, {"color": 0.3}, seeds(200))
    assert abs(float(left.valid["color"].float().mean()) - 0.7) < 0.1
    assert bool(left.valid["normal"].all())
    for scene in range(200):
        values = left.values["color"][left.scene == scene]
        assert bool((values != 0).any()) == bool(left.valid["color"][scene])
