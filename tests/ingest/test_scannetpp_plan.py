"""Plans of ScanNet++: lists and releases, what is missing and what is not used; damage, mutated files, other stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannetpp import SOURCE
from brickyard.ingest.scannetpp.splits import read_splits
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.ingest.scannetpp_toy import TEST, TRAIN, VAL, copy, items, refs, simulated, truth


def told(root: Path, **options: object) -> dict[str, str]:
    return {item.scene_id: item.reason for item in items(root, **options) if isinstance(item, Missing)}


def test_scenes_keep_the_promises_of_a_source() -> None:
    assert_source_ok(SOURCE, str(simulated()[0]))


def test_scenes_with_frames_of_the_phone_keep_them_too() -> None:
    assert_source_ok(SOURCE, str(simulated()[0]), SOURCE.options(iphone_views=2, max_hidden=1.0), scenes=1)


def test_scenes_of_the_lists_that_are_not_there_are_missing(tmp_path: Path) -> None:
    root = copy(tmp_path)
    with (root / "splits/nvs_sem_val.txt").open("a") as file:
        file.write("00dd871005\n")
    (root / f"data/{TRAIN}/scans/mesh_aligned_0.05.ply").unlink()
    lost = {key: reason for key, reason in told(root).items() if not key.startswith("splits")}
    assert lost == {
        "00dd871005": "data/00dd871005/scans/mesh_aligned_0.05.ply is missing, without which there are no points; "
        "nothing of the scene is there (if that is on purpose: partial: true)",
        TRAIN: f"data/{TRAIN}/scans/mesh_aligned_0.05.ply is missing, without which there are no points; "
        "dslr, iphone, scans is there",
    }
    assert not any(isinstance(item, Notice) for item in items(root) if item.scene_id in lost)
    partly = [item for item in items(root, partial=True) if isinstance(item, Missing) and item.scene_id != TRAIN]
    assert all(isinstance(item, Notice) for item in partly)
    assert "1 scenes of the lists are not there, as `partial` says" in [item.reason for item in partly]


def test_scenes_that_are_for_new_views_alone_need_no_mesh(tmp_path: Path) -> None:
    root = copy(tmp_path)
    (root / "splits/nvs_test.txt").write_text(f"f3d64c30f8\n{TEST}\n")
    (root / "data/f3d64c30f8/dslr").mkdir(parents=True)
    assert told(root)["data"] == "1 scenes that are for new views alone have no mesh: they are not read"
    shutil.copytree(root / f"data/{VAL}", root / "data/f3d64c30f8", dirs_exist_ok=True)
    shutil.copytree(root / f"data/{VAL}", root / "data/0123456789")
    splits = {ref.scene_id: ref.split for ref in refs(root)}
    assert splits == {"0123456789": "none", TRAIN: "train", VAL: "val", TEST: "test", "f3d64c30f8": "test"}


@pytest.mark.parametrize(("scenes", "release"), [(230, "v1"), (856, "v2"), (12, "unknown")])
def test_the_length_of_the_training_list_tells_the_release(tmp_path: Path, scenes: int, release: str) -> None:
    root = copy(tmp_path)
    (root / "splits/nvs_sem_train.txt").write_text("".join(f"{k:010x}\n" for k in range(scenes)))
    (root / "LICENSE").unlink()  # by which a simulated world is known
    found = refs(root, partial=True)
    assert {ref.details["release"] for ref in found} == {release}
    assert ("the release is unknown" in str(told(root, partial=True))) == (release == "unknown")
    if release == "v1":
        with pytest.raises(RecipeError, match=r"release is v2, .* has the training list of v1"):
            refs(root, partial=True, release="v2")
    else:
        assert {ref.details["release"] for ref in refs(root, partial=True, release="v2")} == {"v2"}
    scene = SOURCE.read(next(ref for ref in found if ref.scene_id == VAL))
    assert scene.identity.version == release and scene.identity.licence == "LicenseRef-ScanNetPP"


def test_lists_that_are_damaged_contradict_or_are_not_there(tmp_path: Path) -> None:
    root = copy(tmp_path)
    shutil.copytree(root / f"data/{VAL}", root / "data/0123456789")
    (root / "splits/sem_test.txt").write_text(f"{TEST}\n5c4e0\n")
    lost = told(root)
    assert "'5c4e0' is no scene such as 0a5c013435" in lost["splits/sem_test.txt"]
    assert "its split is unknown" in lost["0123456789"]
    (root / "splits/sem_test.txt").write_text(f"{VAL}\n")
    with pytest.raises(RawDataError, match="is here, and in the list of the split val, too"):
        items(root)
    (root / "splits/sem_test.txt").unlink()
    assert {ref.scene_id: ref.split for ref in refs(root)}[TEST] == "none"
    assert "this list is not there" in told(root)["splits/sem_test.txt"]
    assert read_splits(Store(tmp_path)).absent == tuple(
        f"splits/{name}.txt" for name in ("nvs_sem_train", "nvs_sem_val", "sem_test")
    )


def test_other_class_lists_are_refused(tmp_path: Path) -> None:
    root = copy(tmp_path)
    path = root / "metadata/semantic_benchmark/top100.txt"
    text = path.read_text()
    path.write_text(text.replace("\n", "\r\n"))
    assert len(refs(root)) == 3
    for changed, line in ((text.replace("doorframe", "door frame"), 20), (text + "gramophone\n", 101), (text[:99], 12)):
        path.write_text(changed)
        with pytest.raises(RawDataError, match=rf"top100.txt line {line}: this is not the list of 100 classes"):
            items(root)


def test_what_is_seen_and_not_read_is_told_once(tmp_path: Path) -> None:
    root = copy(tmp_path)
    for name in (TRAIN, VAL):
        (root / f"data/{name}/panocam/images").mkdir(parents=True)
    (root / f"data/{VAL}/scans/pc_aligned.ply").write_bytes(b"ply\n")
    lost = told(root)
    assert lost["data/*/panocam"] == "panoramas of the laser scanner, in 2 scenes: not read"
    assert lost["data/*/scans/pc_aligned.ply"] == "all points of the laser scanner, in 1 scenes: not read"
    assert all(isinstance(item, SceneRef | Notice) for item in items(root))


def test_a_root_that_is_none_and_options_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="no folder data/ is here"):
        items(tmp_path)
    for options in (
        {"release": "v3"}, {"dslr": "pinhole"}, {"iphone_poses": "imu"}, {"dslr_views": -1}, {"max_hidden": 2.0},
        {"min_agreement": -0.1},
    ):  # fmt: skip
        with pytest.raises(RecipeError, match="scannetpp options"):
            SOURCE.options(**options)


def test_mutated_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    root = copy(tmp_path)
    for name in (VAL, TEST):
        shutil.rmtree(root / f"data/{name}")
    folder = f"data/{TRAIN}"
    paths = [f"{folder}/scans/{name}" for name in ("mesh_aligned_0.05.ply", "segments.json", "segments_anno.json")]
    paths += [f"{folder}/dslr/{name}" for name in (
        "colmap/cameras.txt", "colmap/images.txt", "nerfstudio/transforms.json", "train_test_lists.json",
    )]  # fmt: skip
    paths += ["metadata/semantic_benchmark/map_benchmark.csv", "splits/nvs_sem_train.txt"]
    options = SOURCE.options(dslr_views=1, partial=True)
    result = assert_survives(SOURCE, root, paths, options=options, count=2000, tried=270)
    assert result.scenes + result.missing + result.errors >= 2000 and result.errors > 500


def test_mutated_files_of_the_phone_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    """The film is decoded by others, in a bounded process; its mutations are those of the video reader's tests."""
    root = copy(tmp_path)
    for name in (VAL, TEST):
        shutil.rmtree(root / f"data/{name}")
    folder = root / f"data/{TRAIN}/iphone"
    for film in folder.glob("*.mkv"):
        film.unlink()
    (folder / "rgb").mkdir()
    Image.fromarray(truth(TRAIN, "frames")[0]).save(folder / "rgb/frame_000000.jpg")
    paths = [f"data/{TRAIN}/iphone/{name}" for name in (
        "pose_intrinsic_imu.json", "depth.bin", "colmap/cameras.txt", "colmap/images.txt", "rgb/frame_000000.jpg",
    )]  # fmt: skip
    options = SOURCE.options(dslr="none", partial=True, iphone_views=2, iphone_poses="colmap")
    result = assert_survives(SOURCE, root, paths, options=options, count=600, tried=90, seed=1)
    assert result.errors > 120
