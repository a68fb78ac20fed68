"""Chunks of ScanNet++: every point in one core, the two faults of the published script, what the plan cannot know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from brickyard.infra import cli
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannetpp import SOURCE
from brickyard.ingest.scannetpp.chunks import ChunkOptions, core_of, count_along
from brickyard.ingest.source import Missing
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Scene
from tests.ingest.scannetpp_toy import items, refs, simulated

SCENE = "0a5c013435"


def hall(root: Path, width: float, depth: float, points: int = 6000, order: str = "shuffled") -> Path:
    """A scene of so many metres from -1, 2, with vertices on its floor and walls."""
    rng = np.random.default_rng(3)
    xyz = rng.uniform((-1, 2, 0), (-1 + width, 2 + depth, 3), (points, 3)).astype(np.float32)
    xyz[:2, :2] = (-1, 2), (-1 + width, 2 + depth)
    if order == "sorted":
        xyz = xyz[np.argsort(xyz[:, 1])]
    vertex = np.zeros(points, [(name, "<f4") for name in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for k, axis in enumerate("xyz"):
        vertex[axis] = xyz[:, k]
    face = np.empty(points // 3, [("vertex_indices", "<i4", (3,))])
    face["vertex_indices"] = np.arange(points // 3 * 3).reshape(-1, 3)
    folder = root / f"data/{SCENE}/scans"
    folder.mkdir(parents=True)
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements, byte_order="<").write(str(folder / "mesh_aligned_0.05.ply"))
    return root


def chunks(root: Path, **options: Any) -> list[Scene]:
    """Those with points, as a build keeps them."""
    found = [SOURCE.read(ref) for ref in refs(root, dslr="none", chunks=ChunkOptions(**options))]
    return [scene for scene in found if scene.points is not None and len(scene.points)]


def extents(scene: Scene) -> list[list[float]]:
    assert scene.points is not None
    xy = scene.points.xyz[:, :2]
    return [xy.min(axis=0).tolist(), xy.max(axis=0).tolist()]


def test_a_scene_of_three_metres_is_one_chunk(tmp_path: Path) -> None:
    """The published script makes none of it: it begins squares at 0, 3, ... below the width less 3."""
    (only,) = chunks(hall(tmp_path, 3.0, 4.0))
    assert only.points is not None and len(only.points) == 6000
    assert only.part is not None and only.part.whole == SCENE and np.isinf(only.part.core_min).all()


def test_a_long_scene_is_covered_to_its_end(tmp_path: Path) -> None:
    """The published script tiles y with the extent of x, and leaves out what lies beyond 9 m of these 20."""
    found = chunks(hall(tmp_path, 8.0, 20.0))
    names = [scene.identity.scene_id.removeprefix(f"{SCENE}/") for scene in found]
    assert names == [f"chunk-{column}-{row}" for column in range(2) for row in range(6)]
    for scene, name in zip(found, names, strict=True):
        column, row = map(int, name.split("-")[1:])
        (x0, y0), (x1, y1) = extents(scene)
        assert (x0, y0) == pytest.approx((-1 + 3 * column, 2 + 3 * row), abs=0.3)
        assert (x1, y1) == pytest.approx((min(5 + 3 * column, 7), min(8 + 3 * row, 22)), abs=0.3)
    _assert_tiled(found, 6000)


def _assert_tiled(found: list[Scene], points: int) -> None:
    total = 0
    for scene in found:
        assert scene.points is not None and scene.part is not None
        place = scene.points.xyz.astype(np.float64)
        total += int(((place >= scene.part.core_min) & (place < scene.part.core_max)).all(axis=1).sum())
    assert total == points


@pytest.mark.parametrize("extent", [0.5, 3.0, 3.01, 6.0, 6.01, 8.0, 9.0, 9.5, 20.0])
def test_squares_are_as_many_as_the_script_makes_along_x(extent: float) -> None:
    theirs = len(np.arange(0, extent + 3 - 6, 3))
    assert count_along(extent, 6, 3) == max(theirs, 1)


@settings(max_examples=100, deadline=None)
@given(
    size=st.sampled_from([(6.0, 3.0), (5.0, 5.0), (4.0, 2.5)]),
    low=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    extent=st.tuples(st.floats(0, 30), st.floats(0, 30)),
    planned=st.tuples(st.integers(-1, 2), st.integers(-1, 2)),
    seed=st.integers(0, 99),
)
def test_every_vertex_is_in_one_core_however_many_were_planned(
    size: tuple[float, float], low: Any, extent: Any, planned: Any, seed: int
) -> None:
    xy = np.random.default_rng(seed).uniform(0, 1, (200, 2)) * extent + low
    xyz = np.column_stack([xy, np.zeros(200)]).astype(np.float32)
    real = [count_along(float(np.ptp(xyz[:, k].astype(np.float64))), *size) for k in range(2)]
    columns, rows = (max(1, number + more) for number, more in zip(real, planned, strict=True))
    owners, stood_for = np.zeros(200, int), 0
    for column in range(columns):
        for row in range(rows):
            chunk = {"column": column, "row": row, "columns": columns, "rows": rows, "size": size[0], "stride": size[1]}
            core, more = core_of(xyz, chunk)
            stood_for += (column < real[0] and row < real[1]) + more
            owners += core.holds(xyz.astype(np.float64))
            assert core.holds(xyz.astype(np.float64)).sum() <= core.near(xyz.astype(np.float64)).sum()
    assert (owners == 1).all() and stood_for == real[0] * real[1]


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_the_plan_looks_at_64_kb_of_a_mesh(tmp_path: Path, order: str) -> None:
    root = hall(tmp_path, 14.0, 26.0, points=40_000, order=order)
    planned = refs(root, dslr="none", chunks=ChunkOptions())
    found = [SOURCE.read(ref) for ref in planned]
    kept = [scene for scene in found if scene.points is not None and len(scene.points)]
    assert len(kept) == count_along(14, 6, 3) * count_along(26, 6, 3) == 32 and len(planned) <= 45
    assert not any("square" in what for scene in kept for what in scene.dropped)
    _assert_tiled(kept, 40_000)
    assert sum(ref.points_estimate for ref in planned) > sum(len(scene.points) for scene in kept if scene.points) / 2


def test_chunks_have_the_vertices_labels_and_photographs_of_their_place() -> None:
    root = simulated()[0]
    whole = {ref.scene_id: SOURCE.read(ref) for ref in refs(root, max_hidden=1)}
    cut: dict[str, list[Scene]] = {name: [] for name in whole}
    for ref in refs(root, max_hidden=1, chunks=ChunkOptions(size_m=3, stride_m=1.5)):
        scene = SOURCE.read(ref)
        assert scene.part is not None and scene.part.whole == scene.identity.sequence
        if scene.points is not None and len(scene.points):
            cut[scene.identity.sequence].append(scene)
    for name, parts in cut.items():
        points = whole[name].points
        assert points is not None and len(parts) > 1
        _assert_tiled(parts, len(points))
        index = {place.tobytes(): k for k, place in enumerate(points.xyz)}
        for part in parts:
            assert part.points is not None and part.points.normal is not None and points.normal is not None
            mine = [index[place.tobytes()] for place in part.points.xyz]
            np.testing.assert_array_equal(part.points.normal, points.normal[mine])
            for labels in points.semantic:
                np.testing.assert_array_equal(part.points.semantic[labels], points.semantic[labels][mine])
        views = [view.name for part in parts for view in part.views]
        assert sorted(views) == sorted(view.name for view in whole[name].views)


def test_chunks_keep_the_promises_of_a_source(tmp_path: Path) -> None:
    options = SOURCE.options(dslr="none", chunks=ChunkOptions(size_m=3, stride_m=1.5))
    assert_source_ok(SOURCE, str(simulated()[0]), options, scenes=2)


def test_a_mesh_that_cannot_be_cut_is_missing(tmp_path: Path) -> None:
    root = hall(tmp_path, 8, 8)
    mesh = root / f"data/{SCENE}/scans/mesh_aligned_0.05.ply"
    mesh.write_bytes(b"ply\n" + mesh.read_bytes())
    (lost,) = [i for i in items(root, chunks=ChunkOptions()) if isinstance(i, Missing) and i.scene_id == SCENE]
    assert "mesh_aligned_0.05.ply" in lost.reason


def test_squares_that_leave_gaps_are_no_option() -> None:
    with pytest.raises(RecipeError, match="stride_m"):
        ChunkOptions(size_m=3, stride_m=4)


def test_a_build_passes_over_squares_that_are_not_there(tmp_path: Path) -> None:
    raw = hall(tmp_path / "raw", 5.5, 5.5)
    options = "{dslr: none, chunks: {size_m: 6.0, stride_m: 3.0}}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: hall\nsources: [{{dataset: scannetpp, root: {raw}, options: {options}}}]\n")
    assert len(refs(raw, chunks=ChunkOptions())) == 4
    assert cli.main(["build", str(recipe), "--out", str(tmp_path / "corpus"), "--in-process"]) == 0
    corpus = Corpus.open(str(tmp_path / "corpus"))
    assert corpus.keys == [f"scannetpp/{SCENE}/chunk-0-0"] and not corpus.manifest["quarantined"]
