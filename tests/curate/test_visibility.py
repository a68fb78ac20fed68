"""The depth tests on worlds whose hidden points are known by ray casting, and on depth images."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.curate.visibility import VisibilityConfig, point_spacing, splat_test
from brickyard.ingest.agreement import agreement
from brickyard.shards.codecs import decode
from brickyard.shards.encode import SceneHeader, decode_scene, encode_scene
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Correspondences, Depth, Domain, Identity, Points, Scene, View
from brickyard.shards.verify import reprojection_error

Box = tuple[np.ndarray, np.ndarray]


def scene(xyz: np.ndarray, domain: Domain, view: View) -> Scene:
    identity = Identity(
        dataset="test", version="1", split="none", sequence="s", scene_id="s", timestamp_ns=None, domain=domain,
        licence="CC0-1.0",
    )  # fmt: skip
    points = Points(xyz=xyz.astype(np.float32))
    return Scene(identity=identity, world_from_scene=np.eye(4), points=points, views=(view,))


def looking(center: np.ndarray, target: np.ndarray, focal: float, size: tuple[int, int]) -> View:
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, center], axis=1)
    k = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    return View(
        name="cam", image=b"x", image_format="jpeg", width=size[0], height=size[1], intrinsics=k, scene_from_camera=pose
    )


def box_hit(origin: np.ndarray, direction: np.ndarray, box: Box) -> np.ndarray:
    """Where rays enter the box, in units of their direction; inf if they miss (the slab method)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (box[0] - origin) / direction, (box[1] - origin) / direction
    enter, leave = np.minimum(one, two).max(axis=1), np.maximum(one, two).min(axis=1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def lidar_sweep(beams: int, vertical: float, horizontal: float, box: Box) -> np.ndarray:
    """What a spinning lidar 1.8 m above the ground sees of a box before a wall at y = 20."""
    elevation = np.radians(np.arange(beams) * vertical - beams * vertical * 0.75)
    azimuth = np.radians(np.arange(-45, 45, horizontal))
    e, a = np.meshgrid(elevation, azimuth, indexing="ij")
    ray = np.stack([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)], -1).reshape(-1, 3)
    ground = np.where(ray[:, 2] < 0, -1.8 / np.minimum(ray[:, 2], -1e-9), np.inf)
    return ray * np.minimum.reduce([20 / ray[:, 1], ground, box_hit(np.zeros(3), ray, box)])[:, None]


def pairs_and_truth(world: Scene, box: Box) -> tuple[Correspondences, np.ndarray]:
    pairs = add_correspondences(world, CorrespondenceConfig()).views[0].pairs
    pose = world.views[0].scene_from_camera
    assert pairs is not None and pose is not None and world.points is not None
    ray = world.points.xyz[pairs.point] - pose[:3, 3]
    return pairs, box_hit(pose[:3, 3], ray, box) > 1 - 2e-3


@pytest.mark.parametrize(("beams", "vertical", "horizontal"), [(32, 1.33, 0.33), (64, 0.4, 0.17)])
@pytest.mark.parametrize("center", [(0.8, 0.5, -0.3), (0.0, 0.8, -0.5), (-1.0, 0.0, -0.2)])
def test_a_box_hides_the_wall_from_a_camera_beside_the_lidar(
    beams: int, vertical: float, horizontal: float, center: tuple[float, float, float]
) -> None:
    box = (np.array([-1.5, 8, -1.8]), np.array([1.5, 10, 1.2]))
    view = looking(np.array(center), np.array(center) + np.array([0, 1, 0]), 1266, (1600, 900))
    world = scene(lidar_sweep(beams, vertical, horizontal, box), "outdoor", view)
    pairs, seen = pairs_and_truth(world, box)
    assert 30 < (~seen).sum() < len(pairs) / 4
    assert (pairs.visible == seen).mean() > 0.98
    assert (~pairs.visible[~seen]).mean() > 0.9, "hidden points must be found, not only the many visible ones"


