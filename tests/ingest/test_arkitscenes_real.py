"""What is public of the real ARKitScenes: its lists, and two lines of trajectories with the turns their makers name."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.arkitscenes import SOURCE
from brickyard.ingest.arkitscenes.table import OFFICIAL, WITHOUT_MESH, digest, read_table
from brickyard.ingest.arkitscenes.trajectory import quarter_turns, read_trajectory
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef
from brickyard.shards.storage import Store

pytestmark = pytest.mark.real
PLACES = {"3dod": "threedod/3dod_train_val_splits.csv", "raw": "raw/raw_train_val_splits.csv"}


@pytest.fixture
def root(samples: Path) -> Path:
    return samples / "arkitscenes"


@pytest.mark.parametrize("subset", ["3dod", "raw"])
def test_the_official_lists_are_known(root: Path, subset: str) -> None:
    table = read_table(Store(root), subset)
    counts = tuple(sum(row.fold == fold for row in table.captures.values()) for fold in ("Training", "Validation"))
    assert (counts, digest(table.captures)) == OFFICIAL[subset] and table.path == PLACES[subset]
    (torn,) = table.told
    assert isinstance(torn, Notice) and "visit 381879 lies in both folds" in torn.reason
    for video in ("41159521", "41159526", "41159519", "41159525"):
        assert video in torn.reason
    plain = {row["video_id"]: row for row in csv.DictReader((root / PLACES[subset]).open())}
    assert {video: (row.visit or "NA", row.fold) for video, row in table.captures.items()} == {
        video: (row["visit_id"], row["fold"]) for video, row in plain.items()
    }
    assert sum(not row.visit for row in table.captures.values()) == 8


def test_raw_has_24_captures_more_and_they_are_those_without_mesh(root: Path) -> None:
    raw, threedod = (set(read_table(Store(root), subset).captures) for subset in ("raw", "3dod"))
    assert raw - threedod == {str(video) for video in WITHOUT_MESH} and not threedod - raw


def test_an_empty_download_misses_5047_captures(root: Path, tmp_path: Path) -> None:
    (tmp_path / "3dod/Training").mkdir(parents=True)
    shutil.copyfile(root / PLACES["3dod"], tmp_path / "3dod/3dod_train_val_splits.csv")
    items = list(SOURCE.plan(Store(tmp_path), SOURCE.options()))
    assert sum(type(item) is Missing for item in items) == 5047
    assert [
        item.reason for item in SOURCE.plan(Store(tmp_path), SOURCE.options(partial=True)) if "partial" in item.reason
    ]


@pytest.mark.parametrize(("video", "turns"), [("41048143", 2), ("41048169", 1)])
def test_real_poses_are_world_to_camera_and_z_is_up(root: Path, video: str, turns: int) -> None:
    """The turns are those that the official script names; poses read the other way round exchange them."""
    ref = SceneRef(dataset="arkitscenes", scene_id=video, split="none", sequence=video, root=str(root), files={})
    files = RawFiles(ref)
    found = read_trajectory(files, f"assembled/{video}/lowres_wide.traj", {})
    assert len(found.times) == 1 and quarter_turns(found.poses[0]) == turns
    assert quarter_turns(np.linalg.inv(found.poses[0])) == 3 - turns
    assert np.linalg.norm(found.poses[0][:3, 3]) < 0.075
