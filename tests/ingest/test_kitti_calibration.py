"""KITTI's text files: calibration, poses, timestamps."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.kitti.calibration import (
    PROJECTION,
    ROTATION,
    TRANSFORM,
    TRANSLATION,
    inverse,
    parse_calibration,
    rectified_camera,
    rigid,
)
from brickyard.ingest.kitti.oxts import Packet, parse_packet, world_from_imu
from brickyard.ingest.kitti.timestamps import parse_timestamp
from brickyard.shards.errors import RawDataError

FAIL = partial(RawDataError, dataset="kitti", path="calib.txt")
TEXT = b"""calib_time: 15-Mar-2012 11:37:16
R: 7.533745e-3 -9.999714e-1 -6.166020e-4 1.480249e-2 7.280733e-4 -9.998902e-1 9.998621e-1 7.523790e-3 1.480755e-2
T: -4.069766e-03 -7.631618e-02 -2.717806e-01
P2: 700 0 600 45 0 700 180 -0.3 0 0 1 0.005
delta_f: 0.000000e+00 0.000000e+00
"""
WANTED = {"R": ROTATION, "T": TRANSLATION, "P2": PROJECTION}


def test_values_come_row_major_in_float64() -> None:
    found = parse_calibration(TEXT, WANTED, FAIL)
    assert set(found) == set(WANTED)
    assert found["R"].dtype == np.float64 and found["R"].shape == (3, 3)
    assert found["R"][0, 1] == -9.999714e-01 and found["R"][1, 0] == 1.480249e-02
    assert found["P2"].shape == (3, 4) and found["P2"][2, 3] == 0.005


@pytest.mark.parametrize("entry", range(9))
def test_any_lost_minus_sign_of_a_rotation_is_found(entry: int) -> None:
    lines = TEXT.decode().split("\n")
    words = lines[1].split()
    word = words[1 + entry]
    words[1 + entry] = word[1:] if word.startswith("-") else "-" + word
    lines[1] = " ".join(words)
    with pytest.raises(RawDataError, match=r"calib.txt line 2: R: the rotation is not orthonormal"):
        parse_calibration("\n".join(lines).encode(), WANTED, FAIL)


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        (b"-7.631618e-02 ", b"", 3, "T has 2 values, expected 3"),
        (b"-7.631618e-02", b"x", 3, "could not convert"),
        (b"-7.631618e-02", b"nan", 3, "not finite"),
        (b"-7.631618e-02", b"1e6", 3, "more than 100 m"),
        (b"P2: 700", b"P2: -700", 4, "no pinhole camera"),
        (b"180 -0.3", b"180 1e9", 4, "no stereo baseline"),
        (b"delta_f: ", b"T: 1 2 3\ndelta_f: ", 5, "T is given twice"),
        (b"delta_f", b"\xff", 5, "not plain text"),
    ],
)
def test_errors_name_the_line(old: bytes, new: bytes, line: int, problem: str) -> None:
    assert old in TEXT
    with pytest.raises(RawDataError, match=problem) as caught:
        parse_calibration(TEXT.replace(old, new), WANTED, FAIL)
    assert caught.value.line == line


def test_missing_keys_are_named() -> None:
    with pytest.raises(RawDataError, match="no line for Tr_velo_to_cam"):
        parse_calibration(TEXT, {"Tr_velo_to_cam": TRANSFORM}, FAIL)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(TEXT) - 1), new=st.binary(max_size=3), cut=st.integers(0, 40))
def test_mutated_text_is_read_or_refused(place: int, new: bytes, cut: int) -> None:
    mutated = TEXT[:place] + new + TEXT[place + cut :]
    try:
        found = parse_calibration(mutated, WANTED, FAIL)
    except RawDataError:
        return
    intrinsics, pose = rectified_camera(found["P2"], found["R"], rigid(found["R"], found["T"]))
    assert np.isfinite(intrinsics).all() and np.isfinite(pose).all()
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3)


def test_camera_projects_like_the_official_chain() -> None:
    found = parse_calibration(TEXT, WANTED, FAIL)
    rectify = rigid(found["R"].T)[:3, :3]
    velo = rigid(found["R"], found["T"])
    intrinsics, pose = rectified_camera(found["P2"], rectify, velo)
    points = np.random.default_rng(0).uniform((2, -5, -2, 1), (50, 5, 2, 1 + 1e-12), (100, 4)).astype(np.float64)
    points[:, 3] = 1
    official = points @ (found["P2"] @ rigid(rectify) @ velo).T
    camera = points @ inverse(pose).T
    ours = camera[:, :3] @ intrinsics.T
    np.testing.assert_allclose(ours, official, rtol=0, atol=1e-9)
    assert not np.allclose(found["P2"][:, 3], 0), "the baseline must matter in this test"


OXTS = [49.015003823272, 8.4342971002335, 116.43, 0.035752, 0.00903, -2.6087069803847] + [0.0] * 24


def _packet(values: list[float]) -> Packet:
    return parse_packet(" ".join(map(str, values)).encode() + b"\n", FAIL)


def test_pose_equals_an_independent_computation() -> None:
    """Rotation through rotation vectors and the Mercator y through asinh(tan(lat)), which is another form of it."""
    from scipy.spatial.transform import Rotation

    first, packet = _packet([48.5, *OXTS[1:]]), _packet(OXTS)
    pose = world_from_imu(packet, first)
    scale = math.cos(math.radians(48.5))
    expected = (
        scale * 6378137 * math.radians(OXTS[1]),
        scale * 6378137 * math.asinh(math.tan(math.radians(OXTS[0]))),
        OXTS[2],
    )
    np.testing.assert_allclose(pose[:3, 3], expected, rtol=0, atol=1e-6)
    angles = Rotation.from_euler("ZYX", (OXTS[5], OXTS[4], OXTS[3])).as_matrix()
    np.testing.assert_allclose(pose[:3, :3], angles, atol=1e-14)


def test_pose_is_metric_east_north_up() -> None:
    start = world_from_imu(_packet(OXTS), _packet(OXTS))[:3, 3]
    north = world_from_imu(_packet([OXTS[0] + 1e-5, *OXTS[1:]]), _packet(OXTS))[:3, 3] - start
    east = world_from_imu(_packet([OXTS[0], OXTS[1] + 1e-5, *OXTS[2:]]), _packet(OXTS))[:3, 3] - start
    metre = 6378137 * math.radians(1e-5)
    np.testing.assert_allclose(north, (0, metre, 0), atol=1e-5)
    np.testing.assert_allclose(east, (metre * math.cos(math.radians(OXTS[0])), 0, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (OXTS[:29], "29 values, expected 30"),
        ([95.0, *OXTS[1:]], "no place on earth"),
        ([math.nan, *OXTS[1:]], "not finite"),
        ([*OXTS[:5], 1e9, *OXTS[6:]], "no angles"),
    ],
)
def test_bad_packets_are_refused(values: list[float], problem: str) -> None:
    with pytest.raises(RawDataError, match=problem):
        _packet(values)


def test_timestamps_keep_nine_digits() -> None:
    assert parse_timestamp("1970-01-02 00:00:01.000000001", 0, FAIL) == 86_401_000_000_001
    assert parse_timestamp("2011-09-26 14:03:00.103490123", 0, FAIL) == 1_317_045_780_103_490_123


@pytest.mark.parametrize(
    "text", ["2011-09-26 14:03:00", "2011-02-30 14:03:00.0", "2011-09-26T14:03:00.0", "", "x" * 99]
)
def test_bad_timestamps_name_their_line(text: str) -> None:
    with pytest.raises(RawDataError, match="line 8: bad timestamp"):
        parse_timestamp(text, 7, FAIL)
