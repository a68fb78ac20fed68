"""Damaged files of ScanNet: thousands of them, of every kind, as scans and as clips."""

from __future__ import annotations

from pathlib import Path

from ingest.clips import ClipOptions
from ingest.scannet import SOURCE
from ingest.scannet.plan import ScanNetOptions
from tests.ingest.mutation import assert_survives
from tests.ingest.scannet_toy import INSTANCE_IMAGE, LABEL_IMAGE, SCAN, only, png, release


def test_damaged_files_of_a_scan_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    root = release(tmp_path)
    (root / "scannetv2_val.txt").write_text(f"{SCAN}\nscene0011_00\n")
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
