"""Every lens: there and back, against formulas written apart from it, and where it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards.cameras import project, rays
from brickyard.shards.encode import SceneHeader, encode_scene
from brickyard.shards.errors import SceneError
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import CameraModel, Scene, View
from tests.worlds import toy_scene

DSLR = (0.06109, 0.003350, 0.002988, -0.001002)
"""Of a real camera of 1752 x 1168 pixels, focal length 617, whose corner is 85 degrees off the axis."""
ARIA = (0.3650890375644368, -0.1738082418112771, -0.7534945484033189, 2.434788882752295, -2.57786220300886,
        0.8788483538598834, 0.0008005198595407136, -0.000294237814554143, 0.001, -0.0004, 0.0007, 0.0002)  # fmt: skip
VIEWS: dict[CameraModel, tuple[tuple[float, float, float, float], tuple[int, int], tuple[float, ...]]] = {
    "pinhole": ((700.0, 710.0, 640.0, 360.0), (1280, 720), ()),
    "opencv": ((700.0, 710.0, 640.0, 360.0), (1280, 720), (-0.28, 0.09, 0.001, -0.0007, -0.01)),
    "mei": ((700.0, 705.0, 350.0, 352.0), (700, 704), (2.2, 0.02, 0.5, 0.001, 0.0007)),
    "fisheye": ((616.721, 617.354, 878.593, 589.767), (1752, 1168), DSLR),
    "fisheye624": ((297.6375, 297.6375, 357.65992, 349.19225), (704, 704), ARIA),
    "equirectangular": ((1024 / (2 * math.pi), 512 / math.pi, 511.5, 255.5), (1024, 512), ()),
}


def view_of(model: CameraModel) -> View:
    (fx, fy, cx, cy), (width, height), distortion = VIEWS[model]
    return View(
        name=model, image=b"x", image_format="jpeg", width=width, height=height, camera_model=model,
        intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion=distortion,
        scene_from_camera=np.eye(4),
    )  # fmt: skip


def test_every_model_is_here() -> None:
    assert set(LENSES) == set(VIEWS) == set(get_args(CameraModel))


@pytest.mark.parametrize("model", get_args(CameraModel))
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_a_pixel_and_its_ray(model: CameraModel, seed: int) -> None:
    """Pixels to rays and back, to a hundred thousandth of a pixel; points to pixels to the same directions."""
    view, rng = view_of(model), np.random.default_rng(seed)
    inner = {"fisheye624": 0.42, "mei": 0.34}.get(model, 0.5)  # their pictures are discs
    uv = (0.5 + rng.uniform(-inner, inner, (60, 2))) * (view.width, view.height) - 0.5
    ahead = rays(uv, view)
    known = np.isfinite(ahead).all(1)
    assert known.mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(ahead[known], axis=1), 1, atol=1e-12)
    back = project(ahead[known] * rng.uniform(0.3, 40, (int(known.sum()), 1)), view)
    np.testing.assert_allclose(back.uv, uv[known], atol=1e-5)
    points = rng.normal((0, 0, 2), 3, (200, 3))
    seen = project(points, view)
    shown = np.isfinite(seen.uv).all(1) & (seen.uv > -0.5).all(1) & (seen.uv < (view.width, view.height)).all(1)
    again = rays(seen.uv[shown], view)
    good = np.isfinite(again).all(1)
    np.testing.assert_allclose(again[good], (points / seen.distance[:, None])[shown][good], atol=1e-7)


def test_fisheye_is_the_formula_of_kannala_and_brandt() -> None:
    view = view_of("fisheye")
    for point in np.random.default_rng(0).normal((0, 0, 1), 1, (50, 3)):
        x, y, z = point.tolist()
        r = math.hypot(x, y)
        theta = math.atan2(r, z)
        if theta > 1.5:
            continue
        bent = theta + sum(k * theta ** (2 * n + 3) for n, k in enumerate(DSLR))
        u = 616.721 * bent * x / r + 878.593
        v = 617.354 * bent * y / r + 589.767
        np.testing.assert_allclose(project(point[None], view).uv[0], (u, v), atol=1e-9)
    np.testing.assert_allclose(project(np.array([[0, 0, 2.0]]), view).uv[0], (878.593, 589.767), atol=1e-12)
    corner = rays(np.array([[0.0, 0.0]]), view)[0]
    assert math.degrees(math.acos(corner[2])) == pytest.approx(84.8, abs=0.5)


def test_pixels_equal_opencvs_fisheye() -> None:
    cv2 = pytest.importorskip("cv2")
    view, points = view_of("fisheye"), np.random.default_rng(1).uniform((-1.5, -1.5, 1), (1.5, 1.5, 4), (300, 3))
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), view.intrinsics, np.array(DSLR)
    )  # fmt: skip
    np.testing.assert_allclose(project(points, view).uv, expected[:, 0], atol=1e-6)


def test_fisheye624_is_the_formula_of_project_aria() -> None:
    view = view_of("fisheye624")
    k, (p0, p1), (s0, s1, s2, s3) = ARIA[:6], ARIA[6:8], ARIA[8:]
    for point in np.random.default_rng(2).uniform((-1, -1, 0.6), (1, 1, 2.6), (50, 3)):
        a, b = (point[:2] / point[2]).tolist()
        r = math.hypot(a, b)
        theta = math.atan(r)
        g = 1 + sum(value * theta ** (2 * n + 2) for n, value in enumerate(k))
        x, y = theta * g / r * a, theta * g / r * b
        s = x * x + y * y
        bent = 2 * (x * p0 + y * p1)
        u = 297.6375 * (x + bent * x + s * p0 + s0 * s + s1 * s * s) + 357.65992
        v = 297.6375 * (y + bent * y + s * p1 + s2 * s + s3 * s * s) + 349.19225
        np.testing.assert_allclose(project(point[None], view).uv[0], (u, v), atol=1e-9)


def test_a_panorama_has_the_middle_ahead_the_right_half_to_the_right_and_all_directions() -> None:
    view = view_of("equirectangular")
    at = {(0, 0, 1): (511.5, 255.5), (1, 0, 0): (767.5, 255.5), (-1, 0, 0): (255.5, 255.5), (0, 1, 0): (511.5, 511.5)}
    for direction, pixel in at.items():
        np.testing.assert_allclose(project(np.array([direction], float) * 3, view).uv[0], pixel, atol=1e-9)
    for column, row in ((0, 0), (1023, 511), (100, 300)):  # as pages about such panoramas write it
        azimuth, elevation = ((column + 0.5) / 1024 - 0.5) * 2 * math.pi, (0.5 - (row + 0.5) / 512) * math.pi
        level = math.cos(elevation)
        expected = (level * math.sin(azimuth), -math.sin(elevation), level * math.cos(azimuth))
        np.testing.assert_allclose(rays(np.array([[column, row]], float), view)[0], expected, atol=1e-12)
    everywhere = np.random.default_rng(3).normal(size=(500, 3))
    assert np.isfinite(project(everywhere, view).uv).all() and np.isnan(project(np.zeros((1, 3)), view).uv).all()


def test_beyond_its_angle_a_lens_shows_nothing() -> None:
    """t (1 - 0.1 t^2) grows until t = 1.83: what lies farther off would be folded back."""
    view = replace(view_of("fisheye"), distortion=(-0.1, 0.0, 0.0, 0.0))
    angles = np.array([1.0, 1.8, 1.85, 3.0])
    seen = project(np.stack([np.sin(angles), np.zeros(4), np.cos(angles)], 1), view)
    assert np.isnan(seen.uv[:, 0]).tolist() == [False, False, True, True]
    assert np.isnan(rays(np.array([[878.593 + 617 * 1.3, 589.767]]), view)).all()  # no angle has that radius
    straight_back = project(np.array([[0.0, 0.0, -1.0]]), view_of("fisheye"))
    assert np.isnan(straight_back.uv).all()
    assert np.isnan(project(np.array([[1.0, 0.0, -0.1]]), view_of("fisheye624")).uv).all()


@pytest.mark.parametrize("model", get_args(CameraModel))
def test_the_header_keeps_the_lens(model: CameraModel) -> None:
    scene = toy_scene(0)
    assert scene.views
    lens = {"camera_model": model, "distortion": VIEWS[model][2]}
    bent: Scene = replace(scene, views=tuple(replace(view, **lens) for view in scene.views))  # type: ignore[arg-type]
    header = SceneHeader(encode_scene(bent).header)
    assert header.view(0).camera_model == model and header.view(0).distortion == VIEWS[model][2]
    if model != "opencv":
        wrong = replace(scene, views=(replace(scene.views[0], camera_model=model, distortion=(0.1,) * 7),))
        with pytest.raises(SceneError, match=rf"distortion has 7 values, the model {model} has {LENSES[model].values}"):
            encode_scene(wrong)
