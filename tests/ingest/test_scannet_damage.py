"""Damaged files of ScanNet: thousands of them, of every kind, as scans and as clips."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.ingest.scannet_toy import (
    INSTANCE_IMAGE,
    LABEL_IMAGE,
    SCAN,
    TABLE,
    jpeg,
    only,
    ply,
    png,
    pose,
    read,
    release,
    sens,
)


def test_damaged_files_of_a_scan_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    root = release(tmp_path)
    (root / "scannetv2_val.txt").write_text(f"{SCAN}\nscene0011_00\n")
    (root / "scannetv2_train.txt").write_text("scene0012_00\n")
    ref = only(root)
    assert {Path(path).suffix for path in ref.files.values()} == {".ply", ".sens", ".json", ".txt", ".tsv", ".zip"}
    paths = [*sorted(ref.files.values()), "scannetv2_val.txt"]
    result = assert_survives(
        SOURCE, root, paths, options=ScanNetOptions(frames_every=2, max_frames=1, align_axes=True), count=2000
    )
    assert result.scenes > 300 and result.errors > 900
    assert result.errors_with_place > 0.3 * result.errors


def test_damaged_folders_and_streams_of_clips(tmp_path: Path) -> None:
    root = release(tmp_path / "folders", label_zip=None, instance_zip=None)
    images = {"label-filt": LABEL_IMAGE, "instance-filt": INSTANCE_IMAGE}
    for folder, image in images.items():
        (root / f"scans/{SCAN}/{folder}").mkdir()
        (root / f"scans/{SCAN}/{folder}/0.png").write_bytes(png(image))
    paths = [f"scans/{SCAN}/{folder}/0.png" for folder in images]
    result = assert_survives(SOURCE, root, paths, options=ScanNetOptions(frames_every=1), count=200)
    assert result.errors > 100
    clips = ScanNetOptions(clips=ClipOptions(frames=3, overlap=1), align_axes=True)
    result = assert_survives(SOURCE, root, [f"scans/{SCAN}/{SCAN}{end}" for end in (".sens", ".txt")], options=clips,
                             count=600)  # fmt: skip
    assert result.errors > 50 and result.scenes > 50


def test_vertices_in_a_block_of_zeros_are_refused(tmp_path: Path) -> None:
    """At the origin and black, as no scanner leaves dozens of them; faces refer to them, so none can be dropped."""
    xyz = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    data = bytearray(ply(xyz, np.array([[0, 1, 2]])))
    start = data.index(b"end_header\n") + len(b"end_header\n")
    data[start + 1000 : start + 2024] = bytes(1024)
    root = release(tmp_path, ply=bytes(data), labels=None, segs=None, aggregation=None)
    with pytest.raises(RawDataError, match=rf"clean_2.ply at byte {start + 992}: 65 vertices stand in a block"):
        read(root)


def test_damaged_rows_of_the_label_table_are_counted(tmp_path: Path) -> None:
    """A block of zeros, and a last line that was cut off: `chair` is unknown then, not something else."""
    zeros = TABLE.replace("2\tchair", "2\tch\0\0\0").encode()
    cut = TABLE[: TABLE.index("2\tchair") + 7].encode()
    for name, table in {"zeros": zeros, "cut": cut}.items():
        scene = read(release(tmp_path / name, tsv=table, labels=None))
        assert scene.dropped["label table: damaged row"] == 1 and scene.dropped["unknown raw category"] == 1


def test_a_scan_without_mesh_says_what_is_there(tmp_path: Path) -> None:
    (missing,) = SOURCE.plan(Store(release(tmp_path, ply=None, segs=None)), ScanNetOptions())
    assert isinstance(missing, Missing)
    assert f"{SCAN}_vh_clean_2.ply is missing" in missing.reason
    assert "_vh_clean_2.labels.ply, .aggregation.json, .txt, .sens is there" in missing.reason


@pytest.mark.parametrize("damage", [b"scene00\0\0\0\0\0\0\n", b"scene0", b"\0" * 99])
def test_a_damaged_list_leaves_splits_unknown(tmp_path: Path, damage: bytes) -> None:
    """Scans that another list names keep their split; the others have none, not even "none"."""
    root = release(tmp_path)
    for scan in ("scene0001_00", "scene0710_00"):
        (root / "scans" / scan).mkdir()
        (root / "scans" / scan / f"{scan}_vh_clean_2.ply").touch()
    (root / "scannetv2_val.txt").write_text("scene0001_00\n")
    (root / "scannetv2_train.txt").write_bytes(b"scene0002_00\n" + damage)
    lost, val, scan, test = SOURCE.plan(Store(root), ScanNetOptions())
    assert isinstance(lost, Missing) and lost.scene_id == "scannetv2_train.txt" and "line 2" in lost.reason
    assert isinstance(val, SceneRef) and val.split == "val"
    assert isinstance(test, SceneRef) and test.split == "test"
    assert isinstance(scan, Missing) and scan.scene_id == SCAN and "its split is unknown" in scan.reason


def test_a_stream_of_another_scan_is_counted(tmp_path: Path) -> None:
    """Two streams that were exchanged are whole, each of them; only what they see is not what stands here."""
    side = np.arange(40) * 0.1 - 2
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    reason = "stream whose depth does not meet the mesh: perhaps of another scan"
    for name, floor, expected in (("own", 0.0, 0), ("other", 0.8, 1)):
        xyz = np.stack([x, y, np.full_like(x, floor)], axis=1).astype(np.float32)
        depth = zlib.compress(np.full((6, 8), 3000, "<u2").tobytes())
        frames = [(pose(number), jpeg(), depth) for number in range(2)]
        alone = dict.fromkeys(("labels", "segs", "aggregation", "label_zip", "instance_zip"))
        root = release(tmp_path / name, ply=ply(xyz, np.array([[0, 1, 2]])), sens=sens(frames), **alone)
        assert read(root).dropped.get(reason, 0) == expected, name


def test_a_list_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    """The test scans are known without a list; who has no list at all wants no splits."""
    root = release(tmp_path)
    (scan,) = SOURCE.plan(Store(root), ScanNetOptions())
    (root / "scannetv2_val.txt").write_text(f"{SCAN}\n")
    notice, scan = SOURCE.plan(Store(root), ScanNetOptions())
    assert isinstance(notice, Notice) and notice.scene_id == "scannetv2_train.txt"
    assert isinstance(scan, SceneRef) and scan.split == "val"
