"""Camera models against OpenCV, against formulas inverted by hand, and where they must refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

from brickyard.shards.cameras import camera_from_scene, project, project_to
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import CameraModel, ReadoutDirection, RollingShutter, View

K = np.array([[700.0, 0, 640], [0, 710, 360], [0, 0, 1]])
BARREL = (-0.28, 0.09, 0.001, -0.0007, -0.01)


def view(model: CameraModel = "pinhole", distortion: tuple[float, ...] = (), pose: np.ndarray | None = None) -> View:
    return View(
        name="cam", image=b"x", image_format="jpeg", width=1280, height=720, camera_model=model, intrinsics=K,
        distortion=distortion, scene_from_camera=np.eye(4) if pose is None else pose,
    )  # fmt: skip


def rigid(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = q * np.sign(np.linalg.det(q)), rng.normal(size=3) * 5
    return pose


def test_camera_from_scene_inverts_the_pose() -> None:
    pose = rigid(1)
    np.testing.assert_allclose(camera_from_scene(view(pose=pose)) @ pose, np.eye(4), atol=1e-12)
    lost = View(name="lost", image=b"x", image_format="jpeg", width=2, height=2, intrinsics=K)
    with pytest.raises(SceneError, match="lost has no pose"):
        project(np.zeros((1, 3)), lost)


@pytest.mark.parametrize(
    ("model", "distortion"), [("pinhole", ()), ("opencv", BARREL), ("opencv", (0.1, -0.05, 0, 0, 0.01))]
)
def test_pixels_equal_opencv(model: CameraModel, distortion: tuple[float, ...]) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    camera = np.concatenate([rng.uniform(-0.8, 0.8, (500, 2)), np.ones((500, 1))], axis=1) * rng.uniform(
        1, 50, (500, 1)
    )
    pose = rigid(2)
    seen = project(camera @ pose[:3, :3].T + pose[:3, 3], view(model, distortion, pose))
    expected, _ = cv2.projectPoints(camera, np.zeros(3), np.zeros(3), K, np.array(distortion or np.zeros(5)))
    np.testing.assert_allclose(seen.uv, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(seen.depth, camera[:, 2])
    np.testing.assert_allclose(seen.distance, np.linalg.norm(camera, axis=1))


def test_points_behind_have_no_pixel() -> None:
    xyz = np.array([[0.1, 0.1, 2], [0.1, 0.1, -2], [0, 0, 0], [1, 0, 0]])
    for model, distortion in (("pinhole", ()), ("opencv", BARREL)):
        seen = project(xyz, view(model, distortion))
        assert np.isfinite(seen.uv).all(axis=1).tolist() == [True, False, False, False]


def test_far_off_axis_points_do_not_fold_back_into_the_image() -> None:
    """r (1 - 0.3 r^2) returns to 0 at r = 1.83: the plain formula images a point 61 degrees off axis in the middle."""
    folded = np.array([[1.8257, 0, 1]])
    assert abs(folded[0, 0] * (1 - 0.3 * folded[0, 0] ** 2)) < 1e-3
    assert np.isnan(project(folded, view("opencv", (-0.3, 0, 0, 0, 0))).uv).all()
    turning = 1 / np.sqrt(0.9)
    near_turning = np.array([[turning - 0.01, 0, 1], [turning + 0.01, 0, 1]])
    assert np.isnan(project(near_turning, view("opencv", (-0.3, 0, 0, 0, 0))).uv[:, 0]).tolist() == [False, True]


@pytest.mark.parametrize("xi", [0.6, 1.0, 2.2])
def test_mei_is_one_to_one_beyond_ninety_degrees(xi: float) -> None:
    limit = np.arccos(-(xi if xi <= 1 else 1 / xi))
    angle = np.linspace(0, np.pi, 721)
    xyz = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=1) * 7
    seen = project(xyz, view("mei", (xi, 0, 0, 0, 0)))
    imaged = np.isfinite(seen.uv[:, 0])
    np.testing.assert_array_equal(imaged, angle < limit)
    radius = (seen.uv[imaged, 0] - 640) / 700
    assert (np.diff(radius) > 0).all()
    assert imaged[angle > np.pi / 2].any() == (limit > np.pi / 2)
    # Inverse of the model: cos = (sqrt(1 + (1 - xi^2) r^2) - xi r^2) / (1 + r^2)  (Mei and Rives, equation 7)
    r2 = radius**2
    lifted = (xi + np.sqrt(np.maximum(1 + (1 - xi**2) * r2, 0))) / (1 + r2) - xi
    np.testing.assert_allclose(lifted, np.cos(angle[imaged]), atol=1e-6)


def test_mei_with_xi_zero_is_the_distorted_pinhole() -> None:
    xyz = np.random.default_rng(3).uniform((-1, -1, 1), (1, 1, 4), (200, 3))
    mei = project(xyz, view("mei", (0.0, *BARREL[:4])))
    np.testing.assert_allclose(mei.uv, project(xyz, view("opencv", (*BARREL[:4], 0.0))).uv, atol=1e-9)


def test_depth_cameras_use_their_own_intrinsics() -> None:
    depth_k = np.array([[350.0, 3.0, 320], [0, 355, 180], [0, 0, 1]])
    seen = project_to(np.array([[1.0, 2.0, 4.0]]), np.eye(4), depth_k)
    np.testing.assert_allclose(seen.uv, [[350 / 4 + 3 * 2 / 4 + 320, 355 * 2 / 4 + 180]])


def moving(direction: ReadoutDirection, *, speed: float = 30.0, turn: float = 0.5, readout: float = 0.044) -> View:
    """A camera of BARREL distortion that drives sideways and forwards and turns about all axes."""
    shutter = RollingShutter(
        direction=direction, readout_s=readout, velocity=np.array([0.8, -0.1, 0.6]) * speed,
        angular_velocity=np.array([0.2, -1.0, 0.3]) * turn,
    )  # fmt: skip
    return replace(view("opencv", BARREL, rigid(4)), rolling_shutter=shutter)


def seen_by_lines(xyz: np.ndarray, camera: View, line: int) -> np.ndarray:
    """Pixels (N, 2) of a still camera at the pose it has while it exposes one line."""
    shutter = camera.rolling_shutter
    assert shutter is not None and camera.scene_from_camera is not None
    count = camera.width if shutter.direction in ("right", "left") else camera.height
    time = shutter.readout_s * ((line + 0.5) / count - 0.5) * (1 if shutter.direction in ("right", "down") else -1)
    x, y, z = shutter.angular_velocity * time
    pose = camera.scene_from_camera.copy()
    pose[:3, :3] = expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])) @ pose[:3, :3]
    pose[:3, 3] += shutter.velocity * time
    return project(xyz, replace(camera, rolling_shutter=None, scene_from_camera=pose)).uv


@pytest.mark.parametrize("direction", ["right", "left", "down", "up"])
def test_every_point_is_projected_at_the_time_of_its_own_line(direction: ReadoutDirection) -> None:
    """The line a point falls on must agree that it does: a still camera with that line's pose sees it there."""
    camera = moving(direction)
    rng = np.random.default_rng(5)
    local = np.concatenate([rng.uniform(-1.2, 1.2, (4000, 2)), np.ones((4000, 1))], 1) * rng.uniform(3, 60, (4000, 1))
    xyz = local @ rigid(4)[:3, :3].T + rigid(4)[:3, 3]
    seen = project(xyz, camera)
    inside = ((seen.uv > 0) & (seen.uv < (1279, 719))).all(axis=1)
    assert inside.sum() > 1000
    axis = 0 if direction in ("right", "left") else 1
    worst = 0.0
    for line in range(0, (1280, 720)[axis], 40):
        on_line = np.flatnonzero(inside & (np.abs(seen.uv[:, axis] - line) < 2))
        for neighbour in (-1, 0, 1):  # the line is between whole ones: interpolate between its neighbours' views
            near = on_line[np.rint(seen.uv[on_line, axis]) == line + neighbour]
            here = seen_by_lines(xyz[near], camera, line + neighbour)
            step = seen_by_lines(xyz[near], camera, line + neighbour + 1) - here
            still = here + step * (seen.uv[near, axis, None] - line - neighbour)
            worst = max(worst, float(np.abs(still - seen.uv[near]).max(initial=0)))
    assert worst < 0.02
    off = project(xyz, replace(camera, rolling_shutter=None))
    assert np.abs(off.uv - seen.uv)[inside].max() > 50 and np.median(np.abs(off.uv - seen.uv)[inside]) > 1
    assert np.abs(off.depth - seen.depth)[inside].max() > 0.1


def test_a_still_camera_needs_no_shutter_and_unseen_points_stay_unseen() -> None:
    xyz = np.random.default_rng(6).uniform(-30, 30, (3000, 3))
    still = moving("right", speed=0, turn=0)
    expected = project(xyz, replace(still, rolling_shutter=None))
    for found, wanted in zip(project(xyz, still), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    for direction in ("right", "up"):
        fast = project(xyz, moving(direction))
        behind = expected.depth < -2
        assert np.isnan(fast.uv[behind]).all() and np.isfinite(fast.uv).all(axis=1).sum() > 100
        # what lies far outside at the middle line does not get into the picture
        far = (expected.uv[:, 0] > 3 * 1280) | (expected.uv[:, 0] < -2 * 1280)
        assert not ((fast.uv[far] > 0) & (fast.uv[far] < (1280, 720))).all(axis=1).any()
    assert len(project(np.zeros((0, 3)), moving("left")).uv) == 0
