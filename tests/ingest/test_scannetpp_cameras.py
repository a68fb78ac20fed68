"""Cameras of ScanNet++: COLMAP's conventions, the fisheye beside OpenCV's, nerfstudio's world, photographs left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from brickyard.ingest.scannetpp.colmap import PosedCamera, read_colmap
from brickyard.ingest.scannetpp.nerfstudio import find_world, read_transforms
from brickyard.ingest.simulate.scannetpp_files import nerfstudio_matrix
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.cameras import project
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from tests.ingest.scannetpp_toy import TEST, TRAIN, copy, scene, simulated, truth

CAMERA = "# a comment\n1 OPENCV_FISHEYE 1752 1168 616.721 617.354 878.593 589.767 .06109 .003350 .002988 -.001002\n"
QUATERNION, TRANSLATION = (0.5, -0.5, 0.5, -0.5), (0.3, -1.2, 2.0)
IMAGE = "7 0.5 -0.5 0.5 -0.5 0.3 -1.2 2 1 video/DSC00042.JPG\n"


def raw(root: Path) -> RawFiles:
    ref = SceneRef(dataset="scannetpp", scene_id="a", split="none", sequence="a", root=str(root), files={})
    return RawFiles(ref)


def colmap(root: Path, images: str, cameras: str = CAMERA) -> dict[str, PosedCamera]:
    (root / "cameras.txt").write_text(cameras)
    (root / "images.txt").write_text(images)
    return dict(read_colmap(raw(root), "cameras.txt", "images.txt"))


def test_poses_are_turned_around_and_half_a_pixel_is_taken_off(tmp_path: Path) -> None:
    (posed,) = colmap(tmp_path, IMAGE + "\n").values()
    w, *xyz = QUATERNION
    rotation = Rotation.from_quat([*xyz, w]).as_matrix()
    np.testing.assert_allclose(posed.scene_from_camera[:3, :3], rotation.T, atol=1e-12)
    np.testing.assert_allclose(posed.scene_from_camera[:3, 3], -rotation.T @ TRANSLATION, atol=1e-12)
    assert posed.camera.intrinsics.tolist() == [[616.721, 0, 878.093], [0, 617.354, 589.267], [0, 0, 1]]
    assert posed.camera.distortion == (0.06109, 0.003350, 0.002988, -0.001002) and posed.camera.model == "fisheye"


def test_points_fall_on_the_pixels_of_opencv(tmp_path: Path) -> None:
    """OpenCV counts from the centre of the first pixel, too, so it is given COLMAP's numbers less half a pixel."""
    (posed,) = colmap(tmp_path, IMAGE + "\n").values()
    rng = np.random.default_rng(0)
    world = rng.uniform(-4, 4, (3000, 3))
    camera_from_world = np.linalg.inv(posed.scene_from_camera)
    k = posed.camera.intrinsics
    theirs, _ = cv2.fisheye.projectPoints(
        world[:, None], cv2.Rodrigues(camera_from_world[:3, :3])[0], camera_from_world[:3, 3], k,
        np.array(posed.camera.distortion),
    )  # fmt: skip
    view = _view(posed)
    ours = project(world, view)
    ahead = ours.depth > 0.05
    assert ahead.sum() > 500 and np.abs(ours.uv - theirs[:, 0])[ahead].max() < 1e-6


def _view(posed: PosedCamera) -> Any:
    from brickyard.shards.scene import View

    return View(
        name="a", image=b"", image_format="jpeg", width=1752, height=1168, camera_model=posed.camera.model,
        intrinsics=posed.camera.intrinsics, distortion=posed.camera.distortion,
        scene_from_camera=posed.scene_from_camera,
    )  # fmt: skip


def test_images_without_points_have_an_empty_line_that_counts(tmp_path: Path) -> None:
    second = IMAGE.replace("00042", "00043").replace("7 0.5", "8 0.5")
    third = IMAGE.replace("video/", "").replace("00042", "00044")
    found = colmap(tmp_path, f"# x\n# Number of images: 3, mean\n{IMAGE}\n{second}1.5 2.5 -1 3 4 77\n{third}\n\n\n")
    assert list(found) == ["DSC00042", "DSC00043", "DSC00044"]


