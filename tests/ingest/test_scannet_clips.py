"""Clips of ScanNet: frames of the stream in order, cut while planning from a few hundred bytes of each file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store
from tests.ingest.scannet_toy import ALIGNMENT, COLOR_K, DEPTH, SCAN, jpeg, pose, release, sens

LOST = np.full((4, 4), -np.inf)


def stream(count: int, *, lost: tuple[int, ...] = (), blank: tuple[int, ...] = ()) -> bytes:
    depth = zlib.compress(DEPTH.tobytes())
    frames = [(LOST if n in lost else pose(n), b"" if n in blank else jpeg(), depth) for n in range(count)]
    return sens(frames, times=[7_000_000 + 33_333 * n for n in range(count)])


def plan(root: Path, options: ScanNetOptions) -> list[SceneRef]:
    items = list(SOURCE.plan(Store(root), options))
    items = [item for item in items if not isinstance(item, Notice)]
    assert all(isinstance(item, SceneRef) for item in items)
    return [item for item in items if isinstance(item, SceneRef)]


def options(**changes: object) -> ScanNetOptions:
    return ScanNetOptions(**({"clips": ClipOptions(frames=4, overlap=1)} | changes))  # type: ignore[arg-type]


def test_clips_hold_the_frames_in_order(tmp_path: Path) -> None:
    refs = plan(release(tmp_path, sens=stream(10, lost=(2,))), options())
    assert [ref.scene_id for ref in refs] == [f"{SCAN}/color/clip-{n:03d}" for n in range(3)]
    assert {ref.sequence for ref in refs} == {"scene0007"}
    clips = [SOURCE.read(ref).validate() for ref in refs]
    numbers = [[int(view.name[-6:]) for view in clip.views] for clip in clips]
    assert numbers == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [clip.dropped for clip in clips] == [{"invalid pose": 1}, {}, {}]
    for clip in clips:
        assert clip.points is None and clip.identity.timestamp_ns == clip.views[0].timestamp_ns
        np.testing.assert_array_equal(clip.world_from_scene, np.eye(4))
        for view in clip.views:
            number = int(view.name[-6:])
            assert view.timestamp_ns == (7_000_000 + 33_333 * number) * 1000
            assert view.image == jpeg() and not view.semantic
            np.testing.assert_array_equal(view.intrinsics, COLOR_K[:3, :3])
            assert view.depth is not None and (view.depth.values == DEPTH).all()
            if number == 2:
                assert view.scene_from_camera is None
            else:
                np.testing.assert_array_equal(view.scene_from_camera, pose(number))


def test_depth_alignment_and_rate_are_options(tmp_path: Path) -> None:
    root = release(tmp_path, sens=stream(12))
    (ref,) = plan(root, options(read_depth=False, align_axes=True, clips=ClipOptions(frames=6, rate_hz=10)))
    clip = SOURCE.read(ref)
    assert [view.name for view in clip.views] == [f"frame-{n:06d}" for n in (0, 3, 6, 9)]
    for view in clip.views:
        assert view.depth is None and view.scene_from_camera is not None
        world = clip.world_from_scene @ view.scene_from_camera
        np.testing.assert_allclose(world, pose(int(view.name[-6:])), atol=1e-9)
        np.testing.assert_allclose(view.scene_from_camera, ALIGNMENT @ world, atol=1e-9)


def test_a_clip_needs_no_mesh_and_keeps_its_split(tmp_path: Path) -> None:
    root = release(tmp_path, sens=stream(5), ply=None, labels=None, segs=None, aggregation=None, tsv=None, txt=None)
    (root / "scannetv2_val.txt").write_text(f"{SCAN}\n")
    assert [ref.split for ref in plan(root, options())] == ["val", "val"]


def test_frames_without_image_are_counted_and_one_view_is_no_clip(tmp_path: Path) -> None:
    (ref,) = plan(release(tmp_path / "a", sens=stream(4, blank=(1,))), options())
    assert SOURCE.read(ref).dropped == {"frame without image": 1}
    (ref,) = plan(release(tmp_path / "b", sens=stream(4, blank=(1, 2, 3))), options())
    with pytest.raises(RawDataError, match="of 4 frames 1 have an image"):
        SOURCE.read(ref)


def test_scans_that_give_no_clip_say_why(tmp_path: Path) -> None:
    cases = {"is missing": None, "has 1 frames": stream(1), "3 or 4 expected": b"\7" * 900, "file ends": b"\4\0"}
    for number, (reason, data) in enumerate(cases.items()):
        (item,) = SOURCE.plan(Store(release(tmp_path / str(number), sens=data)), options())
        assert isinstance(item, Missing) and reason in item.reason and item.scene_id == SCAN


def test_a_truncated_stream_costs_the_clips_behind_its_end(tmp_path: Path) -> None:
    whole = stream(12)
    cut = whole[: len(whole) * 3 // 4]
    refs = plan(release(tmp_path, sens=cut), options(clips=ClipOptions(frames=4)))
    assert [len(SOURCE.read(ref).views) for ref in refs[:2]] == [4, 4]
    with pytest.raises(RawDataError, match="truncated"):
        SOURCE.read(refs[2])


def test_a_stream_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    refs = plan(release(tmp_path, sens=stream(8)), options())
    release(tmp_path, sens=stream(5))
    with pytest.raises(RawDataError, match="plan again"):
        SOURCE.read(refs[-1])


@pytest.mark.parametrize(
    "times",
    [
        [0, 0, 0, 0],
        [5, 5, 5, 5],
        [1, 2, 3, 4],
        [4 * 10**6, 3 * 10**6, 2 * 10**6, 10**6],
        [1 << 63, (1 << 63) + 9**5] * 2,
    ],
)
def test_stamps_that_cannot_be_microseconds_are_no_times(tmp_path: Path, times: list[int]) -> None:
    frames = [(pose(n), jpeg(), b"") for n in range(4)]
    (ref,) = plan(release(tmp_path, sens=sens(frames[: len(times)], times=times)), options())
    clip = SOURCE.read(ref)
    assert clip.identity.timestamp_ns is None and all(view.timestamp_ns is None for view in clip.views)


def test_contract_in_both_modes(tmp_path: Path) -> None:
    root = release(tmp_path, sens=stream(6, lost=(2,)))
    assert_source_ok(SOURCE, str(root), ScanNetOptions(frames_every=1, align_axes=True))
    assert_source_ok(SOURCE, str(root), options())
