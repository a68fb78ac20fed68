"""Poses with errors: as large as asked for, the same in every epoch, and rigid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brickyard.train.objectives.pose_errors import PoseErrors, disturbed


def walk(count: int = 60) -> np.ndarray:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(np.linspace(0, 1.5, count), [0, 1, 0])).as_matrix()
    poses[:, :3, 3] = np.stack([np.linspace(0, 4, count), np.zeros(count), np.linspace(0, 3, count)], 1)
    return poses


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    turned = Rotation.from_matrix(one[:, :3, :3]).inv() * Rotation.from_matrix(other[:, :3, :3])
    return np.degrees(turned.magnitude())


@pytest.mark.parametrize("degrees", [0.5, 2.0, 5.0])
def test_angles_are_as_large_as_asked_for(degrees: float) -> None:
    poses, frames = walk(), tuple(range(60))
    found = np.concatenate(
        [angles(disturbed(poses, f"d/{n}", frames, PoseErrors(degrees=degrees)), poses) for n in range(30)]
    )
    assert np.sqrt((found**2).mean()) == pytest.approx(degrees, rel=0.1)
    wrong = disturbed(poses, "d/0", frames, PoseErrors(degrees=degrees))
    np.testing.assert_allclose(
        wrong[:, :3, :3] @ wrong[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (60, 1, 1)), atol=1e-12
    )


def test_errors_belong_to_a_clip_and_a_frame() -> None:
    poses, config = walk(), PoseErrors(degrees=2.0, scale=0.1, gross=0.1)
    whole = disturbed(poses, "d/1", tuple(range(60)), config)
    assert np.array_equal(disturbed(poses, "d/1", tuple(range(60)), config), whole)
    assert not np.allclose(disturbed(poses, "d/2", tuple(range(60)), config), whole)
    some = disturbed(poses[[3, 40]], "d/1", (3, 40), config)
    np.testing.assert_array_equal(some[:, :3, :3], whole[[3, 40], :3, :3])
    other = disturbed(poses, "d/1", tuple(range(60)), replace(config, seed=1))
    assert not np.allclose(other, whole)


def test_the_extent_is_off_by_a_factor() -> None:
    poses = walk()
    factors = []
    for number in range(200):
        found = disturbed(poses, f"d/{number}", tuple(range(60)), PoseErrors(scale=0.1))
        spread = np.linalg.norm(np.ptp(found[:, :3, 3], axis=0)) / np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0))
        factors.append(np.log(spread))
        assert np.array_equal(found[:, :3, :3], poses[:, :3, :3])
    assert np.std(factors) == pytest.approx(0.1, rel=0.2)


def test_a_share_of_the_clips_is_nonsense() -> None:
    poses = walk()
    wrong = [
        angles(disturbed(poses, f"d/{n}", tuple(range(60)), PoseErrors(gross=0.1)), poses).mean() for n in range(400)
    ]
    assert np.mean(np.array(wrong) > 60) == pytest.approx(0.1, abs=0.04)
    assert np.mean(np.array(wrong) == 0) > 0.8


def test_without_errors_nothing_changes() -> None:
    poses = walk()
    assert disturbed(poses, "d/1", tuple(range(60)), PoseErrors()) is poses
    for bad in ({"degrees": -1.0}, {"gross": 2.0}, {"scale": float("nan")}):
        with pytest.raises(ValueError, match="degrees must be"):
            PoseErrors(**bad)
