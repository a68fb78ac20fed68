"""Simulated KITTI odometry and KITTI-360: readers lead every point to its class, label and place in the truth."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.kitti import kitti360, odometry
from brickyard.ingest.kitti import raw as kitti_raw
from brickyard.ingest.kitti.kitti360_labels import TAXONOMY, classes_of, instances_of
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, SceneRef, Source
from brickyard.shards.cameras import project
from brickyard.shards.scene import Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

TINY = SimulationConfig(
    kitti_frames=0, kitti_drives=1, kitti_drive_frames=4, kitti_missing_scan=True, kitti_columns=120,
    kitti_image_size=(310, 94), kitti_odometry_sequences=3, kitti_odometry_frames=2, kitti360_drives=2,
    kitti360_frames=5, kitti360_image_size=(352, 94), kitti360_fisheye_size=160,
)  # fmt: skip
SMALLEST = SimulationConfig(
    kitti_columns=12, kitti_image_size=(62, 19), kitti_odometry_sequences=1, kitti_odometry_frames=2, kitti360_drives=1,
    kitti360_frames=2, kitti360_image_size=(70, 19), kitti360_fisheye_size=16,
)  # fmt: skip
CLIPS = ClipOptions(frames=3, overlap=1)
DRIVE, TEST_DRIVE = "2013_05_28_drive_0000_sync", "2013_05_28_drive_0008_sync"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    simulate(out, datasets=("kitti", "kitti_odometry", "kitti360"), seed=5, config=TINY)
    return out


def planned(source: Source, root: Path, options: object = None) -> list[SceneRef]:
    items = list(source.plan(Store(root), options or source.options()))
    assert not [item for item in items if isinstance(item, Missing)]
    return [item for item in items if isinstance(item, SceneRef)]


def truth_of(folder: Path) -> dict[str, NDArray[Any]]:
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    digests = []
    both = ("kitti_odometry", "kitti360")
    for name, seed, datasets in (("a", 3, both), ("b", 3, both[::-1]), ("c", 4, both)):
        simulate(tmp_path / name, datasets=datasets, seed=seed, config=SMALLEST)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        digest = hashlib.sha256()
        for path in files:
            digest.update(str(path.relative_to(tmp_path / name)).encode() + path.read_bytes())
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1] != digests[2]


def shares(scene: Scene, view: View, truth: dict[str, NDArray[Any]], shift: int = 0) -> tuple[int, int]:
    """(visible points whose class is within a pixel of where they are projected, all visible points in the image)."""
    assert scene.points is not None
    found = project(scene.points.xyz, view)
    label, depth = truth[f"{view.name}_label"], truth[f"{view.name}_depth"].astype(float)
    column, row = np.rint(np.nan_to_num(found.uv, nan=-9) + shift).astype(int).T
    inside = (column > 0) & (row > 0) & (column < view.width - 1) & (row < view.height - 1)
    column, row, own = column[inside], row[inside], truth["label"][inside]
    if view.camera_model == "mei":  # depth images of fisheyes hold distances: seen is what is not much farther
        seen = found.distance[inside] < depth[row, column] + 0.1 + 0.02 * depth[row, column]
    else:
        seen = truth[f"visible_{view.name}"][inside]
    near = np.zeros(len(own), np.bool_)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            near |= label[row + dy, column + dx] == own
    return int((near & seen).sum()), int(seen.sum())


@pytest.mark.parametrize("source", [odometry.SOURCE, kitti360.SOURCE], ids=lambda s: s.dataset)
def test_readers_carry_visible_points_onto_their_class(world: Path, source: Source) -> None:
    """Motion of the vehicle in raw scans (KITTI-360) moves some points off by more than a pixel."""
    good: dict[str, int] = {}
    shifted, total = good.copy(), good.copy()
    for ref in planned(source, world / source.dataset):
        scene = source.read(ref)
        truth = truth_of(world / "truth" / source.dataset / ref.scene_id)
        assert scene.points is not None and len(scene.points) == len(truth["label"])
        for view in scene.views:
            right, count = shares(scene, view, truth)
            good[view.name] = good.get(view.name, 0) + right
            total[view.name] = total.get(view.name, 0) + count
            shifted[view.name] = shifted.get(view.name, 0) + shares(scene, view, truth, shift=8)[0]
    assert sorted(good) == ["image_00", "image_01", "image_02", "image_03"][-len(good) :] and len(good) in (2, 4)
    for name, right in good.items():
        assert total[name] > 1000 and right / total[name] > 0.95, name
        assert shifted[name] < 0.98 * right, name


def test_odometry_labels_and_trajectories(world: Path) -> None:
    root = world / "kitti_odometry"
    refs = planned(odometry.SOURCE, root)
    assert [ref.split for ref in refs] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    names, moving = taxonomy("semantickitti19").classes, 0
    first: dict[str, Any] = {}
    for ref in refs:
        scene, truth = odometry.SOURCE.read(ref), truth_of(world / "truth/kitti_odometry" / ref.scene_id)
        start = first.setdefault(ref.sequence, truth["world_from_velo"])
        expected = np.linalg.inv(start) @ truth["world_from_velo"]
        np.testing.assert_allclose(scene.world_from_scene, expected, rtol=0, atol=1e-9)
        assert scene.points is not None
        if ref.sequence == "11":
            assert not scene.points.semantic and not scene.dropped
            continue
        raw = truth["raw"] & 0xFFFF
        by_hand = {10: "car", 252: "car", 18: "truck", 258: "truck", 257: "other-vehicle", 254: "person", 40: "road"}
        found = scene.points.semantic["semantickitti19"]
        for ident, name in by_hand.items():
            assert (found[raw == ident] == names.index(name)).all()
        np.testing.assert_array_equal(scene.points.instance, truth["raw"] >> 16)
        moving += int((raw >= 252).sum())
    assert moving > 100
    other = odometry.SOURCE.read(planned(odometry.SOURCE, root, odometry.Options(poses="kitti", sequences=("00",)))[1])
    apart = np.abs(other.world_from_scene - odometry.SOURCE.read(refs[1]).world_from_scene).max()
    assert 1e-4 < apart < 0.1


def test_kitti360_poses(world: Path) -> None:
    """Frames without a pose stay without, unless interpolation is asked for; then it is right to a few millimetres."""
    root, truth = world / "kitti360", world / "truth/kitti360"

    def poses(**options: Any) -> dict[str, tuple[float | None, dict[str, int]]]:
        found = {}
        for ref in planned(kitti360.SOURCE, root, kitti360.Options(drives=(DRIVE,), **options)):
            scene = kitti360.SOURCE.read(ref)
            expected = np.load(truth / ref.scene_id / "world_from_velo.npy")
            none = np.array_equal(scene.world_from_scene, np.eye(4))
            error = None if none else float(np.abs(scene.world_from_scene - expected).max())
            found[ref.scene_id[-1]] = error, dict(scene.dropped)
        return found

    exact = poses()
    assert sorted(exact) == ["1", "3", "4"] and all(e is not None and e < 1e-8 for e, _ in exact.values())
    every = poses(require_pose=False)
    assert [key for key, (error, _) in every.items() if error is None] == ["0", "2"]
    assert every["2"][1] == {"no pose": 1}
    filled = poses(interpolate=1)
    assert sorted(filled) == ["1", "2", "3", "4"]  # nothing is extrapolated to frame 0
    error, dropped = filled["2"]
    assert error is not None and 1e-8 < error < 0.005 and dropped == {"interpolated pose": 1}


def test_kitti360_label_images(world: Path) -> None:
    root = world / "kitti360"
    refs = planned(kitti360.SOURCE, root)
    assert {ref.sequence: ref.split for ref in refs} == {DRIVE: "train", TEST_DRIVE: "test"}
    for ref in refs:
        scene = kitti360.SOURCE.read(ref)
        truth = truth_of(world / "truth/kitti360" / ref.scene_id)
        labelled = [view.name for view in scene.views if view.semantic]
        assert labelled == (["image_00"] if ref.sequence == DRIVE else []) and not scene.dropped
        for view in scene.views[: len(labelled)]:
            raw = truth["image_00_label"].astype(np.int32)
            np.testing.assert_array_equal(view.semantic[TAXONOMY], classes_of(raw))
            assert view.instance is not None and set(np.unique(view.instance // 1000)) <= {0, 24, 26, 27, 28, 33}
    (without,) = planned(kitti360.SOURCE, root, kitti360.Options(drives=(DRIVE,), labels=False, every=4))
    assert not any(view.semantic for view in kitti360.SOURCE.read(without).views)
    assert classes_of(np.array([7, 26, 0, 38, 44, 4000, -5], np.int32)).tolist() == [0, 13, -1, -1, -1, -1, -1]
    assert instances_of(np.array([26000, 26003, 0, -1], np.int32)).tolist() == [0, 26003, 0, 0]


def test_kitti360_windows(world: Path) -> None:
    """Accumulated points, projected into the label images of posed views, meet their own class."""
    root = world / "kitti360"
    refs = planned(kitti360.SOURCE, root, kitti360.Options(scenes="windows", cameras=("image_00", "image_02")))
    assert [ref.scene_id for ref in refs] == [f"{d}/static/0000000001_0000000004" for d in (DRIVE, TEST_DRIVE)]
    scene, test = (kitti360.SOURCE.read(ref) for ref in refs)
    assert test.points is not None and not test.points.semantic and test.points.instance is None
    assert test.identity.split == "test" and len(test.views) == len(scene.views) == 6
    assert scene.points is not None and np.abs(scene.world_from_scene[:3, 3]).max() > 2000
    label, matches, count = scene.points.semantic[TAXONOMY], 0, 0
    for view in scene.views[::2]:
        found = project(scene.points.xyz, view)
        depth = np.load(world / "truth/kitti360" / DRIVE / f"{round_frame(view):010d}" / "image_00_depth.npy")
        column, row = np.rint(np.nan_to_num(found.uv, nan=-9)).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < view.width) & (row < view.height)
        near = np.abs(found.depth[inside] - depth[row[inside], column[inside]].astype(float)) < 0.15
        image = view.semantic[TAXONOMY][row[inside], column[inside]][near]
        matches += int((image == label[inside][near]).sum())
        count += int(near.sum())
    assert count > 500 and matches / count > 0.95


def round_frame(view: View) -> int:
    """Frame number of a view, from its time: the drive began half a second before its first frame at 2.5 s."""
    assert view.timestamp_ns is not None
    return round((view.timestamp_ns / 1e9 % 60 - 2.5) * 10)


MODES = [
    (odometry.SOURCE, "kitti_odometry", odometry.Options()),
    (odometry.SOURCE, "kitti_odometry", odometry.Options(clips=CLIPS)),
    (kitti_raw.SOURCE, "kitti/raw", kitti_raw.Options()),
    (kitti_raw.SOURCE, "kitti/raw", kitti_raw.Options(clips=CLIPS)),
    (kitti360.SOURCE, "kitti360", kitti360.Options(interpolate=2)),
    (kitti360.SOURCE, "kitti360", kitti360.Options(scenes="windows")),
    (kitti360.SOURCE, "kitti360", kitti360.Options(clips=CLIPS, require_pose=False)),
]


@pytest.mark.parametrize(("source", "folder", "options"), MODES)
def test_sources_keep_their_promises(world: Path, source: Source, folder: str, options: object) -> None:
    assert_source_ok(source, str(world / folder), options, scenes=2)
