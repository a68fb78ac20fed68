"""Chunks of huge rooms: every point in exactly one core, whatever the points are; overlaps, parents, equal sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.chunks import core_of, inside
from brickyard.ingest.s3dis.plan import MAX_CHUNKS, S3DISOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError, SceneError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

TIGHT = [0.0, 1.0, 1.0 + 2**-23, 2.0]  # two of them are neighbours in float32
COORDINATES = st.one_of(
    st.floats(-100, 100, width=32), st.sampled_from(TIGHT), st.integers(-30, 30).map(lambda eighths: eighths / 8)
)


@settings(max_examples=150, deadline=None)
@given(xyz=arrays(np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=COORDINATES), count=st.integers(1, 9))
def test_every_point_is_in_exactly_one_core(xyz: Any, count: int) -> None:
    try:
        cores = [core_of(xyz, number, count) for number in range(count)]
    except SceneError:
        spots = len(np.unique(xyz[:, :2], axis=0))
        assert count > 1 and (spots < 2 * count or spots < len(xyz)), "cuts divide the points, not the spots"
        return
    owners = np.stack([inside(xyz, low, high, 0.0) for low, high in cores])
    assert (owners.sum(axis=0) == 1).all() and owners.any(axis=1).all()
    # Not only the points: the cores tile the plane.
    anywhere = np.random.default_rng(0).uniform(-120, 120, (200, 3)).astype(np.float32)
    assert (np.stack([inside(anywhere, *core, 0.0) for core in cores]).sum(axis=0) == 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 12))
def test_chunks_are_of_one_size_and_compact(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = (rng.random((6000, 3)) ** rng.uniform(0.5, 2, 3) * (24, 18, 6)).astype(np.float32)
    cores = [core_of(xyz, number, count) for number in range(count)]
    chunks = [xyz[inside(xyz, low, high, 0.0)] for low, high in cores]
    sizes = [len(chunk) for chunk in chunks]
    assert sum(sizes) == len(xyz) and max(sizes) - min(sizes) < 0.1 * len(xyz) / count + 8
    assert min(float(np.ptp(chunk[:, :2], axis=0).min() / np.ptp(chunk[:, :2], axis=0).max()) for chunk in chunks) > 0.1


def test_points_at_one_spot_cannot_be_cut() -> None:
    with pytest.raises(SceneError, match="one spot"):
        core_of(np.ones((9, 3), np.float32), 0, 2)


def hall(root: Path, points: int = 4000) -> Path:
    """A hall of 20 x 8 m with points on a millimetre grid, as the release has them, in three objects."""
    rng = np.random.default_rng(8)
    folder = root / "Area_2/auditorium_1/Annotations"
    folder.mkdir(parents=True)
    for name in ("ceiling_1", "floor_1", "wall_1"):
        xyz, rgb = rng.uniform((30, 40, 0), (50, 48, 5), (points // 3, 3)), rng.integers(0, 256, (points // 3, 3))
        rows = (f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n" for (x, y, z), (r, g, b) in zip(xyz, rgb, strict=True))
        (folder / f"{name}.txt").write_text("".join(rows))
    return root


def read_all(root: Path, **options: Any) -> list[Scene]:
    items = list(SOURCE.plan(Store(root), S3DISOptions(**options)))
    return [SOURCE.read(item) for item in items if isinstance(item, SceneRef)]


def test_the_cores_of_a_room_make_the_room(tmp_path: Path) -> None:
    hall(tmp_path)
    (whole,) = read_all(tmp_path)
    chunks = read_all(tmp_path, chunk_points=1000, overlap_m=1.0)
    assert len(chunks) == 4 and whole.points is not None and whole.part is None
    kept = []
    for number, chunk in enumerate(chunks):
        part, points = chunk.part, chunk.points
        assert part is not None and points is not None and points.color is not None and points.instance is not None
        assert chunk.identity.scene_id == f"Area_2/auditorium_1/chunk-{number:03d}"
        assert (part.whole, chunk.identity.sequence) == ("Area_2/auditorium_1", "Area_2")
        np.testing.assert_array_equal(chunk.world_from_scene, whole.world_from_scene)
        core = inside(points.xyz, part.core_min, part.core_max, 0.0)
        assert 0.3 < core.mean() < 0.95, "the rest overlaps from the neighbours"
        grown = inside(whole.points.xyz, part.core_min, part.core_max, 1.0)
        np.testing.assert_array_equal(points.xyz, whole.points.xyz[grown])
        rows = [points.xyz, points.color, points.instance[:, None], points.semantic["s3dis13"][:, None]]
        kept.append(np.column_stack(rows)[core])
    assert whole.points.color is not None and whole.points.instance is not None
    rows = [
        whole.points.xyz,
        whole.points.color,
        whole.points.instance[:, None],
        whole.points.semantic["s3dis13"][:, None],
    ]
    together, expected = np.concatenate(kept), np.column_stack(rows)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, expected.tolist()))


def test_rooms_of_fewer_points_stay_whole_and_plans_have_a_limit(tmp_path: Path) -> None:
    hall(tmp_path, points=1500)
    (whole,) = read_all(tmp_path, chunk_points=5000)
    assert whole.part is None and whole.identity.scene_id == "Area_2/auditorium_1"
    with pytest.raises(RecipeError, match="chunk_points"):
        S3DISOptions(chunk_points=10)
    with pytest.raises(RecipeError, match="overlap_m"):
        S3DISOptions(overlap_m=float("nan"))
    big = tmp_path / "Area_2/auditorium_1/Annotations/clutter_1.txt"
    with big.open("wb") as file:
        file.truncate(1000 * 36 * (MAX_CHUNKS + 1))
    (item,) = SOURCE.plan(Store(tmp_path), S3DISOptions(chunk_points=1000))
    assert isinstance(item, Missing) and "raise chunk_points" in item.reason


def test_a_room_that_cannot_be_cut_is_an_error_for_people(tmp_path: Path) -> None:
    folder = tmp_path / "Area_1/WC_1/Annotations"
    folder.mkdir(parents=True)
    (folder / "wall_1.txt").write_bytes(b"1.000 2.000 3.000 100 100 100\n" * 4000)
    with pytest.raises(RawDataError, match=r"WC_1.*one spot.*raise chunk_points"):
        read_all(tmp_path, chunk_points=1000)


def test_chunks_keep_the_promises_of_a_source(tmp_path: Path) -> None:
    assert_source_ok(SOURCE, str(hall(tmp_path)), S3DISOptions(chunk_points=1000))
