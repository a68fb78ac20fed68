"""How points and pictures fit: each fit is best where the camera is right, and says nothing where it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from brickyard.curate.describe.calibration import describe_calibration
from brickyard.curate.describe.fits import brightness_fit, depth_fit, edge_fit
from brickyard.shards.cameras import project
from brickyard.shards.scene import Identity, Points, Scene, View

INTRINSICS = np.array([[300.0, 0, 239.5], [0, 300, 179.5], [0, 0, 1]])


def turn(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    found, (i, j) = np.eye(4), ((1, 2), (2, 0), (0, 1))[axis]
    found[[i, j], [i, j]], found[i, j], found[j, i] = c, -s, s
    return found


@pytest.fixture(scope="module")
def street() -> tuple[Points, View, np.ndarray]:
    """Boards of many greys before a wall; a laser gets back what a camera sees, with speckle."""
    rng = np.random.default_rng(0)
    small = rng.integers(20, 236, (18, 24)).astype(np.uint8)
    grey = np.asarray(Image.fromarray(small).resize((480, 360), Image.Resampling.NEAREST))
    view = View(
        name="0", image=b"", image_format="png", width=480, height=360, intrinsics=INTRINSICS,
        scene_from_camera=np.eye(4), timestamp_ns=0,
    )  # fmt: skip
    direction = np.stack([rng.uniform(-0.75, 0.75, 9000), rng.uniform(-0.55, 0.55, 9000), np.ones(9000)], 1)
    column = np.clip(np.rint(direction[:, 0] * 300 + 239.5), 0, 479).astype(int)
    xyz = direction * np.where(column // 40 % 2 == 0, 10.0, 16.0)[:, None]
    uv = np.clip(np.rint(project(xyz, view).uv), 0, (479, 359)).astype(int)
    intensity = grey[uv[:, 1], uv[:, 0]] * rng.lognormal(0, 0.3, len(xyz))
    points = Points(xyz=xyz.astype(np.float32), intensity=intensity.astype(np.float32), intensity_unit="byte")
    return points, view, np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("axis", range(3))
def test_brightness_is_best_where_the_camera_is_right(street: tuple[Points, View, np.ndarray], axis: int) -> None:
    points, view, picture = street
    fit = brightness_fit(points, view, picture)
    assert fit is not None
    values = [fit(replace(view, scene_from_camera=turn(axis, degrees))) for degrees in (-2, -1, 0, 1, 2)]
    assert values[2] == max(values) and values[2] > 1.3 * max(values[0], values[4])


def test_edges_are_best_where_the_camera_is_right(street: tuple[Points, View, np.ndarray]) -> None:
    points, view, picture = street
    fit = edge_fit(points, view, picture)
    assert fit is not None
    values = [fit(replace(view, scene_from_camera=turn(1, degrees))) for degrees in (-2, -1, 0, 1, 2)]
    assert values[2] == max(values)


@pytest.mark.parametrize(("axis", "degrees"), [(0, 1.0), (1, -0.5), (1, 2.0), (2, 1.5)])
def test_the_angle_is_found_with_its_sign(street: tuple[Points, View, np.ndarray], axis: int, degrees: float) -> None:
    points, view, picture = street
    identity = Identity(
        dataset="d", version="1", split="train", sequence="s", scene_id="x", timestamp_ns=None, domain="outdoor",
        licence="CC0-1.0",
    )  # fmt: skip
    off = replace(view, scene_from_camera=turn(axis, degrees))
    found = describe_calibration(Scene(identity=identity, world_from_scene=np.eye(4), points=points), [(off, picture)])
    name = ("pitch", "yaw", "roll")[axis]
    assert found[f"{name}_off_degrees"] == pytest.approx(degrees, abs=0.25)
    indoors = Scene(identity=replace(identity, domain="indoor"), world_from_scene=np.eye(4), points=points)
    assert describe_calibration(indoors, [(off, picture)]) == {}


def test_what_cannot_be_compared_says_nothing(street: tuple[Points, View, np.ndarray]) -> None:
    points, view, picture = street
    assert depth_fit(points, view) is None
    assert brightness_fit(Points(xyz=points.xyz), view, picture) is None
    assert edge_fit(Points(xyz=points.xyz[:5]), view, picture) is None
    behind = replace(view, scene_from_camera=turn(1, 180))
    fit = brightness_fit(points, view, picture)
    assert fit is not None and fit(behind) == 0
