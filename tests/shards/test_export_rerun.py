"""Rerun recordings, read back by the SDK that the viewer shares: values, places in time, and what must not linger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun.dataframe

from brickyard.infra.cli import main
from brickyard.shards.corpus import Corpus
from brickyard.shards.export.rerun import export_rerun, recording_bytes
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from tests.worlds import toy_corpus, toy_scene

ROOT = "/scenes/toy/scene-000"
TAXONOMY = taxonomy("nuscenes16")


def rows(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what is always there, what was logged for each view) of a recording: column -> value."""
    recording = rerun.dataframe.load_recording(path)
    view = recording.view(index="view", contents="/**", include_tombstone_columns=True)
    (static,) = view.select_static().read_all().to_pylist()
    return static, view.select().read_all().to_pylist()


def recorded(path: Path, scene: Scene) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path.write_bytes(recording_bytes(scene, "corpus"))
    return rows(path)


def rgb(packed: list[int]) -> np.ndarray:
    """uint8 (N, 3) of Rerun's 0xRRGGBBAA."""
    return np.array(packed, ">u4").view(np.uint8).reshape(-1, 4)[:, :3]


def test_points_have_their_colours_and_their_classes(tmp_path: Path) -> None:
    scene = toy_scene(0)
    static, _ = recorded(tmp_path / "a.rrd", scene)
    points = scene.points
    assert points is not None and points.color is not None
    assert np.array_equal(np.array(static[f"{ROOT}/points:Position3D"], np.float32), points.xyz)
    assert np.array_equal(rgb(static[f"{ROOT}/points:Color"]), points.color)
    labels = points.semantic["nuscenes16"]
    named = f"{ROOT}/points/nuscenes16"
    assert np.array_equal(np.array(static[f"{named}:Position3D"], np.float32), points.xyz)
    ids = np.array(static[f"{named}:ClassId"])
    assert (labels == -1).any() and np.array_equal(np.where(ids == 16, -1, ids), labels)
    (context,) = static[f"{named}:AnnotationContext"]
    infos = [entry["class_description"]["info"] for entry in context]
    assert [info["id"] for info in infos] == list(range(17))
    assert [info["label"] for info in infos] == [*TAXONOMY.classes, "unlabelled"]
    assert np.array_equal(rgb([info["color"] for info in infos]), [*TAXONOMY.palette, (128, 128, 128)])
    (text,) = static[f"{ROOT}:Text"]
    assert text == "toy/scene-000, train, sequence walk-0; licence: CC0-1.0"


def test_cameras_have_their_place_picture_and_labels(tmp_path: Path) -> None:
    scene = toy_scene(0)
    turn = np.array([[0, 0, 1.0, 4], [-1, 0, 0, 5], [0, -1, 0, 6], [0, 0, 0, 1]])
    scene = replace(scene, views=tuple(replace(view, scene_from_camera=turn) for view in scene.views))
    _, found = recorded(tmp_path / "a.rrd", scene)
    assert [row["view"] for row in found] == [0, 1]
    for number, view in enumerate(scene.views):
        row, camera = found[number], f"{ROOT}/cameras/camera-{number}"
        assert row[f"{camera}:Translation3D"] == [[4, 5, 6]]
        assert np.array_equal(np.reshape(row[f"{camera}:TransformMat3x3"], (3, 3)).T, turn[:3, :3])  # by columns
        pinhole = np.reshape(row[f"{camera}/image:PinholeProjection"], (3, 3)).T
        assert np.array_equal(pinhole, [[50, 0, 32.5], [0, 50, 20.5], [0, 0, 1]])
        assert row[f"{camera}/image:Resolution"] == [[64, 40]]
        assert bytes(row[f"{camera}/image:Blob"][0]) == view.image
        assert row[f"{camera}/image:MediaType"] == ["image/png"]
        assert view.superpixels is not None
        pixels = np.array(row[f"{camera}/image/superpixels:ImageBuffer"][0], np.uint8).view("<u2")
        assert np.array_equal(pixels, view.superpixels.labels.ravel())
    labels = np.array(found[0][f"{ROOT}/cameras/camera-0/image/nuscenes16:ImageBuffer"][0], np.uint8).view("<u2")
    assert np.array_equal(np.where(labels == 16, -1, labels), scene.views[0].semantic["nuscenes16"].ravel())
    depth, path = scene.views[1].depth, f"{ROOT}/cameras/camera-1/depth"
    assert depth is not None and found[1][f"{path}:DepthMeter"] == [1000]
    values = np.array(found[1][f"{path}:ImageBuffer"][0], np.uint8).view("<u2")
    assert np.array_equal(values, depth.values.ravel()) and found[1][f"{path}:Resolution"] == [[40, 30]]