@pytest.mark.parametrize(
    ("images", "cameras", "reason"),
    [
        (
            IMAGE + "\n",
            CAMERA.replace("OPENCV_FISHEYE", "FOV"),
            "cameras.txt line 2: expected .*a model of OPENCV_FISH",
        ),
        (
            IMAGE + "\n",
            CAMERA.replace("616.721", "nan"),
            "cameras.txt line 2: a camera OPENCV_FISHEYE has a size and 8",
        ),
        (IMAGE + "\n", CAMERA.replace("1752", "0"), "cameras.txt line 2: no camera has the size"),
        (IMAGE + "\n", "", "cameras.txt: no camera is in it"),
        ("", CAMERA, "images.txt: no image is in it"),
        (IMAGE + "\n" + IMAGE + "\n", CAMERA, "images.txt line 3: DSC00042 is here twice"),
        (IMAGE.replace(" 1 video", " 2 video"), CAMERA, "images.txt line 1: .*a camera of cameras.txt"),
        (IMAGE.replace("7 0.5", "7 0.9"), CAMERA, "images.txt line 1: the quaternion of .* has not the length 1"),
        (IMAGE + IMAGE.replace("42", "43") + "\n", CAMERA, None),
        (
            "# Number of images: 2, mean observations per image: 0\n" + IMAGE + "\n",
            CAMERA,
            "declares 2 images and has 1",
        ),
        (IMAGE[:40] + "\0" * 512 + IMAGE[40:], CAMERA, "images.txt at byte 40: a block of zero bytes"),
    ],
)
def test_damaged_texts_are_refused(tmp_path: Path, images: str, cameras: str, reason: str | None) -> None:
    if reason is None:
        assert len(colmap(tmp_path, images, cameras)) == 1, "the second image stands where points belong"
        return
    with pytest.raises(RawDataError, match=reason):
        colmap(tmp_path, images, cameras)


# The world of nerfstudio's file


def test_the_vertices_tell_the_world_of_the_poses(tmp_path: Path) -> None:
    """Without COLMAP's files, poses come from transforms.json in either world, and are refused in a third one."""
    root = copy(tmp_path)
    folder = root / f"data/{TRAIN}/dslr"
    with_colmap = scene(root)
    for name in ("cameras.txt", "images.txt"):
        (folder / "colmap" / name).unlink()
    without = scene(root)
    assert [view.name for view in without.views] == [view.name for view in with_colmap.views]
    for one, other in zip(without.views, with_colmap.views, strict=True):
        np.testing.assert_allclose(one.scene_from_camera, other.scene_from_camera, atol=1e-6)
        np.testing.assert_allclose(one.intrinsics, other.intrinsics)
        assert one.distortion == other.distortion and one.camera_model == "fisheye"
    turned = np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    _every_matrix(folder, lambda matrix: turned @ matrix)
    for one, other in zip(scene(root).views, with_colmap.views, strict=True):
        np.testing.assert_allclose(one.scene_from_camera, other.scene_from_camera, atol=1e-6)
    _every_matrix(folder, lambda matrix: np.vstack([matrix[:3] * [[1, 1, 1, 0.05]] + [[0, 0, 0, 40]], [[0, 0, 0, 1]]]))
    lost = scene(root)
    assert not lost.views
    assert lost.dropped["photographs: transforms.json is in no world that puts its cameras among the vertices"] == 1


def _every_matrix(folder: Path, edit: Callable[[Any], Any]) -> None:
    path = folder / "nerfstudio/transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"] + content["test_frames"]:
        frame["transform_matrix"] = edit(np.array(frame["transform_matrix"])).tolist()
    path.write_text(json.dumps(content))


def test_the_worlds_map_is_the_one_that_is_documented(tmp_path: Path) -> None:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_euler("xyz", (0.3, -1.1, 2)).as_matrix(), (1, 2, 1.5)
    frame = {"file_path": "DSC00001.JPG", "transform_matrix": nerfstudio_matrix(pose)}
    (tmp_path / "t.json").write_text(json.dumps({"frames": [frame]}))
    found = read_transforms(raw(tmp_path), "t.json")
    xyz = np.array([[0, 0, 0], [3, 3, 3]], np.float32)
    assert find_world(found, xyz) == "nerfstudio's"
    centre = found.frames["DSC00001"].world_from_camera
    assert centre is not None and centre[:3, 3].tolist() == [2, 1, -1.5], "(y, x, -z)"


def test_poses_that_two_files_give_differently_are_counted(tmp_path: Path) -> None:
    root = copy(tmp_path)
    _every_matrix(root / f"data/{TRAIN}/dslr", lambda matrix: matrix + np.eye(4, k=3) * 0.1)
    assert scene(root).dropped["photograph whose pose in transforms.json is another than COLMAP's"] == 4


# What is left out


def test_a_scene_without_one_of_its_devices_has_the_others(tmp_path: Path) -> None:
    import shutil

    root = copy(tmp_path)
    shutil.rmtree(root / f"data/{TRAIN}/dslr")
    shutil.rmtree(root / f"data/{TEST}/iphone")
    phone, camera = (scene(root, name, iphone_views=4, max_hidden=1) for name in (TRAIN, TEST))
    assert phone.views and all(view.name.startswith("frame_") for view in phone.views)
    assert camera.views and all(view.name.startswith("DSC") for view in camera.views)
    assert phone.dropped["file not there: dslr/colmap/images.txt"] == 1
    assert camera.dropped["file not there: iphone/pose_intrinsic_imu.json"] == 1


