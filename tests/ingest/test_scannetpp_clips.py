"""Clips of ScanNet++: runs of the phone's film and of the photographs, with poses, without a mesh."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannetpp import SOURCE
from brickyard.ingest.source import Missing, Notice
from brickyard.shards.errors import RawDataError, RecipeError
from tests.ingest.scannetpp_toy import TEST, TRAIN, VAL, copy, items, refs, scene, simulated, truth

RUNS = ClipOptions(frames=4, rate_hz=60.0)


def test_clips_of_the_film_are_its_frames_in_order() -> None:
    found = refs(simulated()[0], clips=RUNS)
    assert [ref.scene_id for ref in found] == [f"{s}/iphone/clip-00{k}" for s in (TRAIN, TEST) for k in (0, 1)]
    assert not any("mesh" in ref.files for ref in found)
    colors = truth(TRAIN, "frames")
    for ref, numbers in zip(found[:2], ([0, 2, 3], [4, 5, 6, 7]), strict=True):
        clip = SOURCE.read(ref)
        assert clip.points is None and clip.identity.timestamp_ns == clip.views[0].timestamp_ns
        assert [int(view.name[-2:]) for view in clip.views] == numbers, "frame 1 is painted over"
        for view, number in zip(clip.views, numbers, strict=True):
            shown = np.asarray(Image.open(io.BytesIO(view.image))).astype(float)
            assert int(np.argmin([((shown - other) ** 2).mean() for other in colors])) == number
            assert view.depth is not None and view.scene_from_camera is not None


def test_clips_are_thinned_to_a_rate() -> None:
    options: dict[str, Any] = {"clips": ClipOptions(frames=9, rate_hz=20.0), "max_hidden": 1.0, "read_depth": False}
    (clip, _) = (SOURCE.read(ref) for ref in refs(simulated()[0], **options))
    assert [int(view.name[-2:]) for view in clip.views] == [0, 3, 6]
    assert all(view.depth is None for view in clip.views)


def test_clips_of_the_photographs_need_no_mesh(tmp_path: Path) -> None:
    root = copy(tmp_path)
    shutil.rmtree(root / f"data/{VAL}/scans")
    options: dict[str, Any] = {"clips": ClipOptions(frames=5), "clips_of": "dslr"}
    clip = scene(root, f"{VAL}/dslr/clip-000", **options)
    assert [view.name for view in clip.views] == ["DSC00001", "DSC00005", "DSC00006"] and clip.points is None
    for view, other in zip(clip.views, scene(simulated()[0], VAL).views, strict=True):
        np.testing.assert_array_equal(view.scene_from_camera, other.scene_from_camera)
        assert view.image == other.image and view.camera_model == "fisheye"
    assert clip.dropped["photograph that is marked bad"] == 1
    everything = scene(root, f"{VAL}/dslr/clip-000", test_views=True, clips=ClipOptions(frames=6), clips_of="dslr")
    assert "DSC00003" in [view.name for view in everything.views]


@pytest.mark.parametrize("of", ["iphone", "dslr"])
def test_clips_keep_the_promises_of_a_source(of: str) -> None:
    clips = RUNS if of == "iphone" else ClipOptions(frames=9)
    options = SOURCE.options(clips=clips, clips_of=of, read_depth=False, max_hidden=1.0)
    assert_source_ok(SOURCE, str(simulated()[0]), options, scenes=1)


def test_what_gives_no_clip_is_missing_or_refused(tmp_path: Path) -> None:
    root = copy(tmp_path)
    table = root / f"data/{TRAIN}/iphone/pose_intrinsic_imu.json"
    lost = {
        i.scene_id: i.reason for i in items(root, clips=RUNS) if isinstance(i, Missing) and not isinstance(i, Notice)
    }
    assert lost == {VAL: f"data/{VAL}/iphone has no arkit, which a clip needs"}
    ref = refs(root, clips=RUNS)[1]
    content = json.loads(table.read_text())
    table.write_text(json.dumps({name: content[name] for name in sorted(content)[:6]}))
    with pytest.raises(RawDataError, match=r"pose_intrinsic_imu.json: it has 6 frames, the plan saw 8 or more"):
        SOURCE.read(ref)
    for text, reason in (("{}", "cannot be read"), ('{"frame_000000": 1}', "names 1 views, a clip needs two")):
        table.write_text(text)
        (reasons,) = [i.reason for i in items(root, clips=RUNS) if isinstance(i, Missing) and i.scene_id == TRAIN]
        assert reason in reasons
    (root / f"data/{TRAIN}/dslr/train_test_lists.json").write_text("[]")
    told = [i for i in items(root, clips=RUNS, clips_of="dslr") if isinstance(i, Missing) and i.scene_id == TRAIN]
    assert [item.reason for item in told] == [f"data/{TRAIN}/dslr/train_test_lists.json cannot be read"]
    shutil.rmtree(root / f"data/{VAL}/dslr/resized_images")
    with pytest.raises(RawDataError, match="0 views of the clip can be used"):
        scene(root, f"{VAL}/dslr/clip-000", clips=RUNS, clips_of="dslr")
    for wrong in ({"clips_of": "drone"}, {"clips": RUNS, "clips_of": "dslr", "dslr": "none"}):
        with pytest.raises(RecipeError, match="scannetpp options"):
            SOURCE.options(**wrong)