@pytest.mark.parametrize("center", [(0.0, -0.5, 1.5), (1.2, -0.5, 0.8), (-1.5, 0.0, 1.8)])
def test_furniture_hides_what_is_behind_it_in_a_scanned_room(center: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)

    def sheet(corner: tuple[float, ...], a: tuple[float, ...], b: tuple[float, ...]) -> np.ndarray:
        cells = np.array([int(np.linalg.norm(a) / 0.025), int(np.linalg.norm(b) / 0.025)])
        grid = np.stack(np.meshgrid(*map(np.arange, cells)), -1).reshape(-1, 2)
        st = (grid + rng.uniform(0.2, 0.8, grid.shape)) / cells
        return np.array(corner) + st[:, :1] * a + st[:, 1:] * b

    wall, floor = sheet((-2, 3, 0), (4, 0, 0), (0, 0, 2.5)), sheet((-2, -1, 0), (4, 0, 0), (0, 4, 0))
    sides = [sheet((-0.5, y, 0), (1, 0, 0), (0, 0, 1)) for y in (1.5, 2)]
    sides += [sheet((x, 1.5, 0), (0, 0.5, 0), (0, 0, 1)) for x in (-0.5, 0.5)]
    top = sheet((-0.5, 1.5, 1), (1, 0, 0), (0, 0.5, 0))
    view = looking(np.array(center), np.array([0, 2, 0.7]), 1170, (1296, 968))
    world = scene(np.concatenate([wall, floor, *sides, top]), "indoor", view)
    shrunk = (np.array([-0.496, 1.504, 0.0]), np.array([0.496, 1.996, 0.996]))
    pairs, seen = pairs_and_truth(world, shrunk)
    assert (~seen).sum() > 5000
    assert (pairs.visible == seen).mean() > 0.95
    assert (~pairs.visible[~seen]).mean() > 0.95


def test_nothing_hides_a_single_surface() -> None:
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 80), np.linspace(-1, 1, 40)), -1).reshape(-1, 2)
    slanted = np.stack([grid[:, 0], 4 + grid[:, 0], grid[:, 1]], axis=1)
    view = looking(np.zeros(3), np.array([0, 1.0, 0]), 500, (1000, 800))
    pairs = add_correspondences(scene(slanted, "indoor", view), CorrespondenceConfig()).views[0].pairs
    assert pairs is not None and len(pairs) > 2000 and pairs.visible.mean() > 0.99


def test_splats_hide_only_what_they_cover() -> None:
    uv = np.array([[50.0, 50], [52, 50], [80, 50], [50.5, 50]])
    reach = np.array([2.0, 5.0, 5.0, 2.05])
    visible = splat_test(uv, reach, np.full((4, 2), 4.0), np.full(4, 0.1), (100, 100))
    assert visible.tolist() == [True, False, True, True]
    assert len(splat_test(uv[:0], reach[:0], uv[:0], reach[:0], (100, 100))) == 0


def test_a_depth_image_decides_where_it_measured() -> None:
    """Three points on one line of sight; the image measured the second one's depth, or nothing."""
    view = looking(np.zeros(3), np.array([0, 1.0, 0]), 100, (200, 200))
    xyz = np.array([[0, 1.5, 0], [0, 2.0, 0], [0, 3.0, 0], [0.4, 2.0, 0]])
    values = np.zeros((50, 50), np.uint16)
    values[20:30, 20:30] = 2010
    k = np.array([[25.0, 0, 25], [0, 25, 25], [0, 0, 1]])
    view = replace(view, depth=Depth(values=values, scale=0.001, intrinsics=k))
    pairs = add_correspondences(scene(xyz, "indoor", view), CorrespondenceConfig()).views[0].pairs
    assert pairs is not None and pairs.point.tolist() == [0, 1, 2, 3]
    assert pairs.visible.tolist() == [False, True, False, True], "a point before the measured surface is not there"
    assert pairs.provenance.startswith("min_depth=0.2 border=1; depth image tolerance=max(0.05m, 0.02*z)")
    blank = replace(view, depth=Depth(values=np.zeros_like(values), scale=0.001, intrinsics=k))
    tight = CorrespondenceConfig(visibility=VisibilityConfig(splat_slack=0, splat_scale=0.1))
    pairs = add_correspondences(scene(xyz, "indoor", blank), tight).views[0].pairs
    assert pairs is not None and pairs.visible.tolist() == [True, False, False, True]


def test_beam_angles_are_found_without_ring_numbers() -> None:
    box = (np.array([-1.5, 8, -1.8]), np.array([1.5, 10, 1.2]))
    view = looking(np.zeros(3), np.array([0, 1.0, 0]), 100, (200, 200))
    for beams, vertical, horizontal in ((32, 1.33, 0.33), (64, 0.4, 0.17), (16, 2.0, 0.2)):
        xyz = lidar_sweep(beams, vertical, horizontal, box)
        xyz += np.random.default_rng(0).normal(0, 0.01, xyz.shape)
        spacing = point_spacing(scene(xyz, "outdoor", view))
        step = np.degrees(np.median(spacing / np.linalg.norm(xyz, axis=1)[:, None], axis=0))
        np.testing.assert_allclose(step, (horizontal, vertical), rtol=0.25)


