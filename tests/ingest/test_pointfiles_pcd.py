"""PCD, whose parser is this project's own: every encoding, what PCL reads, lies, LZF."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.pointfiles.pcd import lzf_decompress
from brickyard.shards.errors import RawDataError
from tests.ingest.pointfiles_toy import PCD, ROWS, lzf, pcd, points, read


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_pcd_lines_may_end_in_any_way(tmp_path: Path, end: bytes, encoding: str) -> None:
    data = pcd(encoding)
    head = len(data) if encoding == "ascii" else data.index(b"DATA binary\n") + 12
    found = points(tmp_path, "a.pcd", data[:head].replace(b"\n", end) + data[head:])
    np.testing.assert_array_equal(found.color, (ROWS["rgb"][:, None] >> [16, 8, 0]) & 255)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_every_encoding(tmp_path: Path, encoding: str) -> None:
    scene = read(tmp_path, "a.pcd", pcd(encoding))
    cloud = scene.points
    assert cloud is not None
    world = cloud.xyz + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(world, np.stack([ROWS[a] for a in "xyz"], axis=1), atol=1e-6)
    np.testing.assert_array_equal(cloud.color, (ROWS["rgb"][:, None] >> [16, 8, 0]) & 255)
    assert cloud.intensity is not None and (cloud.intensity == 100).all() and cloud.intensity_unit == "raw"
    assert not scene.dropped


def test_packed_colours_may_be_the_bits_of_a_float_and_a_viewpoint_is_counted(tmp_path: Path) -> None:
    header = PCD.replace("TYPE F F F U", "TYPE F F F F").replace("T 0 0 0 1", "T 0 0 2.5 1")
    scene = read(tmp_path, "a.pcd", pcd("binary", header))
    assert scene.points is not None and scene.dropped == {"viewpoint: not applied": 1}
    np.testing.assert_array_equal(scene.points.color, (ROWS["rgb"][:, None] >> [16, 8, 0]) & 255)


@pytest.mark.parametrize("viewpoint", ["0.000000 0 -0.0 1.000000 0 0 0", "0 0 0 -1 0 0 0"])
def test_the_identity_in_any_spelling_is_no_viewpoint(tmp_path: Path, viewpoint: str) -> None:
    header = PCD.replace("VIEWPOINT 0 0 0 1 0 0 0", f"VIEWPOINT {viewpoint}")
    assert not read(tmp_path, "a.pcd", pcd("binary", header)).dropped
    for other in ("0 0 0 0 0 0 0", "0 0 0 1 0 0", "0 0 0 x 0 0 0", "0 0 0 0.7 0 0 0.7"):
        changed = PCD.replace("VIEWPOINT 0 0 0 1 0 0 0", f"VIEWPOINT {other}")
        assert read(tmp_path, "a.pcd", pcd("binary", changed)).dropped == {"viewpoint: not applied": 1}


def test_packed_colours_that_are_nan_are_black_and_counted(tmp_path: Path) -> None:
    header = "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 3\nHEIGHT 1\nPOINTS 3\nDATA "
    counted = {"packed colours that are no numbers: black": 2}
    text = b"ascii\n0 0 0 nan\n1 0 0 -nan(ind)\n1 1 0 2.3418052e-38\n"
    scene = read(tmp_path, "a.pcd", header.encode() + text)
    assert scene.points is not None and scene.points.color is not None and scene.dropped == counted
    assert scene.points.color.tolist() == [[0, 0, 0], [0, 0, 0], [255, 0, 0]]
    rows = np.zeros(3, [("xyz", "<f4", 3), ("rgb", "<u4")])
    rows["xyz"], rows["rgb"] = np.eye(3), (0x7FC00000, 0x7FC00000, 0xFFFF8001)
    scene = read(tmp_path, "a.pcd", header.encode() + b"binary\n" + rows.tobytes())
    assert scene.points is not None and scene.points.color is not None and scene.dropped == counted
    assert scene.points.color.tolist() == [[0, 0, 0], [0, 0, 0], [255, 128, 1]], (
        "an opaque colour has the bits of a NaN"
    )


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_headers_that_pcl_reads(tmp_path: Path, encoding: str) -> None:
    columns = np.arange(15, dtype="<f4").reshape(5, 3)
    if encoding == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in columns).encode()
    elif encoding == "binary":
        body = columns.tobytes()
    else:
        body = struct.pack("<II", 60, 60) + columns.T.tobytes()  # as it is: it would not shrink
    lines = "SIZE 4 4 4 2\nTYPE F F F U\nCOUNT 1 1 1 0\nWIDTH 5\nHEIGHT 1\nPOINTS 5\n"
    for head in (
        f"FIELDS x y z noise\n{lines}", f"COLUMNS x y z noise\n{lines}", "COLUMNS x y z\nPOINTS 5\n",
        "FIELDS x y z\nWIDTH 5\nHEIGHT 1\n", f"FIELDS x y z _\n{lines}",
    ):  # fmt: skip
        scene = read(tmp_path, "a.pcd", f"{head}DATA {encoding}\n".encode() + body)
        assert scene.points is not None and not scene.dropped
        np.testing.assert_array_equal(scene.points.xyz + scene.world_from_scene[:3, 3], columns)


def test_a_lost_block_of_stored_columns_costs_its_points(tmp_path: Path) -> None:
    columns = np.random.default_rng(0).random((3, 900)).astype("<f4")
    columns[1, 200:400] = 0
    columns[2, 5] = 0
    body = struct.pack("<II", columns.nbytes, columns.nbytes) + columns.tobytes()
    header = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 900\nHEIGHT 1\nPOINTS 900\nDATA "
    scene = read(tmp_path, "a.pcd", header.encode() + b"binary_compressed\n" + body)
    assert scene.points is not None and len(scene.points) == 700
    assert scene.dropped == {"points in lost blocks (runs of zero bytes)": 200}


def test_fields_of_several_numbers_are_named(tmp_path: Path) -> None:
    header = PCD.replace("intensity _", "intensity curve")
    assert read(tmp_path, "a.pcd", pcd("binary", header)).dropped == {"columns that are not read (curve)": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("POINTS 300", "POINTS 99999999", "are left"),
        ("POINTS 300", "POINTS 301", "301 points need"),
        ("POINTS 300", "POINTS x", "fit together"),
        ("COUNT 1", "COUNT 9999999", "fit together"),
        ("FIELDS x", "FIELDS y", "fit together"),
        ("SIZE 4", "SIZE 5", "fit together"),
        ("# .PCD", "DATA binary", "fit together"),
        ("DATA ", "DATA un", "is not read"),
        ("DATA ", "# ", "no line DATA"),
        ("COUNT 1", "COUNT -1", "COUNT of 'x' is '-1', which is no number"),
        ("COUNT 1", "COUNT 0", "x, y and z are needed, of COUNT 1"),
        ("SIZE 4", "SIZE", "SIZE has 5 entries for 6 FIELDS"),
        ("TYPE F", "TYPE U", "TYPE U and SIZE 4|not on this planet|span"),
        ("WIDTH 300", "WIDTH 150", "POINTS is 300, WIDTH times HEIGHT is 150"),
    ],
)
def test_pcd_that_lies_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RawDataError, match=message):
        read(tmp_path, "a.pcd", pcd("binary").replace(old.encode(), new.encode(), 1))


def test_lzf_is_bounded_by_what_is_declared() -> None:
    text = b"abcabcabcabcabc" * 40 + bytes(range(256)) + bytes(1000)
    assert lzf_decompress(lzf(text), len(text)) == text
    assert lzf_decompress(b"\x02abc\x20\x02\xe0\x00\x00", 15) == b"abcabc" + b"c" * 9, "worked by hand"
    for bad, message in [
        (b"\x05ab", "within a literal"), (b"\x00a\x40\x05", "before its start"), (b"\x00a\xe0", "within a match"),
        (b"\x00a\x20", "within a match"), (b"\x00a" + b"\xe0\xff\x00" * 9, "more than"), (b"\x00a", "holds 1 bytes"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lzf_decompress(bad, 15)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"ab", b"\0" * 300, b"xyz" * 100, bytes(range(256))]), max_size=60))
def test_lzf_gives_back_what_was_packed(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert lzf_decompress(lzf(data), len(data)) == data
