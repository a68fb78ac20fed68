"""Warping: exact rooms seen from elsewhere, occlusion, holes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from brickyard.evaluate.warping import fill, warp
from brickyard.shards.scene import View
from tests.train.posed_rooms import DEPTH_SIZE, camera, pose, seen

LENS = camera(DEPTH_SIZE, 0.65)


def view_from(where: np.ndarray, size: tuple[int, int] = DEPTH_SIZE, lens: np.ndarray = LENS) -> View:  # type: ignore[type-arg]
    return View(
        name="here", image=b"", image_format="png", width=size[0], height=size[1], intrinsics=lens,
        scene_from_camera=where,
    )  # fmt: skip


def points_of(where: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """(places (N, 3), colours (N, 3)) of a picture of the room."""
    lens = camera(size, 0.65)
    color, depth = (values.numpy() for values in seen(lens, where, size))
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    local = np.stack((column, row, np.ones_like(row)), -1) @ np.linalg.inv(lens).T * depth[..., None]
    places = local.reshape(-1, 3) @ where[:3, :3].T + where[:3, 3]
    return places, color.reshape(-1, 3).astype(np.float32)


def test_a_view_warped_into_itself_is_itself() -> None:
    where = pose(0, 6, np.random.default_rng(0))
    color, depth = (values.numpy() for values in seen(LENS, where, DEPTH_SIZE))
    warped = warp(*points_of(where, DEPTH_SIZE), view_from(where))
    assert warped.covered.all()
    np.testing.assert_allclose(warped.color, color, atol=1e-6)
    np.testing.assert_allclose(warped.depth, depth, atol=1e-4)


def test_a_neighbour_shows_what_both_see() -> None:
    """From a picture with four times the pixels: where it covers the other view, depth and colour are the real ones but
    for the edges, and for what the neighbour did not see behind the ball."""
    here = pose(0, 6, np.random.default_rng(1))
    there = here.copy()
    there[:3, 3] += 0.3 * here[:3, 0]
    color, depth = (values.numpy() for values in seen(LENS, there, DEPTH_SIZE))
    warped = warp(*points_of(here, (96, 72)), view_from(there))
    covered = warped.covered
    assert 0.2 < covered.mean() < 1
    good = np.abs(warped.depth - depth)[covered] < 0.05 * depth[covered]
    assert good.mean() > 0.85
    alike = np.abs(warped.color - color).max(2)[covered] < 0.02
    assert alike.mean() > 0.85
    assert np.abs(warped.color[~covered]).sum() > 0


def test_the_nearest_point_hides_the_others() -> None:
    ahead = np.array([[0.0, 0, 3], [0, 0, 2], [0, 0, 5], [0, 0, -1]])
    colors = np.eye(4, 3, dtype=np.float32)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        warped = warp(ahead[order], colors[order], view_from(np.eye(4), (3, 3), camera((3, 3), 1.0)))
        assert warped.depth[1, 1] == 2 and warped.color[1, 1].tolist() == [0, 1, 0]
        assert warped.covered.sum() == 1 and (warped.depth == 2).all()


def test_a_panorama_shows_what_lies_around_by_its_distance() -> None:
    """Four points around, one column each; a nearer one hides another of the same direction."""
    size = (8, 4)
    per_radian = np.array([[8 / (2 * np.pi), 0, 3.5], [0, 4 / np.pi, 1.5], [0, 0, 1]])
    around = np.array([[0, 0, 2.0], [3, 0, 0], [-0.4, 0, -4], [-5, 0, 0], [-6, 0, 0]]) + np.array([0, 0.3, 0])
    camera_ = replace(view_from(np.eye(4), size, per_radian), camera_model="equirectangular")
    warped = warp(around, np.ones((5, 3), np.float32), camera_, "ray")
    found = warped.depth[warped.covered]
    np.testing.assert_allclose(np.sort(found), np.hypot([2.0, 3, np.hypot(4, 0.4), 5], 0.3), atol=1e-6)


def test_nothing_to_fill_from_stays_nothing() -> None:
    none = np.zeros((4, 5), bool)
    assert not fill(np.ones((4, 5, 2), np.float32), none).any()
    warped = warp(np.zeros((0, 3)), np.zeros((0, 3), np.float32), view_from(np.eye(4)))
    assert not warped.covered.any() and not warped.color.any()


def test_holes_take_the_mean_of_their_neighbours() -> None:
    values = np.zeros((1, 5, 1), np.float32)
    values[0, [0, 4], 0] = 1, 3
    known = np.array([[True, False, False, False, True]])
    assert fill(values, known)[0, :, 0].tolist() == [1, 1, 2, 3, 3]