def test_a_sweep_and_six_cameras_take_a_fraction_of_a_second() -> None:
    box = (np.array([-1.5, 8, -1.8]), np.array([1.5, 10, 1.2]))
    xyz = lidar_sweep(32, 1.33, 0.083, box)
    view = looking(np.array([0.8, 0.5, -0.3]), np.array([0.8, 2, -0.3]), 1266, (1600, 900))
    world = replace(scene(xyz, "outdoor", view), views=(view,) * 6)
    assert len(xyz) > 34_000
    best = min(_seconds(world) for _ in range(3))
    assert best < 1.5, f"{best:.2f} s (about 0.3 s on an idle core; 35,000 points all lie before every camera here)"


def _seconds(world: Scene) -> float:
    start = time.process_time()
    add_correspondences(world, CorrespondenceConfig())
    return time.process_time() - start


def test_impossible_tolerances_are_refused() -> None:
    with pytest.raises(RecipeError):
        VisibilityConfig(splat_absolute=-1)


def around(domain: Domain = "indoor") -> tuple[Scene, np.ndarray]:
    """A panorama 1 m above the floor of an empty room of 6 x 4 x 3 m, with the room's points; and their distances."""
    rng = np.random.default_rng(3)
    half = np.array([3.0, 2.0, 1.5])
    xyz = rng.uniform(-half, half, (4000, 3))
    side = rng.integers(0, 3, len(xyz))
    rows = np.arange(len(xyz))
    xyz[rows, side] = np.sign(xyz[rows, side]) * half[side]
    # Columns to the right, rows down, the middle ahead: x, -z and y of the room.
    pose = np.array([[1, 0, 0, 0.4], [0, 0, 1, -0.3], [0, -1, 0, -0.5], [0, 0, 0, 1]], np.float64)
    lens = np.array([[512 / (2 * np.pi), 0, 255.5], [0, 256 / np.pi, 127.5], [0, 0, 1]])
    column, row = np.meshgrid(np.arange(512), np.arange(256))
    east, up = (column - 255.5) / lens[0, 0], -(row - 127.5) / lens[1, 1]
    ahead = np.stack([np.cos(up) * np.sin(east), np.cos(up) * np.cos(east), np.sin(up)], -1)
    with np.errstate(divide="ignore"):
        reach = ((np.sign(ahead) * half - pose[:3, 3]) / ahead).min(axis=2)
    depth = Depth(values=np.rint(reach * 1000).astype(np.uint16), scale=0.001, intrinsics=lens, along="ray")
    view = View(
        name="pano", image=b"x", image_format="png", width=512, height=256, camera_model="equirectangular",
        intrinsics=lens, scene_from_camera=pose, depth=depth,
    )  # fmt: skip
    return scene(xyz, domain, view), np.linalg.norm(xyz - pose[:3, 3], axis=1)


def test_a_panorama_sees_all_around_by_the_distance_along_its_rays() -> None:
    world, distance = around()
    pairs = add_correspondences(world, CorrespondenceConfig()).views[0].pairs
    assert pairs is not None and pairs.provenance.startswith("min_distance=0.2 ")
    assert len(pairs) > 0.97 * len(distance)  # but for a pixel at each border
    np.testing.assert_allclose(pairs.depth, distance[pairs.point], rtol=1e-5)
    assert pairs.visible.mean() > 0.99


def test_along_z_the_depths_of_a_panorama_make_no_sense() -> None:
    """What the row above is worth: the same image read as depth along z agrees with few points."""
    world, _ = around()
    view = world.views[0]
    assert view.depth is not None
    flat = replace(world, views=(replace(view, depth=replace(view.depth, along="z")),))
    config = CorrespondenceConfig(visibility=VisibilityConfig(splat_absolute=0, splat_relative=0, splat_slack=0))
    pairs = add_correspondences(flat, config).views[0].pairs
    assert pairs is not None and pairs.visible.mean() < 0.7


def test_a_panorama_comes_back_from_shards_and_verifies() -> None:
    world, _ = around()
    encoded = encode_scene(add_correspondences(world, CorrespondenceConfig()))
    header = SceneHeader(encoded.header)
    found = decode_scene(header, lambda name: decode(header.fields[name], encoded.blobs[name])).validate()
    assert found.views[0].depth is not None and found.views[0].depth.along == "ray"
    assert reprojection_error(found, found.views[0]) < 0.05


def test_points_agree_with_distances_along_rays() -> None:
    world, _ = around()
    assert world.points is not None
    assert agreement(world.views[0], world.points.xyz)[0] > 0.99
    moved = (world.points.xyz + np.array([0.5, 0.3, 0.2])).astype(np.float32)
    assert agreement(world.views[0], moved)[0] < 0.8
