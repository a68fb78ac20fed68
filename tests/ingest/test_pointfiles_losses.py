"""Nothing of a point file is lost without a word: columns, labels, lost blocks, points, files of other formats."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointfiles import SOURCE, las
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

LOST = "points in lost blocks (runs of zero bytes)"
OUTSIDE = "points outside the header's bounds: kept"
RNG = np.random.default_rng(3)
COUNT = 1000
XYZ = RNG.uniform(1, 60, (COUNT, 3))


def write_las(path: Path, *, xyz: np.ndarray[Any, Any] = XYZ, point_format: int = 3, extra: bool = False) -> None:
    header = laspy.LasHeader(version="1.4" if point_format >= 6 else "1.2", point_format=point_format)
    header.scales, header.offsets = [0.001] * 3, [500_000, 5_800_000, 0]
    if extra:
        header.add_extra_dim(laspy.ExtraBytesParams("height above ground", "f4"))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = (xyz + np.array([500_000, 5_800_000, 0])).T
    cloud.intensity = np.arange(len(xyz)) % 60_000 + 1
    cloud.classification = np.full(len(xyz), 2)
    cloud.write(str(path))


def items(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), PointFilesOptions(**options)))


def read(root: Path, **options: Any) -> Scene:
    (ref,) = items(root, **options)
    assert isinstance(ref, SceneRef), ref
    return SOURCE.read(ref)


def write_table(path: Path, names: str, rows: np.ndarray[Any, Any]) -> int:
    """A binary PLY or PCD of float columns; returns where the rows begin."""
    columns = names.split()
    if path.suffix == ".ply":
        lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
        lines += [f"property float {name}" for name in columns] + ["end_header"]
    else:
        lines = [f"FIELDS {names}", f"SIZE{' 4' * len(columns)}", f"TYPE{' F' * len(columns)}"]
        lines += [f"COUNT{' 1' * len(columns)}", f"WIDTH {len(rows)}", "HEIGHT 1", f"POINTS {len(rows)}", "DATA binary"]
    head = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(head + rows.astype("<f4").tobytes())
    return len(head)


def blank(path: Path, start: int, length: int = 4096) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("suffix", ["las", "ply", "pcd"])
def test_a_lost_block_costs_its_points_and_is_counted(tmp_path: Path, suffix: str, part: int) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "las":
        write_las(path)
        start, size = struct.unpack_from("<I", path.read_bytes(), 96)[0], 34
    else:
        start, size = write_table(path, "x y z intensity", np.c_[XYZ, np.arange(COUNT) + 1]), 16
    whole = read(tmp_path)
    assert whole.points is not None and not whole.dropped
    place = part * (COUNT * size - 4096) // 9
    blank(path, start + place)
    scene = read(tmp_path)
    first, last = place // size, -(-(place + 4096) // size)
    # Zeros that the data had at both ends of the block belong to its run.
    assert last - first <= scene.dropped[LOST] <= last - first + 2 and set(scene.dropped) == {LOST}
    assert scene.points is not None and scene.points.intensity is not None and whole.points.intensity is not None
    kept = np.isin(whole.points.intensity, scene.points.intensity)
    assert kept.sum() == COUNT - scene.dropped[LOST]
    np.testing.assert_allclose(
        scene.points.xyz + scene.world_from_scene[:3, 3],
        whole.points.xyz[kept] + whole.world_from_scene[:3, 3], atol=1e-4,
    )  # fmt: skip


def test_a_lost_block_across_two_blocks_of_reading_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_las(tmp_path / "a.las")
    start = struct.unpack_from("<I", (tmp_path / "a.las").read_bytes(), 96)[0]
    blank(tmp_path / "a.las", start + 90 * 34, 20 * 34)
    # The record before it ends in zeros of its own, which belong to the run.
    for block in (1_000_000, 100, 97, 91, 109, 110, 111):
        monkeypatch.setattr(las, "BLOCK_POINTS", block)
        scene = read(tmp_path)
        assert scene.points is not None and scene.dropped == {LOST: 21} and len(scene.points) == COUNT - 21, block


def test_nothing_but_zeros_is_an_error_whole_or_in_tiles(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las")
    data = (tmp_path / "a.las").read_bytes()
    start = struct.unpack_from("<I", data, 96)[0]
    blank(tmp_path / "a.las", start, len(data) - start)
    for item in (*items(tmp_path), *items(tmp_path, tile_m=30.0)):
        assert isinstance(item, SceneRef)
        with pytest.raises(RawDataError, match="has no points: 1000 are declared, none can be used"):
            SOURCE.read(item)


def test_vertices_with_lists_around_a_lost_block_are_refused(tmp_path: Path) -> None:
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 2000\nproperty float x\nproperty float y\n"
    header += "property float z\nproperty list uchar int n\nend_header\n"
    rows = b"".join(struct.pack("<3fBi", 1, 2, number, 1, 5) for number in range(2000))
    path = tmp_path / "a.ply"
    path.write_bytes(header.encode() + rows)
    assert read(tmp_path).dropped == {"columns that are not read (n)": 1}
    # Seventeen bytes a row, thirteen of zeros: the rows fall into step again, and look like vertices.
    blank(path, len(header) + 17 * 300, 13 * 400)
    with pytest.raises(
        RawDataError, match=r"bytes of zeros among vertices with lists.*download it again|leaves the file"
    ):
        read(tmp_path)


def test_bounds_that_do_not_hold_the_points_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.las"
    write_las(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<2d", data, 179, 500_030.0, 500_000.0)
    path.write_bytes(data)
    beyond = int((XYZ[:, 0] > 30.001).sum())
    assert read(tmp_path).dropped == {OUTSIDE: beyond} and beyond > 300
    scenes = [SOURCE.read(ref) for ref in items(tmp_path, tile_m=15.0) if isinstance(ref, SceneRef)]
    assert sum(scene.dropped.get(OUTSIDE, 0) for scene in scenes) == beyond
    assert sum(len(scene.points) for scene in scenes if scene.points is not None) == COUNT
    struct.pack_into("<6d", data, 179, *[0.0] * 6)
    path.write_bytes(data)
    assert read(tmp_path).dropped == {OUTSIDE: COUNT}
    for options in ({"tile_m": 15.0}, {"max_points": 100}):
        (item,) = items(tmp_path, **options)
        assert isinstance(item, Missing) and "its header gives no bounds" in item.reason


def test_squares_without_points_are_scenes_without_points(tmp_path: Path) -> None:
    line = np.linspace(0, 100, 50)[:, None] * [1, 1, 0]
    write_las(tmp_path / "a.las", xyz=line)
    scenes = [SOURCE.read(ref) for ref in items(tmp_path, tile_m=25.0) if isinstance(ref, SceneRef)]
    sizes = [len(scene.points) for scene in scenes if scene.points is not None]
    assert len(sizes) == 16 and sizes.count(0) >= 9 and sum(sizes) == 50
    assert all(scene.part is not None for scene in scenes)
    assert_source_ok(SOURCE, str(tmp_path), PointFilesOptions(tile_m=25.0, overlap_m=1.0))


def test_what_a_las_file_has_and_the_contract_has_not_is_counted(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", extra=True)
    assert read(tmp_path).dropped == {"extra bytes of points: not read": 4}
    write_las(tmp_path / "a.las", point_format=8)
    assert read(tmp_path).dropped == {"near infrared: not read": 1}
    write_las(tmp_path / "a.las")
    with (tmp_path / "a.las").open("ab") as file:
        file.write(bytes(range(1, 101)))
    assert read(tmp_path).dropped == {"bytes after the points: not read": 100}


@pytest.mark.parametrize(("minor", "header"), [(3, 227), (4, 227), (4, 235), (4, 375), (3, 235)])
def test_versions_with_headers_of_another_size(tmp_path: Path, minor: int, header: int) -> None:
    write_las(tmp_path / "a.las")
    data = (tmp_path / "a.las").read_bytes()
    start = struct.unpack_from("<I", data, 96)[0]
    head = bytearray(data[:227] + bytes(header - 227))
    struct.pack_into("<B", head, 25, minor)
    struct.pack_into("<HI", head, 94, header, header)
    (tmp_path / "a.las").write_bytes(bytes(head) + data[start:])
    scene = read(tmp_path)
    assert scene.points is not None and len(scene.points) == COUNT and not scene.dropped


def test_columns_without_a_name_that_is_known_are_named(tmp_path: Path) -> None:
    for suffix in ("ply", "pcd"):
        write_table(tmp_path / f"a.{suffix}", "x y z alpha temperature nx ny", np.c_[XYZ, XYZ, XYZ][:, :7])
        scene = read(tmp_path)
        assert scene.dropped == {"columns that are not read (alpha, temperature, nx, ny)": 4}, "no colour, no third"
        (tmp_path / f"a.{suffix}").unlink()
    names = "x y z intensity scalar_Intensity " + " ".join(f"f_rest_{i}" for i in range(9))
    write_table(tmp_path / "a.ply", names, np.c_[XYZ, XYZ, XYZ, XYZ, XYZ][:, :14])
    shown = ", ".join(f"f_rest_{i}" for i in range(5))
    scene = read(tmp_path)
    assert scene.dropped == {f"columns that are not read (scalar_Intensity, {shown}, ...)": 10}
    assert scene.points is not None and scene.points.intensity is not None
    np.testing.assert_array_equal(scene.points.intensity, XYZ[:, 0].astype("f4"))


@pytest.mark.parametrize("name", ["classification", "scalar_Label", "class", "semantic"])
def test_labels_are_of_the_set_that_is_said(tmp_path: Path, name: str) -> None:
    labels = np.arange(COUNT) % 50
    write_table(tmp_path / "a.ply", f"x y z {name}", np.c_[XYZ, labels])
    scene = read(tmp_path)
    assert scene.points is not None and not scene.points.semantic
    assert scene.dropped == {"labels of no known class set": COUNT}
    scene = read(tmp_path, taxonomy="kitti360_19")
    assert scene.points is not None
    found = scene.points.semantic["kitti360_19"]
    assert found[7] == 0 and found[8] == 1 and found[0] == -1, "by the table of raw ids"
    assert scene.dropped == {"labels of no known class set": int((found == -1).sum())}
    with pytest.raises(RecipeError, match="taxonomy 'x' is none of"):
        PointFilesOptions(taxonomy="x")


def test_classes_beside_the_returns_of_las_are_those_of_las(tmp_path: Path) -> None:
    rows = np.c_[XYZ, np.arange(COUNT) % 30, np.ones(COUNT), np.ones(COUNT)]
    write_table(tmp_path / "a.pcd", "X Y Z Classification ReturnNumber NumberOfReturns", rows)
    scene = read(tmp_path)
    assert scene.points is not None and scene.points.semantic["asprs"][:24].tolist() == [*range(23), -1]
    assert scene.dropped == {"labels of no known class set": int((rows[:, 3] > 22).sum())}


def test_files_of_other_formats_are_noticed_by_suffix(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las")
    (tmp_path / "sub").mkdir()
    for name in ("b.xyz", "sub/c.XYZ", "d.xyz", "e.xyz", "f.E57", "g.obj", "h.laz.zip", "i.jpg", "README", "k.gz"):
        (tmp_path / name).write_text("1 2 3")
    found = [item for item in items(tmp_path) if not isinstance(item, SceneRef)]
    assert all(isinstance(item, Notice) for item in found), "no scene is lost"
    reasons = {item.scene_id: item.reason for item in found}
    assert list(reasons) == ["*.e57", "*.laz.zip", "*.obj", "*.xyz"]
    assert reasons["*.xyz"].startswith("4 .xyz files (points) are not read: b.xyz, d.xyz, e.xyz, ...; convert them")
    assert "meshes" in reasons["*.obj"] and "unpack them" in reasons["*.laz.zip"]
    (tmp_path / "a.las").unlink()
    with pytest.raises(RecipeError, match=r"no point files in .*; 4 \.xyz files \(points\) are not read: b\.xyz"):
        items(tmp_path)


def test_a_laz_of_a_newer_laszip_is_not_called_damaged(tmp_path: Path) -> None:
    write_las(tmp_path / "a.laz", point_format=6)
    data = bytearray((tmp_path / "a.laz").read_bytes())
    items_at = data.index(b"laszip encoded") - 2 + 54 + 34
    for version, hint in ((4, "newer LASzip"), (60_000, "damaged")):
        struct.pack_into("<H", data, items_at + 4, version)
        (tmp_path / "a.laz").write_bytes(data)
        with pytest.raises(RawDataError, match=f"item 10 of version {version}, which is not supported.*{hint}"):
            read(tmp_path)
