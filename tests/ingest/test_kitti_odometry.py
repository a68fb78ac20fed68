"""KITTI odometry and SemanticKITTI: generated sequences for the rules, the real frame 00/000000 for the numbers."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.odometry import SOURCE, Options
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import UNLABELLED, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.mutation import assert_survives

COUNT = 30
RAW_IDS = (10, 252, 40, 0, 52, 255, 81, 12345)
CALIBRATION = """P0: 70 0 60 0 0 70 20 0 0 0 1 0
P2: 70 0 60 4.5 0 70 20 -0.3 0 0 1 0.005
P3: 70 0 60 -33 0 70 20 2.3 0 0 1 0.003
Tr: 0 -1 0 -0.02 0 0 -1 -0.06 1 0 0 -0.33
"""


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform((1, -20, -2, 0), (40, 20, 2, 1), (COUNT, 4)).astype("<f4")


def labels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.choice(RAW_IDS, COUNT) | rng.integers(0, 1 << 16, COUNT) << 16).astype("<u4")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (124, 37)).save(buffer, "PNG")
    return buffer.getvalue()


def trajectory(frames: int, metres: float) -> str:
    """Camera 0 moves along its z, `metres` a frame, and turns about its y."""
    rows = []
    for frame in range(frames):
        c, s = np.cos(0.1 * frame), np.sin(0.1 * frame)
        rows.append(f"{c} 0 {s} 0 0 1 0 0 {-s} 0 {c} {metres * frame}\n")
    return "".join(rows)


def write_sequence(root: Path, name: str = "00", frames: int = 3, leave_out: tuple[str, ...] = ()) -> Path:
    """A sequence with everything; files whose name (from the sequence on) is in `leave_out` are not written."""
    folder = root / "sequences" / name
    payloads: dict[str, bytes] = {
        "calib.txt": CALIBRATION.encode(),
        "times.txt": "".join(f"{0.1 * frame:e}\n" for frame in range(frames)).encode(),
        "poses.txt": trajectory(frames, 1.0).encode(),
        f"../../poses/{name}.txt": trajectory(frames, 2.0).encode(),
    }
    for frame in range(frames):
        payloads[f"velodyne/{frame:06d}.bin"] = scan(frame).tobytes()
        payloads[f"labels/{frame:06d}.label"] = labels(frame).tobytes()
        payloads[f"image_2/{frame:06d}.png"] = payloads[f"image_3/{frame:06d}.png"] = png()
    for path, data in payloads.items():
        if path not in leave_out:
            target = (folder / path).resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return folder


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read(item: SceneRef | Missing) -> Scene:
    assert isinstance(item, SceneRef), item
    return SOURCE.read(item)


def test_scene_holds_points_images_and_labels(tmp_path: Path) -> None:
    write_sequence(tmp_path)
    item = planned(tmp_path)[2]
    assert isinstance(item, SceneRef) and (item.scene_id, item.sequence) == ("00/000002", "00")
    scene = SOURCE.read(item)
    assert scene.points is not None and scene.points.instance is not None
    np.testing.assert_array_equal(scene.points.xyz, scan(2)[:, :3])
    by_hand = {10: "car", 252: "car", 40: "road", 255: "motorcyclist", 81: "traffic-sign"}
    names = taxonomy("semantickitti19").classes
    expected = [names.index(by_hand[v]) if (v := raw & 0xFFFF) in by_hand else UNLABELLED for raw in labels(2).tolist()]
    assert scene.points.semantic["semantickitti19"].tolist() == expected
    assert scene.points.instance.tolist() == [raw >> 16 for raw in labels(2).tolist()]
    assert scene.dropped == {"unknown raw labels": int((labels(2) & 0xFFFF == 12345).sum())}
    assert [(v.name, v.width, v.height) for v in scene.views] == [("image_02", 124, 37), ("image_03", 124, 37)]
    assert scene.identity.timestamp_ns == 200_000_000 == scene.views[0].timestamp_ns
    assert [s.path for s in scene.identity.sources] == sorted(item.files.values())
    own = [tmp_path / path for role, path in item.files.items() if role != "pose"]
    assert item.bytes_estimate == sum(file.stat().st_size for file in own) and item.points_estimate == COUNT


def test_splits_are_the_official_ones(tmp_path: Path) -> None:
    for name in ("00", "07", "08", "09", "10", "11", "21", "22"):
        write_sequence(tmp_path, name, frames=1)
    found = {item.sequence: item.split for item in planned(tmp_path) if isinstance(item, SceneRef)}
    assert found == {
        "00": "train", "07": "train", "08": "val", "09": "train", "10": "train", "11": "test", "21": "test",
        "22": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "leave_out", "metres", "source"),
    [
        (Options(), (), 1.0, "sequences/00/poses.txt"),
        (Options(poses="kitti"), (), 2.0, "poses/00.txt"),
        (Options(), ("poses.txt",), 2.0, "poses/00.txt"),
        (Options(poses="none"), (), 0.0, None),
        (Options(), ("poses.txt", "../../poses/00.txt"), 0.0, None),
    ],
)
def test_the_choice_of_trajectory(
    tmp_path: Path, options: Options, leave_out: tuple[str, ...], metres: float, source: str | None
) -> None:
    """The camera moves along its z, which is the velodyne's x; its sources say which trajectory moved it."""
    write_sequence(tmp_path, leave_out=leave_out)
    scene = read(planned(tmp_path, options)[2])
    if source is None:
        np.testing.assert_array_equal(scene.world_from_scene, np.eye(4))
        assert ("no pose" in scene.dropped) == (options.poses != "none")
    else:
        # cam0 stands 0.33 m ahead of the velodyne and 0.02 m beside it, so the velodyne swings around it
        c, s = np.cos(0.2), np.sin(0.2)
        expected = np.eye(4)
        expected[:2, :2] = [[c, s], [-s, c]]
        lever, forward = np.array([0.33, -0.02]), np.array([2 * metres, 0])
        expected[:2, 3] = lever + forward - expected[:2, :2] @ lever
        np.testing.assert_allclose(scene.world_from_scene, expected, rtol=0, atol=1e-12)
    poses = [s.path for s in scene.identity.sources if "poses" in s.path]
    assert poses == ([source] if source else [])


