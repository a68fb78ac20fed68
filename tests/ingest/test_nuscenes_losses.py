"""nuScenes with files missing, cut off, or damaged in two thousand ways: counted, refused or missing, never a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.source import SceneRef
from tests.ingest.mutation import assert_survives
from tests.ingest.nuscenes_toy import VERSION, edit, planned, write_dataset


def _files(root: Path, *patterns: str) -> list[str]:
    return [str(min(root.glob(pattern)).relative_to(root)) for pattern in patterns]


def test_damaged_payloads_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, cameras=CAMERAS[:1], keyframes=2, between=1)
    paths = _files(
        tmp_path, "samples/LIDAR_TOP/*", "sweeps/LIDAR_TOP/*", "lidarseg/*/*", "panoptic/*/*", "samples/CAM_FRONT/*"
    )
    found = assert_survives(SOURCE, tmp_path, paths, options=Options(sweeps=2), count=1100)
    assert found.scenes > 200 and found.errors > 200 and found.missing == 0


def test_damaged_tables_end_in_a_plan_or_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, cameras=CAMERAS[:1], keyframes=2, between=1)
    tables = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "category", "lidarseg")
    paths = [f"{VERSION}/{table}.json" for table in (*tables, "panoptic")]
    found = assert_survives(SOURCE, tmp_path, paths, options=Options(sweeps=3), count=1100)
    assert found.scenes > 200 and found.missing > 500, "damage costs rows, not tables"


def test_missing_and_lost_sweeps_are_counted(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=2, between=9)
    options = Options(sweeps=10)
    files = sorted((tmp_path / "sweeps" / "LIDAR_TOP").iterdir())
    files[-2].unlink()  # the second before the keyframe
    files[-3].write_bytes(files[-3].read_bytes()[:-7])
    files[-4].write_bytes(b"")
    first, second = planned(tmp_path, options)
    assert isinstance(first, SceneRef) and isinstance(second, SceneRef)
    assert first.details["sweeps"] == [] and [s["number"] for s in second.details["sweeps"]] == [1, *range(3, 10)]
    files[-5].unlink()  # after planning
    scene = SOURCE.read(second)
    assert scene.dropped == {"missing sweeps": 2, "truncated sweeps": 2}
    assert scene.points is not None and scene.points.sweep is not None
    assert np.unique(scene.points.sweep).tolist() == [0, 1, 6, 7, 8, 9] and len(scene.points) == 6 * 40
    assert SOURCE.read(first).points is not None
    edit(tmp_path, "sample_data", lambda rows: [r.update(prev="x") for r in rows if r["token"] == "LIDAR_TOP1-7"])
    edit(tmp_path, "ego_pose", lambda rows: [r.update(token="x") for r in rows if r["token"] == "eLIDAR_TOP1-6"])
    _, second = planned(tmp_path, options)
    assert isinstance(second, SceneRef)
    lost = {"missing sweeps": 2, "sweeps without a pose": 1, "lost links to sweeps": 1}
    assert second.details["dropped"] == lost


def test_min_range_holds_for_each_sweep_in_its_own_frame(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=2, between=9)
    scene = SOURCE.read(planned(tmp_path, Options(sweeps=10, min_range=1.0))[1])  # type: ignore[arg-type]
    assert scene.dropped == {"points within min_range": 40} and scene.points is not None
    assert np.bincount(scene.points.sweep).tolist() == [36] * 10  # type: ignore[arg-type]


def test_images_that_are_not_there_are_counted_in_their_clip(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=3, between=5)
    images = sorted((tmp_path / "sweeps" / "CAM_FRONT").iterdir())
    images[0].unlink()
    images[7].unlink()
    edit(tmp_path, "ego_pose", lambda rows: [r.update(token="x") for r in rows if r["token"] == "eCAM_FRONT2"])
    clips = planned(tmp_path, Options(clips=ClipOptions(frames=5), cameras=("CAM_FRONT",)))
    assert [(clip.details["dropped"], len(clip.files)) for clip in clips if isinstance(clip, SceneRef)] == [
        ({"missing images": 1}, 5),
        ({"missing images": 1, "images without a pose": 1}, 5),
    ]
    for image in images:
        image.unlink(missing_ok=True)
    for image in (tmp_path / "samples" / "CAM_FRONT").iterdir():
        image.unlink()
    (nothing,) = planned(tmp_path, Options(clips=ClipOptions(), cameras=("CAM_FRONT",)))
    assert nothing.scene_id == "scene-0061/CAM_FRONT/clip-000" and not isinstance(nothing, SceneRef)


def test_blocks_of_zeros_in_sweeps_are_no_points(tmp_path: Path) -> None:
    """At any byte: the records that the block's ends cut through belong to it."""
    write_dataset(tmp_path, keyframes=2, between=1)
    for folder in ("samples", "sweeps"):
        file = max((tmp_path / folder / "LIDAR_TOP").iterdir())
        data = bytearray(file.read_bytes() * 4)
        data[333 : 333 + 1024] = bytes(1024)
        file.write_bytes(data)
    for file in [*tmp_path.glob("lidarseg/*/*"), *tmp_path.glob("panoptic/*/*")]:
        file.unlink()
    _, second = planned(tmp_path, Options(sweeps=2))
    assert isinstance(second, SceneRef)
    scene = SOURCE.read(second)
    count = (333 + 1024) // 20 + 1 - 333 // 20
    assert scene.dropped["points in a block of zeros"] == 2 * count
    assert scene.points is not None and len(scene.points) == 2 * (4 * 40 - count)


def test_labels_that_may_be_a_lost_block_are_counted(tmp_path: Path) -> None:
    """Noise is label 0 and a legal one: a page of nothing else is worth a word, less of it is not."""
    write_dataset(tmp_path, keyframes=1)
    sweep, labels = min((tmp_path / "samples/LIDAR_TOP").iterdir()), min(tmp_path.glob("lidarseg/*/*"))
    sweep.write_bytes(sweep.read_bytes() * 200)
    for file in tmp_path.glob("panoptic/*/*"):
        file.unlink()
    for run, expected in ((4000, 0), (4096, 4096)):
        values = np.full(8000, 17, np.uint8)
        values[1000 : 1000 + run] = 0
        labels.write_bytes(values.tobytes())
        (ref,) = planned(tmp_path)
        assert isinstance(ref, SceneRef)
        reason = "labels 0 in an unbroken run: perhaps a lost block"
        assert SOURCE.read(ref).dropped.get(reason, 0) == expected


def test_a_sweep_of_noise_alone_is_counted(tmp_path: Path) -> None:
    write_dataset(tmp_path, keyframes=1)
    labels = min(tmp_path.glob("lidarseg/*/*"))
    for file in tmp_path.glob("panoptic/*/*"):
        file.unlink()
    count = labels.stat().st_size
    labels.write_bytes(bytes(count))
    (ref,) = planned(tmp_path)
    assert isinstance(ref, SceneRef)
    assert SOURCE.read(ref).dropped["labels 0 in an unbroken run: perhaps a lost block"] == count
