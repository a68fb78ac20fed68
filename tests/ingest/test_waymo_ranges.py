"""What no lidar measures, in either Waymo release: a few pixels are counted, more are a damaged range image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import tests.ingest.waymo_toy as toy
from brickyard.ingest.source import SceneRef
from brickyard.ingest.waymo import v1, v2
from brickyard.ingest.waymo.frame import Options, split_of
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.waymo_reading import refs, scene_of

BOTH = pytest.mark.parametrize("release", ["v1", "v2"])


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> toy.ToyFrame:
    """A frame whose SIDE_LEFT has 4,000 pixels, most of them measured."""
    monkeypatch.setattr(toy, "SHAPES", toy.SHAPES | {3: (20, 200)})
    return toy.toy_frame(0)


@BOTH
def test_few_impossible_pixels_are_counted_and_many_refused(tmp_path: Path, release: str, wide: toy.ToyFrame) -> None:
    image = wide.images[3, 1]
    filled = np.argwhere(image[..., 0] > 0)
    beyond, unknown = filled[:5], filled[5:9]
    image[tuple(beyond.T)] = [742.0, 0.5, 0.1, -1]
    image[tuple(unknown.T)] = np.nan
    scene = scene_of(release, tmp_path / "few", [wide])
    assert scene.dropped == {"impossible points": 5, "non-finite points": 4}
    image[tuple(filled[:400].T)] = [0, 0.5, 0.1, -1]
    image[(*filled[:400].T, 0)] = np.random.default_rng(0).uniform(110, 800, 400)
    toy.write_v1(tmp_path / "many", [wide]) if release == "v1" else toy.write_v2(tmp_path / "many", [wide])
    message = rf"return 1 of laser SIDE_LEFT: 400 impossible points among {len(filled)} measured pixels: .* is damaged"
    with pytest.raises(RawDataError, match=message):
        {"v1": v1, "v2": v2}[release].read(refs(release, tmp_path / "many")[0])


@BOTH
def test_blocks_of_zeros_are_no_pixels_without_echo(tmp_path: Path, release: str, wide: toy.ToyFrame) -> None:
    """Where nothing came back the range is -1. In a file that says 0 instead, zeros mean that."""
    image = wide.images[3, 1]
    image.reshape(-1)[401 : 401 + 128] = 0
    lost = (401 + 128 - 1) // 4 - 401 // 4 + 1
    with pytest.raises(RawDataError, match=f"{lost} pixels in a block of zeros"):
        scene_of(release, tmp_path / "refused", [wide])
    image[image[..., 0] <= 0] = 0
    scene = scene_of(release, tmp_path / "zeros", [wide])
    assert scene.points is not None and not scene.dropped


def test_a_page_of_zeros_in_a_component_is_refused(tmp_path: Path, wide: toy.ToyFrame) -> None:
    """4 KiB anywhere in the stored values: refused or counted, never other points without a word."""
    root = toy.write_v2(tmp_path, [wide], compression="none", use_dictionary=False)
    (ref,) = refs("v2", tmp_path)
    whole = v2.read(ref).points
    assert whole is not None
    file = root / "lidar" / f"{toy.SEGMENT}.parquet"
    data = file.read_bytes()
    told = 0
    for place in range(0, len(data) - 4096, (len(data) - 4096) // 20):
        file.write_bytes(data[:place] + bytes(4096) + data[place + 4096 :])
        try:
            scene = v2.read(ref)
        except RawDataError:
            told += 1
            continue
        assert scene.dropped or (scene.points is not None and np.array_equal(scene.points.xyz, whole.xyz)), place
        told += bool(scene.dropped)
    assert told > 10


def test_checksums_of_pages_are_looked_at_where_there_are_some(tmp_path: Path) -> None:
    """A changed value is a legal value; only the writer's checksum tells it."""
    root = toy.write_v2(tmp_path, [toy.toy_frame(0)], compression="none")
    file = root / "lidar" / f"{toy.SEGMENT}.parquet"
    pq.write_table(
        pq.read_table(file), file, compression="none", use_dictionary=False, write_page_checksum=True
    )  # fmt: skip
    data = bytearray(file.read_bytes())
    value = toy.toy_frame(0).images[1, 1]
    place = data.index(value.astype("<f4").tobytes()[:64])
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(RawDataError, match=r"(?i)crc"):
        v2.read(refs("v2", tmp_path)[0])