def test_damaged_poses_cost_one_scene(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path)
    rows = trajectory(3, 1.0).splitlines()
    (folder / "poses.txt").write_text("\n".join([rows[0], rows[1].replace("0 1 0 0", "0 -1 0 0"), "1 2 3"]) + "\n")
    items = planned(tmp_path)
    read(items[0])
    with pytest.raises(RawDataError, match=r"sequences/00/poses.txt line 2: the rotation of the pose is not orthonorm"):
        read(items[1])
    with pytest.raises(RawDataError, match=r"poses.txt line 3: 3 numbers, expected the 12"):
        read(items[2])
    (folder / "poses.txt").write_text("\n".join(rows[:1]))
    with pytest.raises(RawDataError, match="not the one that was planned with"):
        read(items[0])
    items = planned(tmp_path)
    assert isinstance(items[1], Missing) and "no line in sequences/00/poses.txt" in items[1].reason


def test_calibration_without_tr_costs_its_sequence(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path, "00")
    write_sequence(tmp_path, "01")
    (folder / "calib.txt").write_text("".join(CALIBRATION.splitlines(keepends=True)[:-1]))
    first, _, third, *others = planned(tmp_path)
    assert [item.scene_id for item in (first, third)] == ["00/000000", "00/000002"]
    assert isinstance(first, Missing) and "this costs all 3 frames of 00" in first.reason
    assert "no line for Tr" in first.reason and "data_odometry_calib.zip" in first.reason
    assert [item.sequence for item in others if isinstance(item, SceneRef)] == ["01"] * 3
    (folder / "calib.txt").write_text(CALIBRATION.replace("Tr: 0 -1", "Tr: 0 1"))
    assert "orthonormal" in getattr(planned(tmp_path)[0], "reason", "")
    (missing, *_) = planned(tmp_path, Options(sequences=("01",), poses="kitti"))
    assert isinstance(missing, SceneRef)
    (tmp_path / "poses" / "01.txt").unlink()
    missing, *others = planned(tmp_path, Options(sequences=("01",), poses="kitti"))
    assert len(others) == 2 and isinstance(missing, Missing) and "poses/01.txt: the poses are missing" in missing.reason


def test_what_is_absent(tmp_path: Path) -> None:
    write_sequence(
        tmp_path, leave_out=("velodyne/000001.bin", "image_3/000002.png", "labels/000002.label", "image_2/000002.png")
    )
    tables = write_sequence(tmp_path, "05", frames=0)
    items = planned(tmp_path)
    assert len(items) == 4 and isinstance(items[3], Notice) and items[3].scene_id == "sequences/05"
    assert "passed over: the sequence has no scans" in items[3].reason
    assert isinstance(items[1], Missing) and items[1].scene_id == "00/000001" and "no scan" in items[1].reason
    scene = read(items[2])
    assert scene.dropped == {"missing image image_02": 1, "missing image image_03": 1, "missing labels": 1}
    assert scene.points is not None and not scene.points.semantic and scene.points.instance is None
    assert tables.name == "05"
    (asked,) = planned(tmp_path, Options(sequences=("05",)))
    assert isinstance(asked, Missing) and "no scans" in asked.reason


