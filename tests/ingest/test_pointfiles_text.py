"""PLY, whose parser is this project's own, and tables of text: encodings, what writers do, lies, damages."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.pointfiles.text import read_table
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.ingest.pointfiles_toy import VERTICES, pcd, ply, points, read, written

BIG = "element big 9\nproperty int a\n"


@pytest.mark.parametrize("faces_first", [False, True])
@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}])
def test_ply_of_every_encoding(tmp_path: Path, options: dict[str, Any], faces_first: bool) -> None:
    data = written(tmp_path / "x.bin", VERTICES, faces_first=faces_first, **options)
    scene = read(tmp_path / "a", "a.ply", data)
    cloud = scene.points
    assert cloud is not None and cloud.normal is not None
    world = cloud.xyz + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(world, np.stack([VERTICES[a] for a in "xyz"], axis=1), atol=1e-6)
    np.testing.assert_array_equal(cloud.color, np.stack([VERTICES[c] for c in ("red", "green", "blue")], axis=1))
    np.testing.assert_array_equal(cloud.normal, np.tile(np.float32([0, 0, 1]), (40, 1)))
    np.testing.assert_allclose(cloud.intensity, VERTICES["scalar_Intensity"], rtol=1e-6)
    assert cloud.intensity_unit == "unit" and cloud.normal_source == "file"
    assert not cloud.semantic and scene.dropped == {"labels of no known class set": 40}, "classes of whom?"
    (ref,) = SOURCE.plan(Store(tmp_path / "a"), PointFilesOptions(taxonomy="asprs"))
    assert isinstance(ref, SceneRef)
    scene = SOURCE.read(ref)
    assert scene.points is not None and scene.points.semantic["asprs"].tolist() == [2, 6, -1, 1] * 10
    assert scene.dropped == {"labels of no known class set": 10}


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("uchar", [0, 1, 255], [0, 1, 255]),
        ("ushort", [0, 255, 100], [0, 255, 100]),
        ("ushort", [0, 256, 65_535], [0, 1, 255]),
        ("float", [0, 0.5, 1], [0, 128, 255]),
        ("float", [0, 100.4, 255], [0, 100, 255]),
        ("float", [-0.003, 0.5, 1.003], [0, 128, 255]),
        ("float", [-2.5, 100.4, 257.25], [0, 100, 255]),
        ("float", [0, 3, 2], [0, 3, 2]),
        ("float", [0, 25_600.5, 65_535], [0, 100, 255]),
        ("float", [0, 0.5, 1.7], None),
        ("float", [0, 0.5, 700.3], None),
        ("float", [-0.5, 0.5, 1], None),
        ("char", [0, 9, 255], [0, 9, 255]),
        ("int", [0, -1, 255], None),
        ("float", [0, float("nan"), 1], None),
        ("float", [0, 1e9, 1], None),
        ("uchar", [0, 0, 0], None),
    ],
)
def test_the_colour_rule(tmp_path: Path, kind: str, values: list[float], expected: list[int] | None) -> None:
    header = "element vertex 3\n" + "".join(f"property float {a}\n" for a in "xyz")
    header += "".join(f"property {kind} {c}\n" for c in ("r", "g", "b"))
    body = "".join(f"{i} 2 3 {v} {v} {v}\n" for i, v in enumerate(values)).encode()
    scene = read(tmp_path, "a.ply", ply(header, body))
    assert scene.points is not None
    if expected is None:
        assert scene.points.color is None
        counted = {"colours out of range", "colours of no known range"} & set(scene.dropped)
        assert len(counted) == any(values)
    else:
        np.testing.assert_array_equal(scene.points.color, np.repeat(expected, 3).reshape(3, 3))
        clipped = sum(
            not 0 <= value <= (1 if max(values) < 2 else 65_535 if max(values) > 300 else 255) for value in values
        )
        assert scene.dropped == ({"colours a little out of range: clipped": clipped} if clipped else {})


def test_vertices_with_lists_and_windows_line_ends(tmp_path: Path) -> None:
    header = "element vertex 2\nproperty float x\nproperty list uchar short n\nproperty float y\nproperty float z\n"
    rows = struct.pack("<fB3hff", 1, 3, 7, 8, 9, 2, 3) + struct.pack("<fBff", 4, 0, 5, 6)
    data = ply(header, rows, "binary_little_endian")
    for content in (data, data.replace(b"\n", b"\r\n", 8)):
        scene = read(tmp_path, "a.ply", content)
        assert scene.points is not None
        assert (scene.points.xyz + scene.world_from_scene[:3, 3]).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(RawDataError, match="ends within element 'vertex'"):
        read(tmp_path, "a.ply", data[:-5])
    with pytest.raises(RawDataError, match="a list of 200 items leaves the file"):
        read(tmp_path, "a.ply", data[: -len(rows) + 4] + b"\xc8" + data[-len(rows) + 5 :])


def test_points_that_are_no_numbers_are_dropped_and_counted(tmp_path: Path) -> None:
    vertices = VERTICES.copy()
    vertices["y"][[3, 7]] = np.nan, np.inf
    vertices["nz"][5] = np.nan
    scene = read(tmp_path / "a", "a.ply", written(tmp_path / "x.bin", vertices, byte_order="<"))
    labels = {"labels of no known class set": 38}
    assert scene.dropped == {"non-finite points": 2, "normals without direction": 1} | labels
    assert scene.points is not None and len(scene.points) == 38 and scene.points.normal is not None
    assert (scene.points.normal[4] == 0).all()


def test_returns_times_and_rings_of_other_writers(tmp_path: Path) -> None:
    header = "element vertex 2\n" + "".join(f"property double {a}\n" for a in "xyz")
    names = ["ReturnNumber", "NumberOfReturns", "GpsTime", "Ring"]
    header += "".join(f"property double {name}\n" for name in names)
    found = points(tmp_path, "a.ply", ply(header, b"1 2 3 1 2 100.5 63\n4 5 6 2 2 100 0\n"))
    assert found.return_number is not None and found.return_number.tolist() == [1, 2]
    assert found.return_count is not None and found.return_count.tolist() == [2, 2]
    assert found.time_offset is not None and found.time_offset.tolist() == [0.5, 0]
    assert found.ring is not None and found.ring.tolist() == [63, 0]
    scene = read(tmp_path, "a.ply", ply(header, b"1 2 3 1.5 -1 nan 1e9\n4 5 6 2 2 100 0\n"))
    names = ("return numbers out of range", "numbers of returns out of range", "rings out of range")
    assert scene.dropped == dict.fromkeys((*names, "times that are not finite"), 1)
    odd = scene.points
    assert (
        odd is not None
        and odd.return_number is None
        and odd.return_count is None
        and odd.time_offset is None
        and odd.ring is None
    )


ODD_NUMBERS = {
    b"nan": np.nan, b"-NaN": np.nan, b"-nan(ind)": np.nan, b"nan(snan)": np.nan, b"1.#QNAN": np.nan,
    b"-1.#IND00": np.nan, b"1.#INF": np.inf,
    b"-1.#INF00": -np.inf, b"1.#J": np.inf, b"inf": np.inf, b"-infinity": -np.inf, b"1.5": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["ply", "pcd"])
def test_values_that_are_no_number_in_any_spelling(tmp_path: Path, suffix: str) -> None:
    count = len(ODD_NUMBERS)
    rows = b"".join(word + b" 2 3 7\n" for word in ODD_NUMBERS)
    header = f"element vertex {count}\n" + "".join(f"property float {name}\n" for name in ("x", "y", "z", "intensity"))
    points = f"FIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS {count}\nDATA ascii\n".encode()
    scene = read(tmp_path, f"a.{suffix}", ply(header, rows) if suffix == "ply" else points + rows)
    finite = sum(map(np.isfinite, ODD_NUMBERS.values()))
    assert scene.points is not None and len(scene.points) == finite == 1
    assert scene.dropped == {"non-finite points": count - 1}
    with pytest.raises(RawDataError, match="could not convert"):
        read(tmp_path / "b", "a.ply", ply(header, rows.replace(b"1.#J", b"1.#3")))


@settings(max_examples=200, deadline=None)
@given(st.floats(width=64) | st.sampled_from(list(ODD_NUMBERS)), st.sampled_from(["%r", "%.9g", "%e", "%+.3f"]))
def test_a_number_in_text_is_what_python_reads(value: float | bytes, form: str) -> None:
    word = value if isinstance(value, bytes) else (form % value).encode()
    files = RawFiles(SceneRef(dataset="d", scene_id="s", split="none", sequence="s", root="/nowhere", files={}))
    table, end = read_table(files, "a", b"#\n\n" + word + b" 1\n9", start=2, rows=1, width=2)
    expected = ODD_NUMBERS[value] if isinstance(value, bytes) else float(word)
    np.testing.assert_array_equal(table, [[expected, 1]])
    assert end == len(word) + 6


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": "<"}])
def test_ply_lines_may_end_in_any_way(tmp_path: Path, end: bytes, options: dict[str, Any]) -> None:
    vertices = np.zeros(3, [("x", "<u2"), ("y", "<u2"), ("z", "<u2")])
    vertices["x"], vertices["y"] = (0x0A0A, 0x0D0D, 0x0A0D), (1, 2, 0x0D0A)
    path = tmp_path / "x.bin"
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], **options).write(str(path))
    data = path.read_bytes()
    head = data.index(b"end_header\n") + 11 if "byte_order" in options else len(data)
    scene = read(tmp_path / "a", "a.ply", data[:head].replace(b"\n", end) + data[head:])
    assert scene.points is not None and not scene.dropped
    world = scene.points.xyz + scene.world_from_scene[:3, 3]
    np.testing.assert_array_equal(world, np.stack([vertices[axis] for axis in "xyz"], axis=1))


@pytest.mark.parametrize("names", ["nx ny nz", "normal_x normal_y normal_z", "NormalX NormalY NormalZ"])
def test_normals_of_all_writers(tmp_path: Path, names: str) -> None:
    header = "element vertex 2\n" + "".join(f"property double {name}\n" for name in f"x y z {names}".split())
    scene = read(tmp_path, "a.ply", ply(header, b"0 0 0 0 0 1\n1 0 0 0 2 0\n"))
    assert scene.points is not None and scene.points.normal is not None and not scene.dropped
    assert scene.points.normal.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_colours_of_gaussians(tmp_path: Path) -> None:
    names = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
    header = "element vertex 3\n" + "".join(f"property float {name}\n" for name in names)
    rows = b"0 0 0 0 1 -1 5\n1 0 0 1.7724539 -1.7724539 9 5\n1 1 0 0 0 -9 5\n"
    scene = read(tmp_path, "a.ply", ply(header, rows))
    assert scene.points is not None and scene.points.color is not None
    # 0.5 + f / (2 sqrt(pi)), in 0..255.
    assert scene.points.color.tolist() == [[128, 199, 56], [255, 0, 255], [128, 128, 0]]
    assert scene.dropped == {"columns that are not read (opacity)": 1}
    scene = read(tmp_path, "a.ply", ply(header, rows.replace(b"-9", b"nan")))
    assert scene.points is not None and scene.points.color is None and scene.dropped["colours out of range"] == 3


def test_what_stands_behind_the_last_row_is_counted(tmp_path: Path) -> None:
    header = f"element vertex 2\n{XYZ}"
    scene = read(tmp_path, "a.ply", ply(header, b"1 2 3\n4 5 6\n7 8 9\n\n1 1 1\n"))
    assert scene.dropped == {"lines after the last element": 2}
    scene = read(tmp_path, "a.ply", ply(header, np.arange(9, dtype="<f4").tobytes(), "binary_little_endian"))
    assert scene.dropped == {"bytes after the last element": 12}
    scene = read(tmp_path, "a.ply", ply(header + BIG.replace("9", "1"), b"1 2 3\n4 5 6\n7\n"))
    assert not scene.dropped, "another element"
    (tmp_path / "a.ply").unlink()
    assert read(tmp_path, "a.pcd", pcd("ascii") + b"0 0 0 0 0 0 0 0\n").dropped == {
        "rows beyond those that are declared": 1
    }
    assert read(tmp_path, "a.pcd", pcd("binary") + bytes(23)).dropped == {"bytes after the points": 23}
    assert not read(tmp_path, "a.pcd", pcd("binary") + bytes(22)).dropped, "less than a row"


XYZ = "property float x\nproperty float y\nproperty float z\n"
LIES = {
    "no PLY header": b"solid cube\n",
    "no element 'vertex'": ply("", b""),
    "x, y and z are needed": ply("element vertex 1\nproperty float x\n", b"1\n"),
    "need 1199999988 bytes": ply(f"element vertex 99999999\n{XYZ}", bytes(24), "binary_little_endian"),
    "1000000 rows of 3 numbers are declared": ply(f"element vertex 1000000\n{XYZ}", b"1 2 3\n"),
    "at most 100000000": ply(f"element vertex 200000000\n{XYZ}", b"1 2 3\n"),
    "2 columns, expected 3 numbers": ply(f"element vertex 1\n{XYZ}", b"1 2\n 3 3 3 3\n"),
    "could not convert": ply(f"element vertex 1\n{XYZ}", b"1 2 3abc\n"),
    "unexpected header line": ply("element vertex -1\n" + XYZ, b""),
    "elements with different names": ply("element vertex 1\n" * 2 + XYZ, b""),
    "has no points": ply(f"element vertex 0\n{XYZ}", b""),
    "the elements after the vertices need 36": ply(
        f"element vertex 1\n{XYZ}{BIG}", bytes(12), "binary_little_endian"
    ),
    "need 36 bytes, 12 are left": ply(f"{BIG}element vertex 1\n{XYZ}", bytes(12), "binary_big_endian"),
    "not on this planet": ply(f"element vertex 1\n{XYZ}", b"1e9 2 3\n"),
    "points span 200000 m": ply(f"element vertex 2\n{XYZ}", b"1 2 3\n200001 2 3\n"),
}  # fmt: skip


@pytest.mark.parametrize("message", LIES)
def test_ply_that_lies_is_refused_and_costs_no_memory(tmp_path: Path, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(RawDataError, match=message):
        read(tmp_path, "a.ply", LIES[message])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number, options in enumerate(({"text": True}, {"byte_order": "<"}, {"byte_order": ">"})):
        data = written(tmp_path / "x", VERTICES[:9], faces_first=number == 1, **options)
        (tmp_path / f"raw/{number}.ply").write_bytes(data)
    for encoding in ("ascii", "binary", "binary_compressed"):
        (tmp_path / f"raw/{encoding}.pcd").write_bytes(pcd(encoding))
    for names in (["0.ply", "1.ply", "2.ply"], ["ascii.pcd", "binary.pcd", "binary_compressed.pcd"]):
        survived = assert_survives(SOURCE, tmp_path / "raw", names)
        assert survived.scenes > 200 and survived.errors > 200
