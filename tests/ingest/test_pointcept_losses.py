"""Pointcept's arrays that lost a block, have another unit or are not known: dropped, counted, named or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.blank import PAGE
from brickyard.ingest.npy import whole_pages
from brickyard.ingest.source import Notice, find_source
from brickyard.shards.errors import RawDataError
from tests.ingest.test_pointcept import arrays, planned, read_one, write

COUNT = 4000


def room(root: Path) -> dict[str, np.ndarray]:
    values = arrays(COUNT)
    values["color"] = np.maximum(values["color"], 1)
    values["segment20"] = np.maximum(values["segment20"], 1)
    values["instance"] = np.maximum(values["instance"], 1)
    values["strength"] = np.random.default_rng(1).uniform(0.1, 1, COUNT).astype(np.float32)
    write(root / "train/a", values)
    return values


def zero(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place : place + PAGE] = bytes(PAGE)
    file.write_bytes(data)


@pytest.mark.parametrize("place", [128, 131, 4096, 12 * COUNT + 128 - PAGE])
@pytest.mark.parametrize("order", ["C", "F"])
def test_points_in_a_lost_block_are_dropped(tmp_path: Path, place: int, order: str) -> None:
    values = room(tmp_path)
    np.save(tmp_path / "train/a/coord.npy", np.asarray(values["coord"], order=order))  # type: ignore[call-overload]
    zero(tmp_path / "train/a/coord.npy", place)
    scene, points = read_one(tmp_path)
    lost = scene.dropped["points in a lost block (zeros)"]
    assert (PAGE // 12 if order == "C" else PAGE // 4) <= lost <= PAGE // 4 + 4
    assert len(points) == COUNT - lost == len(points.semantic["scannet20"])
    assert points.normal is not None and points.color is not None and points.instance is not None
    rows = {tuple(row) for row in values["coord"].tolist()}
    assert all(tuple(row) in rows for row in points.xyz.tolist())
    assert np.array_equal(points.color[-1], values["color"][-1 if place < 10_000 else np.flatnonzero(
        (values["coord"] == points.xyz[-1]).all(axis=1))[0]])  # fmt: skip


@pytest.mark.parametrize("name", ["color", "normal", "strength", "segment20", "instance"])
@pytest.mark.parametrize("place", [128, 129, 1000])
def test_pages_of_zeros_elsewhere_are_counted(tmp_path: Path, name: str, place: int) -> None:
    room(tmp_path)
    assert read_one(tmp_path)[0].dropped == {}
    zero(tmp_path / f"train/a/{name}.npy", place)
    scene, points = read_one(tmp_path)
    (reason,), (count,) = scene.dropped, scene.dropped.values()
    assert name in reason and "a lost block?" in reason and len(points) == COUNT
    assert 0 <= count - {"color": 1365, "normal": 341, "strength": 1024}.get(name, 2048) <= 2


def test_walls_are_no_lost_blocks(tmp_path: Path) -> None:
    """Class 0 is a wall: runs of it are of any length, and a scene may have nothing else."""
    labels = np.repeat(np.arange(8) % 2, [3000, 5, 2500, 7, 4100, 9, 2047, 3]).astype(np.int16)
    assert whole_pages(labels) == 0
    assert whole_pages(np.r_[labels, np.zeros(2048, np.int16), np.ones(1, np.int16)]) == 2048
    values = arrays(COUNT) | {"segment20": np.zeros(COUNT, np.int16), "color": np.zeros((COUNT, 3), np.uint8)}
    write(tmp_path / "train/a", values)
    assert read_one(tmp_path)[0].dropped == {}


def test_most_of_the_coordinates_lost_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "train/a", arrays())
    np.save(folder / "coord.npy", np.zeros((40, 3), np.float32))
    with pytest.raises(RawDataError, match="40 of 40 points are zeros"):
        read_one(tmp_path)


@pytest.mark.parametrize(
    ("strength", "unit", "problem"),
    [
        (np.linspace(0, 255, 40, dtype=np.float32), None, r"leave 0\.\.1"),
        (np.linspace(0, 255, 40, dtype=np.float32), "unit", r"leave 0\.\.1"),
        (np.linspace(-1, 1, 40, dtype=np.float32), None, r"-1\.\.1 leave 0\.\.1"),
        (np.arange(40, dtype=np.uint8) % 2, None, "whole numbers .* have no known unit"),
        (np.linspace(0, 300, 40, dtype=np.float32), "byte", r"leave 0\.\.255"),
    ],
)
def test_strength_of_an_unknown_unit_is_refused(
    tmp_path: Path, strength: np.ndarray, unit: str | None, problem: str
) -> None:
    write(tmp_path / "train/a", arrays() | {"strength": strength})
    with pytest.raises(RawDataError, match=problem) as caught:
        read_one(tmp_path, strength_unit=unit)
    assert "strength_unit" in str(caught.value)
    points = read_one(tmp_path, strength_unit="raw")[1]
    assert points.intensity_unit == "raw" and np.array_equal(points.intensity, strength.astype(np.float32))


def test_colours_of_0_to_1_and_spans_no_room_has_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "train/a", arrays() | {"color": arrays()["color"] / np.float32(255)})
    with pytest.raises(RawDataError, match=r"expected 0\.\.255"):
        read_one(tmp_path)
    np.save(folder / "color.npy", arrays()["color"])
    np.save(folder / "coord.npy", arrays()["coord"] * 300)
    with pytest.raises(
        RawDataError, match=r"plausible for 'indoor' \(coordinates must be metres; give the option domain"
    ):
        read_one(tmp_path)
    assert len(read_one(tmp_path, domain="outdoor")[1]) == 40


def test_other_data_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "train/a", arrays())
    for name in ("segment_a b.npy", "feature.pth", "readme.txt", "inner/coord.npy"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (tmp_path / "train/scene0001_00.pth").write_bytes(b"x")
    source = find_source("pointcept")
    ref, notice = planned(tmp_path)
    assert isinstance(notice, Notice) or isinstance(ref, Notice)
    notice, ref = (notice, ref) if isinstance(notice, Notice) else (ref, notice)
    assert notice.scene_id == "train" and "1 files not used, such as 'scene0001_00.pth'" in notice.reason
    assert source.read(ref).dropped == {"feature.pth: not read": 1, "segment_a b.npy: not read": 1}  # type: ignore[arg-type]
