"""The six frames of a real walk: their depths agree, stand on the floor, and a plain reading gives the same points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.ase.camera import DEVICE_FROM_CAMERA, DISTORTION, INTRINSICS
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.cameras import depth_camera, depth_places, project
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

pytestmark = pytest.mark.real
SOURCE = find_source("ase")


@pytest.fixture(scope="module")
def scene(samples: Path) -> Scene:
    found = list(SOURCE.plan(Store(str(samples / "ase")), SOURCE.options(every=1)))
    assert [type(ref) for ref in found] == [SceneRef]
    return SOURCE.read(found[0])


@pytest.mark.parametrize(("one", "other", "least"), [(0, 1, 0.99), (2, 3, 0.98)])
def test_depths_of_two_frames_agree(scene: Scene, one: int, other: int, least: float) -> None:
    """Places of one frame in the other: within 20 mm for nearly all that both see, and 2.5 mm for half."""
    first, second = scene.views[one], scene.views[other]
    assert first.depth is not None and second.depth is not None
    assert first.scene_from_camera is not None
    row, column = np.indices(first.depth.values.shape)
    chosen = (np.hypot(column - 351.5, row - 351.5) < 350) & (first.depth.values > 0)
    row, column = row[chosen][::37], column[chosen][::37]
    metres = first.depth.values[row, column] * first.depth.scale
    local = depth_places(np.stack([column, row], 1).astype(np.float64), metres, first, first.depth)
    places = local @ first.scene_from_camera[:3, :3].T + first.scene_from_camera[:3, 3]
    seen = project(places, depth_camera(second, second.depth))
    inside = np.hypot(*(seen.uv - 351.5).T) < 350  # NaN compares as false
    pixel = np.rint(seen.uv[inside]).astype(int)
    measured = second.depth.values[pixel[:, 1], pixel[:, 0]] * second.depth.scale
    off = np.abs(seen.distance[inside] - measured)[measured > 0]
    assert inside.mean() > 0.2 and np.median(off) < 0.0025
    assert (off < 0.02).mean() > least - 0.05


def test_points_stand_on_the_floor(scene: Scene) -> None:
    classes = taxonomy("ase43").classes
    assert scene.points is not None and scene.points.normal is not None
    labels = scene.points.semantic["ase43"]
    floor, ceiling = (labels == classes.index(name) for name in ("floor", "ceiling"))
    assert abs(float(np.median(scene.points.xyz[floor, 2])) - 0.003) < 0.003
    assert np.median(scene.points.normal[floor, 2]) > 0.999 and np.median(scene.points.normal[ceiling, 2]) < -0.999
    assert not any("unknown class" in name for name in scene.dropped)
    assert scene.dropped["pixel nearer than the near plane"] > 1000, "a frame walks into a wall"


def test_walls_of_the_scene_language_stand_where_points_do(scene: Scene) -> None:
    """Of the points labelled wall that are beside a wall of the file, nearly all lie on one."""
    assert scene.points is not None
    commands = scene.annotations["scene_language"]
    walls = [c for c in commands if c["command"] == "make_wall"]
    assert len(walls) == 8 and {c["command"] for c in commands} == {"make_wall", "make_door", "make_window"}
    labels = scene.points.semantic["ase43"]
    xy = scene.points.xyz[labels == taxonomy("ase43").classes.index("wall"), :2].astype(np.float64)[::50]
    ends = np.array([[[w["a_x"], w["a_y"]], [w["b_x"], w["b_y"]]] for w in walls])
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    place = np.einsum("nwk,wk->nw", xy[:, None] - ends[:, 0], along / length[:, None]).clip(0, length)
    off = np.linalg.norm(xy[:, None] - (ends[:, 0] + place[..., None] * (along / length[:, None])), axis=2).min(axis=1)
    assert np.median(off) < 0.01 and (off < 0.05).mean() > 0.9


def test_against_a_plain_reading(samples: Path, scene: Scene) -> None:
    """One frame, written out from the published formula: fixed-point steps, quaternion by hand."""
    text = (samples / "ase/0/trajectory.csv").read_text().splitlines()
    row = dict(zip(text[0].split(","), text[1 + 20].split(","), strict=True))
    x, y, z, w = (float(row[f"q{axis}_world_device"]) for axis in "xyzw")
    turn = np.array([
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ])  # fmt: skip
    place = np.array([float(row[f"t{axis}_world_device"]) for axis in "xyz"])
    view = next(view for view in scene.views if view.name == "frame-0000020")
    assert view.scene_from_camera is not None and view.depth is not None
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = turn, place
    expected = whole @ DEVICE_FROM_CAMERA
    np.testing.assert_allclose(scene.world_from_scene @ view.scene_from_camera, expected, atol=1e-9)
    stored = np.array(Image.open(samples / "ase/0/depth/depth0000020.png")).astype(np.uint16)
    good = (stored > 100) & (stored < 65535)
    assert np.array_equal(view.depth.values[good], stored[good]) and not view.depth.values[~good].any()
    column, line = 250.0, 420.0
    u, v = (column - INTRINSICS[0, 2]) / INTRINSICS[0, 0], (line - INTRINSICS[1, 2]) / INTRINSICS[1, 1]
    a, b = u, v
    for _ in range(100):
        s, along = a * a + b * b, a * DISTORTION[6] + b * DISTORTION[7]
        a, b = u - 2 * along * a - s * DISTORTION[6], v - 2 * along * b - s * DISTORTION[7]
    radius, angle = np.hypot(a, b), np.hypot(a, b)
    for _ in range(200):
        angle = radius / (1 + sum(k * angle ** (2 * i + 2) for i, k in enumerate(DISTORTION[:6])))
    ray = np.array([a / radius * np.sin(angle), b / radius * np.sin(angle), np.cos(angle)])
    there = expected[:3, :3] @ ray * (stored[420, 250] / 1000) + expected[:3, 3]
    back = project((there - scene.world_from_scene[:3, 3])[None], view)
    np.testing.assert_allclose(back.uv[0], (column, line), atol=1e-6)
