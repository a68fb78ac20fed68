"""Predictions back in the order, number and names of the raw files, dataset by dataset; nuScenes by its own devkit."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.evaluate.predictions.predicted import Predicted
from brickyard.infra.answers import write
from brickyard.infra.answers.write import Wanted
from brickyard.ingest.waymo.wire import Message
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.shards.scene_list import SceneList
from brickyard.shards.storage import Store
from tests.infra.answers.raw_worlds import corpus_of, drawn, write_raw
from tests.ingest import nuscenes_toy, scannet_toy, waymo_toy
from tests.ingest.test_s3dis import OBJECTS, ROOM

WORLDS = ("scannet", "nuscenes", "s3dis", "semantickitti", "waymo", "waymo_v2")
COUNTS = {"scannet": 1, "nuscenes": 3, "s3dis": 1, "semantickitti": 2, "waymo": 2, "waymo_v2": 2}


def target_of(world: str) -> str:
    return world.removesuffix("_v2")


@pytest.fixture(autouse=True)
def guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a network, classes that are mostly right."""

    def guess(model: Any, corpus: Corpus, target: Any, rows: np.ndarray) -> Iterator[Predicted]:
        for row in rows.tolist():
            yield Predicted(row=row, classes=drawn(corpus, target, row))

    monkeypatch.setattr(write, "predicted", guess)


def answered(world: str, tmp_path: Path, corpus: Corpus | None = None, **changed: Any) -> dict[str, Any]:
    raw = tmp_path / "raw"
    if corpus is None:
        corpus = corpus_of(world, write_raw(world, raw), tmp_path / "corpus")
    target: Any = target_of(world)
    given: dict[str, Any] = {"target": target, "split": "val", "out": tmp_path / "out", "raw": Store(raw)}
    return Wanted(corpus, **(given | changed)).write(None, target)  # type: ignore[arg-type]


@pytest.mark.parametrize("world", WORLDS)
def test_every_raw_point_of_the_split_is_answered(world: str, tmp_path: Path) -> None:
    result = answered(world, tmp_path)
    assert result["files"] == COUNTS[world] and 0 < result["scores"]["miou"] < 1
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["points"] == result["points"]
    files = sorted(path for path in (tmp_path / "out" / "files").rglob("*") if path.is_file())
    names = [path.relative_to(tmp_path / "out" / "files").as_posix() for path in files]
    if world == "scannet":
        assert names == [f"{scannet_toy.SCAN}.txt"] and len(files[0].read_text().splitlines()) == len(scannet_toy.XYZ)
    elif world == "s3dis":
        lines = sum(data.count(b"\n") for data in OBJECTS.values())
        assert names == [f"{ROOM}.txt"] and len(files[0].read_text().splitlines()) == lines
    elif world == "semantickitti":
        assert names == [f"sequences/08/predictions/{k:06d}.label" for k in range(2)]
        scans = [tmp_path / "raw" / "sequences" / "08" / "velodyne" / f"{path.stem}.bin" for path in files]
        assert [4 * path.stat().st_size for path in files] == [scan.stat().st_size for scan in scans]


def test_the_nuscenes_devkit_takes_and_scores_it_alike(tmp_path: Path) -> None:
    from nuscenes.eval.lidarseg.evaluate import LidarSegEval
    from nuscenes.eval.lidarseg.validate_submission import validate_submission
    from nuscenes.nuscenes import NuScenes

    result = answered("nuscenes", tmp_path, about={"use_camera": True})
    tables = NuScenes(nuscenes_toy.VERSION, str(tmp_path / "raw"), verbose=False)
    files = str(tmp_path / "out" / "files")
    validate_submission(tables, files, "mini_val", zip_out=None)
    theirs = LidarSegEval(tables, files, "mini_val").evaluate()
    assert theirs["miou"] == pytest.approx(result["scores"]["tool_miou"], abs=1e-6)
    for name, iou in result["scores"]["tool_iou"].items():
        expected = np.nan if iou is None else iou
        assert theirs["iou_per_class"][name] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert 0 < theirs["miou"] < 1


def test_of_ten_sweeps_only_the_keyframe_is_answered(tmp_path: Path) -> None:
    raw = write_raw("nuscenes", tmp_path / "raw")
    result = answered("nuscenes", tmp_path, corpus_of("nuscenes", raw, tmp_path / "corpus", sweeps=3))
    assert result["points"] == 3 * nuscenes_toy.POINTS
    sizes = {path.stat().st_size for path in (tmp_path / "out" / "files" / "lidarseg" / "mini_val").iterdir()}
    assert sizes == {nuscenes_toy.POINTS}


