"""Estimated normals: planes are found, lines are not, and every surface of a room looks into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.curate import normals
from brickyard.curate.normals import NormalsConfig, add_normals, estimate_normals, orient_towards
from brickyard.curate.pipeline import CurateConfig, curate
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Identity, Points, Scene, View


def scene(xyz: Any, domain: Any = "indoor", views: tuple[View, ...] = ()) -> Scene:
    identity = Identity(
        dataset="toy", version="1", split="train", sequence="s", scene_id="s/0", timestamp_ns=None, domain=domain,
        licence="CC0-1.0",
    )  # fmt: skip
    points = Points(xyz=np.asarray(xyz, np.float32))
    return Scene(identity=identity, world_from_scene=np.eye(4), points=points, views=views).validate()


def camera(*place: float) -> View:
    pose = np.eye(4)
    pose[:3, 3] = place
    return View(
        name="c", image=b"x", image_format="png", width=1, height=1, intrinsics=np.eye(3), scene_from_camera=pose
    )


def normal_of(done: Scene) -> np.ndarray:
    assert done.points is not None and done.points.normal is not None
    return done.points.normal


def sheet(rng: np.random.Generator, low: Any, high: Any, count: int = 3000) -> np.ndarray:
    return rng.uniform(low, high, (count, 3))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.sampled_from([0.0, 100.0, 5000.0]))
def test_the_normal_of_any_plane_is_found(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    xyz = (rng.uniform(-1, 1, (300, 2)) @ axes[:2] + shift).astype(np.float32)
    tilt = np.abs(estimate_normals(xyz, 12) @ axes[2])
    assert np.median(tilt) > (0.9999 if shift < 1000 else 0.99)  # float32 steps of 0.5 mm at 5 km


def test_noise_tilts_little_and_more_neighbours_tilt_less() -> None:
    rng = np.random.default_rng(1)
    xyz = sheet(rng, (0, 0, 0), (1, 1, 0)) + rng.normal(0, 0.003, (3000, 3))
    tilt = [np.degrees(np.arccos(np.abs(estimate_normals(xyz.astype(np.float32), k)[:, 2]).mean())) for k in (8, 32)]
    assert tilt[1] < tilt[0] < 20 and tilt[1] < 6


@pytest.mark.parametrize("count", [1, 2, 50])
def test_points_on_a_line_or_at_one_spot_have_no_normal(count: int) -> None:
    line = np.linspace(0, 1, count)[:, None] * np.array([[1.0, 2.0, 3.0]])
    assert not estimate_normals(line.astype(np.float32), 8).any()
    assert not estimate_normals(np.ones((count, 3), np.float32), 8).any()


def test_neighbours_beyond_the_radius_do_not_count() -> None:
    rng = np.random.default_rng(2)
    lonely = np.array([[50.0, 0, 0]])
    xyz = np.concatenate([sheet(rng, (0, 0, 0), (1, 1, 0), 500), lonely]).astype(np.float32)
    found = estimate_normals(xyz, 8, radius_m=1.0)
    assert (np.abs(found[:-1, 2]) > 0.999).all() and not found[-1].any()
    assert estimate_normals(xyz, 8)[-1].any()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    xyz = np.random.default_rng(3).normal(size=(1000, 3)).astype(np.float32)
    whole = estimate_normals(xyz, 10)
    monkeypatch.setattr(normals, "BLOCK", 64)
    np.testing.assert_array_equal(estimate_normals(xyz, 10), whole)


def test_a_sweep_looks_at_its_lidar_and_says_so() -> None:
    rng = np.random.default_rng(4)
    direction = rng.normal(size=(4000, 3))
    xyz = 10 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    done = add_normals(scene(xyz, "outdoor"), NormalsConfig(neighbours=12, radius_m=3))
    assert done.points is not None and done.points.normal_source == "estimated pca k=12 radius=3 towards origin"
    cosine = -(normal_of(done) * xyz / 10).sum(1)
    assert cosine.min() > 0.9
    away = orient_towards(done.points.xyz, normal_of(done), np.array([[0.0, 0, 1000]]))
    assert (away[xyz[:, 2] < -1, 2] > 0).all() and (away[xyz[:, 2] > 1, 2] > 0).all()


def test_every_surface_of_a_room_looks_inside() -> None:
    """An L-shaped room, where its middle lies outside; a table is seen from above by the camera that stands there."""
    rng = np.random.default_rng(5)
    parts = {
        (0, 0, 1): [((0, 0, 0), (6, 2, 0)), ((0, 2, 0), (2, 6, 0)), ((3, 0.6, 0.7), (4.2, 1.4, 0.7))],
        (0, 0, -1): [((0, 0, 2.5), (6, 2, 2.5)), ((0, 2, 2.5), (2, 6, 2.5))],
        (1, 0, 0): [((0, 0, 0), (0, 6, 2.5))],
        (-1, 0, 0): [((6, 0, 0), (6, 2, 2.5)), ((2, 2, 0), (2, 6, 2.5))],
        (0, 1, 0): [((0, 0, 0), (6, 0, 2.5))],
        (0, -1, 0): [((2, 2, 0), (6, 2, 2.5)), ((0, 6, 0), (2, 6, 2.5))],
    }
    sheets = [(axis, sheet(rng, low, high)) for axis, boxes in parts.items() for low, high in boxes]
    xyz = np.concatenate([points for _, points in sheets])
    truth = np.repeat([axis for axis, _ in sheets], [len(points) for _, points in sheets], axis=0)
    for views in ((), (camera(4, 1, 1.5), camera(1, 5, 1.5))):
        done = add_normals(scene(xyz, views=views), NormalsConfig())
        cosine = (normal_of(done) * truth).sum(1)
        assert (cosine > 0.9).mean() > 0.93 and (cosine < -0.5).mean() < 0.012
        rule = "nearest camera" if views else "middle"
        assert (
            done.points is not None and done.points.normal_source == f"estimated pca k=16 towards inside, then {rule}"
        )
    toward_middle = orient_towards(done.points.xyz, normal_of(done), np.array([[3.0, 3, 1.25]]))
    assert ((toward_middle * truth).sum(1) < -0.5).mean() > 0.1, "a simpler rule would fail this room"


def test_normals_of_the_dataset_stay_unless_they_are_to_be_replaced() -> None:
    rng = np.random.default_rng(6)
    bare = scene(sheet(rng, (0, 0, 0), (1, 1, 0), 100))
    assert bare.points is not None
    given_up = np.tile(np.array([[1, 0, 0]], np.float32), (100, 1))
    own = replace(bare, points=replace(bare.points, normal=given_up, normal_source="mesh"))
    assert add_normals(own, NormalsConfig()) is own
    assert np.abs(normal_of(add_normals(own, NormalsConfig(replace=True)))[:, 2]).min() > 0.99
    clip = replace(bare, points=None)
    assert add_normals(clip, NormalsConfig()) is clip


def test_it_is_a_step_of_curation_that_is_off_by_default() -> None:
    room = scene(sheet(np.random.default_rng(7), (0, 0, 0), (1, 1, 0), 100))
    off = CurateConfig(superpixels=None, correspondences=None)
    assert curate(room, off).points is room.points
    assert normal_of(curate(room, replace(off, normals=NormalsConfig()))).any()
    with pytest.raises(RecipeError, match="neighbours"):
        NormalsConfig(neighbours=2)


def test_simulated_rooms_agree_with_the_normals_of_their_mesh(tmp_path: Path) -> None:
    from brickyard.ingest.s3dis import SOURCE
    from brickyard.ingest.simulate import SimulationConfig, simulate
    from brickyard.ingest.source import SceneRef
    from brickyard.shards.storage import Store

    config = SimulationConfig(s3dis_rooms=2, s3dis_views=1, s3dis_points=20_000, s3dis_image_size=32)
    simulate(tmp_path, datasets=("s3dis",), config=config)
    for item in SOURCE.plan(Store(tmp_path / "s3dis"), SOURCE.options(rooms="Stanford3dDataset_v1.2")):
        assert isinstance(item, SceneRef)
        cosine = (normal_of(add_normals(SOURCE.read(item), NormalsConfig())) * _truth(tmp_path, item.scene_id)).sum(1)
        clear = np.abs(cosine) > np.cos(np.radians(20))
        assert clear.mean() > 0.8 and (cosine[clear] > 0).mean() > 0.97


def _truth(root: Path, room: str) -> np.ndarray:
    truth: np.ndarray = np.load(root / "truth/s3dis" / room / "normal.npy")
    return truth
