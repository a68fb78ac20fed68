"""Writers of the official targets: bytes and names as the servers have them, and what is refused."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brickyard.evaluate.predictions.inverse import inverse
from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.ingest.waymo.wire import Message
from brickyard.shards.errors import BrickyardError, RecipeError
from tests.evaluate.predictions.answers import answer

ABOUT = {
    "account_name": "a@b.org", "unique_method_name": "Bricks", "authors": ["A", "Bé"], "sensor_type": "LIDAR_TOP",
    "number_past_frames_exclude_current": 200,
}  # fmt: skip


def test_the_published_inverse_maps() -> None:
    kitti = [10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
    assert inverse("semantickitti19").ids.tolist() == kitti
    scannet = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
    assert inverse("scannet20").ids.tolist() == scannet
    assert inverse("scannet200").ids[[0, 1, 2, 199]].tolist() == [1, 2, 3, 1191]
    assert inverse("nuscenes16").ids.tolist() == list(range(1, 17))
    assert inverse("waymo22").ids.tolist() == list(range(1, 23))
    assert inverse("s3dis13").ids.tolist() == list(range(13))


@pytest.mark.parametrize("target", TARGETS)
def test_every_class_is_read_as_what_it_was(target: str) -> None:
    table = inverse(TARGETS[target].taxonomy)
    classes = np.arange(len(table.ids))
    assert len(set(table.ids.tolist())) == len(classes)
    assert np.array_equal(table.classes(table.official(classes)), classes)
    assert table.classes(np.array([4000])).tolist() == [-1]


def test_merged_ids_without_a_published_choice_have_no_inverse() -> None:
    with pytest.raises(ValueError, match=r"kitti360_19: 'building' is the ids \[11, 34\]"):
        inverse("kitti360_19")


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_is_read(target: str) -> None:
    writer, one = TARGETS[target]("val"), answer(target)
    writer.check(one)
    assert np.array_equal(writer.decode(writer.encode(one)), one.classes)


def test_names_and_bytes() -> None:
    def made(target: str, classes: list[int]) -> tuple[str, bytes]:
        one = answer(target, classes=np.array(classes), raw_points=len(classes))
        writer = TARGETS[target]("val")
        return writer.file(one), writer.encode(one)

    assert made("scannet", [0, 12, 19]) == ("scene0700_00.txt", b"1\n14\n39\n")
    assert made("scannet200", [0, 199]) == ("scene0700_00.txt", b"1\n1191\n")
    assert made("s3dis", [12, 0]) == ("Area_5/office_0.txt", b"12\n0\n")
    assert made("semantickitti", [0, 18]) == (
        "sequences/11/predictions/000000.label",
        bytes([10, 0, 0, 0, 81, 0, 0, 0]),
    )
    assert made("nuscenes", [0, 15]) == (f"lidarseg/val/{10:032x}_lidarseg.bin", bytes([1, 16]))


def test_the_description_of_a_nuscenes_submission() -> None:
    (name, data), *_ = TARGETS["nuscenes"]("mini_val", {"use_camera": True}).more().items()
    uses = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
    assert name == "mini_val/submission.json" and json.loads(data) == {"meta": uses}


def test_waymo_frames_by_the_reader_of_its_records() -> None:
    one = answer("waymo")
    frames = Message(memoryview(TARGETS["waymo"]("val").encode(one))).messages(1, "SegmentationFrame")
    assert len(frames) == 1
    assert bytes(frames[0].data(2)) == b"1024360143612057520_3580_000_3600_000"
    assert frames[0].integer(3) == 1_500_000_000_123_456
    (laser,) = frames[0].messages(1, "Laser")
    assert laser.integer(1) == 1
    start = 0
    for field, mask in zip((2, 3), one.measured, strict=True):
        blob = laser.message(field, "RangeImage").data(6)
        matrix = Message(memoryview(zlib.decompress(blob)))
        shape = matrix.message(2, "MatrixShape").integers(1).tolist()
        values = matrix.integers(1).reshape(shape)
        count = int(mask.sum())
        assert shape == [6, 50, 2] and not values[..., 0].any() and not values[~mask].any()
        assert np.array_equal(values[mask, 1], one.classes[start : start + count] + 1)
        start += count


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"raw_points": 301, "dropped": {"non-finite points": 1}},
            "points of the corpus for 301 .*1 non-finite points",
        ),
        ({"part": True}, "a piece of a larger scene"),
        ({"classes": np.full(300, 400), "raw_points": 300}, r"classes 400\.\.400"),
        ({"classes": np.full(300, -1), "raw_points": 300}, r"classes -1\.\.-1"),
        ({"classes": np.zeros(300), "raw_points": 300}, "must be integers"),
    ],
)
def test_refused_answers_name_their_scene(target: str, changed: dict[str, Any], problem: str) -> None:
    one = answer(target, **changed)
    with pytest.raises(BrickyardError, match=f"(?s){one.identity.key}.*{problem}"):
        TARGETS[target]("val").check(one)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("changed", [{"dataset": "toy"}, {"scene_id": "../../etc"}, {"scene_id": "a"}])
def test_scenes_of_others_are_refused(target: str, changed: dict[str, str]) -> None:
    one = answer(target)
    with pytest.raises(BrickyardError, match="is no scene of"):
        TARGETS[target]("val").check(replace(one, identity=replace(one.identity, **changed)))


def test_what_only_one_server_asks() -> None:
    with pytest.raises(BrickyardError, match="no token of its sweep"):
        TARGETS["nuscenes"]("val").check(answer("nuscenes", token=""))
    with pytest.raises(BrickyardError, match="both returns"):
        TARGETS["waymo"]("val").check(answer("waymo", measured=()))
    for target, about, problem in (
        ("scannet", {"use_lidar": True}, "it asks nothing"),
        ("nuscenes", {"use_lidar": 1}, r"use_camera \(bool\)"),
        ("waymo", {"account_name": "a@b.org"}, "unique_method_name, sensor_type, too"),
        ("waymo", ABOUT | {"sensor_type": "SONAR"}, "sensor_type must be one of"),
        ("waymo", ABOUT | {"authors": [1]}, "a list of texts"),
    ):
        with pytest.raises(RecipeError, match=problem):
            TARGETS[target]("val", about)
