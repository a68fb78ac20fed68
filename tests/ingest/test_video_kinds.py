"""Folders beside the pictures: depth, labels, masks, copies, other formats; and poses that are never lost silently."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.ingest.video import SOURCE
from brickyard.ingest.video.kinds import extras
from brickyard.ingest.video.plan import VideoOptions
from brickyard.shards.errors import RecipeError
from brickyard.shards.images import decode
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.video_toy import glide, write_movie


def _image(number: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (32, 24), **how: Any) -> bytes:
    picture = glide(number + 1, size=size)[number]
    stream = io.BytesIO()
    if mode == "depth":
        Image.fromarray(picture[..., 0].astype(np.uint16) * 12).save(stream, kind, **how)
    else:
        Image.fromarray(picture).convert(mode).save(stream, kind, **how)
    return stream.getvalue()


def _put(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def _folder(root: Path, folder: str, name: str = "{:03d}.png", count: int = 3, **how: Any) -> None:
    _put(root, {f"{folder}/{name.format(k)}": _image(k, **how) for k in range(count)})


def _plan(root: Path, **options: Any) -> tuple[list[SceneRef], list[Missing], list[Notice]]:
    items = list(SOURCE.plan(Store(root), VideoOptions(**options)))
    lost = [item for item in items if isinstance(item, Missing) and not isinstance(item, Notice)]
    return (
        [item for item in items if isinstance(item, SceneRef)], lost,
        [item for item in items if isinstance(item, Notice)],
    )  # fmt: skip


def _read(root: Path, **options: Any) -> Scene:
    ((ref,), lost, _) = _plan(root, **options)
    assert not lost
    return SOURCE.read(ref)


@pytest.mark.parametrize(
    ("folder", "how", "why"),
    [
        ("scene/depth", {"mode": "depth"}, "depth, labels or masks of the pictures in scene/color"),
        ("scene/label-filt", {"mode": "depth"}, "of the pictures in scene/color"),
        ("scene/anonMasks", {"mode": "L"}, "of the pictures in scene/color"),
        ("scene/semantics", {"mode": "RGB"}, "of the pictures in scene/color"),
        ("scene/depth", {"mode": "RGB", "kind": "JPEG", "name": "vis{:03d}.jpg"}, "of the pictures in scene/color"),
        ("scene/other", {"mode": "depth"}, "of the pictures in scene/color"),
        ("scene/other", {"mode": "P"}, "of the pictures in scene/color"),
        ("elsewhere/depth", {"mode": "depth"}, "by their name and kind, without pictures beside them"),
    ],
)
def test_depth_labels_and_masks_are_no_clips(tmp_path: Path, folder: str, how: dict[str, Any], why: str) -> None:
    _folder(tmp_path, "scene/color", "frame{:06d}.jpg", kind="JPEG")
    _folder(tmp_path, folder, **how)
    (clip,), lost, (notice,) = _plan(tmp_path)
    assert (clip.scene_id, lost) == ("scene/color/images/clip-000", [])
    assert notice.scene_id == folder and "3 images are no clip" in notice.reason and why in notice.reason


def test_smaller_copies_are_no_clips(tmp_path: Path) -> None:
    for folder, size in (("images", (64, 48)), ("images_2", (32, 24)), ("images_8", (16, 16))):
        _folder(tmp_path, folder, size=size)
    (clip,), _, notices = _plan(tmp_path)
    assert clip.sequence == "images" and {notice.scene_id for notice in notices} == {"images_2", "images_8"}
    assert notices[0].reason.endswith("smaller copies of the pictures in images")


@pytest.mark.parametrize(
    ("one", "two", "how"),
    [
        ("cam0", "cam1", {"mode": "L"}), ("cam", "cam_2", {}), ("instance_1", "instance_2", {}),
        ("normal", "broken", {}), ("images_2", "left", {}),
    ],
)  # fmt: skip
def test_cameras_beside_each_other_are_clips(tmp_path: Path, one: str, two: str, how: dict[str, Any]) -> None:
    _folder(tmp_path, one)
    _folder(tmp_path, two, **how)
    clips, lost, notices = _plan(tmp_path)
    assert {clip.sequence for clip in clips} == {one, two} and not lost and not notices


def test_pictures_of_sixteen_bits_alone_are_pictures(tmp_path: Path) -> None:
    _folder(tmp_path, "thermal", mode="depth", size=(64, 48))
    small = _read(tmp_path, image_short_side=24).views[0]
    truth = glide(1, size=(64, 48))[0][..., 0].astype(float) * 12 / 257
    assert abs(decode(small.image).mean() - truth.mean()) < 1


def test_values_beside_their_picture_in_one_folder_are_left_out(tmp_path: Path) -> None:
    names = ["r_0.png", "r_0_depth_0001.png", "r_0_normal_0001.png", "r_1.png", "7_rgb.png", "7-mask.png", "a_mask.png"]
    assert extras(names) == {"r_0_depth_0001.png", "r_0_normal_0001.png", "7-mask.png"}
    _folder(tmp_path, "walk", "r_{}.png")
    _folder(tmp_path, "walk", "r_{}_depth.png", mode="depth")
    scene = _read(tmp_path)
    assert scene.dropped == {"images of depth, labels or masks": 3, "views with assumed intrinsics": 3}


def test_files_of_other_formats_are_told(tmp_path: Path) -> None:
    _put(tmp_path, {f"walk/{k}.JPG": _image(k, "JPEG") for k in range(2)})
    _put(tmp_path, dict.fromkeys(("walk/2.webp", "walk/3.HEIC", "walk/notes.txt", "b.wmv", "c/d.webp", "e"), b"x"))
    write_movie(tmp_path / "film.mp4", glide(6), range(0, 240, 40)).rename(tmp_path / "FILM.MTS")
    clips, lost, notices = _plan(tmp_path)
    assert [clip.scene_id for clip in clips] == ["FILM.MTS/video/clip-000", "walk/images/clip-000"] and not lost
    assert SOURCE.read(clips[1]).dropped["pictures of formats that are not read"] == 2
    assert [notice.reason for notice in notices] == [
        "1 file without a known suffix not used, such as e",
        "1 .txt file not used, such as walk/notes.txt",
        "1 .webp file not used, such as c/d.webp",
        "1 .wmv file not used, such as b.wmv",
    ]
    with pytest.raises(RecipeError, match=r"nothing to read .*; 1 \.webp file not used, such as d\.webp"):
        _plan(tmp_path / "c")


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    _put(tmp_path, {"0.png": _image(0, "JPEG"), "1.jpg": _image(1), "2.jpg": _image(2, "JPEG") + b"a film" * 50})
    scene = _read(tmp_path)
    assert [view.image_format for view in scene.views] == ["jpeg", "png", "jpeg"]
    assert scene.views[2].image == (tmp_path / "2.jpg").read_bytes()


def test_orientations_in_exif_are_counted(tmp_path: Path) -> None:
    notes = Image.Exif()
    notes[0x0112] = 8
    _put(tmp_path, {f"{k}.jpg": _image(k, "JPEG", exif=notes) for k in range(2)})
    scene = _read(tmp_path)
    assert scene.dropped["orientations in EXIF, not applied"] == 2 and scene.views[0].width == 32


K = {"fl_x": 30.0, "cx": 16.0, "cy": 12.0, "w": 32, "h": 24}


def _pose(x: float) -> list[list[float]]:
    return [[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def _frames(names: Sequence[str], **more: Any) -> list[dict[str, Any]]:
    return [{"file_path": name, "transform_matrix": _pose(k), **more} for k, name in enumerate(names)]


def _table(root: Path, frames: list[dict[str, Any]], name: str = "transforms.json", **top: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(top | {"frames": frames}))


def test_tables_of_splits_give_poses_and_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        _folder(tmp_path, f"lego/{split}", "r_{}.png", mode="RGBA")
        _table(
            tmp_path / "lego", _frames([f"./{split}/r_{k}" for k in range(3)]), f"transforms_{split}.json",
            camera_angle_x=0.7,
        )  # fmt: skip
    clips, lost, notices = _plan(tmp_path)
    assert not lost and not notices
    assert {clip.scene_id: clip.split for clip in clips} == {
        f"lego/images-{split}/clip-000": split for split in ("train", "val", "test")
    }
    assert {clip.sequence for clip in clips} == {"lego"}
    scene = SOURCE.read(clips[0])
    poses = [view.scene_from_camera for view in scene.views]
    assert [None if pose is None else pose[0, 3] for pose in poses] == [0, 1, 2] and scene.dropped == {}
    assert {clip.split for clip in _plan(tmp_path, split="none")[0]} == {"none"}
    _table(tmp_path / "lego", _frames([f"train/r_{k}.png" for k in range(3)]), **K)
    clips, _, notices = _plan(tmp_path)
    assert "lego/images/clip-000" in {clip.scene_id for clip in clips}
    assert {notice.scene_id for notice in notices} == {f"lego/transforms_{s}.json" for s in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("top", "cause"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "frames of the camera model OPENCV_FISHEYE: 3"),
        ({"is_fisheye": True}, "frames of a fisheye camera: 3"),
        ({"fl_x": -1}, "frame 0 (from 0): fl_x is -1.0"),
    ],
)
def test_pictures_of_a_refused_table_do_not_come_back_without_poses(
    tmp_path: Path, top: dict[str, Any], cause: str
) -> None:
    _folder(tmp_path, "images")
    _folder(tmp_path, "masks", mode="L")
    _table(tmp_path, _frames([f"images\\{k:03d}.png" for k in range(3)]), **(K | top))
    clips, (lost,), (notice,) = _plan(tmp_path)
    assert clips == [] and cause in lost.reason and "transforms.json" in lost.reason
    assert notice.scene_id == "masks"


def test_a_table_that_is_no_json_takes_its_pictures_only(tmp_path: Path) -> None:
    _folder(tmp_path, "house/images")
    _folder(tmp_path, "house/walk")
    _folder(tmp_path, "street")
    _table(tmp_path / "house", _frames([f"images/{k:03d}.png" for k in range(3)]), **K)
    text = (tmp_path / "house/transforms.json").read_text()
    (tmp_path / "house/transforms.json").write_text(text[:-9])
    clips, (lost,), _ = _plan(tmp_path)
    assert [clip.sequence for clip in clips] == ["house/walk", "street"]
    assert "its images are not read without their poses" in lost.reason
    (tmp_path / "house/transforms.json").write_text("{")
    assert [clip.sequence for clip in _plan(tmp_path)[0]] == ["street"]


def test_images_that_no_table_lists_and_depth_of_other_kinds_are_counted(tmp_path: Path) -> None:
    _folder(tmp_path, "images", count=5)
    _put(
        tmp_path, {"depth/000.npy": b"\x93NUMPY", "depth/001.png": _image(1), "depth/002.png": _image(2, mode="depth")}
    )
    frames = [
        frame | {"depth_file_path": f"depth/{k:03d}.{'png' if k else 'npy'}"}
        for k, frame in enumerate(_frames([f"images/{k:03d}.png" for k in range(4)]))
    ]
    _table(tmp_path, frames, **K)
    scene = _read(tmp_path)
    assert [view.depth is not None for view in scene.views] == [False, False, True, False]
    assert scene.dropped == {
        "images that transforms.json does not list": 1,
        "depth images that are damaged or no 16-bit grey PNG": 2,
        "depth images that are missing": 1,
    }


def test_a_capture_that_was_turned_is_refused_and_smaller_copies_are_not(tmp_path: Path) -> None:
    _folder(tmp_path, "images")
    _table(tmp_path, _frames([f"images/{k:03d}.png" for k in range(3)]), **(K | {"w": 24, "h": 32, "cx": 12, "cy": 16}))
    (ref,), _, _ = _plan(tmp_path)
    with pytest.raises(Exception, match="the image is 32x24, its calibration is for 24x32, another shape"):
        SOURCE.read(ref)
    _table(
        tmp_path, _frames([f"images/{k:03d}.png" for k in range(3)]), **(K | {"w": 127, "h": 96, "cx": 64, "cy": 48})
    )
    assert len(_read(tmp_path).views) == 3


def test_a_picture_beside_videos_is_told_and_no_loss(tmp_path: Path) -> None:
    write_movie(tmp_path / "a.mp4", glide(6), range(0, 240, 40))
    _put(tmp_path, {"cover.png": _image(0)})
    (clip,), lost, (notice,) = _plan(tmp_path)
    assert not lost and "not used beside the videos" in notice.reason and clip.sequence == "a.mp4"
    _table(tmp_path, _frames(["cover.png"]), **K)
    assert len(_plan(tmp_path)[1]) == 1  # but poses that are lost are
