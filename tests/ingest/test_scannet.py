"""The ScanNet reader on a small release written here byte by byte, whole and damaged."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.clips import spread_evenly
from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from tests.ingest.scannet_toy import (
    ALIGNMENT,
    COLOR_K,
    DEPTH,
    DEPTH_K,
    FACES,
    SCAN,
    SEGMENTS,
    XYZ,
    jpeg,
    only,
    ply,
    pose,
    read,
    release,
    sens,
)


def test_scene_holds_what_the_files_say(tmp_path: Path) -> None:
    scene = read(release(tmp_path))
    points = scene.points
    assert points is not None and points.color is not None and points.instance is not None
    np.testing.assert_array_equal(points.xyz, XYZ)
    assert (points.color == (10, 20, 30)).all()
    assert points.instance.tolist() == [1, 1, 5, 5, 5, 0]  # the later object has segment 2
    assert points.semantic["nyu40"].tolist() == [0, 0, 4, 4, -1, -1]
    assert points.semantic["scannet20"].tolist() == [0, 0, 4, 4, -1, -1]
    assert points.semantic["scannet200"].tolist() == [0, 0, 1, 1, 1, -1]
    assert [view.name for view in scene.views] == ["frame-000000", "frame-000001", "frame-000003"]
    assert scene.dropped == {"invalid pose": 1, "nyu40 id beyond 40": 1, "label image: id without nyu40 class": 3}
    view = scene.views[2]
    assert view.image == jpeg() and view.depth is not None and view.scene_from_camera is not None
    np.testing.assert_array_equal(view.intrinsics, COLOR_K[:3, :3])
    np.testing.assert_array_equal(view.depth.intrinsics, DEPTH_K[:3, :3])
    np.testing.assert_array_equal(view.depth.values, DEPTH)
    assert view.depth.scale == pytest.approx(0.001)
    np.testing.assert_array_equal(view.scene_from_camera, pose(3))
    assert scene.identity.licence == "LicenseRef-ScanNet-TOU" and len(scene.identity.sources) == 8


def test_normals_are_area_weighted_and_follow_the_winding(tmp_path: Path) -> None:
    points = read(release(tmp_path)).points
    assert points is not None and points.normal is not None
    # Vertex 0 has a floor triangle of area 2 (up) and a wall triangle of area 1 (towards +y).
    np.testing.assert_allclose(points.normal[0], np.array([0, 1, 2]) / np.sqrt(5), atol=1e-6)
    np.testing.assert_allclose(points.normal[3], (0, 0, 1))
    assert (points.normal[5] == 0).all()


def test_labels_without_labels_ply_come_from_the_objects(tmp_path: Path) -> None:
    points = read(release(tmp_path, labels=None)).points
    assert points is not None
    assert points.semantic["nyu40"].tolist() == [0, 0, 4, 4, 4, -1]


def test_scans_without_annotation_or_stream_are_read(tmp_path: Path) -> None:
    scene = read(release(tmp_path, labels=None, segs=None, aggregation=None, tsv=None, sens=None, txt=None))
    assert scene.points is not None and scene.points.instance is None
    assert not scene.points.semantic and not scene.views
    absent = (".sens", "_vh_clean_2.labels.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json")
    assert scene.dropped == {f"file not there: {suffix}": 1 for suffix in absent}


def test_incomplete_annotation_is_never_silent(tmp_path: Path) -> None:
    scene = read(release(tmp_path, segs=None))
    assert scene.dropped["objects: segs.json or aggregation.json is missing"] == 1


def test_unknown_categories_and_few_absent_segments_are_counted(tmp_path: Path) -> None:
    many = list(range(100, 140))
    segments = {"segIndices": [5, 5, 2, 2, 77, 0]}
    groups = [
        {"objectId": 0, "segments": [5, 2], "label": "gramophone"},
        {"objectId": 1, "segments": [77], "label": "curious thing"},
    ]
    changes = {"segs": json.dumps(segments).encode(), "aggregation": json.dumps({"segGroups": groups}).encode()}
    scene = read(release(tmp_path / "a", labels=None, **changes))
    assert scene.dropped["unknown raw category"] == 1
    assert scene.points is not None and (scene.points.semantic["nyu40"] == -1).all()
    assert scene.points.instance is not None and scene.points.instance.tolist() == [1, 1, 1, 1, 2, 0]

    xyz, faces = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.array([[0, 1, 2]])
    groups = [{"objectId": 0, "segments": [*many, 7], "label": "wall"}]
    changes = {"segs": json.dumps({"segIndices": many}).encode(), "ply": ply(xyz, faces)}
    changes["aggregation"] = json.dumps({"segGroups": groups}).encode()
    scene = read(release(tmp_path / "b", labels=None, **changes))
    assert scene.dropped["segment absent from segs.json"] == 1


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    groups = [{"objectId": 0, "segments": [5, 2, 3, 4], "label": "wall"}]
    moved = XYZ + np.float32(0.01)
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "v1": ({"aggregation": json.dumps({"segGroups": groups}).encode()}, "2 of the 4 segments"),
        "segs": ({"segs": json.dumps({"segIndices": SEGMENTS[:-1]}).encode()}, "labels 5 vertices, the mesh has 6"),
        "short": ({"labels": ply(XYZ[:5], FACES, np.zeros(5))}, "it has 5 vertices, the mesh has 6"),
        "moved": (
            {"labels": ply(moved, FACES, np.zeros(6))},
            r"6 of 6 vertices lie elsewhere, the first is 0: "
            r"here 0.010 0.010 0.010, in the mesh 0.000 0.000 0.000",
        ),
        "order": (
            {"labels": ply(XYZ[[0, 2, 1, 3, 4, 5]], FACES, np.zeros(6))},
            "2 of 6 vertices stand in another order",
        ),
        "other": (
            {"aggregation": json.dumps({"sceneId": "scannet.scene0099_00", "segGroups": []}).encode()},
            "is of the scan scene0099_00",
        ),
        "none": ({"labels": ply(XYZ, FACES)}, "no vertex property"),
    }
    for name, (changes, message) in cases.items():
        with pytest.raises(RawDataError, match=message):
            read(release(tmp_path / name, **changes))


def test_labels_ply_decides_and_contradictions_are_counted_or_refused(tmp_path: Path) -> None:
    """Objects and labels.ply come of one annotation; another table may move a category, not a fifth of the room."""
    xyz = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    groups = [{"objectId": 0, "segments": list(range(40)), "label": "wall"}]
    changes = {
        "segs": json.dumps({"segIndices": list(range(40))}).encode(), "ply": ply(xyz, FACES),
        "aggregation": json.dumps({"segGroups": groups}).encode(),
    }  # fmt: skip
    label = np.ones(40, np.uint16)
    label[:8], label[8] = 2, 0  # 8 of the 39 vertices that both annotate; 7 are still within a fifth
    with pytest.raises(RawDataError, match="8 of 39 annotated vertices have another class"):
        read(release(tmp_path / "a", labels=ply(xyz, FACES, label), **changes))
    label[0] = 1
    scene = read(release(tmp_path / "b", labels=ply(xyz, FACES, label), **changes))
    assert scene.dropped["nyu40 of the object: labels.ply has another"] == 7
    assert scene.points is not None and scene.points.semantic["nyu40"].tolist() == [0] + [1] * 7 + [-1] + [0] * 31


@pytest.mark.parametrize("values", ["1 0 0", "nan " * 16, "0 " * 16, "1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1",
                                    "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 0"])  # fmt: skip
def test_alignments_that_are_no_rigid_transform_are_refused(tmp_path: Path, values: str) -> None:
    root = release(tmp_path, txt=f"colorWidth = 16\naxisAlignment = {values}\n".encode())
    with pytest.raises(RawDataError, match="line 2: axisAlignment"):
        read(root, align_axes=True)
    assert read(root).points is not None


def test_alignment_moves_points_normals_and_poses_and_keeps_the_world(tmp_path: Path) -> None:
    plain, aligned = read(release(tmp_path)), read(tmp_path, align_axes=True)
    assert plain.points is not None and aligned.points is not None and aligned.points.normal is not None
    homogeneous = np.c_[aligned.points.xyz, np.ones(6)]
    np.testing.assert_allclose((homogeneous @ aligned.world_from_scene.T)[:, :3], plain.points.xyz, atol=1e-6)
    np.testing.assert_allclose(homogeneous[:, :3], XYZ @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3], atol=1e-6)
    np.testing.assert_allclose(aligned.points.normal, plain.points.normal @ ALIGNMENT[:3, :3].T, atol=1e-6)
    for before, after in zip(plain.views, aligned.views, strict=True):
        assert after.scene_from_camera is not None
        np.testing.assert_allclose(
            aligned.world_from_scene @ after.scene_from_camera, before.scene_from_camera, atol=1e-9
        )
    (tmp_path / f"scans/{SCAN}/{SCAN}.txt").write_text("colorWidth = 16\n")
    assert read(tmp_path, align_axes=True).dropped["axis alignment: the scan has none"] == 1


def test_frames_spread_over_the_scan(tmp_path: Path) -> None:
    assert spread_evenly(3, 5) == [0, 1, 2]
    assert spread_evenly(100, 4) == [12, 37, 62, 87]
    root = release(tmp_path, sens=sens([(pose(n), jpeg(), b"") for n in range(20)]))
    scene = read(root, frames_every=3, max_frames=2)
    assert [view.name for view in scene.views] == ["frame-000003", "frame-000015"]
    assert all(view.depth is None for view in scene.views)
    assert not read(root, max_frames=0).views


def test_plan_lists_scans_with_their_official_split(tmp_path: Path) -> None:
    root = release(tmp_path)
    for name in ("scans/scene0001_00", "scans_test/scene0707_00", "scans/notes"):
        (root / name).mkdir(parents=True)
    (root / "scans_test/scene0707_00/scene0707_00_vh_clean_2.ply").write_bytes(ply(XYZ, FACES))
    items = list(SOURCE.plan(Store(root), ScanNetOptions()))
    assert [(item.scene_id, getattr(item, "split", None)) for item in items] == [
        ("scene0001_00", None), (SCAN, "none"), ("scene0707_00", "test"),
    ]  # fmt: skip
    assert isinstance(items[0], Missing) and "scene0001_00_vh_clean_2.ply" in items[0].reason
    (root / "splits").mkdir()
    (root / "splits/scannetv2_val.txt").write_text(f"{SCAN}\nscene0009_00\n")
    refs = {item.scene_id: item for item in SOURCE.plan(Store(root), ScanNetOptions()) if isinstance(item, SceneRef)}
    assert refs[SCAN].split == "val" and refs[SCAN].sequence == "scene0007" and refs[SCAN].points_estimate > 0
    with pytest.raises(RawDataError, match="neither scans/ nor scans_test/"):
        list(SOURCE.plan(Store(tmp_path / "splits"), ScanNetOptions()))
    with pytest.raises(RecipeError):
        ScanNetOptions(frames_every=0)


@pytest.mark.parametrize("left", [5, 100, 305, 400, 700])
def test_truncated_streams_are_refused(tmp_path: Path, left: int) -> None:
    whole = sens([(pose(n), jpeg(), zlib.compress(DEPTH.tobytes())) for n in range(3)])
    with pytest.raises(RawDataError, match=r"at byte \d+"):
        read(release(tmp_path, sens=whole[:left]))
    with pytest.raises(RawDataError, match="truncated"):
        read(release(tmp_path, sens=whole[:-1]), frames_every=100)


def test_streams_that_would_be_misread_are_refused(tmp_path: Path) -> None:
    depth = zlib.compress(DEPTH.tobytes())
    scaled, nowhere = np.diag([2.0, 2, 2, 1]), np.zeros((4, 4))
    cases = {
        "the depth extrinsics are not the identity": sens([], depth_x=np.diag([-1.0, -1, 1, 1])),
        "image of 17x12, the stream declares jpeg of 16x12": sens([(pose(0), jpeg(17), depth)]),
        "frame 0: not a JPEG or PNG image": sens([(pose(0), b"nothing", depth)]),
        "the pose is not a rigid transform": sens([(scaled, jpeg(), depth)]),
        "frame 1: no pose stands here": sens([(pose(0), jpeg(), depth), (nowhere, jpeg(), depth)]),
        "depth is not 8x6 pixels": sens([(pose(0), jpeg(), zlib.compress(b"\0" * 90))]),
        "frame 0: depth: Error": sens([(pose(0), jpeg(), b"no zlib stream")]),
        "compressed depth has no end": sens([(pose(0), jpeg(), depth[:-8])]),
    }
    for number, (message, data) in enumerate(cases.items()):
        with pytest.raises(RawDataError, match=message):
            read(release(tmp_path / str(number), sens=data))


def test_hostile_sizes_cost_no_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(3_900_000), 9)
    assert len(bomb) < 4096, "short enough to be read"
    frame = sens([(pose(0), jpeg(), b"\0" * 4)])
    hostile = {
        "vertices": {"ply": ply(XYZ, FACES).replace(b"vertex 6", b"vertex 1000000000000")},
        "faces": {"ply": ply(XYZ, FACES).replace(b"face 3", b"face 999999999999999")},
        "digits": {"ply": ply(XYZ, FACES).replace(b"vertex 6", b"vertex " + b"9" * 5000)},
        "name": {"sens": frame[:4] + struct.pack("<Q", 1 << 60) + frame[12:]},
        "frames": {"sens": frame[: 18 + 284] + struct.pack("<Q", 1 << 60) + frame[18 + 292 :]},
        "colour": {"sens": frame[: 18 + 292 + 80] + struct.pack("<Q", 1 << 62) + frame[18 + 292 + 88 :]},
        "long": {"sens": sens([(pose(0), jpeg(), zlib.compress(bytes(50_000_000), 9))])},
        "bomb": {"sens": sens([(pose(0), jpeg(), bomb)])},
        "nesting": {"segs": b'{"segIndices":' + b"[" * 100_000},
        "integers": {"segs": json.dumps({"segIndices": [1 << 70] * 6}).encode()},
    }
    for name, changes in hostile.items():
        ref = only(release(tmp_path / name, **changes))
        tracemalloc.start()
        with pytest.raises(RawDataError):
            SOURCE.read(ref)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3_000_000, name
