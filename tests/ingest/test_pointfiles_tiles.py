"""Parts of large clouds: every point in exactly one core, whatever the format, the borders and the rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.ingest.tiles import Core, square, strip, to_scene
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

LOW = np.array([500_010.5, 5_800_020.25, 101.0])
XYZ = LOW + np.random.default_rng(4).random((3000, 3)) * (40, 20, 5)


def write(root: Path, suffix: str, xyz: np.ndarray = XYZ) -> Path:
    path = root / f"a.{suffix}"
    if suffix in ("las", "laz"):
        las = laspy.LasData(laspy.LasHeader(version="1.2", point_format=0))
        las.header.scales, las.header.offsets = [0.001] * 3, np.floor(LOW)
        las.x, las.y, las.z = xyz.T
        las.intensity = np.arange(len(xyz)) + 1
        las.write(str(path))
    elif suffix == "ply":
        rows = np.zeros(len(xyz), [("x", "f8"), ("y", "f8"), ("z", "f8"), ("intensity", "f4"), ("red", "u2")])
        rows["x"], rows["y"], rows["z"] = xyz.T
        rows["intensity"] = np.arange(len(xyz)) + 1
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(str(path))
    else:
        header = "FIELDS x y z intensity\nSIZE 8 8 8 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        header = f"VERSION 0.7\n{header}WIDTH {len(xyz)}\nHEIGHT 1\nPOINTS {len(xyz)}\nDATA binary\n"
        rows = np.zeros(len(xyz), [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("i", "<f4")])
        rows["x"], rows["y"], rows["z"] = xyz.T
        rows["i"] = np.arange(len(xyz)) + 1
        path.write_bytes(header.encode() + rows.tobytes())
    return path


def parts(root: Path, **options: Any) -> list[Scene]:
    items = list(SOURCE.plan(Store(root), PointFilesOptions(**options)))
    assert all(isinstance(item, SceneRef) for item in items)
    return [SOURCE.read(item) for item in items if isinstance(item, SceneRef)]


def in_core(scene: Scene) -> np.ndarray:
    """What the contract says of a part, computed from nothing but the scene."""
    assert scene.points is not None and scene.part is not None
    xyz = scene.points.xyz
    return np.asarray(((xyz >= scene.part.core_min) & (xyz < scene.part.core_max)).all(axis=1))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("las", {"tile_m": 7.0}), ("laz", {"tile_m": 15.0}), ("las", {"max_points": 400}),
     ("ply", {"max_points": 700}), ("pcd", {"max_points": 700})],
)  # fmt: skip
@pytest.mark.parametrize("overlap", [0.0, 1.5])
def test_every_point_is_in_exactly_one_core(
    tmp_path: Path, suffix: str, options: dict[str, Any], overlap: float
) -> None:
    write(tmp_path, suffix)
    scenes = parts(tmp_path, overlap_m=overlap, **options)
    assert len(scenes) >= 5
    numbers, total = [], 0
    for scene in scenes:
        points, part = scene.points, scene.part
        assert points is not None and points.intensity is not None and part is not None
        assert part.whole == f"a.{suffix}" and scene.identity.sequence == part.whole
        world = points.xyz + scene.world_from_scene[:3, 3]
        inside = in_core(scene)
        numbers.append(points.intensity[inside].astype(int) - 1)
        assert np.abs(world - XYZ[points.intensity.astype(int) - 1]).max() < 1e-3 / 2 + 1e-5
        # All that lies within the overlap is there, and nothing beyond.
        low, high = (core + scene.world_from_scene[:3, 3] for core in (part.core_min, part.core_max))
        near = ((low - overlap + 0.001 < XYZ) & (high + overlap - 0.001 > XYZ)).all(axis=1)
        maybe = ((low - overlap - 0.001 < XYZ) & (high + overlap + 0.001 > XYZ)).all(axis=1)
        assert near.sum() <= len(points) <= maybe.sum() and (overlap > 0 or inside.all())
        total += len(points)
    assert sorted(np.concatenate(numbers)) == list(range(len(XYZ))), "each point once"
    assert (total > len(XYZ)) is (overlap > 0)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_cores_share_out_points_that_lie_on_their_borders(data: st.DataObject) -> None:
    start = data.draw(st.floats(-1e6, 6e6))
    edge = data.draw(st.floats(0.01, 300))
    columns = data.draw(st.integers(1, 5))
    steps = data.draw(st.lists(st.integers(-2, 7), min_size=1, max_size=20))
    ulps = data.draw(st.lists(st.integers(-2, 2), min_size=len(steps), max_size=len(steps)))
    x = np.array([start + step * edge for step in steps])
    x += np.array(ulps) * np.spacing(x)
    xyz = np.stack([x, np.zeros_like(x), np.ones_like(x)], axis=1)
    if data.draw(st.booleans()):
        tile = {"x": start, "y": -1.0, "edge": edge, "columns": columns, "rows": 1, "row": 0, "overlap": 0.0}
        cores = [square(tile | {"column": column}) for column in range(columns)]
    else:
        cores = [strip({"strip": number, "strips": columns, "overlap": 0.0}, xyz) for number in range(columns)]
    found = np.zeros(len(xyz), int)
    for core in cores:
        origin = np.rint([data.draw(st.floats(-500, 500)) + start, 0, 0])
        local = to_scene(xyz, origin, core)
        inside = ((local >= core.low - origin) & (local < core.high - origin)).all(axis=1)
        np.testing.assert_array_equal(inside, core.holds(xyz))
        assert np.abs(local - (xyz - origin)).max() <= 2 * np.spacing(np.float32(np.abs(xyz - origin).max()))
        found += inside
    assert (found == 1).all()


def test_strips_of_equal_points_are_refused_not_doubled(tmp_path: Path) -> None:
    write(tmp_path, "ply", np.tile(LOW, (30, 1)))
    refs = list(SOURCE.plan(Store(tmp_path), PointFilesOptions(max_points=10)))
    assert [ref.scene_id for ref in refs] == ["a.ply/strip-0", "a.ply/strip-1", "a.ply/strip-2"]
    counts = []
    for ref in refs:
        assert isinstance(ref, SceneRef)
        try:
            counts.append(int(in_core(SOURCE.read(ref)).sum()))
        except RawDataError as problem:
            assert "no points in this tile" in str(problem)
    assert counts == [30]


def test_small_files_stay_whole_and_too_many_parts_are_missing(tmp_path: Path) -> None:
    for suffix in ("las", "ply", "pcd"):
        write(tmp_path, suffix)
    items = list(SOURCE.plan(Store(tmp_path), PointFilesOptions(max_points=3000)))
    assert [item.scene_id for item in items] == ["a.las", "a.pcd", "a.ply"]
    assert all(isinstance(item, SceneRef) and item.points_estimate == 3000 for item in items)
    write(tmp_path, "ply", np.tile(XYZ, (4, 1)))
    items = list(SOURCE.plan(Store(tmp_path), PointFilesOptions(max_points=1)))
    assert isinstance(items[-1], Missing) and "12000 strips" in items[-1].reason
    for options in ({"overlap_m": -1.0}, {"overlap_m": float("nan")}, {"max_points": 0}, {"max_views": -1}):
        with pytest.raises(RecipeError, match="pointfiles options"):
            PointFilesOptions(**options)  # type: ignore[arg-type]


def test_a_core_keeps_its_own_side_of_a_border_that_float32_cannot_hold() -> None:
    core = Core(low=np.array([0.1, -np.inf, -np.inf]), high=np.array([0.3, np.inf, np.inf]), overlap=0)
    xyz = np.zeros((4, 3))
    xyz[:, 0] = 0.1, np.nextafter(0.1, 0), 0.3, np.nextafter(0.3, 0)
    local = to_scene(xyz, np.zeros(3), core)
    assert ((local[:, 0] >= 0.1) & (local[:, 0] < 0.3)).tolist() == [True, False, False, True]


def test_it_keeps_the_promises_of_a_source_in_strips(tmp_path: Path) -> None:
    for suffix in ("ply", "pcd"):
        write(tmp_path, suffix)
    assert_source_ok(SOURCE, str(tmp_path))
    assert_source_ok(SOURCE, str(tmp_path), PointFilesOptions(max_points=900, overlap_m=0.5))
