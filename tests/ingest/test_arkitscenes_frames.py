"""Trajectories, cameras, boxes and meshes of ARKitScenes: each trap by itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

from brickyard.ingest.arkitscenes.boxes import Box, inside
from brickyard.ingest.arkitscenes.trajectory import (
    Trajectory,
    interpolated,
    nearest,
    quarter_turns,
    rotations,
    stands_upright,
    vector,
)
from brickyard.shards.errors import RawDataError
from tests.ingest.arkitscenes_toy import FIRST, copy, folder, frames, scene

angles = st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(np.array)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy(tmp_path)


@given(angles)
def test_rotations_are_scipys_and_back(axis_angle: np.ndarray) -> None:
    found = rotations(axis_angle[None])[0]
    np.testing.assert_allclose(found, Rotation.from_rotvec(axis_angle).as_matrix(), atol=1e-12)
    if np.linalg.norm(axis_angle) < 3:
        np.testing.assert_allclose(vector(found), axis_angle, atol=1e-7)


def trajectory(count: int = 12, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.1, (count, 3)), axis=0)).as_matrix()
    poses[:, :3, 3] = np.cumsum(rng.normal(0, 0.05, (count, 3)), axis=0)
    return Trajectory(times=10 + np.cumsum(rng.uniform(0.08, 0.12, count)), poses=poses)


@given(st.lists(st.floats(9, 13), min_size=1, max_size=30), st.floats(0, 0.1))
def test_the_nearest_pose_within_a_bound(times: list[float], bound: float) -> None:
    path, asked = trajectory(), np.array(times)
    found = nearest(path, asked, bound)
    for k, time in enumerate(asked):
        gaps = np.abs(path.times - time)
        if gaps.min() <= bound:
            assert gaps[[np.array_equal(found[k], pose) for pose in path.poses]].min() == gaps.min()
        elif gaps.min() > bound + 1e-6:
            assert k not in found


@given(st.lists(st.floats(9, 13), min_size=1, max_size=30))
def test_interpolated_poses_are_scipys_slerp(times: list[float]) -> None:
    path, asked = trajectory(), np.array(times)
    found, slerp = interpolated(path, asked, 0.25), Slerp(path.times, Rotation.from_matrix(path.poses[:, :3, :3]))
    assert set(found) == {k for k, t in enumerate(asked) if path.times[0] <= t <= path.times[-1]}
    for k, pose in found.items():
        np.testing.assert_allclose(pose[:3, :3], slerp(asked[k]).as_matrix(), atol=1e-9)
        centre = [np.interp(asked[k], path.times, path.poses[:, axis, 3]) for axis in range(3)]
        np.testing.assert_allclose(pose[:3, 3], centre, atol=1e-9)


def test_a_gap_in_the_trajectory_is_not_bridged() -> None:
    path = Trajectory(times=np.array([1.0, 1.1, 2.0]), poses=np.tile(np.eye(4), (3, 1, 1)))
    assert set(interpolated(path, np.array([1.05, 1.5, 2.0, 2.1]), 0.25)) == {0, 2}


def test_quarter_turns_are_where_the_sky_is() -> None:
    """Upright: the image's y axis leads down in the world; each quarter turn clockwise makes up what was left."""
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    for turns in range(4):
        pose = np.eye(4)
        pose[:3, :3] = level @ Rotation.from_euler("z", 90 * turns, degrees=True).as_matrix()
        assert quarter_turns(pose) == turns


def test_a_world_in_which_another_axis_is_up_is_noticed() -> None:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (200, 1, 1))
    euler = np.column_stack([rng.uniform(-180, 180, 200), rng.normal(15, 10, 200), rng.normal(0, 4, 200)])
    axes = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    poses[:, :3, :3] = Rotation.from_euler("ZYX", euler, degrees=True).as_matrix() @ axes
    assert stands_upright(poses)
    for swap in ([1, 2, 0], [2, 0, 1]):
        assert not stands_upright(poses[:, [*swap, 3]])


@pytest.mark.parametrize(
    ("euler", "shift", "reason"),
    [((180, 0, 0), 0.0, "mesh without a floor at its bottom: perhaps z is not up"),
     ((0, 0, 0), 5.0, "frame taken outside of the mesh"),
     ((0, 0, 0), 1.9, "cameras that are not 0.1 to 3.5 m above the floor of the mesh: perhaps another capture's")],
)  # fmt: skip
def test_a_mesh_whose_floor_is_elsewhere_is_counted(
    root: Path, euler: tuple[int, int, int], shift: float, reason: str
) -> None:
    assert not [text for text in scene(root, FIRST).dropped if "mesh" in text]
    _change_vertices(root, FIRST, Rotation.from_euler("xyz", euler, degrees=True).as_matrix(), shift)
    assert scene(root, FIRST, min_agreement=0.0).dropped[reason] > 0


