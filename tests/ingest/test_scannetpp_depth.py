"""depth.bin: both layouts, any size of pieces, what is no depth, lost frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.scannetpp import depth
from brickyard.ingest.simulate.scannetpp_files import depth_records, depth_stream
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.errors import RawDataError

LAYOUTS = {"stream": depth_stream, "records": depth_records}


def read(root: Path, data: bytes, wanted: list[int], frames: int) -> dict[int, Any]:
    (root / "depth.bin").write_bytes(data)
    ref = SceneRef(dataset="scannetpp", scene_id="a", split="none", sequence="a", root=str(root), files={})
    return depth.read_depth(RawFiles(ref), "depth.bin", wanted, frames)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 5, (count, 192, 256)).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece", [4 << 20, 70_001])
def test_both_layouts_give_the_frames_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, piece: int
) -> None:
    monkeypatch.setattr(depth, "PIECE", piece)
    metres = images(6)
    found = read(tmp_path, LAYOUTS[layout](metres), [0, 3, 4], 6)
    assert list(found) == [0, 3, 4]
    for number, values in found.items():
        assert values.dtype == np.uint16 and np.abs(values * depth.SCALE - metres[number]).max() < 0.00051


def test_flat_images_compress_a_thousandfold_and_come_back(tmp_path: Path) -> None:
    metres = np.full((9, 192, 256), 1.5, np.float32)
    for layout in LAYOUTS.values():
        assert {int(values[0, 0]) for values in read(tmp_path, layout(metres), list(range(9)), 9).values()} == {1500}


def test_what_is_not_finite_or_out_of_reach_is_no_depth(tmp_path: Path) -> None:
    metres = images(1)
    metres[0, 0, :6] = (np.nan, np.inf, -np.inf, -1, 70, 0)
    assert read(tmp_path, depth_stream(metres), [0], 1)[0][0, :6].tolist() == [0] * 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lost_frames_are_refused_wherever_they_were(tmp_path: Path, layout: str) -> None:
    data = LAYOUTS[layout](images(5))
    with pytest.raises(RawDataError, match="it has 5 depth images, 6 frames have a pose"):
        read(tmp_path, data, [0], 6)
    with pytest.raises(RawDataError, match="it has more depth images, 4 frames have a pose"):
        read(tmp_path, data, [0], 4)


@pytest.mark.parametrize(
    ("data", "frames", "reason"),
    [
        (b"", 2, "the stream of depth images has no end"),
        (b"\xff" * 5000, 2, "neither records nor a deflate stream"),
        (depth_stream(images(2))[:-300], 2, "the stream of depth images has no end"),
        (depth_stream(images(2)) + b"more", 2, "bytes after the stream"),
        (depth_records(images(2))[:-300], 2, "neither records nor|ends within a record"),
        (depth_records(images(6))[:-300], 6, "ends within a record"),
        (depth_records(images(6)) + struct.pack("<i", -5), 6, "a record of -5 bytes"),
        (4 * (struct.pack("<i", 50) + b"\x12" * 50), 4, "neither an LZ4 block nor a deflate stream"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, frames: int, reason: str) -> None:
    with pytest.raises(RawDataError, match=f"depth.bin.*({reason})"):
        read(tmp_path, data, [0, 1], frames)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(150)) + deflate.flush()
    with pytest.raises(RawDataError, match="it has more depth images"):
        read(tmp_path, data, [0], 2)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), frames=st.integers(1, 3))
def test_any_bytes_end_in_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, frames: int) -> None:
    with pytest.raises(RawDataError):
        read(tmp_path_factory.getbasetemp(), data, [0], frames)
