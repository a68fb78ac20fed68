"""Simulated Waymo drives: both forms against the truth beside them, and our projection against that of the rays."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok, scene_digest
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.simulate.waymo import CAMERA_IDS, CAMERAS, LIDAR_IDS
from brickyard.ingest.source import SceneRef
from brickyard.ingest.waymo.frame import LASERS, Options
from brickyard.shards.cameras import project
from brickyard.shards.scene import UNLABELLED, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.waymo_reading import SOURCES
from tests.ingest.waymo_toy import slow_crc

TINY = SimulationConfig(
    waymo_segments=2, waymo_frames=2, waymo_image_size=(240, 160), waymo_columns=300, waymo_rows=16, waymo_speed=14.0
)
SMALLEST = replace(TINY, waymo_segments=1, waymo_frames=1, waymo_image_size=(24, 16), waymo_columns=24, waymo_rows=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    simulate(out, datasets=("waymo",), seed=5, config=TINY)
    return out


def planned(world: Path, release: str, options: Options | None = None) -> list[SceneRef]:
    items = list(SOURCES[release].plan(Store(str(world / "waymo" / release)), options or Options()))
    assert all(isinstance(item, SceneRef) for item in items)
    return [item for item in items if isinstance(item, SceneRef)]


@cache
def scenes(world: Path, release: str) -> list[Scene]:
    return [SOURCES[release].read(ref) for ref in planned(world, release)]


def truth(world: Path, scene: Scene, name: str) -> np.ndarray:
    stamp = (scene.identity.timestamp_ns or 0) // 1000
    array: np.ndarray = np.load(world / "truth" / "waymo" / scene.identity.sequence / str(stamp) / f"{name}.npy")
    return array


def test_both_forms_are_the_same_scenes(world: Path) -> None:
    one, two = scenes(world, "v1"), scenes(world, "v2")
    assert len(one) == len(two) == 4 and [scene.identity.split for scene in one] == ["train"] * 2 + ["val"] * 2
    clips = (
        [SOURCES[release].read(ref) for ref in planned(world, release, Options(clips=ClipOptions(frames=3)))]
        for release in ("v1", "v2")
    )
    pairs = [*zip(one, two, strict=True), *zip(*clips, strict=True)]
    assert len(pairs) == 4 + 2 * 5
    for left, right in pairs:
        assert scene_digest(replace(left, identity=right.identity)) == scene_digest(right)


@pytest.mark.parametrize("number", range(4))
def test_points_are_the_truth(world: Path, number: int) -> None:
    scene = scenes(world, "v1")[number]
    points = scene.points
    assert points is not None and not scene.dropped
    xyz = truth(world, scene, "xyz")
    assert len(points) == len(xyz) > 4000
    assert np.abs(points.xyz - xyz).max() < 1e-4
    assert np.linalg.norm(scene.world_from_scene[:3, 3]) > 40_000  # where float32 steps by 4 mm
    np.testing.assert_array_equal(points.return_number, truth(world, scene, "return"))
    assert points.return_number is not None and points.return_count is not None and points.elongation is not None
    assert (points.return_number == 2).sum() > 20 and ((points.return_count == 2) >= (points.return_number == 2)).all()
    assert points.elongation.min() >= 0 and points.intensity is not None and points.intensity.max() > 1
    if number % 2:
        assert not points.semantic and not any(view.semantic for view in scene.views)
        return
    top = points.semantic["waymo22"] != UNLABELLED
    raw = truth(world, scene, "label").astype(int)
    np.testing.assert_array_equal(points.semantic["waymo22"][top], raw[top] - 1)
    assert points.instance is not None
    np.testing.assert_array_equal(points.instance[top], truth(world, scene, "instance")[top])
    assert top.sum() > 1000 and all(view.semantic and view.instance is not None for view in scene.views)


def test_projection_is_where_the_rays_are(world: Path) -> None:
    """At 14 m/s: with the rolling shutter 99 % within 1 pixel of the full-size image; without it most are not."""
    scale = 1920 / TINY.waymo_image_size[0]
    on, off = [], []
    for scene in scenes(world, "v1"):
        xyz = truth(world, scene, "xyz")
        for view in scene.views:
            seen = truth(world, scene, f"uv_{view.name}") - 0.5  # the truth counts from the corner
            there = np.isfinite(seen[:, 0])
            assert there.sum() > 100, view.name
            for errors, how in ((on, view), (off, replace(view, rolling_shutter=None))):
                errors.append(np.linalg.norm(project(xyz[there], how).uv - seen[there], axis=1) * scale)
    print(f"{len(np.concatenate(on))} points: {(np.concatenate(on) < 1).mean():.4%} within 1 px")
    assert (np.concatenate(on) < 1).mean() > 0.99
    assert (np.concatenate(off) < 1).mean() < 0.5 and np.percentile(np.concatenate(off), 99) > 30


def test_projection_meets_the_links_in_the_files(world: Path) -> None:
    """`lidar_camera_projection` as the files hold it: whole pixels, so the distance has their rounding in it."""
    close = total = same = 0
    for name in ("training", "validation"):
        folder = world / "waymo" / "v2" / name
        (file,) = (folder / "lidar").glob("*.parquet")
        images = {key(row): row for row in pq.read_table(file).to_pylist()}
        links = {key(row): row for row in pq.read_table(folder / "lidar_camera_projection" / file.name).to_pylist()}
        for scene in scenes(world, "v2"):
            if scene.identity.sequence != file.stem:
                continue
            xyz = truth(world, scene, "xyz")
            stamp = (scene.identity.timestamp_ns or 0) // 1000
            found = np.concatenate([linked(images[stamp, n], links[stamp, n]) for n in LASERS.values()])
            assert len(found) == len(xyz)
            for number, view in enumerate(scene.views, 1):
                uv = project(xyz, view).uv
                for link in (found[:, :3], found[:, 3:]):
                    here = link[:, 0] == number
                    close += int((np.linalg.norm(uv[here] - link[here, 1:], axis=1) < 1).sum())
                    same += int((np.rint(uv[here]) == link[here, 1:]).all(axis=1).sum())
                    total += int(here.sum())
    print(f"{total} links at 14 m/s: {close / total:.4%} within 1 px, {same / total:.2%} the same pixel")
    assert total > 3000 and close / total > 0.99 and same / total > 0.95


def key(row: dict[str, object]) -> tuple[object, object]:
    return row["key.frame_timestamp_micros"], row["key.laser_name"]


def linked(image: dict[str, object], link: dict[str, object]) -> np.ndarray:
    """(N, 6) of the valid pixels of both returns."""
    parts = []
    for echo in (1, 2):
        ranges = np.array(image[f"[LiDARComponent].range_image_return{echo}.values"]).reshape(-1, 4)[:, 0]
        values = np.array(link[f"[LiDARCameraProjectionComponent].range_image_return{echo}.values"]).reshape(-1, 6)
        parts.append(values[ranges > 0])
    return np.concatenate(parts)


def test_pictures_show_what_the_pairs_say(world: Path) -> None:
    """The class of a point is the class of its pixel in the camera's own labels; without the shutter less often."""
    # a class of the one taxonomy -> the class of the other that the same things of this world have
    lidar, camera = taxonomy("waymo22"), taxonomy("waymo_camera28")
    table = {lidar.from_raw[raw]: {camera.from_raw[CAMERA_IDS[n]] for n, r in LIDAR_IDS.items() if r == raw}
             for raw in set(LIDAR_IDS.values()) - {0}}  # fmt: skip
    shares = {}
    for rolling in (True, False):
        agree = total = 0
        for scene in scenes(world, "v1")[::2]:
            paired = add_correspondences(scene, CorrespondenceConfig(rolling_shutter=rolling))
            assert paired.points is not None
            for view in paired.views:
                assert view.pairs is not None
                mine = paired.points.semantic["waymo22"][view.pairs.point]
                column, row = view.pairs.pixel.T
                shown = view.semantic["waymo_camera28"][row, column]
                known = (mine != UNLABELLED) & view.pairs.visible
                agree += sum(b in table[int(a)] for a, b in zip(mine[known], shown[known], strict=True))
                total += int(known.sum())
        assert total > 1500
        shares[rolling] = agree / total
    print(shares)
    assert shares[True] > 0.93 and shares[True] > shares[False] + 0.02, shares