@BOTH
def test_labels_that_may_be_a_lost_block_are_counted(tmp_path: Path, release: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(toy, "SHAPES", toy.SHAPES | {1: (6, 300)})
    frame = toy.toy_frame(0)
    frame.labels[1, 1] = np.maximum(frame.labels[1, 1], 1)
    assert "labels 0 in an unbroken run: perhaps a lost block" not in scene_of(release, tmp_path / "a", [frame]).dropped
    frame.labels[1, 1].reshape(-1)[700 : 700 + 1200] = 0
    filled = frame.images[1, 1].reshape(-1, 4)[350 : 350 + 600, 0] > 0
    dropped = scene_of(release, tmp_path / "b", [frame]).dropped
    assert dropped == {"labels 0 in an unbroken run: perhaps a lost block": int(filled.sum())}


def test_a_record_of_another_segment_is_refused(tmp_path: Path) -> None:
    """Two files that were exchanged are whole, each of them; their frames say whose they are."""
    file = toy.write_v1(tmp_path, [toy.toy_frame(0)])
    file.rename(file.with_name("segment-88_100_000_120_000_with_camera_labels.tfrecord"))
    (ref,) = refs("v1", tmp_path)
    with pytest.raises(RawDataError, match=f"the frame is of the segment {toy.SEGMENT}"):
        v1.SOURCE.read(ref)


def test_a_component_that_other_segments_have_is_counted(tmp_path: Path) -> None:
    root = toy.write_v2(tmp_path, [toy.toy_frame(0)])
    for component in root.iterdir():
        (component / "99_100_000_120_000.parquet").write_bytes((component / f"{toy.SEGMENT}.parquet").read_bytes())
    file = root / "lidar_segmentation" / f"{toy.SEGMENT}.parquet"
    whole = file.read_bytes()
    file.unlink()
    ref, _ = v2.SOURCE.plan(Store(tmp_path), Options(cameras=()))
    assert isinstance(ref, SceneRef)
    assert v2.read(ref).dropped == {"missing component lidar_segmentation of the segment": 1}
    file.write_bytes(whole)
    for split, expected in (("validation", 1), ("testing", 0)):  # nobody labelled the test segments
        (tmp_path / split).mkdir()
        for component in root.iterdir():
            if component.name != "lidar_segmentation":
                (tmp_path / split / component.name).mkdir()
                (tmp_path / split / component.name / f"{toy.SEGMENT}.parquet").symlink_to(component / file.name)
        items = v2.SOURCE.plan(Store(tmp_path), Options(cameras=()))
        (ref,) = [item for item in items if isinstance(item, SceneRef) and split.startswith(item.split)]
        assert len(v2.read(ref).dropped) == expected


@pytest.mark.parametrize("component", v2._REQUIRED + v2._OPTIONAL)
def test_a_component_of_another_segment_is_refused(tmp_path: Path, component: str) -> None:
    """Rows say whose they are, so that labels of another drive are no missing labels of this one."""
    root = toy.write_v2(tmp_path, [toy.toy_frame(0)])
    toy.write_v2(tmp_path / "other", [replace(toy.toy_frame(0), segment="99_100_000_120_000")])
    name = f"{component}/{toy.SEGMENT}.parquet"
    (root / name).write_bytes((tmp_path / "other/training" / name).read_bytes())
    (item,) = v2.SOURCE.plan(Store(tmp_path), Options(cameras=("FRONT",)))
    if isinstance(item, SceneRef):
        with pytest.raises(RawDataError, match=rf"{name}: its rows are of 99_100_000_120_000: .* exchanged"):
            v2.read(item)
    else:
        assert component == "vehicle_pose" and "its rows are of 99_100_000_120_000" in item.reason


def test_the_split_is_the_folder_not_what_an_address_ends_with(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    store = Store(tmp_path / "validation")
    store.uri = "s3://bucket/validation?region=eu-1&endpoint_override=http%3A//host/testing"
    assert split_of(store, "") == "val" and split_of(store, "training") == split_of(store, "training/") == "train"
    assert split_of(Store(tmp_path), "") == "none"


@BOTH
def test_distances_that_lost_their_low_bytes_are_no_measurements(
    tmp_path: Path, release: str, wide: toy.ToyFrame
) -> None:
    """As zeros in a compressed page leave them: possible, rounded, wrong. Where all are rounded, they are meant so."""
    image = wide.images[3, 1]
    filled = np.argwhere(image[..., 0] > 0)
    spoilt = filled[512 : 512 + 640]
    whole = image.copy()

    def rounded(places: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(whole[tuple(places.T)][:, 0])
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    image[(*spoilt.T, 0)] = rounded(spoilt)
    with pytest.raises(RawDataError, match="640 pixels in a block that lost digits"):
        scene_of(release, tmp_path / "spoilt", [wide])
    image[(*filled.T, 0)] = rounded(filled)
    assert not scene_of(release, tmp_path / "rounded", [wide]).dropped
