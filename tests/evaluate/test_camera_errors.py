"""Alignment of camera paths against independent solutions, and what errors of cameras are, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from brickyard.evaluate.camera_errors import (
    Float64,
    angles_of,
    path_error,
    path_extent,
    rotation_errors,
    still,
    straight,
    translation_errors,
    umeyama,
)

SEEDS = st.integers(0, 2**31)


def points_of(rng: np.random.Generator, count: int) -> Float64:
    return np.asarray(rng.normal(size=(count, 3)) * rng.uniform(0.1, 10, 3))


def poses_of(rng: np.random.Generator, count: int) -> Float64:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=int(rng.integers(2**31))).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    return poses


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, count=st.integers(3, 20), noise=st.sampled_from([0.0, 0.1, 3.0]))
def test_the_rotation_is_that_of_scipy_and_nothing_is_nearer(seed: int, count: int, noise: float) -> None:
    """The best rotation does not depend on the scale: it is that of Kabsch, which scipy has. With it, scale and shift
    are a linear regression."""
    rng = np.random.default_rng(seed)
    source = points_of(rng, count)
    target = 2.5 * source @ Rotation.random(random_state=seed).as_matrix().T + rng.normal(size=3)
    target = target + noise * rng.normal(size=source.shape)
    found = umeyama(source, target)
    centred, wanted = source - source.mean(0), target - target.mean(0)
    best, _ = Rotation.align_vectors(wanted, centred)
    turned = centred @ best.as_matrix().T
    scale = float((turned * wanted).sum() / (turned * turned).sum())
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    ours, theirs = (np.square(one).sum() for one in (found(source) - target, scale * turned - wanted))
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    if noise == 0:
        np.testing.assert_allclose(found(source), target, atol=1e-8)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_no_step_of_least_squares_makes_it_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = points_of(rng, 6), points_of(rng, 6)
    found = umeyama(source, target)

    def residuals(x: Float64) -> Float64:
        rotation = Rotation.from_rotvec(x[:3]).as_matrix()
        return np.asarray((x[3] * source @ rotation.T + x[4:] - target).ravel())

    start = np.array([*Rotation.from_matrix(found.rotation).as_rotvec(), found.scale, *found.shift])
    better = least_squares(residuals, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    assert np.square(residuals(start)).sum() <= 2 * better.cost * (1 + 1e-6)


def test_a_path_is_found_whatever_its_frame_and_unit() -> None:
    rng = np.random.default_rng(0)
    true, turn = poses_of(rng, 7), Rotation.random(random_state=1).as_matrix()
    found = true.copy()
    found[:, :3, :3] = turn @ true[:, :3, :3]
    found[:, :3, 3] = 0.03 * true[:, :3, 3] @ turn.T + 5
    assert path_error(found[:, :3, 3], true[:, :3, 3]) == pytest.approx(0, abs=1e-12)
    assert rotation_errors(found, true).max() < 1e-6 and translation_errors(found, true).max() < 1e-5


def test_a_mirrored_path_is_no_path() -> None:
    centres = np.random.default_rng(3).normal(size=(8, 3))
    assert path_error(centres * (1, 1, -1), centres) > 0.1


def test_paths_without_extent() -> None:
    """Predicted at one place, the error is that of the mean; on a line, a line is met."""
    centres = np.random.default_rng(2).normal(size=(5, 3))
    assert path_error(np.ones((5, 3)), centres) == pytest.approx(path_extent(centres))
    line = np.arange(5)[:, None] * np.array([1.0, 2.0, -0.5]) + 3
    assert path_error(straight(np.arange(5)), line) == pytest.approx(0, abs=1e-12)
    assert path_error(straight(np.arange(5)), centres) < path_extent(centres)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 5.0, 90.0, 180.0])
def test_angles(degrees: float) -> None:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0, 0.8])).as_matrix()
    assert float(angles_of(turn)) == pytest.approx(degrees, abs=1e-7)


def test_errors_of_one_camera_that_is_turned() -> None:
    """Of four, one is turned by 20 degrees about itself: three pairs are off by that, their directions where it is the
    first of the pair, which sees the others elsewhere."""
    true = np.tile(np.eye(4), (4, 1, 1))
    true[:, :3, 3] = [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]
    found = true.copy()
    found[1, :3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_errors(found, true), [20, 0, 0, 20, 20, 0], atol=1e-6)
    np.testing.assert_allclose(translation_errors(found, true), [0, 0, 0, 20, 20, 0], atol=1e-6)
    np.testing.assert_allclose(rotation_errors(still(true), true), 0, atol=1e-6)


def test_directions_that_are_not_there() -> None:
    """Cameras at one place are a miss if they are not, and no question if they are."""
    true = np.tile(np.eye(4), (3, 1, 1))
    true[:, 0, 3] = [0, 0, 1]
    assert np.isnan(translation_errors(true, true)).tolist() == [True, False, False]
    np.testing.assert_allclose(translation_errors(still(true), true)[1:], 180)