@pytest.mark.parametrize("world", ["waymo", "waymo_v2"])
def test_waymos_classes_stand_in_the_pixels_of_the_truth(world: str, tmp_path: Path) -> None:
    """Where the class is right, its pixel is the one that the toy drive labelled."""
    answered(world, tmp_path)
    data = (tmp_path / "out" / "predictions.bin").read_bytes()
    frames = Message(memoryview(data)).messages(1, "SegmentationFrame")
    drive = {frame.timestamp: frame for frame in (waymo_toy.toy_frame(0), waymo_toy.toy_frame(2))}
    assert sorted(frame.integer(3) for frame in frames) == sorted(drive)
    for frame in frames:
        assert bytes(frame.data(2)).decode() == waymo_toy.SEGMENT
        toy, (laser,) = drive[frame.integer(3)], frame.messages(1, "Laser")
        for echo in (1, 2):
            matrix = Message(memoryview(zlib.decompress(laser.message(echo + 1, "RangeImage").data(6))))
            classes = matrix.integers(1).reshape(*waymo_toy.SHAPES[1], 2)[..., 1]
            measured, truth = toy.images[1, echo][..., 0] > 0, toy.labels[1, echo][..., 1]
            assert np.array_equal(classes > 0, measured)
            assert (classes == truth)[measured & (truth > 0)].mean() > 0.5


def test_waymos_test_frames_are_a_list(tmp_path: Path) -> None:
    time = waymo_toy.toy_frame(1).timestamp
    listed = SceneList("list.txt", frozenset({f"{waymo_toy.SEGMENT},{time}"}))
    result = answered("waymo", tmp_path, scenes=listed)
    assert (result["files"], result["scores"]) == (1, None)  # nobody labelled that one
    with pytest.raises(RecipeError, match=r"no scene .* that list\.txt lists"):
        answered("waymo", tmp_path / "more", scenes=SceneList("list.txt", frozenset({"1,2"})))


def refused(world: str, tmp_path: Path, problem: str, **changed: Any) -> None:
    with pytest.raises(BrickyardError, match=problem):
        answered(world, tmp_path, **changed)
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_a_scene_that_lost_points_is_refused_by_name(tmp_path: Path) -> None:
    raw = write_raw("semantickitti", tmp_path / "raw")
    scan = raw / "sequences" / "08" / "velodyne" / "000001.bin"
    records = np.fromfile(scan, "<f4").reshape(-1, 4)
    records[7, 0] = np.nan
    scan.write_bytes(records.tobytes())
    corpus = corpus_of("semantickitti", raw, tmp_path / "corpus")
    refused("semantickitti", tmp_path, "08/000001: 239 points .* for 240 .*1 non-finite points", corpus=corpus)

    raw = write_raw("nuscenes", tmp_path / "nuscenes" / "raw")
    corpus = corpus_of("nuscenes", raw, tmp_path / "nuscenes" / "corpus", min_range=1.0)
    refused("nuscenes", tmp_path / "nuscenes", r"scene-0103/s0: \d+ points .* within min_range", corpus=corpus)


@pytest.mark.parametrize("changed", [{"returns": 1}, {"lasers": ("FRONT", "REAR")}])
def test_waymo_without_all_pixels_of_top_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    raw = write_raw("waymo", tmp_path / "raw")
    corpus = corpus_of("waymo", raw, tmp_path / "corpus", **changed)
    refused("waymo", tmp_path, r"are not all that the top laser measured|no scene of", corpus=corpus)


@pytest.mark.parametrize("world", ["semantickitti", "scannet", "nuscenes"])
def test_other_raw_files_than_the_builds_are_refused(world: str, tmp_path: Path) -> None:
    raw = write_raw(world, tmp_path / "raw")
    corpus = corpus_of(world, raw, tmp_path / "corpus")
    pattern = {"semantickitti": "08/velodyne/*1.bin", "scannet": "*clean_2.ply", "nuscenes": "samples/*/*.pcd.bin"}
    file = sorted(raw.rglob(pattern[world]))[-1]
    file.write_bytes(file.read_bytes() + bytes(80))
    refused(world, tmp_path, r"\d+ bytes, and \d+ bytes were read", corpus=corpus)
    file.unlink()
    refused(world, tmp_path / "gone", "is not there, and", corpus=corpus, raw=Store(raw))


def test_what_the_corpus_cannot_say_asks_for_the_raw_files(tmp_path: Path) -> None:
    for world in ("scannet", "nuscenes", "s3dis", "waymo"):
        with pytest.raises(RecipeError, match="give the dataset's root with --raw"):
            answered(world, tmp_path / world, raw=None)
    assert answered("semantickitti", tmp_path / "kitti", raw=None)["files"] == 2


REAL = {  # world -> (folder of the samples, split, options, points that their files hold)
    "scannet": ("scannet", "train", {"max_frames": 0}, 81_369 + 67_465),
    "nuscenes": ("nuscenes", "train", {"cameras": ()}, 34_688),
    "waymo": ("waymo/v1_assembled", "none", {"cameras": ()}, 166_857),
    "waymo_v2": ("waymo/v2_assembled", "none", {"cameras": ()}, 166_857),
    "s3dis": ("s3dis/Stanford3dDataset_v1.2_Aligned_Version", "val", {}, 175_538),
    "semantickitti": ("kitti/odometry/dataset", "train", {"cameras": ()}, 124_668),
}


@pytest.mark.real
@pytest.mark.parametrize("world", REAL)
def test_real_files_are_answered_point_by_point(world: str, samples: Path, tmp_path: Path) -> None:
    folder, split, options, points = REAL[world]
    corpus = corpus_of(world, samples / folder, tmp_path / "corpus", **options)
    result = answered(world, tmp_path, corpus, split=split, raw=Store(samples / folder))
    assert result["points"] == points and 0 < result["scores"]["miou"] < 1
