"""Splits of ScanNet (a room's rescans stay together), and planning without opening anything."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store


def empty_release(root: Path, scans: list[str], folder: str = "scans") -> Path:
    for scan in scans:
        (root / folder / scan).mkdir(parents=True)
        (root / folder / scan / f"{scan}_vh_clean_2.ply").touch()
    return root


def splits(root: Path) -> dict[str, tuple[str, str]]:
    refs = SOURCE.plan(Store(root), ScanNetOptions())
    return {ref.scene_id: (ref.split, ref.sequence) for ref in refs if isinstance(ref, SceneRef)}


def test_rescans_share_sequence_and_split_even_if_the_lists_name_only_one(tmp_path: Path) -> None:
    scans = ["scene0001_00", "scene0001_01", "scene0002_00", "scene0002_07", "scene0003_00"]
    root = empty_release(tmp_path, scans)
    (root / "scannetv2_train.txt").write_text("scene0001_00\r\nscene0001_01\r\n")
    (root / "scannetv2_val.txt").write_text("scene0002_00\n\n")
    assert splits(root) == {
        "scene0001_00": ("train", "scene0001"), "scene0001_01": ("train", "scene0001"),
        "scene0002_00": ("val", "scene0002"), "scene0002_07": ("val", "scene0002"),
        "scene0003_00": ("none", "scene0003"),
    }  # fmt: skip


def test_lists_that_tear_a_room_apart_are_refused(tmp_path: Path) -> None:
    root = empty_release(tmp_path, ["scene0001_00"])
    (root / "scannetv2_train.txt").write_text("scene0001_00\n")
    (root / "splits").mkdir()
    (root / "splits/scannetv2_val.txt").write_text("scene0005_00\nscene0001_01\n")
    with pytest.raises(RawDataError, match=r"scannetv2_val.txt line 2: scene0001_01 .* in the train list"):
        splits(root)


def test_without_lists_the_test_scans_are_known(tmp_path: Path) -> None:
    root = empty_release(tmp_path, ["scene0706_00", "scene0707_00", "scene0806_00", "scene0807_00"])
    empty_release(root, ["scene0001_00"], "scans_test")
    assert {scan: split for scan, (split, _) in splits(root).items()} == {
        "scene0706_00": "none", "scene0707_00": "test", "scene0806_00": "test", "scene0807_00": "none",
        "scene0001_00": "test",
    }  # fmt: skip


@pytest.mark.real
def test_official_lists_keep_rescans_together(samples: Path, tmp_path: Path) -> None:
    lists = {s: (samples / f"scannet/splits/scannetv2_{s}.txt").read_text().split() for s in ("train", "val", "test")}
    assert [len(lists[s]) for s in ("train", "val", "test")] == [1201, 312, 100]
    root = empty_release(tmp_path, [scan for names in lists.values() for scan in names])
    (root / "splits").symlink_to(samples / "scannet/splits")
    found = splits(root)
    assert {s: sorted(scan for scan, (split, _) in found.items() if split == s) for s in lists} == {
        s: sorted(names) for s, names in lists.items()
    }
    spaces = {(sequence, split) for split, sequence in found.values()}
    assert len(spaces) == len({sequence for sequence, _ in spaces}) == 707 + 100


def test_planning_opens_no_payload_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 scans whose files are holes of the real sizes: listings only, and for clips 300 bytes of the stream."""
    suffixes = {
        "_vh_clean_2.ply": 3 << 20, ".sens": 2 << 30, "_2d-label-filt.zip": 90 << 20, ".txt": 500,
        "_2d-instance-filt.zip": 60 << 20, "_vh_clean_2.0.010000.segs.json": 500_000, ".aggregation.json": 9000,
    }  # fmt: skip
    for number in range(2000):
        scan = f"scene{number // 2:04d}_{number % 2:02d}"
        (tmp_path / "scans" / scan).mkdir(parents=True)
        for suffix, size in suffixes.items():
            with (tmp_path / "scans" / scan / (scan + suffix)).open("wb") as file:
                file.truncate(size)
    opened: list[int] = []
    read_range, read = Store.read_range, Store.read

    def counted(self: Store, name: str, offset: int, length: int) -> bytes:
        opened.append(length)
        return read_range(self, name, offset, length)

    def whole(self: Store, name: str) -> bytes:
        opened.append(1 << 40)
        return read(self, name)

    monkeypatch.setattr(Store, "read_range", counted)
    monkeypatch.setattr(Store, "read", whole)
    began = time.process_time()
    tracemalloc.start()
    refs = sum(isinstance(item, SceneRef) for item in SOURCE.plan(Store(tmp_path), ScanNetOptions()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refs == 2000 and not opened
    assert peak < 2_000_000 and time.process_time() - began < 20
    list(SOURCE.plan(Store(tmp_path), ScanNetOptions(clips=ClipOptions())))
    assert 0 < sum(opened) <= 2000 * 400