def _change_vertices(root: Path, video: str, rotation: np.ndarray, shift: float) -> None:
    path = folder(root, video) / f"{video}_3dod_mesh.ply"
    data = path.read_bytes()
    start = data.index(b"end_header\n") + len(b"end_header\n")
    count = int(data[: data.index(b"\nproperty")].split()[-1])
    record = np.dtype([("xyz", "<f4", (3,)), ("rgba", "u1", (4,))])
    table = np.frombuffer(data, record, count, start).copy()
    table["xyz"] = table["xyz"] @ rotation.T + (0, 0, shift)
    path.write_bytes(data[:start] + table.tobytes() + data[start + table.nbytes :])


def test_a_trajectory_of_another_world_leaves_no_frames(root: Path) -> None:
    """Poses read as camera to world: the depth images do not meet the mesh, or the cameras leave it."""
    path = frames(root) / "lowres_wide.traj"
    rows = np.loadtxt(path)
    for row in rows:
        rotation = Rotation.from_rotvec(row[1:4])
        row[4:] = -rotation.inv().apply(row[4:]) + (0.5, 0.2, 0.4)
        row[1:4] *= -1
    np.savetxt(path, rows, fmt="%.12g")
    found = scene(root)
    lost = ("frame whose depth contradicts the vertices", "frame taken outside of the mesh")
    assert found.views == () and sum(found.dropped.get(reason, 0) for reason in lost) == 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [("1627.9 0 0 0 0 0", "expected t rx ry rz"), ("1627.9 0 0 x 0 0 0", "expected t rx"), ("1 0 0 0 0 0 0", "time"),
     ("1627.9 0 0 nan 0 0 0", "expected t rx"), ("1627.9 0 0 0 9e9 0 0", "expected t rx")],
)  # fmt: skip
def test_a_bad_line_of_a_trajectory_is_named(root: Path, line: str, problem: str) -> None:
    path = frames(root) / "lowres_wide.traj"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(RawDataError, match=rf"lowres_wide\.traj line 4: .*{problem}"):
        scene(root)


def test_a_trajectory_that_was_cut_is_counted(root: Path) -> None:
    path = frames(root) / "lowres_wide.traj"
    path.write_bytes(path.read_bytes()[:-90])
    found = scene(root)
    assert len(found.views) == 2 and found.dropped["last line of the trajectory, which has no end"] == 1
    assert found.dropped["frame without a pose near enough in time"] == 4


@pytest.mark.parametrize("shift", [-1, 1])
def test_files_of_a_frame_may_differ_by_a_millisecond(root: Path, shift: int) -> None:
    for kind, suffix in (("lowres_wide_intrinsics", "pincam"), ("lowres_depth", "png")):
        path = frames(root) / f"{kind}/{FIRST}_1627.781.{suffix}"
        path.rename(path.with_name(f"{FIRST}_1627.{781 + shift}.{suffix}"))
    found = scene(root)
    assert len(found.views) == 3 and all(view.depth is not None for view in found.views)
    assert "frame without a pincam" not in found.dropped


def test_the_bound_between_a_frame_and_its_pose_is_kept(root: Path) -> None:
    path = frames(root) / "lowres_wide.traj"
    rows = np.loadtxt(path)
    rows[:, 0] += 0.01
    np.savetxt(path, rows, fmt="%.12g")
    assert scene(root).views == ()
    assert len(scene(root, nearest_s=0.02).views) == 3


