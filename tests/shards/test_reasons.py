"""Grouping of reasons: one line for a thousand scenes, and different reasons stay apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.reasons import grouped, kind, sentence


def test_a_partial_download_is_one_line() -> None:
    missing = [
        (f"scannet/scene{i:04d}_00", f"scans/scene{i:04d}_00/scene{i:04d}_00.sens is missing: download it, {i} bytes")
        for i in range(749)
    ]
    other = [("scannet/scene0800_00", "its labels are not there"), ("kitti/000001", "its labels are not there")]
    lines = [group.line() for group in grouped([*missing[:5], *other, *missing[5:]])]
    assert lines == [
        "749 scenes (scannet/scene0000_00, scannet/scene0001_00, scannet/scene0002_00, ...): "
        "such as scans/scene0000_00/scene0000_00.sens is missing: download it, 0 bytes",
        "scannet/scene0800_00: its labels are not there",
        "kitti/000001: its labels are not there",
    ]


def test_the_same_words_are_said_to_be_the_same() -> None:
    (group,) = grouped([("a/x", "no calibration"), ("a/y", "no calibration")])
    assert group.line("files") == "2 files (a/x, a/y): no calibration"


def test_an_error_names_the_first_kinds() -> None:
    items = [(f"a/scene-{n}", why) for n, why in enumerate(["cut", "cut", "gone", "empty", "odd", "torn"])]
    assert sentence(items[:3], "files") == "2 files (a/scene-0, a/scene-1): cut; a/scene-2: gone"
    assert sentence(items).endswith("a/scene-3: empty; and 2 more reasons")


def test_what_counts_as_one_kind() -> None:
    token = "0123456789abcdef0123456789abcdef"
    assert kind(f"nuscenes/{token}", f"{token}: sweep {token[::-1]} at 12.5 s") == "*: sweep # at # s"
    assert kind("s3dis/Area_1/office_1", "Area_1/office_1/office_1.txt is gone") == "*/*.txt is gone"
    assert kind("a/100", "1 of 1000 points") == kind("a/7", "2 of 9 points") == "# of # points"
    assert kind("a/b", "the header is cut") != kind("a/b", "the body is cut")
    assert kind("video/a", "a cat") == "a cat", "a name of a letter or two is no name"


@given(st.lists(st.tuples(st.sampled_from(["a/1", "a/2", "b/x/y"]), st.text(max_size=6)), max_size=12))
def test_nothing_is_lost_and_nothing_is_mixed(items: list[tuple[str, str]]) -> None:
    groups = grouped(items)
    assert sorted(key for group in groups for key in group.keys) == sorted(key for key, _ in items)
    kinds = [(group.keys[0].partition("/")[0], kind(group.keys[0], group.reason)) for group in groups]
    assert len(set(kinds)) == len(kinds) == len({(key.partition("/")[0], kind(key, why)) for key, why in items})
    assert all(key.startswith(name + "/") for group, (name, _) in zip(groups, kinds, strict=True) for key in group.keys)