def test_frames_are_one_camera_and_nothing_of_the_last_frame_lingers(tmp_path: Path) -> None:
    scene = toy_scene(0)
    views = tuple(replace(scene.views[1 - n % 2], name=f"frame-{n:06d}") for n in range(3))
    _, found = recorded(tmp_path / "a.rrd", replace(scene, views=views))
    assert {column.split(":")[0] for column in found[0] if "/cameras/" in column} >= {f"{ROOT}/cameras/frames"}
    assert not [column for column in found[0] if "frame-" in column]
    assert [bool(row[f"{ROOT}/cameras/frames/depth:ImageBuffer"]) for row in found] == [True, False, True]
    assert [row[f"{ROOT}/cameras/frames:ClearIsRecursive"] for row in found] == [None, [True], [True]]


def test_a_view_without_a_pose_and_a_fisheye_are_pictures(tmp_path: Path) -> None:
    scene = toy_scene(0)
    distortion = np.zeros(5)
    views = (
        replace(scene.views[0], scene_from_camera=None),
        replace(scene.views[0], name="fisheye", camera_model="mei", distortion=distortion),
    )
    _, found = recorded(tmp_path / "a.rrd", replace(scene, views=views, points=None))
    assert not any(column.startswith(f"{ROOT}/cameras/camera-0:") for column in found[0])
    assert f"{ROOT}/cameras/fisheye/image:PinholeProjection" not in found[1]
    assert bytes(found[1][f"{ROOT}/cameras/fisheye/image:Blob"][0]) == scene.views[0].image
    assert not any("/points" in column for column in found[0])


def test_classes_of_an_unknown_taxonomy_are_numbers(tmp_path: Path) -> None:
    scene = toy_scene(0)
    assert scene.points is not None
    labels = np.array([-1, 3] * 200, np.int16)
    scene = replace(scene, points=replace(scene.points, semantic={"mine": labels}), views=())
    path = tmp_path / "a.rrd"
    path.write_bytes(recording_bytes(scene, "corpus"))
    table = rerun.dataframe.load_recording(path).view(index="log_time", contents="/**").select_static().read_all()
    (static,) = table.to_pylist()
    assert static[f"{ROOT}/points/mine:ClassId"] == [4, 3] * 200
    infos = [e["class_description"]["info"] for e in static[f"{ROOT}/points/mine:AnnotationContext"][0]]
    assert [info["label"] for info in infos] == ["0", "1", "2", "3", "unlabelled"]


def test_an_export_goes_on_and_its_recordings_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_corpus(tmp_path / "c", scenes=3)
    words = ["export", str(tmp_path / "c"), "--to", "rerun", "--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scenes"], result["points"], result["views"]) == (3, 1200, 6)
    paths = sorted((tmp_path / "out/train").iterdir())
    assert [path.name for path in paths] == [f"scene-{n:03d}.rrd" for n in range(3)]
    corpus = Corpus.open(tmp_path / "c")
    ids = {rerun.dataframe.load_recording(path).recording_id() for path in paths}
    assert ids == {corpus.manifest["digest"]}
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    export_rerun(corpus, Store(tmp_path / "out"))
    after = [path.read_bytes() for path in paths]
    assert after[0] == before[0] and after[2] == before[2] and len(after[1]) > 10_000
    assert "CC0-1.0: toy" in (tmp_path / "out/LICENCES.txt").read_text()