def test_held_out_bad_and_absent_photographs(tmp_path: Path) -> None:
    root = copy(tmp_path)
    folder = root / f"data/{TRAIN}/dslr"
    (folder / "resized_images/DSC00005.JPG").unlink()
    found = scene(root, max_hidden=1.0)
    assert [view.name for view in found.views] == ["DSC00001", "DSC00004", "DSC00006"]
    assert found.dropped["photograph that is not there"] == found.dropped["photograph that is marked bad"] == 1
    assert "DSC00003" in [view.name for view in scene(root, test_views=True).views]
    (folder / "nerfstudio/transforms.json").unlink()
    found = scene(root, max_hidden=1.0)
    assert [view.name for view in found.views] == ["DSC00001", "DSC00002", "DSC00004", "DSC00006"]
    assert found.dropped["file not there: dslr/nerfstudio/transforms.json"] == 1, "nobody knows the bad ones now"
    (folder / "train_test_lists.json").unlink()
    what = "photographs: without train_test_lists.json and transforms.json nobody knows the held out ones"
    assert scene(root).dropped[what] == 1


def test_views_are_thinned_evenly() -> None:
    assert [view.name for view in scene(simulated()[0], dslr_views=2, max_hidden=1).views] == ["DSC00004", "DSC00006"]


def _image(root: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(root / f"data/{TRAIN}/dslr/resized_images/DSC00001.JPG")


def test_photographs_of_another_size_are_scaled_and_of_another_shape_refused(tmp_path: Path) -> None:
    root = copy(tmp_path)
    (root / f"data/{TRAIN}/dslr/resized_anon_masks/DSC00001.png").unlink()
    _image(root, (438, 292))
    view = scene(root).views[0]
    fx, cx = 616.721 * 219 / 1752, 878.593 * 219 / 1752
    assert view.width == 438 and view.intrinsics[0, 0] == pytest.approx(2 * fx)
    assert view.intrinsics[0, 2] == pytest.approx(2 * cx - 0.5)
    assert scene(root).dropped["photograph without its mask of painted-over pixels"] == 1
    _image(root, (146, 219))
    with pytest.raises(
        RawDataError, match=r"DSC00001\.JPG: the photograph is 146x219, its camera 219x146, another shape"
    ):
        scene(root)


def test_poses_outside_of_the_scene_are_left_out(tmp_path: Path) -> None:
    root = copy(tmp_path)
    path = root / f"data/{TRAIN}/dslr/colmap/images.txt"
    lines = path.read_text().splitlines()
    place = next(k for k, line in enumerate(lines) if line.endswith("DSC00001.JPG"))
    words = lines[place].split()
    lines[place] = " ".join([*words[:5], "90", *words[6:]])
    path.write_text("\n".join(lines) + "\n")
    found = scene(root)
    assert found.dropped["photograph taken outside of the scene"] == 1
    assert "DSC00001" not in [view.name for view in found.views]


# The phone


def phone(root: Path, edit: Callable[[dict[str, Any]], object]) -> Scene:
    path = root / f"data/{TRAIN}/iphone/pose_intrinsic_imu.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return scene(root, dslr="none", iphone_views=8, max_hidden=1)


def test_frames_with_an_invalid_pose_are_counted(tmp_path: Path) -> None:
    root = copy(tmp_path)
    found = phone(root, lambda c: (c["frame_000000"].pop("aligned_pose"), c["frame_000005"].update(aligned_pose=[1])))
    assert found.dropped["frame of the phone with an invalid pose"] == 2
    assert [view.name[-1] for view in found.views] == ["1", "2", "4", "6", "7"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c.pop("frame_000003"), "pose_intrinsic_imu.json: .*7 frames whose numbers are not 0, 1, 2"),
        (lambda c: c.pop("frame_000007"), r"cannot be decoded: it has 8 frames, 7 have a pose|8 depth images"),
        (lambda c: c.update(frame_8={}), "pose_intrinsic_imu.json: expected frame_000000 and so on"),
        (lambda c: c["frame_000001"].update(intrinsic=[[1]]), "frame_000001: intrinsic is no camera matrix"),
        (lambda c: c["frame_000001"].update(timestamp=-1), "frame_000001: timestamp -1.0 is none"),
    ],
)
def test_poses_that_do_not_fit_the_film_are_refused(tmp_path: Path, edit: Callable[[Any], object], reason: str) -> None:
    with pytest.raises(RawDataError, match=reason):
        phone(copy(tmp_path), edit)


def test_frames_are_taken_by_number_whatever_the_order_of_the_film(tmp_path: Path) -> None:
    """B-frames, two key frames apart: each picture is the one of its number."""
    found = scene(simulated()[0], dslr="none", iphone_views=8, max_hidden=1, min_agreement=0, read_depth=False)
    assert [int(view.name[-2:]) for view in found.views] == list(range(8))
    assert all(view.depth is None for view in found.views)
    assert len(truth(TRAIN, "frames")) == 8


def test_without_pyav_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brickyard.ingest.scannetpp.phone.find_spec", lambda name: None)
    with pytest.raises(RawDataError, match=r"rgb.*mkv: films are decoded with PyAV.*pip install 'brickyard\[ingest\]'"):
        scene(simulated()[0], dslr="none", iphone_views=1)
