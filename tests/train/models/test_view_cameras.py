"""Cameras of the multi-view networks: rotations, rays, frames."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from brickyard.shards.cameras import project_to
from brickyard.train.models.cameras import Cameras, relative, rotation
from brickyard.train.models.lvsm import SCALE, told

NUMBERS = st.floats(-5, 5, allow_subnormal=False)
sixes = arrays(np.float64, 6, elements=NUMBERS)
threes = arrays(np.float64, 3, elements=NUMBERS)


def turned(six: np.ndarray) -> Tensor:
    """A rotation from numbers that make one."""
    assume(np.linalg.norm(np.cross(six[:3], six[3:])) > 1e-2)
    return rotation(torch.from_numpy(six))


def posed(six: np.ndarray, place: np.ndarray) -> Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = turned(six), torch.from_numpy(place)
    return pose


def test_no_rotation() -> None:
    assert torch.equal(rotation(torch.tensor([1.0, 0, 0, 0, 1, 0])), torch.eye(3))


@given(sixes, st.floats(0.1, 10), st.floats(-3, 3))
def test_six_numbers_make_a_rotation(six: np.ndarray, length: float, along: float) -> None:
    found = turned(six)
    assert torch.allclose(found @ found.T, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert abs(float(torch.linalg.det(found)) - 1) < 1e-9
    assert torch.allclose(found[:, 0] * np.linalg.norm(six[:3]), torch.from_numpy(six[:3]), atol=1e-9)
    other = np.concatenate((length * six[:3], six[3:] + along * six[:3]))  # the same plane, the same first direction
    assert torch.allclose(turned(other), found, atol=1e-6)
    assert torch.allclose(rotation(found.T[:2].reshape(6)), found, atol=1e-9)  # of its own columns


@settings(deadline=None, max_examples=40)
@given(sixes, threes, st.floats(0.4, 3), st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)), st.floats(0.5, 20))
def test_rays_are_plueckers_and_hit_what_projects_there(
    six: np.ndarray, place: np.ndarray, focal: float, centre: tuple[float, float], depth: float
) -> None:
    pose, (height, width) = posed(six, place), (5, 8)
    cameras = Cameras(
        poses=pose[None, None].float(),
        intrinsics=torch.tensor([focal, focal * width / height, *centre])[None, None],
    )
    moment, direction = cameras.rays(height, width)[0, 0].flatten(1).split(3)
    assert torch.allclose(direction.norm(dim=0), torch.ones(height * width), atol=1e-5)
    assert (moment * direction).sum(0).abs().max() < 1e-4
    origin = torch.from_numpy(place).float()[:, None]
    for distance in (0.0, depth):  # the same from every point of the ray
        assert torch.allclose(torch.linalg.cross(origin + distance * direction, direction, dim=0), moment, atol=1e-4)
    matrix = np.array([
        [focal * width, 0, centre[0] * width - 0.5], [0, focal * width, centre[1] * height - 0.5], [0, 0, 1],
    ])  # fmt: skip
    points = (origin + depth * direction).T.double().numpy()
    found = project_to(points, np.linalg.inv(pose.numpy()), matrix)
    row, column = np.divmod(np.arange(height * width), width)
    assert np.abs(found.uv - np.stack((column, row), 1)).max() < 1e-2


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(sixes, threes), min_size=3, max_size=5), sixes, threes, st.floats(0.2, 9))
def test_given_cameras_do_not_depend_on_the_world_or_its_unit(
    views: list[tuple[np.ndarray, np.ndarray]], six: np.ndarray, shift: np.ndarray, unit: float
) -> None:
    poses = torch.stack([posed(*view) for view in views])
    inputs = len(views) - 1
    assume(float((poses[:inputs, :3, 3] - poses[inputs // 2, :3, 3]).abs().max()) > 1e-1)
    world, intrinsics = posed(six, shift), torch.ones(1, len(views), 4)
    moved = world @ poses
    moved[:, :3, 3] *= unit
    ours, theirs = (told(one[None], intrinsics, inputs).poses[0] for one in (poses, moved))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(ours[inputs // 2], torch.eye(4), atol=1e-5)
    assert abs(float(ours[:inputs, :3, 3].abs().max()) * SCALE - 1) < 1e-5
    by_inverse = torch.linalg.inv(poses[0]) @ poses
    assert torch.allclose(relative(poses, poses[0]), by_inverse, atol=1e-6)
