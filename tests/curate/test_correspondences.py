"""Pairs: exact numbers on a hand-made scene, borders, missing poses, and the whole pipeline."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.curate.pipeline import CurateConfig, curate
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Depth, Domain, Identity, Points, RollingShutter, Scene, View

IDENTITY = Identity(
    dataset="test", version="1", split="none", sequence="s", scene_id="s", timestamp_ns=None, domain="outdoor",
    licence="CC0-1.0",
)  # fmt: skip


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def make(xyz: object, *, domain: Domain = "outdoor", width: int = 40, height: int = 30) -> Scene:
    """A camera at the origin looking along z with focal length 10 and its principal point at (20, 15)."""
    k = np.array([[10.0, 0, 20], [0, 10, 15], [0, 0, 1]])
    view = View(
        name="cam", image=png(width, height), image_format="png", width=width, height=height, intrinsics=k,
        scene_from_camera=np.eye(4),
    )  # fmt: skip
    points = Points(xyz=np.array(xyz, np.float32).reshape(-1, 3))
    return Scene(identity=replace(IDENTITY, domain=domain), world_from_scene=np.eye(4), points=points, views=(view,))


def test_pairs_are_point_pixel_and_depth() -> None:
    xyz = [[0, 0, -5], [1, 0.5, 5], [0.26, 0, 2], [0, 0, 0.9], [100, 0, 5], [-3, -2, 4]]
    pairs = add_correspondences(make(xyz), CorrespondenceConfig()).views[0].pairs
    assert pairs is not None
    assert pairs.point.tolist() == [1, 2, 5]
    assert pairs.pixel.tolist() == [[22, 16], [21, 15], [12, 10]]
    assert pairs.depth.tolist() == [5, 2, 4]


def test_minimal_depth_depends_on_the_domain() -> None:
    xyz = [[0, 0, 0.19], [0, 0, 0.21], [0, 0, 1.0], [0, 0, 1.1]]
    for domain, expected in (("outdoor", [3]), ("indoor", [1, 2, 3]), ("object", [1, 2, 3])):
        pairs = add_correspondences(make(xyz, domain=domain), CorrespondenceConfig()).views[0].pairs  # type: ignore[arg-type]
        assert pairs is not None and pairs.point.tolist() == expected


def test_border_is_strict_and_rounding_never_leaves_the_image() -> None:
    u = np.array([0.0, 0.4, 1.0, 1.1, 38.9, 39.0, 39.4, 39.6])
    xyz = np.stack([u - 20, np.zeros(8), np.full(8, 10)], axis=1)
    for border, expected in ((1.0, [3, 4]), (0.0, [1, 2, 3, 4, 5, 6])):
        pairs = add_correspondences(make(xyz), CorrespondenceConfig(border=border)).views[0].pairs
        assert pairs is not None and pairs.point.tolist() == expected


def test_views_without_pose_are_counted_and_clips_pass() -> None:
    world = make([[0, 0, 5]])
    lost = replace(world, views=(*world.views, replace(world.views[0], scene_from_camera=None)))
    once = add_correspondences(lost, CorrespondenceConfig())
    assert once.views[0].pairs is not None and once.views[1].pairs is None
    assert once.dropped == {"view without pose": 1}
    assert add_correspondences(once, CorrespondenceConfig()).dropped == {"view without pose": 1}
    clip = replace(world, points=None)
    assert add_correspondences(clip, CorrespondenceConfig()) is clip


@given(st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3), max_size=40), st.sampled_from(["outdoor", "indoor"]))
def test_any_cloud_gives_valid_pairs(xyz: list[tuple[float, ...]], domain: Domain) -> None:
    first = add_correspondences(make(xyz, domain=domain), CorrespondenceConfig()).views[0].pairs
    again = add_correspondences(make(xyz, domain=domain), CorrespondenceConfig()).views[0].pairs
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.visible, again.visible)
    if len(first):
        assert first.visible[first.depth.argmin()], "nothing hides the nearest point"


def test_pipeline_does_what_its_config_asks_for() -> None:
    world = make([[0, 0, 5]])
    both = curate(world, CurateConfig()).views[0]
    assert both.superpixels is not None and both.pairs is not None
    none = curate(world, CurateConfig(superpixels=None, correspondences=None))
    assert none is world


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(RecipeError):
        CorrespondenceConfig(min_depth_indoor=0)


def test_rolling_shutter_has_a_switch_and_says_so() -> None:
    """A camera that drives at 20 m/s to the right: a point on the first column is seen 20 ms before the middle."""
    shutter = RollingShutter(
        direction="right", readout_s=0.04, velocity=np.array([20.0, 0, 0]), angular_velocity=np.zeros(3)
    )
    still = make([[-3.6, 0, 2], [0, 0, 2]])
    world = replace(still, views=(replace(still.views[0], rolling_shutter=shutter),))
    on, off, never = (
        add_correspondences(scene, CorrespondenceConfig(rolling_shutter=flag)).views[0].pairs
        for scene, flag in ((world, True), (world, False), (still, True))
    )
    assert on is not None and off is not None and never is not None
    # u = 20 + 5 (x - 20 t), t = 0.04 ((u + 0.5) / 40 - 0.5): u = (20 + 5 x + 2 - 0.05) / 1.1
    assert on.pixel.tolist() == [[4, 15], [20, 15]] and off.pixel.tolist() == [[2, 15], [20, 15]]
    assert off.pixel.tolist() == never.pixel.tolist()
    assert "rolling_shutter=40.0ms" in on.provenance and "rolling_shutter=off" in off.provenance
    assert "rolling_shutter" not in never.provenance
    kept = add_correspondences(world, CorrespondenceConfig(rolling_shutter=False)).views[0]
    assert kept.rolling_shutter is shutter  # the switch chooses how pairs are made, it forgets nothing


def test_the_depth_test_knows_the_shutter_too() -> None:
    """Driving at 10 m/s towards a wall: each column of the depth image measured it from nearer than the one before."""
    shutter = RollingShutter(
        direction="right", readout_s=0.1, velocity=np.array([0, 0, 10.0]), angular_velocity=np.zeros(3)
    )
    x = np.linspace(-3.5, 3.5, 60)
    still = make(np.stack([x, 0 * x, np.full(60, 4.0)], 1), domain="indoor")
    times = 0.1 * ((np.arange(40) + 0.5) / 40 - 0.5)
    measured = np.tile(np.rint((4 - 10 * times) * 1000).astype(np.uint16), (30, 1))
    depth = Depth(values=measured, scale=0.001, intrinsics=still.views[0].intrinsics)
    world = replace(still, views=(replace(still.views[0], rolling_shutter=shutter, depth=depth),))
    on, off = (
        add_correspondences(world, CorrespondenceConfig(rolling_shutter=flag)).views[0].pairs for flag in (True, False)
    )
    assert on is not None and off is not None and len(on) > 40
    assert on.visible.all() and off.visible.mean() < 0.5
