"""KITTI object: generated trees for the rules, the real sample for the numbers."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.kitti.object import SOURCE, Options
from brickyard.ingest.source import Missing, Notice, SceneRef, find_source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

CALIBRATION = """P0: 70 0 60 0 0 70 20 0 0 0 1 0
P2: 70 0 60 4.5 0 70 20 -0.3 0 0 1 0.005
P3: 70 0 60 -33 0 70 20 2.3 0 0 1 0.003
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 -0.02 0 0 -1 -0.06 1 0 0 -0.33

"""


def scan(count: int = 50, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).uniform((1, -20, -2, 0), (40, 20, 2, 1), (count, 4))
    return points.astype("<f4")


def png(width: int = 124, height: int = 37) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def write_frame(root: Path, frame: int, folder: str = "training", leave_out: tuple[str, ...] = ()) -> None:
    payloads = {
        "velodyne": (".bin", scan(seed=frame).tobytes()),
        "image_2": (".png", png()),
        "image_3": (".png", png()),
        "calib": (".txt", CALIBRATION.encode()),
    }
    for kind, (suffix, data) in payloads.items():
        target = root / folder / kind / f"{frame:06d}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind not in leave_out:
            target.write_bytes(data)


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read_one(root: Path) -> Scene:
    (ref,) = planned(root)
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def test_entry_point() -> None:
    assert find_source("kitti_object") is SOURCE


def test_scene_holds_the_files_as_they_are(tmp_path: Path) -> None:
    write_frame(tmp_path, 7)
    (ref,) = planned(tmp_path)
    assert isinstance(ref, SceneRef)
    assert (ref.scene_id, ref.split, ref.sequence, ref.points_estimate) == ("training/000007", "train", "training", 50)
    assert ref.bytes_estimate == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    scene = SOURCE.read(ref)
    assert scene.points is not None and scene.points.intensity is not None
    np.testing.assert_array_equal(scene.points.xyz, scan(seed=7)[:, :3])
    np.testing.assert_array_equal(scene.points.intensity, scan(seed=7)[:, 3])
    assert [(v.name, v.width, v.height) for v in scene.views] == [("image_02", 124, 37), ("image_03", 124, 37)]
    assert scene.views[0].image == png() and not scene.dropped
    assert [s.path for s in scene.identity.sources] == sorted(ref.files.values())


def test_references_survive_alone(tmp_path: Path) -> None:
    write_frame(tmp_path, 1)
    data = pickle.dumps(planned(tmp_path)[0])
    scene = SOURCE.read(pickle.loads(data))  # noqa: S301 - our own bytes
    assert scene.points is not None and len(scene.points) == 50


def test_what_is_absent(tmp_path: Path) -> None:
    write_frame(tmp_path, 0, leave_out=("velodyne",))
    write_frame(tmp_path, 1, leave_out=("calib",))
    write_frame(tmp_path, 2, leave_out=("image_3",))
    write_frame(tmp_path, 0, folder="testing")
    first, second, third, test = planned(tmp_path)
    assert isinstance(first, Missing) and "no scan" in first.reason and first.scene_id == "training/000000"
    assert isinstance(second, Missing) and "no calibration" in second.reason
    assert isinstance(third, SceneRef) and isinstance(test, SceneRef) and test.split == "test"
    scene = SOURCE.read(third)
    assert [v.name for v in scene.views] == ["image_02"] and scene.dropped == {"missing image image_03": 1}
    with pytest.raises(RecipeError, match="no KITTI object frames"):
        planned(tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match="unknown KITTI camera image_2;"):
        Options(cameras=("image_2",))


def test_mapping_gives_the_drive(tmp_path: Path) -> None:
    write_frame(tmp_path, 0)
    write_frame(tmp_path, 1)
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "train_mapping.txt").write_text("d a_drive 0000000001\nd b_drive 0000000009\n")
    (tmp_path / "mapping" / "train_rand.txt").write_text("2,1\n")
    assert [item.sequence for item in planned(tmp_path) if isinstance(item, SceneRef)] == ["b_drive", "a_drive"]
    (tmp_path / "mapping" / "train_rand.txt").write_text("3,1\n")
    first, second, notice = planned(tmp_path)
    assert isinstance(notice, Notice) and "entry 1 is '3', expected a line number 1..2" in notice.reason
    for item in (first, second):  # a damaged table costs no scene: all of the folder belongs together then
        assert isinstance(item, SceneRef) and item.sequence == "training"
        assert SOURCE.read(item).dropped == {"raw drive unknown (the mapping is damaged)": 1}
    (tmp_path / "mapping" / "train_rand.txt").write_text("2,1\n")
    (tmp_path / "mapping" / "train_mapping.txt").write_bytes(b"d a_drive 0\n" + bytes(20) + b"\nd b_drive 9\n")
    assert "zero bytes (a lost block)" in getattr(planned(tmp_path)[-1], "reason", "")


def test_damaged_scans(tmp_path: Path) -> None:
    write_frame(tmp_path, 0)
    file = tmp_path / "training" / "velodyne" / "000000.bin"
    points = scan()
    points[3, 1], points[5, 3], points[7, 0], points[9, 3] = np.nan, np.inf, 1e20, -2
    file.write_bytes(points.tobytes())
    scene = read_one(tmp_path)
    assert scene.dropped == {"non-finite points": 2, "points beyond 1000 m": 1, "intensities beyond 0..1": 1}
    assert scene.points is not None
    np.testing.assert_array_equal(scene.points.xyz, np.delete(points, (3, 5, 7, 9), axis=0)[:, :3])
    file.write_bytes(points.tobytes()[:-5])
    with pytest.raises(RawDataError, match=r"000000.bin at byte 784: 795 bytes are no multiple of 16"):
        read_one(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(RawDataError, match="the scan is empty"):
        read_one(tmp_path)
    file.write_bytes(np.full((4, 4), np.nan, "<f4").tobytes())
    with pytest.raises(RawDataError, match="none of 4 points is usable"):
        read_one(tmp_path)


def test_truncated_image(tmp_path: Path) -> None:
    write_frame(tmp_path, 0)
    (tmp_path / "training" / "image_2" / "000000.png").write_bytes(png()[:-4])
    with pytest.raises(RawDataError, match=r"scene training/000000: .*000000.png at byte .* no end"):
        read_one(tmp_path)


def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    write_frame(tmp_path, 0, leave_out=("image_3",))
    files = [f"training/{name}" for name in ("velodyne/000000.bin", "calib/000000.txt", "image_2/000000.png")]
    found = assert_survives(SOURCE, tmp_path, files, count=2000)
    assert min(found.scenes, found.errors) > 200 and found.slowest_s < 1


@pytest.mark.real
@pytest.mark.parametrize(("frame", "inside", "total"), [("000000", 20_285, 115_384), ("000001", 18_630, 120_268)])
def test_real_projection(samples: Path, frame: str, inside: int, total: int) -> None:
    """Our camera against y = P2 R0_rect Tr X, multiplied out here in float64 from the text."""
    refs = {ref.scene_id: ref for ref in planned(samples / "kitti" / "object")}
    ref = refs[f"training/{frame}"]
    assert isinstance(ref, SceneRef)
    scene = SOURCE.read(ref)
    assert scene.points is not None and len(scene.points) == total and not scene.dropped
    (view,) = scene.views
    assert view.scene_from_camera is not None
    lines = (samples / "kitti/object/training/calib" / f"{frame}.txt").read_text().splitlines()
    rows = {line.split(":")[0]: np.array(line.split(":")[1].split(), float) for line in lines if line}
    rectify, velo = np.eye(4), np.eye(4)
    rectify[:3, :3], velo[:3] = rows["R0_rect"].reshape(3, 3), rows["Tr_velo_to_cam"].reshape(3, 4)
    raw = np.fromfile(samples / "kitti/object/training/velodyne" / f"{frame}.bin", "<f4").reshape(-1, 4)
    homogeneous = np.c_[raw[:, :3].astype(np.float64), np.ones(total)]
    official = homogeneous @ (rows["P2"].reshape(3, 4) @ rectify @ velo).T

    points = np.c_[scene.points.xyz.astype(np.float64), np.ones(total)]
    ours = (points @ np.linalg.inv(view.scene_from_camera).T)[:, :3] @ view.intrinsics.T
    np.testing.assert_allclose(ours, official, rtol=0, atol=1e-8)
    pixel = ours[:, :2] / ours[:, 2:]
    seen = (ours[:, 2] > 0) & (pixel >= 0).all(axis=1) & (pixel < (view.width, view.height)).all(axis=1)
    assert seen.sum() == inside
