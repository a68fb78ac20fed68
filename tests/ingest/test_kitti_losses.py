"""KITTI's files that lost a part of themselves: pages of zeros, half files, tables whose lines moved. Nothing may pass
silently: a loss ends in an error, in a count, in a `Missing`, or changes no value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.blank import PAGE
from brickyard.ingest.kitti.calibration import TRANSFORM, parse_calibration
from brickyard.ingest.kitti.fisheye_yaml import parse_fisheye
from brickyard.ingest.kitti.kitti360 import SOURCE as KITTI360
from brickyard.ingest.kitti.kitti360 import Options as Options360
from brickyard.ingest.kitti.odometry import SOURCE as ODOMETRY
from brickyard.ingest.kitti.odometry import Options as OdometryOptions
from brickyard.ingest.kitti.raw import SOURCE as RAW
from brickyard.ingest.kitti.raw import Options as RawOptions
from brickyard.ingest.source import Missing, Notice, SceneRef, Source
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import UNLABELLED, Scene
from brickyard.shards.storage import Store
from tests.ingest import test_kitti360 as kitti360
from tests.ingest import test_kitti_odometry as odometry
from tests.ingest import test_kitti_raw as raw

COUNT = 3000


def outcomes(source: Source, root: Path, options: object) -> dict[str, Scene | str]:
    """Scene id -> the scene, or why there is none; notices stay out."""
    found: dict[str, Scene | str] = {}
    for item in source.plan(Store(root), options):
        if isinstance(item, SceneRef):
            try:
                found[item.scene_id] = source.read(item)
            except RawDataError as problem:
                found[item.scene_id] = str(problem)
        elif not isinstance(item, Notice):
            found[item.scene_id] = item.reason
    return found


def zero(file: Path, place: int, length: int = PAGE) -> None:
    data = bytearray(file.read_bytes())
    end = min(len(data), place + length)
    data[place:end] = bytes(end - place)
    file.write_bytes(data)


def big_scan(root: Path) -> np.ndarray:
    """A sequence of one frame of many points, none of them at the sensor, with labels without a zero."""
    folder = odometry.write_sequence(root, frames=1)
    points = np.random.default_rng(0).uniform((1, -20, -2, 0.01), (40, 20, -1, 1), (COUNT, 4)).astype("<f4")
    (folder / "velodyne/000000.bin").write_bytes(points.tobytes())
    (folder / "labels/000000.label").write_bytes(np.full(COUNT, 0x00010028, "<u4").tobytes())
    return points


@pytest.mark.parametrize("place", [0, 1, 4096, 9001, 30_000, 16 * COUNT - PAGE])
def test_a_lost_page_of_a_scan_costs_its_points_and_is_counted(tmp_path: Path, place: int) -> None:
    points = big_scan(tmp_path)
    zero(tmp_path / "sequences/00/velodyne/000000.bin", place)
    scene = outcomes(ODOMETRY, tmp_path, OdometryOptions())["00/000000"]
    assert isinstance(scene, Scene) and scene.points is not None
    first, last = place // 16, -(-(place + PAGE) // 16)
    kept = np.delete(np.arange(COUNT), np.arange(first, last))
    assert scene.dropped == {"points in a lost block (zeros)": last - first}
    np.testing.assert_array_equal(scene.points.xyz, points[kept, :3])
    assert len(scene.points.semantic["semantickitti19"]) == len(kept)


def test_a_scan_that_is_mostly_lost_is_refused(tmp_path: Path) -> None:
    big_scan(tmp_path)
    zero(tmp_path / "sequences/00/velodyne/000000.bin", 100, 8 * COUNT + 16)
    problem = outcomes(ODOMETRY, tmp_path, OdometryOptions())["00/000000"]
    assert "only 1498 of 3000 points is usable: 1502 points in a lost block" in str(problem)


@pytest.mark.parametrize("place", [0, 2, 5001, 4 * COUNT - PAGE])
def test_a_lost_page_of_labels_is_counted(tmp_path: Path, place: int) -> None:
    big_scan(tmp_path)
    zero(tmp_path / "sequences/00/labels/000000.label", place)
    scene = outcomes(ODOMETRY, tmp_path, OdometryOptions())["00/000000"]
    assert isinstance(scene, Scene) and scene.points is not None
    (reason,), (count,) = scene.dropped, scene.dropped.values()
    assert "a lost block?" in reason and PAGE // 4 <= count <= PAGE // 4 + 2
    classes = scene.points.semantic["semantickitti19"]
    assert (classes == UNLABELLED).sum() == count and len(set(classes.tolist())) == 2


@pytest.mark.real
def test_a_whole_scan_has_no_lost_block(samples: Path) -> None:
    scene = outcomes(ODOMETRY, samples / "kitti/odometry/dataset", OdometryOptions())["00/000000"]
    assert isinstance(scene, Scene) and scene.dropped == {"poses.txt of SemanticKITTI": 1}


@pytest.mark.parametrize(("top", "whole"), [(255.0, False), (255.0, True), (30_000.0, True)])
def test_intensities_of_another_unit_are_refused_until_it_is_named(tmp_path: Path, top: float, whole: bool) -> None:
    folder = odometry.write_sequence(tmp_path, frames=1)
    points = odometry.scan(0)
    points[:, 3] = np.linspace(0, top, len(points))
    points[:, 3] = np.rint(points[:, 3]) if whole else points[:, 3]
    (folder / "velodyne/000000.bin").write_bytes(points.tobytes())
    problem = outcomes(ODOMETRY, tmp_path, OdometryOptions())["00/000000"]
    assert isinstance(problem, str) and "of the intensities lie beyond 0..1" in problem and "intensity_unit" in problem
    unit = "byte" if top < 256 else "raw"
    scene = outcomes(ODOMETRY, tmp_path, OdometryOptions(intensity_unit=unit))["00/000000"]  # type: ignore[arg-type]
    assert isinstance(scene, Scene) and scene.points is not None and scene.points.intensity_unit == unit
    np.testing.assert_array_equal(scene.points.intensity, points[:, 3])
    (folder / "velodyne/000000.bin").write_bytes(odometry.scan(0).tobytes())
    problem = outcomes(ODOMETRY, tmp_path, OdometryOptions(intensity_unit="byte"))["00/000000"]
    assert isinstance(problem, str) and "intensity_unit says byte" in problem


def test_a_lost_block_of_ordered_poses_moves_no_pose_to_another_frame(tmp_path: Path) -> None:
    folder = odometry.write_sequence(tmp_path, frames=8)
    good = outcomes(ODOMETRY, tmp_path, OdometryOptions())
    lines = (folder / "poses.txt").read_bytes().splitlines(keepends=True)
    zero(folder / "poses.txt", len(b"".join(lines[:3])) - 5, 200)  # the end of frame 2's line and more
    found = outcomes(ODOMETRY, tmp_path, OdometryOptions())
    for frame in range(8):
        scene, whole = found[f"00/{frame:06d}"], good[f"00/{frame:06d}"]
        assert isinstance(whole, Scene)
        if frame < 2:
            assert isinstance(scene, Scene)
            np.testing.assert_array_equal(scene.world_from_scene, whole.world_from_scene)
        else:
            assert isinstance(scene, str) and "lost block" in scene
    notices = [item for item in ODOMETRY.plan(Store(tmp_path), OdometryOptions()) if isinstance(item, Notice)]
    assert [item.scene_id for item in notices] == ["sequences/00/poses.txt"]


def test_half_a_number_at_the_end_is_no_pose(tmp_path: Path) -> None:
    folder = odometry.write_sequence(tmp_path, frames=3)
    data = (folder / "poses.txt").read_bytes()
    (folder / "poses.txt").write_bytes(data[:-2])  # 2.0 becomes 2.
    found = outcomes(ODOMETRY, tmp_path, OdometryOptions())
    assert isinstance(found["00/000001"], Scene) and "ends inside of line 3" in str(found["00/000002"])


def test_times_after_a_lost_block_are_unknown_and_counted(tmp_path: Path) -> None:
    folder = odometry.write_sequence(tmp_path, frames=6)
    zero(folder / "times.txt", 20, 30)
    found = outcomes(ODOMETRY, tmp_path, OdometryOptions())
    times = [scene.identity.timestamp_ns for scene in found.values() if isinstance(scene, Scene)]
    assert times == [0, None, None, None, None, None]
    assert all(isinstance(s, Scene) and ("no time" in s.dropped) == (k > 0) for k, s in enumerate(found.values()))


def test_poses_with_numbers_lose_only_what_stood_in_the_block(tmp_path: Path) -> None:
    """Poses are sparse, so a frame without one is left out; one that may have lost it is not."""
    kitti360.write_drive(tmp_path, frames=9)
    poses = tmp_path / "data_poses" / kitti360.DRIVE / "poses.txt"
    lines = poses.read_bytes().splitlines(keepends=True)  # frames 1 to 8
    zero(poses, len(b"".join(lines[:2])) + 3, len(lines[2]) + 4)
    found = {key[-1]: scene for key, scene in outcomes(KITTI360, tmp_path, Options360()).items()}
    assert {key for key, scene in found.items() if isinstance(scene, str)} == {"3", "4"}
    assert all("damaged part of" in str(found[key]) for key in "34")
    for key in "125678":
        scene = found[key]
        assert isinstance(scene, Scene) and scene.world_from_scene[0, 3] == pytest.approx(1000.7 + int(key))
    poses.write_bytes(b"".join(lines)[: len(b"".join(lines[:5])) + 6])
    found = {key[-1]: scene for key, scene in outcomes(KITTI360, tmp_path, Options360()).items()}
    assert {key for key, scene in found.items() if isinstance(scene, str)} == {"6", "7", "8"}


def test_a_lost_block_of_an_accumulated_cloud_and_of_its_lists(tmp_path: Path) -> None:
    kitti360.write_drive(tmp_path)
    kitti360.write_labels(tmp_path, frames=4)
    (cloud,) = tmp_path.glob("data_3d_semantics/train/*/static/*.ply")
    cloud.write_bytes(kitti360.cloud(1000))
    zero(cloud, 5000, PAGE)
    options = Options360(scenes="windows", window_views=1)
    (scene,) = outcomes(KITTI360, tmp_path, options).values()
    assert isinstance(scene, Scene) and scene.points is not None
    lost = scene.dropped["points in a lost block (zeros)"]
    assert 4096 // 24 <= lost <= 4096 // 24 + 2 and len(scene.points) == 1000 - lost
    assert scene.dropped["no list of validation windows"] == 1
    lists = tmp_path / "data_3d_semantics/train/2013_05_28_drive_val.txt"
    lists.write_bytes(bytes(100))
    (problem,) = outcomes(KITTI360, tmp_path, options).values()
    assert "which windows are for validation cannot be told" in str(problem)


def test_raw_drives_without_oxts(tmp_path: Path) -> None:
    raw.write_drive(tmp_path, leave_out=tuple(f"oxts/data/{frame:010d}.txt" for frame in range(4)))
    found = outcomes(RAW, tmp_path, RawOptions())
    assert len(found) == 4 and all("require_pose: false" in str(reason) for reason in found.values())
    for scene in outcomes(RAW, tmp_path, RawOptions(require_pose=False)).values():
        assert isinstance(scene, Scene) and scene.dropped == {"no pose": 1} and len(scene.views) == 2
        np.testing.assert_array_equal(scene.world_from_scene, np.eye(4))


def test_the_scale_of_a_later_packet_is_counted(tmp_path: Path) -> None:
    raw.write_drive(tmp_path, leave_out=("oxts/data/0000000000.txt",))
    found = list(outcomes(RAW, tmp_path, RawOptions()).values())
    assert isinstance(found[1], Scene) and found[1].dropped == {"world of a later first packet (oxts)": 1}


def test_half_a_number_at_the_end_of_a_calibration() -> None:
    line = b"Tr: 0.0 -1.0 0.0 -0.02 0.0 0.0 -1.0 -0.06 1.0 0.0 0.0 -0.33"
    wanted = {"Tr": TRANSFORM}
    assert parse_calibration(line, wanted, kitti360.FAIL)["Tr"][2, 3] == -0.33
    with pytest.raises(RawDataError, match="inside of its last number"):
        parse_calibration(line[:-3], wanted, kitti360.FAIL)
    with pytest.raises(RawDataError, match="inside of a number"):
        parse_fisheye(kitti360.FISHEYE.encode()[:-5], "image_02", kitti360.FAIL)


@pytest.mark.parametrize("name", ["calib.txt", "times.txt", "velodyne/000000.bin", "labels/000000.label", "poses.txt"])
def test_a_file_of_zeros_alone_never_passes(tmp_path: Path, name: str) -> None:
    big_scan(tmp_path)
    zero(tmp_path / "sequences/00" / name, 0, 1 << 20)
    for scene in outcomes(ODOMETRY, tmp_path, OdometryOptions()).values():
        assert isinstance(scene, str) or scene.dropped


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_are_what_their_bytes_are(tmp_path: Path, kind: str) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (124, 37), (200, 90, 10)).save(buffer, kind)
    folder = odometry.write_sequence(tmp_path, frames=2)
    for number, suffix in enumerate((".jpg", ".JPEG")):
        (folder / f"image_2/{number:06d}.png").unlink()
        (folder / f"image_2/{number:010d}{suffix}").write_bytes(buffer.getvalue())
    (folder / "image_3/000001.png").rename(folder / "image_3/000001.webp")
    found = outcomes(ODOMETRY, tmp_path, OdometryOptions())
    for scene in found.values():
        assert isinstance(scene, Scene) and scene.views[0].image_format == kind.lower()
        assert scene.views[0].image == buffer.getvalue()
    items = list(ODOMETRY.plan(Store(tmp_path), OdometryOptions()))
    (notice,) = (item for item in items if isinstance(item, Notice))
    assert notice.scene_id == "sequences/00/image_3" and "pictures of another format" in notice.reason


def test_names_of_frames_and_sequences(tmp_path: Path) -> None:
    folder = odometry.write_sequence(tmp_path, frames=2)
    (folder / "velodyne/000001.bin").rename(folder / "velodyne/0000000001.bin")
    (folder / "velodyne/1.bin").write_bytes(b"again")
    odometry.write_sequence(tmp_path, "town", frames=1)
    other = odometry.write_sequence(tmp_path, "01", frames=1)
    (other / "velodyne/000000.bin").rename(other / "velodyne/scan_a.bin")
    items = list(ODOMETRY.plan(Store(tmp_path), OdometryOptions()))
    refs = [item for item in items if isinstance(item, SceneRef)]
    assert [ref.scene_id for ref in refs] == ["00/000000", "00/000001"]
    assert refs[1].files["points"].endswith("/0000000001.bin")
    told = {item.scene_id: item.reason for item in items if isinstance(item, Missing)}
    assert "1 file not used" in told["sequences/00/velodyne"] and "each number once" in told["sequences/00/velodyne"]
    assert (
        "'scan_a.bin', expected 000000.bin" in told["sequences/01"]
        and "no number of a sequence" in told["sequences/town"]
    )