@pytest.mark.parametrize(
    "text", ["128 96 106 106 64", "128 96 106 106 64 47 0", "128 96 0 106 64 47", "128 96 106 106 640 47", "x", "",
             "128.5 96 106 106 64 47", "128 96 nan 106 64 47", "96 128 106 106 47 64"],
)  # fmt: skip
def test_a_pincam_that_is_none_is_refused(root: Path, text: str) -> None:
    (frames(root) / f"lowres_wide_intrinsics/{FIRST}_1627.781.pincam").write_text(text)
    with pytest.raises(RawDataError, match=r"1627\.781"):
        scene(root)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("lowres_depth", np.zeros((96, 128), np.uint8)), ("lowres_depth", np.zeros((48, 64), np.uint16)),
     ("confidence", np.full((96, 128), 3, np.uint8)), ("confidence", np.zeros((96, 128), np.uint16)),
     ("lowres_wide", np.zeros((96, 128), np.uint8)), ("lowres_wide", np.zeros((48, 64, 3), np.uint8))],
)  # fmt: skip
def test_images_of_another_kind_are_refused(root: Path, kind: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(frames(root, FIRST, "raw") / f"{kind}/{FIRST}_1627.781.png")
    with pytest.raises(RawDataError, match=rf"{kind}/{FIRST}_1627\.781\.png.*please report it"):
        scene(root, subset="raw", min_confidence=1)


@pytest.mark.parametrize("unit", [1.0, 255.0])
def test_colours_may_be_floats(root: Path, unit: float) -> None:
    expected = scene(root).points
    assert expected is not None and expected.color is not None
    path = folder(root) / f"{FIRST}_3dod_mesh.ply"
    data = path.read_bytes()
    start = data.index(b"end_header\n") + len(b"end_header\n")
    rows = np.empty(len(expected), [("xyz", "<f4", (3,)), ("rgb", "<f4", (3,))])
    rows["xyz"], rows["rgb"] = expected.xyz, expected.color / 255 * unit
    header = data[:start].replace(b"uchar alpha", b"").replace(b"property \n", b"")
    for name in (b"red", b"green", b"blue"):
        header = header.replace(b"uchar " + name, b"float " + name)
    path.write_bytes(header + rows.tobytes() + data[start + 16 * len(expected) :])
    found = scene(root).points
    assert found is not None
    np.testing.assert_array_equal(found.color, expected.color)
    rows["rgb"] = -1
    path.write_bytes(header + rows.tobytes() + data[start + 16 * len(expected) :])
    with pytest.raises(RawDataError, match=r"no red, green, blue of its vertices.*please report it"):
        scene(root)


def _annotation(root: Path, change: Any) -> None:
    path = folder(root) / f"{FIRST}_3dod_annotation.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def test_boxes_are_kept_as_they_are_annotated(root: Path) -> None:
    found = scene(root)
    assert found.points is not None and found.points.instance is not None
    boxes = found.annotations["boxes"]
    table = json.loads((folder(root) / f"{FIRST}_3dod_annotation.json").read_text())["data"]
    assert len(boxes) == len(table) > 1
    for box, entry in zip(boxes, table, strict=True):
        known = entry["segments"]["obbAligned"]
        assert box["label"] == entry["label"] and box["size"] == known["axesLengths"]
        assert np.ravel(np.transpose(box["rotation"])).tolist() == np.ravel(known["normalizedAxes"]).tolist()
        mine = found.points.xyz[found.points.instance == box["instance"]].astype(np.float64)
        local = (mine - box["center"]) @ np.array(box["rotation"])
        assert (np.abs(local) <= np.array(box["size"]) / 2 + 1e-9).all()


def test_an_annotation_that_was_skipped_gives_no_labels(root: Path) -> None:
    _annotation(root, lambda table: table.update(skipped=True))
    found = scene(root)
    assert found.points is not None and found.points.instance is None and not found.points.semantic
    assert found.dropped["annotation that its makers skipped"] == 1


@pytest.mark.parametrize("name", ["tv_monitor", "tv monitor", "tv-monitor", "tv/monitor"])
def test_labels_are_taken_as_the_official_loader_takes_them(root: Path, name: str) -> None:
    _annotation(root, lambda table: table["data"][0].update(label=name))
    points = scene(root).points
    assert points is not None and points.instance is not None
    assert set(points.semantic["arkitscenes17"][points.instance == 1].tolist()) == {15}


def test_what_is_strange_about_boxes_is_counted(root: Path) -> None:
    def change(table: Any) -> None:
        table["data"][0]["label"] = "spaceship"
        table["data"][1]["segments"]["obbAligned"]["centroid"] = [50, 50, 50]

    _annotation(root, change)
    found = scene(root)
    assert found.points is not None and found.points.instance is not None
    assert found.dropped["box of a class that is not among the 17"] == 1 == found.dropped["box without any point"]
    assert (found.points.semantic["arkitscenes17"][found.points.instance == 1] == -1).all()


@pytest.mark.parametrize(
    "change",
    [lambda t: t.pop("data"), lambda t: t["data"][0].pop("label"), lambda t: t["data"][0]["segments"].pop("obbAligned"),
     lambda t: t["data"][0]["segments"]["obbAligned"].update(axesLengths=[1, 2]),
     lambda t: t["data"][0]["segments"]["obbAligned"].update(normalizedAxes=[1.0] * 9),
     lambda t: t["data"][0]["segments"]["obbAligned"].update(centroid=[float("nan")] * 3)],
)  # fmt: skip
def test_an_annotation_that_is_none_is_refused(root: Path, change: Any) -> None:
    _annotation(root, change)
    with pytest.raises(RawDataError, match=r"_3dod_annotation\.json: expected data.*please report it"):
        scene(root)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_the_smallest_box_has_the_point(seed: int, count: int) -> None:
    """Against corners, point by point, with whole lengths and axes as rows."""
    rng = np.random.default_rng(seed)
    boxes = [
        Box(
            rng.uniform(-1, 1, 3),
            rng.uniform(0.2, 2, 3),
            Rotation.random(random_state=seed % 99 + k).as_matrix(),
            k,
            "x",
        )
        for k in range(count)
    ]
    xyz = rng.uniform(-1.5, 1.5, (40, 3)).astype(np.float32)
    dropped: Counter[str] = Counter()
    found = inside(boxes, xyz, dropped)
    for k, point in enumerate(xyz.astype(float)):
        holders = []
        for number, box in enumerate(boxes):
            reach = [
                abs(sum(a * (p - c) for a, p, c in zip(axis, point, box.centre, strict=True))) for axis in box.axes
            ]
            if all(r <= length / 2 for r, length in zip(reach, box.lengths, strict=True)):
                holders.append((float(np.prod(box.lengths)), number))
        expected = min(holders)[1] if holders else -1
        assert found.semantic[k] == expected and found.instance[k] == expected + 1
