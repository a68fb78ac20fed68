"""The Structured3D reader against what is public of the real release: lists, and a panorama with its layout drawn in.

The official repository shows room 485142 of scene_00000 with its layout, and the floor plan of that house. Corners that
were read off both decide which way a panorama looks; only the plan's scale and place are unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.structured3d.cameras import PANORAMA_AXES
from brickyard.ingest.structured3d.frame import OTHERS, OURS, Reading, layout_distance
from brickyard.ingest.structured3d.plan import errata
from brickyard.shards.cameras import project, rays
from brickyard.shards.scene import View
from brickyard.shards.taxonomy import taxonomy

CORNERS = np.array([
    (62, 143, 406), (123, 98, 445), (231, 206, 331), (336, 213, 320), (462, 177, 369), (630, 131, 418), (696, 174, 374),
    (864, 180, 366),
])  # fmt: skip
"""Column, row on the ceiling, row on the floor."""
PLAN = np.array([(232, 340), (232, 308), (92, 308), (92, 197), (225, 197), (287, 249), (335, 248), (335, 340)])
"""The same corners on the plan: pixels to the right and down."""
SIZE = (1024, 512)


def panorama() -> View:
    width, height = SIZE
    intrinsics = np.array(
        [[width / (2 * np.pi), 0, (width - 1) / 2], [0, height / np.pi, (height - 1) / 2], [0, 0, 1.0]]
    )
    pose = np.eye(4)
    pose[:3, :3] = PANORAMA_AXES
    return View(
        name="panorama", image=b"x", image_format="png", width=width, height=height, intrinsics=intrinsics,
        camera_model="equirectangular", scene_from_camera=pose,
    )  # fmt: skip


def floor_corners() -> np.ndarray:
    """(8, 2), world axes, in heights of the camera above the floor."""
    pixels = CORNERS[:, [0, 2]].astype(float)
    ahead = rays(pixels, panorama()) @ PANORAMA_AXES.T
    return ahead[:, :2] / -ahead[:, 2:]


def misfit(places: np.ndarray) -> float:
    """Root mean square, in pixels of the plan, after the best shift and (positive) scale."""
    plan = PLAN * (1.0, -1.0)
    a, b = places - places.mean(axis=0), plan - plan.mean(axis=0)
    scale = max((a * b).sum() / (a * a).sum(), 0.0)
    return float(np.sqrt(((b - scale * a) ** 2).sum(axis=1).mean()))


def test_a_real_room_fits_its_floor_plan_in_our_reading_alone() -> None:
    ours = floor_corners()
    assert misfit(ours) < 3.5, "of a room 243 pixels wide"
    for reading in OTHERS:
        other = (ours @ OURS.axes[:2, :2].T) @ reading.axes[:2, :2]
        assert misfit(other) > 30, reading


def test_our_lens_is_the_official_formula_but_for_half_a_pixel() -> None:
    """That of the code which textures the walls of the release: column (atan2(x, y) / 2 pi + 1/2) W, row likewise."""
    places = np.random.default_rng(3).normal(0, 3, (1000, 3))
    x, y, z = places.T
    column = (np.arctan2(x, y) / (2 * np.pi) + 0.5) * SIZE[0]
    row = (0.5 - np.arctan(z / np.hypot(x, y)) / np.pi) * SIZE[1]
    np.testing.assert_allclose(project(places, panorama()).uv + 0.5, np.column_stack([column, row]), atol=1e-9)


def test_floor_and_ceiling_of_a_real_room_agree_on_its_height() -> None:
    """A vertical formula that was off, or a camera that was not upright, would give each corner another height."""
    ahead = rays(CORNERS[:, [0, 1]].astype(float), panorama())
    rise = -ahead[:, 1] / np.hypot(ahead[:, 0], ahead[:, 2]) * np.linalg.norm(floor_corners(), axis=1)
    assert rise.std() / rise.mean() < 0.02


def test_the_check_of_layouts_tells_a_real_room_from_its_turned_and_mirrored_ones() -> None:
    height = 1.5
    floor = np.column_stack([floor_corners() * height, np.full(8, -height)])
    shells = [(CORNERS[:, [0, 2]].astype(float), floor)]
    assert layout_distance(shells, OURS, SIZE) < 0.1
    assert min(layout_distance(shells, reading, SIZE) for reading in OTHERS) > 8
    assert Reading("+x", "+y") == OURS


@pytest.mark.real
def test_corners_are_where_the_layout_is_drawn(samples: Path) -> None:
    with Image.open(samples / "structured3d/assets/pano_layout/scene_00000_485142.png") as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (512, 1024, 4)
    blue = (pixels[..., 2] > 200) & (pixels[..., :2].max(axis=2) < 60)
    row, column = np.nonzero(blue)
    for corner in np.concatenate([CORNERS[:, [0, 1]], CORNERS[:, [0, 2]]]):
        assert np.hypot(column - corner[0], row - corner[1]).min() < 3


@pytest.mark.real
def test_the_lists_are_the_official_ones(samples: Path) -> None:
    folder = samples / "structured3d/metadata"
    lines = [line for line in (folder / "errata.txt").read_text().split() if line.startswith("scene_")]
    assert errata()["invalid houses"] == {line for line in lines if "_room_" not in line}
    assert errata()["wrong layouts"] == {line.replace("_room_", "/room_") for line in lines if "_room_" in line}
    names = [line.split("\t")[1] for line in (folder / "labelids.txt").read_text().splitlines()]
    assert [name.replace("nightstand", "night stand") for name in names] == list(taxonomy("nyu40").classes)