def test_labels_follow_dropped_points_and_must_match_in_number(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path, frames=1)
    points = scan(0)
    points[4, 0], points[9, 3] = np.nan, 7
    (folder / "velodyne" / "000000.bin").write_bytes(points.tobytes())
    scene = read(planned(tmp_path)[0])
    assert scene.points is not None and scene.points.instance is not None
    assert scene.points.instance.tolist() == np.delete(labels(0) >> 16, (4, 9)).tolist()
    (folder / "labels" / "000000.label").write_bytes(labels(0).tobytes()[:-4])
    with pytest.raises(RawDataError, match=r"000000.label: 116 bytes are 29 labels, the scan has 30 points"):
        read(planned(tmp_path)[0])


def test_options(tmp_path: Path) -> None:
    write_sequence(tmp_path, frames=5)
    chosen = planned(tmp_path, Options(cameras=("image_03",), every=2))
    assert [item.scene_id for item in chosen] == ["00/000000", "00/000002", "00/000004"]
    assert [view.name for view in read(chosen[1]).views] == ["image_03"]
    with pytest.raises(RecipeError, match=r"no such sequence .* 07; found 00"):
        planned(tmp_path, Options(sequences=("07",)))
    with pytest.raises(RecipeError, match="no KITTI odometry sequences"):
        planned(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="at least 1"):
        Options(every=0)
    with pytest.raises(RecipeError, match="poses must be"):
        Options(poses="suma")  # type: ignore[arg-type]


def test_references_survive_alone(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path)
    data = pickle.dumps(planned(tmp_path)[1])
    for table in ("calib.txt", "times.txt"):
        (folder / table).unlink()
    scene = SOURCE.read(pickle.loads(data))  # noqa: S301 - our own bytes
    assert len(scene.views) == 2 and scene.identity.timestamp_ns == 100_000_000


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "1e9"])
def test_bad_times(tmp_path: Path, text: str) -> None:
    folder = write_sequence(tmp_path)
    (folder / "times.txt").write_text(f"0\n{text}\n")
    items = planned(tmp_path)
    read(items[0])
    assert read(items[2]).identity.timestamp_ns is None
    with pytest.raises(RawDataError, match=r"sequences/00/times.txt line 2"):
        read(items[1])


@pytest.mark.parametrize(("seed", "options"), [(0, Options()), (1, Options(poses="kitti", clips=ClipOptions()))])
def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path, seed: int, options: Options) -> None:
    write_sequence(tmp_path, frames=2)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    found = assert_survives(SOURCE, tmp_path, files, options=options, count=1000, seed=seed)
    assert min(found.scenes, found.errors) > 100 and found.slowest_s < 1


def test_clips(tmp_path: Path) -> None:
    """Without scans; the camera moves two metres along its axis and turns, the trajectory ends before the images do."""
    folder = write_sequence(tmp_path, frames=5, leave_out=tuple(f"velodyne/{frame:06d}.bin" for frame in range(5)))
    write_sequence(tmp_path, "08", frames=1)
    rows = (tmp_path / "poses" / "00.txt").read_text().splitlines(keepends=True)
    (tmp_path / "poses" / "00.txt").write_text("".join(rows[:4]))
    options = Options(poses="kitti", clips=ClipOptions(), cameras=("image_02",))
    item, short = planned(tmp_path, options)
    assert isinstance(short, Missing) and short.scene_id == "08/image_02" and "has 1" in short.reason
    scene = read(item)
    assert scene.identity.scene_id == "00/image_02/clip-000" and scene.points is None
    assert scene.dropped == {"no pose": 1} and scene.views[4].scene_from_camera is None
    assert [view.timestamp_ns for view in scene.views] == [k * 100_000_000 for k in range(5)]
    start, third = scene.views[0].scene_from_camera, scene.views[2].scene_from_camera
    assert start is not None and third is not None
    np.testing.assert_allclose(scene.world_from_scene, np.eye(4), atol=1e-12)
    # the left colour camera stands 0.065 m beside camera 0, whose motion of 4 m along z and 0.2 rad about y is known
    moved = np.linalg.inv(start) @ third
    c, s = np.cos(0.2), np.sin(0.2)
    np.testing.assert_allclose(moved[:3, :3], [[c, 0, s], [0, 1, 0], [-s, 0, c]], atol=1e-12)
    beside = np.linalg.solve([[70, 0, 60], [0, 70, 20], [0, 0, 1]], [4.5, -0.3, 0.005])
    turned = -moved[:3, :3] @ beside + beside + (0, 0, 4)
    np.testing.assert_allclose(moved[:3, 3], turned, atol=1e-12)
    (folder / "times.txt").write_text("0\nnan\n")
    assert len(planned(tmp_path, options)) == 2
    with pytest.raises(RawDataError, match=r"times.txt line 2"):
        read(planned(tmp_path, options)[0])
    for frame in range(5):
        (folder / "image_2" / f"{frame:06d}.png").unlink()
        (folder / "image_3" / f"{frame:06d}.png").unlink()
    (asked,) = planned(tmp_path, Options(clips=ClipOptions(), sequences=("00",)))
    assert isinstance(asked, Missing) and "no images; download the colour archive" in asked.reason


