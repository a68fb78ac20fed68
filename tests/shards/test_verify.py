"""The deep check finds what digests cannot: bytes that were written exactly, of scenes that are wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import EncodedScene, encode_scene
from brickyard.shards.scene import Correspondences, Identity, Points, RollingShutter, Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.verify import Report, verify

POINTS, FOCAL = 400, 300.0


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    """A texture, encoded."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3))
    stream = io.BytesIO()
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


def seen_scene() -> Scene:
    """Points in front of a camera that looks along z from (0, 0, -2), and the pixels where it sees them."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-1, -0.6, 1), (1, 0.6, 6), (POINTS, 3)).astype(np.float32)
    intrinsics = np.array([[FOCAL, 0, 400], [0, FOCAL, 300], [0, 0, 1]])
    pose = np.eye(4)
    pose[2, 3] = -2
    local = xyz + np.array([0, 0, 2], np.float32)
    pixel = np.rint(local[:, :2] / local[:, 2:] * FOCAL + (400, 300)).astype(np.uint16)
    pairs = Correspondences(
        point=np.arange(POINTS, dtype=np.int32),
        pixel=pixel,
        depth=local[:, 2].copy(),
        visible=np.ones(POINTS, bool),
        provenance="computed by hand",
    )
    view = View(
        name="front", image=picture(800, 600), image_format="png", width=800, height=600, intrinsics=intrinsics,
        scene_from_camera=pose, timestamp_ns=None, pairs=pairs,
    )  # fmt: skip
    identity = Identity(
        dataset="toy", version="1", split="train", sequence="s", scene_id="room", domain="indoor", licence="CC0-1.0",
        timestamp_ns=None,
    )  # fmt: skip
    return Scene(identity=identity, world_from_scene=np.eye(4), points=Points(xyz=xyz), views=(view,))


def verified(folder: Path, scene: Scene | EncodedScene) -> Report:
    store, build = Store(folder), fingerprint_digest({})
    start_build(store, {})
    encoded = scene if isinstance(scene, EncodedScene) else encode_scene(scene)
    commit_task(store, 0, build, [encoded], [])
    finish_build(store, 1, build, [], {})
    assert verify(Corpus.open(folder)).problems == ()  # every byte is as it was written
    return verify(Corpus.open(folder), deep=True)


def moved(pixels: int) -> Callable[[Correspondences], Correspondences]:
    def move(pairs: Correspondences) -> Correspondences:
        pixel = pairs.pixel.copy()
        pixel[17, 0] = int(pixel[17, 0]) + pixels
        return replace(pairs, pixel=pixel)

    return move


def deeper(pairs: Correspondences) -> Correspondences:
    depth = pairs.depth.copy()
    depth[17] += 0.05
    return replace(pairs, depth=depth)


def test_a_scene_that_is_right_has_no_problems(tmp_path: Path) -> None:
    assert verified(tmp_path, seen_scene()).problems == ()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(moved(4), "off by"), (moved(-4), "off by"), (deeper, "behind the camera or at another depth")],
)
def test_one_wrong_correspondence_is_found(
    tmp_path: Path, wrong: Callable[[Correspondences], Correspondences], words: str
) -> None:
    scene = seen_scene()
    view = scene.views[0]
    assert view.pairs is not None
    (problem,) = verified(tmp_path, replace(scene, views=(replace(view, pairs=wrong(view.pairs)),))).problems
    assert "toy/room" in problem and "front" in problem and words in problem


def test_a_wrong_pose_is_found(tmp_path: Path) -> None:
    scene = seen_scene()
    pose = scene.views[0].scene_from_camera
    assert pose is not None
    shifted = pose.copy()
    shifted[0, 3] += 0.1
    assert verified(tmp_path, replace(scene, views=(replace(scene.views[0], scene_from_camera=shifted),))).problems


CAMERAS: dict[str, dict[str, Any]] = {
    "distorted, rolling": {
        "camera_model": "opencv",
        "distortion": (-0.2, 0.05, 0.001, -0.001, 0.0),
        "rolling_shutter": RollingShutter(
            direction="down", readout_s=0.04, velocity=np.array([12.0, 0, 3]), angular_velocity=np.array([0, 0.5, 0])
        ),
    },
    "fisheye": {"camera_model": "mei", "distortion": (1.5, 0.01, 0.02, 0.001, 0.001)},
}


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("rolling", [True, False])
def test_every_camera_model_is_reprojected(tmp_path: Path, name: str, rolling: bool) -> None:
    scene = seen_scene()
    scene = replace(scene, views=(replace(scene.views[0], pairs=None, **CAMERAS[name]),))
    scene = add_correspondences(scene, CorrespondenceConfig(rolling_shutter=rolling))
    pairs = scene.views[0].pairs
    assert pairs is not None
    assert len(pairs) > 200
    assert verified(tmp_path / "right", scene).problems == ()
    wrong = replace(scene, views=(replace(scene.views[0], pairs=moved(3)(pairs)),))
    (problem,) = verified(tmp_path / "wrong", wrong).problems
    assert "a correspondence is off by" in problem


def blanked(data: bytes, place: float, length: int = 600) -> bytes:
    start = int(len(data) * place)
    return data[:start] + bytes(length) + data[start + length :]


@pytest.mark.parametrize(
    ("image", "changes", "words"),
    [
        (blanked(picture(800, 600), 0.5), {}, "the checksum of the PNG chunk 'IDAT' is wrong"),
        (blanked(picture(800, 600, "JPEG"), 0.5), {"image_format": "jpeg"}, "bytes of image data or more are all 00"),
        (picture(800, 600, "JPEG")[:-2], {"image_format": "jpeg"}, "truncated"),
        (picture(800, 600, "JPEG"), {}, "jpeg of 800x600, the scene promises png of 800x600"),
        (picture(640, 600), {}, "png of 640x600, the scene promises png of 800x600"),
    ],
)
def test_every_image_is_decoded(tmp_path: Path, image: bytes, changes: dict[str, Any], words: str) -> None:
    scene = seen_scene()
    (problem,) = verified(tmp_path, replace(scene, views=(replace(scene.views[0], image=image, **changes),))).problems
    assert "toy/room" in problem and "front" in problem and words in problem


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("dataset", "other"), ("scene_id", "hall"), ("split", "val"), ("sequence", "t"), ("licence", "MIT"),
        ("version", "2"), ("domain", "outdoor"), ("timestamp_ns", 7),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_the_index_is_found(tmp_path: Path, column: str, value: object) -> None:
    """The scene's own header is that of another identity, written exactly and with the right digests."""
    scene = seen_scene()
    encoded = encode_scene(scene)
    other = encode_scene(replace(scene, identity=replace(scene.identity, **{column: value})))
    problems = verified(tmp_path, replace(encoded, header=other.header)).problems
    assert any(f"{column} is {value}, the index says " in problem for problem in problems)
    assert all("toy/room" in problem for problem in problems)


@pytest.mark.parametrize("column", ["n_points", "n_views", "n_pairs", "bounds_max", "raw_bytes", "dropped"])
def test_a_row_of_the_index_that_lies_is_found(tmp_path: Path, column: str) -> None:
    encoded = encode_scene(seen_scene())
    lies = {"bounds_max": [9.0, 9.0, 9.0], "dropped": '{"points": 3}'}
    summary = encoded.summary | {column: lies.get(column, 5)}
    problems = verified(tmp_path, replace(encoded, summary=summary)).problems
    assert any(f"{column} is " in problem for problem in problems)
