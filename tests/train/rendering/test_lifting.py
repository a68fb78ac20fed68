"""Features of images at places: against a loop in float64 over projections by `shards.cameras`, and after any move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards.cameras import project
from brickyard.shards.scene import View
from brickyard.train.objectives.moves import MoveConfig, draw_move, moved_places
from brickyard.train.rendering.lifting import image_matrix, is_pinhole, lift, lifted_volume
from brickyard.train.rendering.rays import unit_frame
from brickyard.train.rendering.volume import Grid
from tests.train.posed_rooms import PLACE, posed_room

ROOM = posed_room(3, views=4, count=300)
MAP = (9, 13)


def maps_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(len(ROOM.views), 5, *MAP, generator=torch.Generator().manual_seed(seed))


def matrices() -> torch.Tensor:
    return torch.from_numpy(np.stack([image_matrix(view) for view in ROOM.views]))


def looked_up(one: np.ndarray, view: View, place: np.ndarray) -> np.ndarray | None:
    """What a view says of a place, written out: bilinear between cells of the map, clamped at its edge."""
    found = project(place[None], view)
    u, v = ((found.uv[0] + 0.5) / (view.width, view.height)).tolist()
    if not (found.depth[0] > 0.05 and 0 <= u < 1 and 0 <= v < 1):
        return None
    height, width = one.shape[1:]
    x, y = min(max(u * width - 0.5, 0), width - 1), min(max(v * height - 0.5, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    above = one[:, top, left] * (1 - a) + one[:, top, left + 1] * a
    below = one[:, top + 1, left] * (1 - a) + one[:, top + 1, left + 1] * a
    return np.asarray(above * (1 - b) + below * b)


def test_it_is_the_mean_and_variance_of_what_every_view_says() -> None:
    maps, places = maps_of(), ROOM.points.xyz if ROOM.points else np.empty((0, 3), np.float32)
    lifted = lift(maps, matrices(), torch.from_numpy(places))
    counts = set()
    for number, place in enumerate(places.astype(np.float64)):
        said = [looked_up(m, v, place) for m, v in zip(maps.double().numpy(), ROOM.views, strict=True)]
        known = np.array([one for one in said if one is not None])
        counts.add(len(known))
        assert int(lifted.views[number]) == len(known)
        expected = np.concatenate((known.mean(0), known.var(0))) if len(known) else np.zeros(10)
        np.testing.assert_allclose(lifted.features[number].numpy(), expected, atol=2e-4)
    assert {0, 1, 2} <= counts


def test_bfloat16_changes_no_pixel() -> None:
    """Under autocast a product of matrices has 8 bits, which is two pixels of a map of 256; features are as precise."""
    assert ROOM.points is not None
    maps, places = maps_of().requires_grad_(), torch.from_numpy(ROOM.points.xyz)
    exact = lift(maps, matrices(), places)
    with torch.autocast("cpu", torch.bfloat16):
        found = lift(maps, matrices(), places)
    assert found.features.dtype == torch.float32
    assert torch.equal(found.features, exact.features) and torch.equal(found.views, exact.views)
    assert lift(maps.bfloat16(), matrices(), places).features.dtype == torch.float32


@pytest.mark.parametrize("far", [0.0, 1000.0, 100_000.0])
def test_a_scene_far_from_its_origin_is_lifted_as_near_it(far: float) -> None:
    """A box of binary fractions, so that moving it is exact, and cameras that move along."""
    assert ROOM.points is not None
    shift = far * np.array([1.0, -2.0, 0.5])
    corners = torch.from_numpy(np.array([[6.0, -4.0, 0.0], [8.0, -2.0, 2.0]]) + shift).float()
    frame = unit_frame(corners, torch.zeros(2, dtype=torch.int64), 1)
    moved = []
    for view in ROOM.views:
        assert view.scene_from_camera is not None
        pose = view.scene_from_camera.copy()
        pose[:3, 3] += shift
        moved.append(image_matrix(replace(view, scene_from_camera=pose)))
    grid = Grid(low=(-0.5, -0.5, -0.5), high=(0.5, 0.5, 0.5), shape=(9, 9, 9))
    volume = lifted_volume(maps_of(), torch.from_numpy(np.stack(moved)), (len(moved),), frame, grid)
    near = unit_frame(corners - torch.from_numpy(shift).float(), torch.zeros(2, dtype=torch.int64), 1)
    expected = lifted_volume(maps_of(), matrices(), (len(moved),), near, grid)
    torch.testing.assert_close(volume, expected, atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_moved_scene_finds_the_same_pixels(seed: int) -> None:
    assert ROOM.points is not None
    config = MoveConfig(turn=1.0, tilt=0.3, tilt_chance=1.0, scale=(0.5, 2.0), flip=0.5, shift=3.0)
    move = draw_move(np.random.default_rng(seed), config)
    places = ROOM.points.xyz.astype(np.float64)
    for view in ROOM.views:
        there = moved_places(places, move)
        ahead = np.concatenate((there, np.ones((len(there), 1))), 1) @ (image_matrix(view) @ np.linalg.inv(move)).T
        found = project(places, view)
        before = found.depth > 0.05
        uv = (ahead[before, :2] / ahead[before, 2:]) * (view.width, view.height) - 0.5
        np.testing.assert_allclose(uv, found.uv[before], atol=1e-6)
        np.testing.assert_allclose(ahead[:, 2], found.depth, atol=1e-9)


def test_the_order_of_views_does_not_matter_and_gradients_reach_every_map() -> None:
    assert ROOM.points is not None
    maps, order, places = maps_of().requires_grad_(), torch.tensor([2, 0, 3, 1]), torch.from_numpy(ROOM.points.xyz)
    one, other = lift(maps, matrices(), places), lift(maps[order], matrices()[order], places)
    torch.testing.assert_close(one.features, other.features, atol=2e-6, rtol=1e-5)
    one.features.square().sum().backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None and bool((maps.grad.abs().amax((1, 2, 3)) > 0).all())


def test_a_volume_has_the_features_of_its_cells_places() -> None:
    assert ROOM.points is not None
    xyz = torch.from_numpy(ROOM.points.xyz)
    frame = unit_frame(torch.cat((xyz, xyz + 0.5)), torch.arange(2).repeat_interleave(len(xyz)), 2)
    grid = Grid(low=(-0.5, -0.5, -0.5), high=(0.5, 0.5, 0.5), shape=(5, 4, 3))
    maps, matrix = maps_of(), matrices()
    volume = lifted_volume(maps, matrix, (3, 1), frame, grid)
    assert volume.shape == (2, 10, 5, 4, 3) and volume.is_contiguous(memory_format=torch.channels_last_3d)
    cell = torch.tensor([[-0.5 + 3 / 4, -0.5 + 1 / 3, -0.5 + 2 / 2]])
    for scene, views in ((0, slice(0, 3)), (1, slice(3, 4))):
        place = frame.to_metres(cell, torch.tensor([scene]))
        torch.testing.assert_close(volume[scene, :, 3, 1, 2], lift(maps[views], matrix[views], place).features[0])


def test_other_lenses_are_refused_by_name() -> None:
    view = ROOM.views[0]
    assert is_pinhole(view) and is_pinhole(replace(view, camera_model="opencv", distortion=(0.0,) * 5))
    for other in (
        replace(view, camera_model="opencv", distortion=(0.1, 0.0, 0.0, 0.0, 0.0)),
        replace(view, camera_model="mei", distortion=(1.0, 0.0, 0.0, 0.0, 0.0)),
    ):
        assert not is_pinhole(other)
        with pytest.raises(ValueError, match=rf"frame-0 is no pinhole \({other.camera_model}\)"):
            image_matrix(other)
    with pytest.raises(ValueError, match="no finite pose"):
        image_matrix(replace(view, scene_from_camera=np.full((4, 4), np.nan)))
    behind = np.array([[*(PLACE + 100)]])
    assert int(lift(maps_of(), matrices(), torch.from_numpy(behind).float()).views[0]) == 0