@pytest.mark.real
def test_real_labels(samples: Path) -> None:
    """Counts of each class against the api's own learning map, applied here to the bytes of the file."""
    root = samples / "kitti" / "odometry"
    first, *others = planned(root / "dataset")
    assert len(others) == 19 and all(isinstance(item, Missing) for item in others)  # times.txt lists twenty frames
    scene = read(first)
    assert scene.points is not None and scene.points.instance is not None
    raw = np.fromfile(root / "dataset/sequences/00/labels/000000.label", "<u4")
    assert len(scene.points) == len(raw) == 124_668
    assert len(np.unique(raw & 0xFFFF)) == 17 and len(np.unique(raw >> 16)) == 15
    learning_map = yaml.safe_load((root / "semantic-kitti.yaml").read_text())["learning_map"]
    expected = Counter(learning_map[value] - 1 for value in (raw & 0xFFFF).tolist())
    found = scene.points.semantic["semantickitti19"]
    assert Counter(found.tolist()) == expected and expected[UNLABELLED] / len(raw) == pytest.approx(0.039, abs=5e-4)
    np.testing.assert_array_equal(scene.points.instance, (raw >> 16).astype(np.int32))
    assert scene.identity.split == "train" and scene.identity.timestamp_ns == 0
    assert scene.dropped == {"poses.txt of SemanticKITTI": 1}
    assert "poses/00.txt" in [source.path for source in scene.identity.sources]


@pytest.mark.real
def test_real_calibration_is_that_of_the_raw_recording(samples: Path) -> None:
    """Sequence 00 comes from date 2011_10_03: Tr = R_rect_00 [R | T] and the same P_rect."""
    (ref, *_) = planned(samples / "kitti/odometry/dataset")
    assert isinstance(ref, SceneRef)
    rows: dict[str, np.ndarray] = {}
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        lines = [line.partition(":") for line in (samples / "kitti/raw/2011_10_03" / name).read_text().splitlines()]
        rows |= {k: np.array(v.split(), float) for k, _, v in lines if k in ("R", "T", "R_rect_00", "P_rect_02")}
    rectify, velo = rows["R_rect_00"].reshape(3, 3), np.c_[rows["R"].reshape(3, 3), rows["T"]]
    np.testing.assert_allclose(np.array(ref.details["cam0_from_velo"])[:3], rectify @ velo, rtol=0, atol=3e-14)


@pytest.mark.real
def test_real_projection(samples: Path, tmp_path: Path) -> None:
    """The camera of image_2 beside the real scan and calibration (the sample lacks images) against y = P2 Tr X."""
    sequence = samples / "kitti/odometry/dataset/sequences/00"
    for name in ("calib.txt", "velodyne/000000.bin"):
        (tmp_path / "sequences/00" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sequences/00" / name).write_bytes((sequence / name).read_bytes())
    (tmp_path / "sequences/00/image_2").mkdir()
    (tmp_path / "sequences/00/image_2/000000.png").write_bytes(png())
    scene = read(planned(tmp_path)[0])
    assert scene.points is not None
    rows = {line[:2]: np.array(line.split()[1:], float) for line in (sequence / "calib.txt").read_text().splitlines()}
    tr = np.vstack([rows["Tr"].reshape(3, 4), (0, 0, 0, 1)])
    points = np.c_[scene.points.xyz.astype(np.float64), np.ones(len(scene.points))]
    official = points @ (rows["P2"].reshape(3, 4) @ tr).T
    (view,) = scene.views
    assert view.scene_from_camera is not None
    ours = (points @ np.linalg.inv(view.scene_from_camera).T)[:, :3] @ view.intrinsics.T
    np.testing.assert_allclose(ours, official, rtol=0, atol=1e-8)
