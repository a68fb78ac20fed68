"""Random solids: what is hit lies on them and faces the camera, nothing nearer is missed, films are posed clips."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.simulate.random_shapes import draw_path, draw_world, looking, turn
from brickyard.ingest.simulate.solids import SHAPES, Lamps, Solid, Texture, picture
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.storage import Store

GRAY = Texture(kind="plain", colors=np.full((2, 3), 0.5), waves=np.ones((4, 3)), phases=np.zeros(4))
LAMPS = Lamps(sun=np.array([0.0, 0.0, 1.0]), bulb=np.array([0.0, 0.0, 5.0]), ambient=0.3)
K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
SIZE = (64, 48)


def is_within(kind: str, place: np.ndarray) -> np.ndarray:
    """Whether places (N, 3) of the shape's frame lie in it, by its definition."""
    x, y, z = place.T
    if kind == "ball":
        return np.asarray((place**2).sum(1) < 1)
    if kind == "box":
        return np.asarray(np.abs(place).max(1) < 1)
    slope = 0.5 if kind == "cone" else 0.0
    return np.asarray((np.abs(z) < 1) & (np.hypot(x, y) < 1 - slope * (z + 1)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["ball", "box", "cylinder", "cone"]))
def test_a_ray_ends_where_the_solid_begins(seed: int, kind: str) -> None:
    """Marching along every ray in small steps enters the solid at the distance that the formula gives."""
    rng = np.random.default_rng(seed)
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = turn(rng) @ np.diag(rng.uniform(0.3, 1.2, 3)), rng.uniform(-0.5, 0.5, 3)
    eye = turn(rng) @ np.array([0.0, 0.0, 4.0])
    way = (rng.uniform(-1, 1, (200, 3)) - eye) / 4
    back = np.linalg.inv(place)
    local_eye, local_way = back[:3, :3] @ eye + back[:3, 3], way @ back[:3, :3].T
    distance, normal = SHAPES[kind](local_eye, local_way)
    steps = np.linspace(0, 12, 4001)
    entered = np.full(len(way), np.inf)
    for step in steps[::-1]:
        entered[is_within(kind, local_eye + step * local_way)] = step
    met = np.isfinite(entered)
    assert met.any() and np.isfinite(distance[met]).all()
    np.testing.assert_allclose(distance[met], entered[met], atol=0.02)
    grazing = np.isfinite(distance) & ~met  # shorter inside than a step
    assert grazing.mean() < 0.05
    assert ((normal[met] * local_way[met]).sum(1) < 1e-9).all()  # it faces the camera


def test_a_picture_shows_the_nearest_and_depth_is_along_z() -> None:
    near, far = np.diag([0.5, 0.5, 0.5, 1.0]), np.diag([0.5, 0.5, 0.5, 1.0])
    far[0, 3] = -2.0
    walls = np.diag([6.0, 6.0, 6.0, 1.0])
    red = Texture(kind="plain", colors=np.array([[1.0, 0, 0]] * 2), waves=np.ones((4, 3)), phases=np.zeros(4))
    solids = [
        Solid(kind="ball", world_from_shape=far, texture=GRAY, shine=0.0),
        Solid(kind="ball", world_from_shape=near, texture=red, shine=0.0),
        Solid(kind="inside", world_from_shape=walls, texture=GRAY, shine=0.0),
    ]
    color, depth = picture(solids, LAMPS, looking(np.array([4.0, 0, 0.0]), np.zeros(3)), K, SIZE)
    row, column = 23, 31
    assert depth[row, column] == pytest.approx(3.5, abs=3e-3) and color[row, column, 0] > 0
    assert (color[row, column, 1:] == 0).all()
    assert depth[0, 0] == pytest.approx(10.0, abs=1e-3)  # the wall behind, along z, not along the ray


def test_worlds_and_paths_are_drawn_from_the_seed_alone() -> None:
    one, other = (draw_world(np.random.default_rng(5)) for _ in range(2))
    assert len(one[0]) == len(other[0]) >= 7
    path = draw_path(np.random.default_rng(5), 30)
    steps = [np.linalg.norm(a[:3, 3] - b[:3, 3]) for a, b in pairwise(path)]
    assert min(steps) > 0.02 and max(steps) < 0.3
    for camera in path:
        np.testing.assert_allclose(camera[:3, :3] @ camera[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera[:3, :3]) > 0 and camera[2, 1] < 0  # its y axis points down


def test_films_are_read_as_posed_clips(tmp_path: Path) -> None:
    config = SimulationConfig(shapes_scenes=10, shapes_frames=4, shapes_size=(32, 24))
    counts = simulate(tmp_path / "a", datasets=["shapes"], config=config)["shapes"]
    simulate(tmp_path / "b", datasets=["shapes"], config=config)
    assert counts["frames"] == 40
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    source = find_source("video")
    refs = list(source.plan(Store(tmp_path / "a" / "shapes"), source.options()))
    found = [ref for ref in refs if isinstance(ref, SceneRef)]
    assert [ref.split for ref in found].count("val") == 1 and len(found) == 10
    scene = source.read(found[0])
    truth = np.load(tmp_path / "a" / "truth" / "shapes" / found[0].sequence.split("/")[-1] / "world_from_camera.npy")
    for view, pose in zip(scene.views, truth, strict=True):
        assert view.scene_from_camera is not None
        np.testing.assert_allclose(scene.world_from_scene @ view.scene_from_camera, pose, atol=1e-6)
    table = json.loads((tmp_path / "a" / "shapes" / "train" / "shapes000000" / "transforms.json").read_text())
    np.testing.assert_allclose(scene.views[0].intrinsics[0, 0], table["fl_x"])
    assert scene.identity.licence == "CC0-1.0"
