"""Label images of ScanNet: zips read member by member, folders, and everything that could make a label wrong."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from tests.ingest.scannet_toy import (
    HEIGHT,
    INSTANCE_IMAGE,
    LABEL_IMAGE,
    SCAN,
    TABLE,
    WIDTH,
    only,
    pictures,
    png,
    read,
    release,
)

FOLDER = f"scans/{SCAN}"


def check(scene: Scene) -> None:
    """All views show wall (left), chair (middle), and what nobody annotated."""
    assert len(scene.views) == 3
    for view in scene.views:
        assert set(view.semantic) == {"nyu40", "scannet20", "scannet200"}
        for name, labels in view.semantic.items():
            assert labels.shape == (view.height, view.width), name
            assert (labels[:, :8] == 0).all() and (labels[:, 12:] == -1).all(), name
            assert (labels[:, 8:12] == {"nyu40": 4, "scannet20": 4, "scannet200": 1}[name]).all(), name
        assert view.instance is not None and view.instance.dtype == np.int32
        np.testing.assert_array_equal(view.instance, INSTANCE_IMAGE)


def test_views_carry_their_label_images_at_full_size(tmp_path: Path) -> None:
    check(read(release(tmp_path)))
    for view in read(tmp_path, view_labels=False).views:
        assert not view.semantic and view.instance is None


def test_folders_give_the_same_as_zips_and_filtered_images_come_first(tmp_path: Path) -> None:
    root = release(tmp_path, label_zip=None, instance_zip=None)
    wrong = png(np.full((HEIGHT, WIDTH), 9, np.uint16))
    for kind, image in (("label", LABEL_IMAGE), ("instance", INSTANCE_IMAGE)):
        for suffix, content in (("-filt", png(image)), ("", wrong)):
            folder = root / FOLDER / (kind + suffix)
            folder.mkdir()
            for number in (0, 1, 3):
                (folder / f"{number:0{6 if number else 1}d}.png").write_bytes(content)
    check(read(root))
    (root / FOLDER / f"{SCAN}_2d-label.zip").write_bytes(pictures("label", dict.fromkeys(range(4), wrong)))
    assert only(root).files["label_images"].endswith("_2d-label.zip")


def test_frames_without_label_image_are_counted(tmp_path: Path) -> None:
    scene = read(release(tmp_path, label_zip=pictures("label-filt", {0: LABEL_IMAGE})))
    assert [len(view.semantic) for view in scene.views] == [3, 0, 0]
    assert scene.dropped["frame without label image"] == 2
    scene = read(release(tmp_path / "test", label_zip=None, instance_zip=None))
    assert not any("label image" in reason for reason in scene.dropped)


def test_without_the_table_only_the_ids_of_scannet200_are_known(tmp_path: Path) -> None:
    scene = read(release(tmp_path, tsv=None))
    assert set(scene.views[0].semantic) == {"scannet200"}
    assert scene.dropped["nyu40 of label images: the label table (.tsv) is missing"] == 1


def test_an_id_of_two_rows_has_the_class_of_the_first(tmp_path: Path) -> None:
    table = TABLE + "1\twalls\twall\t2\t38\n"
    check(read(release(tmp_path, tsv=table.encode())))


def test_instances_of_another_annotation_are_left_out(tmp_path: Path) -> None:
    """Release v1 numbers its objects differently, under the same names and sizes."""
    swapped = np.where(INSTANCE_IMAGE == 1, 5, np.where(INSTANCE_IMAGE == 5, 1, 0)).astype(np.uint8)
    strange = np.where(INSTANCE_IMAGE == 1, 9, INSTANCE_IMAGE).astype(np.uint8)
    for name, image in {"swapped": swapped, "strange": strange}.items():
        zipped = pictures("instance-filt", dict.fromkeys(range(4), image))
        scene = read(release(tmp_path / name, instance_zip=zipped))
        assert scene.dropped["instance image of another annotation"] == 3, name
        assert all(view.instance is None and view.semantic for view in scene.views), name
    # without label images only unknown objects can be told
    zipped = pictures("instance-filt", dict.fromkeys(range(4), strange))
    scene = read(release(tmp_path / "alone", instance_zip=zipped, label_zip=None))
    assert scene.dropped["instance image of another annotation"] == 3
    # a few pixels of another object at an edge are no other annotation
    edge = INSTANCE_IMAGE.copy()
    edge[0, :8] = 5
    scene = read(release(tmp_path / "edge", instance_zip=pictures("instance-filt", dict.fromkeys(range(4), edge))))
    assert all(view.instance is not None for view in scene.views)


def _grey(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (WIDTH, HEIGHT)).save(buffer, "png")
    return buffer.getvalue()


def test_pictures_that_would_be_misread_are_refused(tmp_path: Path) -> None:
    whole = pictures("label-filt", dict.fromkeys(range(4), LABEL_IMAGE))
    at = whole.index(b"label-filt/0.png") + len(b"label-filt/0.png")  # where the first member's bytes begin
    twice = io.BytesIO(whole)
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("other/0.png", png(LABEL_IMAGE))
    locked = bytearray(whole)
    locked[whole.rindex(b"PK\x01\x02") + 8] |= 1  # the last frame's entry says: encrypted
    bzip = io.BytesIO()
    with zipfile.ZipFile(bzip, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("label-filt/0.png", png(LABEL_IMAGE))
    cases = {
        "it has 8x6": pictures("label-filt", {0: np.zeros((6, 8), np.uint16)}),
        "colour type 2": pictures("label-filt", {0: _grey("RGB")}),
        "colour type 3": pictures("label-filt", {0: _grey("P")}),
        "of 1 bits": pictures("label-filt", {0: _grey("1")}),
        "a GIF image": pictures("label-filt", {0: b"GIF89a" + bytes(40)}),
        "no label image": pictures("label-filt", {0: png(LABEL_IMAGE)[:-30]}),
        "no readable zip": whole[:-30],
        "two images of frame 0": twice.getvalue(),
        "encrypted": bytes(locked),
        "compression method 12": bzip.getvalue(),
        "label-filt/0.png": whole[: at + 4] + bytes([whole[at + 4] ^ 255]) + whole[at + 5 :],
    }
    for number, (message, data) in enumerate(cases.items()):
        with pytest.raises(RawDataError, match=message):
            read(release(tmp_path / str(number), label_zip=data))


def test_hostile_zips_cost_no_memory(tmp_path: Path) -> None:
    bomb = pictures("label-filt", {0: bytes(64_000_000)})
    directory = bomb.rindex(b"PK\x01\x02")
    liar = bytearray(bomb)  # the directory says that 64 MB are 1 kB
    struct.pack_into("<I", liar, directory + 24, 1000)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(45_000):
            archive.writestr(f"label-filt/{'x' * 60}/{number}.png", b"")
    tall = bytearray(png(np.zeros((HEIGHT, WIDTH), np.uint16)))
    struct.pack_into(">II", tall, 16, 60_000, 60_000)
    hostile = {
        "bomb": bomb, "liar": bytes(liar), "many": many.getvalue(), "tall": pictures("label-filt", {0: bytes(tall)}),
    }  # fmt: skip
    for name, data in hostile.items():
        ref = only(release(tmp_path / name, label_zip=data))
        tracemalloc.start()
        with pytest.raises(RawDataError):
            SOURCE.read(ref)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3_000_000, f"{name}: {peak}"


def test_only_the_chosen_members_are_read(tmp_path: Path) -> None:
    """A zip of large members costs its directory and the frames that were asked for."""
    noise = np.random.default_rng(0).bytes(30_000)
    images: dict[int, np.ndarray | bytes] = dict.fromkeys(range(4), LABEL_IMAGE)
    zipped = pictures("label-filt", images | dict.fromkeys(range(4, 8), noise))
    assert len(zipped) > 100_000
    ref = only(release(tmp_path, label_zip=zipped))
    read_bytes = 0
    original = RawFiles.read_range

    def counted(self: RawFiles, path: str, offset: int, length: int) -> bytes:
        nonlocal read_bytes
        read_bytes += length if path == ref.files["label_images"] else 0
        return original(self, path, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RawFiles, "read_range", counted)
        SOURCE.read(ref)
    assert 300 < read_bytes < 5000


def test_an_object_without_id_contradicts_no_picture(tmp_path: Path) -> None:
    groups = [{"objectId": 0, "segments": [5, 2], "label": "wall"}, {"objectId": 4, "segments": [77], "label": "lyre"}]
    scene = read(release(tmp_path, labels=None, aggregation=json.dumps({"segGroups": groups}).encode()))
    assert scene.views[0].instance is not None