def test_a_parked_car_needs_no_shutter(tmp_path: Path) -> None:
    simulate(tmp_path, datasets=("waymo",), seed=5, config=replace(SMALLEST, waymo_speed=0.0, waymo_columns=200))
    (scene,) = scenes(tmp_path, "v2")
    xyz = truth(tmp_path, scene, "xyz")
    for view in scene.views:
        assert view.rolling_shutter is not None and np.abs(view.rolling_shutter.velocity).max() < 1e-6
        seen = truth(tmp_path, scene, f"uv_{view.name}") - 0.5
        there = np.isfinite(seen[:, 0])
        off = project(xyz[there], replace(view, rolling_shutter=None)).uv
        assert there.any() and np.abs(off - seen[there]).max() < 1e-3


def test_framing_and_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        simulate(tmp_path / name, datasets=("waymo",), seed=3, config=SMALLEST)
    first, second = (
        {str(f.relative_to(tmp_path / name)): hashlib.sha256(f.read_bytes()).hexdigest()
         for f in (tmp_path / name).rglob("*") if f.is_file()}
        for name in ("a", "b")
    )  # fmt: skip
    assert first == second and len(first) > 15
    (file,) = (tmp_path / "a" / "waymo" / "v1" / "training").iterdir()
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    assert length == len(data) - 16
    assert struct.unpack_from("<I", data, 8)[0] == slow_crc(data[:8])
    assert struct.unpack_from("<I", data, len(data) - 4)[0] == slow_crc(data[12:-4])


@pytest.mark.parametrize("release", ["v1", "v2"])
@pytest.mark.parametrize("clips", [None, ClipOptions(frames=3)])
def test_sources_keep_their_promises(world: Path, release: str, clips: ClipOptions | None) -> None:
    options = Options(cameras=CAMERAS[:2], clips=clips)
    assert_source_ok(SOURCES[release], str(world / "waymo" / release), options, scenes=1)
