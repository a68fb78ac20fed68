"""The views of 2D-3D-S on files written here: what poses and images may look like, and what they may not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.plan import S3DISOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

SIZE = 24
LABELS = ["<UNK>_0_<UNK>_0_0", "wall_7_office_2_5", "chair_3_office_2_5", "stairs_1_office_2_5", "lamp_1_office_2_5"]
RT = [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.5], [1.0, 0.0, 0.0, 3.0]]
"""World to camera of one that stands at (-3, 0, 1.5) and looks along x: a wall at x = 0 is 3 m away."""


def png(image: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def pose(**changes: Any) -> bytes:
    table = {
        "camera_k_matrix": [[24.0, 0, 12.0], [0, 24.0, 12.0], [0, 0, 1]], "camera_rt_matrix": RT,
        "camera_location": [-3.0, 0.0, 1.5], "room": "office_2_5", "field_of_view_rads": 0.93,
    }  # fmt: skip
    return json.dumps(table | changes).encode()


def semantic(places: Any) -> bytes:
    codes = np.resize(np.array(places), (SIZE, SIZE))
    return png(np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], -1).astype(np.uint8))


def write(root: Path, views: int = 1, room: str = "office_2", area: str = "area_5a") -> Path:
    """A wall with points every 10 cm, and views of it."""
    folder = root / f"Area_5/{room}/Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f"0.000 {y / 10} {z / 10} 9 9 9\n" for y in range(-15, 16) for z in range(31))
    (folder / "wall_1.txt").write_text("".join(rows))
    for number in range(views):
        files = {
            "rgb": png(np.full((SIZE, SIZE, 3), number, np.uint8)),
            "pose": pose(),
            "depth": png(np.full((SIZE, SIZE), 3 * 512, np.uint16)),
            "semantic": semantic([1]),
        }
        for kind, data in files.items():
            path(root, kind, number, room, area).parent.mkdir(parents=True, exist_ok=True)
            path(root, kind, number, room, area).write_bytes(data)
    (root / "assets").mkdir(exist_ok=True)
    (root / "assets/semantic_labels.json").write_text(json.dumps(LABELS))
    return root


def path(root: Path, kind: str, number: int = 0, room: str = "office_2", area: str = "area_5a") -> Path:
    suffix = "json" if kind == "pose" else "png"
    name = f"camera_{'ab' * 15}{number // 4:02d}_{room}_frame_{number % 4}_domain_{kind}.{suffix}"
    return root / area / "data" / kind / name


def read(root: Path, **options: Any) -> Scene:
    (ref,) = SOURCE.plan(Store(root), S3DISOptions(**{"views": "", **options}))
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def test_a_view_with_everything(tmp_path: Path) -> None:
    path(write(tmp_path), "semantic").write_bytes(semantic([0, 1, 2, 3, 4, 5, 0x0D0D0D, 1]))
    depth = np.full((SIZE, SIZE), 3 * 512, np.uint16)
    depth[0, 0] = 65535
    path(tmp_path, "depth").write_bytes(png(depth))
    scene = read(tmp_path)
    (view,) = scene.views
    assert view.depth is not None and view.instance is not None and view.scene_from_camera is not None
    assert view.name == f"camera_{'ab' * 15}00_frame_0" and not scene.dropped
    assert view.image == path(tmp_path, "rgb").read_bytes()
    assert view.intrinsics.tolist() == [[24, 0, 11.5], [0, 24, 11.5], [0, 0, 1]], "half a pixel from the corner"
    place = scene.world_from_scene @ view.scene_from_camera
    np.testing.assert_allclose(place @ [0, 0, 3, 1], [0, 0, 1.5, 1], atol=1e-12)
    np.testing.assert_allclose(place @ [1, 0, 0, 0], [0, -1, 0, 0], atol=1e-12)
    assert view.depth.values[0, :2].tolist() == [0, 1536] and view.depth.scale == 1 / 512
    assert view.semantic["s3dis13"][0, :8].tolist() == [-1, 2, 8, 12, -1, -1, -1, 2], "stairs are clutter by custom"
    assert view.instance[0, :8].tolist() == [0, 1, 2, 3, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "rt", [[*RT, [0, 0, 0, 1]], np.array(RT).T.tolist(), RT], ids=["4x4", "4x3 as the README says", "3x4 as it is"]
)
def test_shapes_of_the_pose_matrix(tmp_path: Path, rt: Any) -> None:
    path(write(tmp_path), "pose").write_bytes(pose(camera_rt_matrix=rt))
    assert len(read(tmp_path).views) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"camera_location": [-3.0, 0.0, 1.6]},
        {"camera_rt_matrix": [[2 * v for v in row] for row in RT]},
        {"camera_rt_matrix": [[-v for v in row] for row in RT], "camera_location": [-3, 0, 1.5]},
        {"camera_rt_matrix": [[float("nan")] * 4] * 3},
        {"camera_k_matrix": [[0, 0, 12], [0, 24, 12], [0, 0, 1]]},
        {"camera_k_matrix": [1, 2, 3]},
    ],
)
def test_poses_that_are_no_cameras_cost_the_view_and_are_counted(tmp_path: Path, changes: Any) -> None:
    path(write(tmp_path, views=2), "pose").write_bytes(pose(**changes))
    scene = read(tmp_path)
    assert len(scene.views) == 1 and scene.dropped == {"view with an invalid pose": 1}


def test_a_view_that_sees_through_the_points_is_not_believed(tmp_path: Path) -> None:
    path(write(tmp_path), "depth").write_bytes(png(np.full((SIZE, SIZE), 5 * 512, np.uint16)))
    assert read(tmp_path).dropped == {"view whose depth contradicts the points": 1}
    assert len(read(tmp_path, min_agreement=0).views) == len(read(tmp_path, read_depth=False).views) == 1


def test_views_are_thinned_over_scan_locations_and_belong_to_their_room(tmp_path: Path) -> None:
    write(tmp_path, views=12)
    write(tmp_path, views=1, area="area_5b")
    write(tmp_path, views=2, room="office_21")
    (tmp_path / "area_5a/data/rgb/.DS_Store").write_bytes(b"x")
    (tmp_path / "area_3/data/rgb").mkdir(parents=True)
    items = list(SOURCE.plan(Store(tmp_path), S3DISOptions(views="", max_views=3, min_agreement=0)))
    two, twenty_one = (item for item in items if isinstance(item, SceneRef))
    assert len(twenty_one.details["views"]) == 2
    scans = [entry["name"].split("_")[1][-2:] for entry in two.details["views"]]
    assert scans == ["00", "01", "02"]
    many = next(iter(SOURCE.plan(Store(tmp_path), S3DISOptions(views=""))))
    assert isinstance(many, SceneRef) and len(many.details["views"]) == 13
    assert sum(entry["frame"][0] == -90 for entry in many.details["views"]) == 1


def test_what_the_user_has_not_is_absent(tmp_path: Path) -> None:
    write(tmp_path, views=2)
    for kind in ("depth", "semantic"):
        path(tmp_path, kind).unlink()
    path(tmp_path, "pose", 1).unlink()
    scene = read(tmp_path)
    (view,) = scene.views
    assert view.depth is None and view.instance is None and not view.semantic
    assert scene.dropped == {
        "view without a pose": 1, "view without its depth image": 1, "view without its semantic image": 1
    }  # fmt: skip
    path(tmp_path, "pose", 1).write_bytes(pose())
    assert [bool(view.semantic) for view in read(tmp_path).views] == [False, True]
    (tmp_path / "assets/semantic_labels.json").unlink()
    assert [bool(view.semantic) for view in read(tmp_path).views] == [False, False]
    assert read(tmp_path, views=None).views == ()


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("rgb", b"\xff\xd8", "the JPEG ends before its image data"),
        ("depth", png(np.zeros((SIZE, SIZE), np.uint8)), "expected a 16-bit grey PNG of 24x24"),
        ("depth", png(np.zeros((SIZE, 25), np.uint16)), "it has 25x24"),
        ("semantic", png(np.zeros((SIZE, SIZE), np.uint8)), "expected an 8-bit colour PNG"),
        ("pose", b"[1, 2]", "no pose with camera_k_matrix"),
        ("pose", b'{"camera_k_matrix": []}', "no pose with camera_k_matrix"),
        ("pose", b"[" * 100_000, "no pose with camera_k_matrix"),
    ],
)
def test_files_that_cannot_be_read_are_errors_for_people(tmp_path: Path, kind: str, data: bytes, message: str) -> None:
    path(write(tmp_path), kind).write_bytes(data)
    with pytest.raises(RawDataError, match=message) as caught:
        read(tmp_path)
    assert f"data/{kind}/camera_" in str(caught.value) and "Area_5/office_2" in str(caught.value)


def test_a_damaged_label_table_is_an_error_for_people(tmp_path: Path) -> None:
    (write(tmp_path) / "assets/semantic_labels.json").write_text('{"a": 1}')
    with pytest.raises(RawDataError, match=r"semantic_labels.json.*expected a list of labels"):
        read(tmp_path)


def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    rows = "## Global alignment angle per disjoint space in Area_5 ##\noffice_2 30\n"
    (tmp_path / "Area_5/Area_5_alignmentAngle.txt").write_text(rows)
    paths = [str(path(tmp_path, kind).relative_to(tmp_path)) for kind in ("rgb", "pose", "depth", "semantic")]
    paths += [
        "Area_5/office_2/Annotations/wall_1.txt",
        "Area_5/Area_5_alignmentAngle.txt",
        "assets/semantic_labels.json",
    ]
    survived = assert_survives(SOURCE, tmp_path, paths, options=S3DISOptions(views="", align_rooms=True), count=2520)
    assert survived.scenes > 300 and survived.errors > 300 and survived.missing == 0


def test_damaged_rooms_in_chunks_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "Area_1/hallway_1/Annotations"
    folder.mkdir(parents=True)
    rows = (f"{k % 60}.125 {k // 60}.250 1.500 {k % 256} 9 255\n" for k in range(250))
    (folder / "wall_1.txt").write_text("".join(rows))
    (folder / "floor_1.txt").write_text("1.500 2.500 0.000 1 2 3\n" * 20)
    paths = [f"Area_1/hallway_1/Annotations/{name}_1.txt" for name in ("wall", "floor")]
    survived = assert_survives(SOURCE, tmp_path, paths, options=S3DISOptions(chunk_points=100), count=600)
    assert survived.scenes > 100 and survived.errors > 30


def test_planning_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 rooms with views cost listings only: no file is opened, and listings grow with folders, not files."""
    for number in range(300):
        folder = tmp_path / f"Area_5/office_{number}/Annotations"
        folder.mkdir(parents=True)
        (folder / "wall_1.txt").write_bytes(b"0 0 0 1 1 1\n")
    write(tmp_path, views=8)
    listings: list[str] = []

    def refuse(*_: Any) -> Any:
        raise AssertionError("planning opened a file")

    def counted(self: Store, name: str = "", *, original: Any = Store.sizes) -> Any:
        listings.append(name)
        return original(self, name)

    for method in ("read", "read_range", "read_into"):
        monkeypatch.setattr(Store, method, refuse)
    monkeypatch.setattr(Store, "sizes", counted)
    items = list(SOURCE.plan(Store(tmp_path), S3DISOptions(views="")))
    assert len(items) == 300 and not any(isinstance(item, Missing) for item in items)
    assert len(listings) == 2 * 300 + 4
