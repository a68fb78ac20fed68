"""Plans of ARKitScenes: folds, visits, the leak between folds, both trees, zips, what is missing; damage, mutations."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from brickyard.ingest.arkitscenes import SOURCE
from brickyard.ingest.arkitscenes.table import WITHOUT_MESH, Capture, digest
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.damage import NAMELESS, assert_damage_is_noticed
from brickyard.ingest.sameness import first_difference
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from tests.ingest.arkitscenes_toy import (
    FIRST,
    FOURTH,
    THIRD,
    TWIN,
    copy,
    folder,
    frames,
    items,
    missing,
    notices,
    pack,
    refs,
    scene,
    simulated,
)
from tests.ingest.mutation import assert_survives

LIST = "3dod/3dod_train_val_splits.csv"
NO_POSE = "frame without a pose near enough in time"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy(tmp_path)


def test_the_visit_in_both_folds_is_named() -> None:
    said = notices(simulated()[0])
    assert said[f"{LIST}#420000"] == (
        "visit 420000 lies in both folds (Training: 41000000; Validation: 41000101): one room for training and for "
        "validation"
    )
    assert said[LIST].startswith("it is not the official list: 2 captures for training and 2 for validation")
    assert said["raw"] == "not read: 3dod is"


def test_captures_of_an_unknown_visit_are_no_group(root: Path) -> None:
    (root / LIST).write_text(
        "video_id,visit_id,fold\n" + "".join(
            f"{video},NA,{fold}\n" for video, fold in
            ((FIRST, "Training"), (TWIN, "Validation"), (THIRD, "Validation"), (FOURTH, "Training"))
        )
    )  # fmt: skip
    assert [ref.sequence for ref in refs(root)] == [FIRST, TWIN, THIRD, FOURTH]
    assert not [name for name in notices(root) if "#" in name]


def test_metadata_with_floats_stands_in_for_the_list(root: Path) -> None:
    before = [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)]
    (root / LIST).unlink()
    assert [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)] == before
    text = (root / "3dod/metadata.csv").read_text()
    for video in (FIRST, TWIN, THIRD, FOURTH):
        text = text.replace(video, f"{video}.0")
    (root / "3dod/metadata.csv").write_text(text)
    assert [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)] == before


def test_rows_of_metadata_that_name_no_capture_are_passed_over(root: Path) -> None:
    before = [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)]
    path = root / "3dod/metadata.csv"
    path.write_text(f"{path.read_text()},420009.0,Training,Up\nnan,,,\n")
    assert missing(root) == {} and "3dod/metadata.csv" not in notices(root)
    (root / LIST).unlink()
    assert missing(root) == {} and [(ref.scene_id, ref.split, ref.sequence) for ref in refs(root)] == before


def test_damaged_metadata_beside_the_list_are_told_and_lose_nothing(root: Path) -> None:
    before = [ref.scene_id for ref in refs(root)]
    (root / "3dod/metadata.csv").write_bytes(b"\0" * 500)
    assert [ref.scene_id for ref in refs(root)] == before and missing(root) == {}
    assert "only sky_direction is taken here" in notices(root)["3dod/metadata.csv"]
    assert not [what for what in scene(root, TWIN).dropped if "sky_direction" in what]


def test_without_any_list_the_folders_tell_the_fold(root: Path) -> None:
    (root / LIST).unlink()
    (root / "3dod/metadata.csv").unlink()
    assert [(ref.split, ref.sequence) for ref in refs(root)] == [
        ("train", FIRST), ("val", TWIN), ("val", THIRD), ("train", FOURTH)
    ]  # fmt: skip
    assert "nobody knows which captures show one room" in notices(root)["3dod_train_val_splits.csv"]


def test_what_the_list_promises_and_is_not_there_is_missing(root: Path) -> None:
    shutil.rmtree(folder(root, TWIN))
    (folder(root, THIRD) / f"{THIRD}_3dod_mesh.ply").unlink()
    lost = missing(root)
    assert lost == {
        TWIN: f"3dod/Validation/{TWIN} is not there, neither a folder nor a zip",
        THIRD: f"3dod/Validation/{THIRD}/{THIRD}_3dod_mesh.ply is missing, without which there are no points",
    }
    assert TWIN not in missing(root, partial=True)
    assert notices(root, partial=True)["3dod"] == "1 captures of the list are not there, as `partial` says"


def test_a_capture_in_the_wrong_fold_or_in_both_is_refused(root: Path) -> None:
    shutil.move(folder(root, TWIN), root / "3dod/Training" / TWIN)
    shutil.copytree(folder(root, THIRD), root / "3dod/Training" / THIRD)
    assert missing(root) == {
        TWIN: f"it lies in Training, the list {LIST} says Validation",
        THIRD: "it lies in both folds, Training and Validation",
    }


def test_a_capture_that_no_list_names_is_told(root: Path) -> None:
    text = (root / LIST).read_text().splitlines()
    (root / LIST).write_text("\n".join(text[:-1]))
    assert [ref.scene_id for ref in refs(root)] == [FIRST, TWIN, THIRD, FOURTH]
    assert notices(root)[f"{LIST}#unnamed"].startswith("1 captures are here that it does not name")
    (root / LIST).write_text("\n".join([*text[:-1], "4100\0\0\0\0"]))
    assert FOURTH in missing(root) and "line 5" in missing(root)[LIST]


@pytest.mark.parametrize("line", ["x,420000,Training", f"{FIRST},1,Training", "41000909,1,Test", "41000909,1"])
def test_a_damaged_line_of_the_list_is_named(root: Path, line: str) -> None:
    (root / LIST).write_text((root / LIST).read_text() + f"\n{line}\n")
    assert missing(root)[LIST].startswith("line 6: ")


def test_raw_has_captures_without_mesh_that_are_known() -> None:
    root = simulated()[0]
    assert [ref.scene_id for ref in refs(root, subset="raw")] == [FIRST, THIRD]
    assert missing(root, subset="raw") == {}
    said = notices(root, subset="raw")
    assert said["raw/*"] == "1 captures that were published without mesh and trajectory: they are not read"
    assert said["raw/*/*.mov"] == "films, of 3 captures: not read"
    assert len(WITHOUT_MESH) == 24


def test_both_trees_give_the_same_scene() -> None:
    """The simulated exports are equal; the real ones differ slightly, so one of them alone is ever read."""
    root = simulated()[0]
    one, other = scene(root), scene(root, subset="raw")
    assert first_difference(one.points, other.points) is None
    assert all(first_difference(a, b) is None for a, b in zip(one.views, other.views, strict=True))
    assert other.identity.version == one.identity.version  # a simulated world's; the real ones name the subset


def test_zips_stay_packed(root: Path) -> None:
    whole, raw = scene(root), scene(root, subset="raw", images="wide", min_confidence=2)
    pack(folder(root))
    for kind in ("wide", "wide_intrinsics", "lowres_wide_intrinsics", "lowres_depth", "confidence"):
        pack(folder(root, FIRST, "raw") / kind)
    packed = scene(root)
    assert first_difference(whole.points, packed.points) is None and packed.dropped == whole.dropped
    assert all(first_difference(a, b) is None for a, b in zip(whole.views, packed.views, strict=True))
    again = scene(root, subset="raw", images="wide", min_confidence=2)
    assert all(first_difference(a, b) is None for a, b in zip(raw.views, again.views, strict=True))
    assert again.dropped == raw.dropped
    assert_source_ok(SOURCE, str(root), SOURCE.options(views=1), scenes=1)
    first, *_ = refs(root, clips=ClipOptions(frames=3))
    assert first.scene_id == f"{FIRST}/lowres_wide/clip-000" and len(SOURCE.read(first).views) == 3


def test_a_capture_that_was_not_unpacked_to_its_end_is_read_from_its_zip(root: Path) -> None:
    whole, kept = scene(root), folder(root) / f"{FIRST}_frames"
    shutil.copytree(folder(root), root / "aside")
    pack(folder(root))
    shutil.copytree(root / "aside" / kept.name, kept)
    assert first_difference(whole.points, scene(root).points) is None


def test_a_cut_zip_is_refused(root: Path) -> None:
    pack(folder(root))
    path = root / f"3dod/Training/{FIRST}.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RawDataError, match=rf"{FIRST}\.zip: it is no zip, or its end is cut off"):
        scene(root)


def test_assets_that_were_not_downloaded_are_counted(root: Path) -> None:
    for subset in ("3dod", "raw"):
        (folder(root, FIRST, subset) / f"{FIRST}_3dod_annotation.json").unlink()
        (frames(root, FIRST, subset) / "lowres_wide.traj").unlink()
    found = scene(root)
    assert found.views == () and found.points is not None and not found.points.semantic
    assert found.points.instance is None
    assert found.dropped == {
        "labels: the annotation is not there": 1, "frames: lowres_wide.traj is not there": 1
    }  # fmt: skip
    shutil.rmtree(frames(root, THIRD) / "lowres_wide")
    assert scene(root, THIRD).dropped["frames: the folder of the images is not there"] == 1
    shutil.rmtree(frames(root, FOURTH) / "lowres_wide_intrinsics")
    assert scene(root, FOURTH).dropped["frame without a pincam"] == 3
    shutil.rmtree(frames(root, TWIN) / "lowres_depth")
    twin = scene(root, TWIN)
    assert twin.dropped["frame without a depth image"] == 3 and all(view.depth is None for view in twin.views)
    assert scene(root, THIRD, images="none").views == ()


def test_upsampling_and_a_root_that_is_none_are_told(root: Path) -> None:
    (root / "upsampling/Training").mkdir(parents=True)
    (root / "raw/laser_scanner_point_clouds").mkdir()
    (root / f"raw/Training/{FIRST}/ultrawide.zip").touch()
    (root / f"raw/Validation/{THIRD}/ultrawide").mkdir()
    said = notices(root, subset="raw")
    assert "another frame than the meshes: not read" in said["raw/laser_scanner_point_clouds"]
    assert said["raw/*/ultrawide"] == (
        "frames of the ultra-wide camera, whose pose is not published, of 2 captures: not read"
    )
    assert notices(root)["upsampling"] == "not read: 3dod is, and it has no mesh"
    with pytest.raises(RawDataError, match=r"no folder 3dod/ is here.*folder that holds 3dod/ or raw/"):
        items(root / "3dod")


def test_clips_have_the_frames_with_poses(root: Path) -> None:
    options = SOURCE.options(clips=ClipOptions(frames=3), poses="interpolated")
    assert_source_ok(SOURCE, str(root), options, scenes=2)
    found = refs(root, clips=ClipOptions(frames=3))
    assert [ref.scene_id for ref in found] == [f"{v}/lowres_wide/clip-000" for v in (FIRST, TWIN, THIRD, FOURTH)]
    clip, usual = SOURCE.read(found[0]), scene(root)
    assert clip.points is None and clip.identity.timestamp_ns == 1627681000000
    assert all(first_difference(a, b) is None for a, b in zip(clip.views, usual.views, strict=True))
    (frames(root) / f"lowres_wide/{FIRST}_1627.781.png").unlink()
    with pytest.raises(RawDataError, match=r"2 frames of the clip have a pose, the plan saw 3.*plan again"):
        SOURCE.read(found[0])
    (frames(root, THIRD) / "lowres_wide.traj").unlink()
    assert missing(root, clips=ClipOptions())[THIRD] == "0 frames of lowres_wide have a pose, a clip needs two"


def test_options_that_make_no_sense_are_refused() -> None:
    for options in (
        {"subset": "upsampling"}, {"images": "ultrawide"}, {"depth": "wide"}, {"views": -1}, {"min_confidence": 3},
        {"poses": "any"}, {"nearest_s": -1.0}, {"between_s": float("nan")}, {"min_agreement": 2.0},
        {"clips": ClipOptions(), "images": "none"},
    ):  # fmt: skip
        with pytest.raises(RecipeError, match="arkitscenes options"):
            SOURCE.options(**options)


def test_five_thousand_captures_are_planned_in_seconds(tmp_path: Path) -> None:
    """500 here, a tenth of the dataset, in folders as they are unpacked."""
    rows = []
    for number in range(500):
        video, fold = str(42000000 + number), "Training" if number % 9 else "Validation"
        place = tmp_path / "3dod" / fold / video
        (place / f"{video}_frames").mkdir(parents=True)
        (place / f"{video}_3dod_mesh.ply").write_bytes(b"x" * 100)
        (place / f"{video}_frames/lowres_wide.traj").touch()
        rows.append(f"{video},{number // 3},{fold}")
    (tmp_path / LIST).write_text("\n".join(["video_id,visit_id,fold", *rows]))
    start = time.process_time()
    found = [item for item in SOURCE.plan(Store(tmp_path), SOURCE.options()) if isinstance(item, SceneRef)]
    assert len(found) == 500 and time.process_time() - start < 3


def test_the_digest_does_not_depend_on_the_order() -> None:
    one, two = Capture("1", "Training", None), Capture("", "Validation", 2)
    assert digest({"1": one, "2": two}) == digest({"2": two, "1": one}) != digest({"1": one})


def test_damage_is_noticed() -> None:
    nameless = {("#_#.#.png", "exchanged"): NAMELESS, ("#_#.#.pincam", "exchanged"): NAMELESS}
    options = SOURCE.options(views=2)
    assert_damage_is_noticed(SOURCE, str(simulated()[0]), options, places=4, undetectable=nameless)


def test_mutated_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    root = copy(tmp_path)
    shutil.rmtree(root / "3dod")
    for video in (THIRD, "48018149"):
        for fold in ("Training", "Validation"):
            shutil.rmtree(root / "raw" / fold / video, ignore_errors=True)
    home = f"raw/Training/{FIRST}"
    name = f"{FIRST}_1627.781"
    paths = [f"{home}/{FIRST}_3dod_mesh.ply", f"{home}/{FIRST}_3dod_annotation.json", f"{home}/lowres_wide.traj"]
    paths += [f"{home}/lowres_wide/{name}.png", f"{home}/lowres_wide_intrinsics/{name}.pincam"]
    paths += [f"{home}/lowres_depth/{name}.png", f"{home}/confidence/{name}.png", "raw/raw_train_val_splits.csv"]
    options = SOURCE.options(views=1, partial=True, min_confidence=1)
    result = assert_survives(SOURCE, root, paths, options=options, count=2000, tried=240)
    assert result.scenes + result.missing + result.errors >= 2000 and result.errors > 500
