"""S3DIS rooms that lost something: their own file shows it, zero bytes are no lines, tables belong to one area."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.plan import S3DISOptions
from brickyard.ingest.source import Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

ROOM = "Area_2/office_7"
SIZES = {"ceiling_1.txt": 300, "chair_1.txt": 4, "floor_1.txt": 500, "wall_1.txt": 196}


def write(root: Path, room: str = ROOM, seed: int = 0) -> Path:
    """A room of 1,000 points in four annotation files, and its own file with the same lines in another order."""
    rng = np.random.default_rng(seed)
    folder = root / room
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    lines = []
    for name, size in SIZES.items():
        mine = [
            b"%.3f %.3f %.3f %d %d %d\n" % (*xyz, *color)
            for xyz, color in zip(rng.uniform(-9, 9, (size, 3)), rng.integers(0, 256, (size, 3)), strict=True)
        ]
        (folder / "Annotations" / name).write_bytes(b"".join(mine))
        lines += mine
    (folder / f"{folder.name}.txt").write_bytes(b"".join(lines[number] for number in rng.permutation(len(lines))))
    return folder


def read(root: Path, **options: object) -> Scene:
    (ref,) = [item for item in SOURCE.plan(Store(root), S3DISOptions(**options)) if item.scene_id == ROOM]  # type: ignore[arg-type]
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def test_a_whole_room_agrees_with_its_own_file_and_that_is_not_even_read(tmp_path: Path) -> None:
    write(tmp_path)
    scene = read(tmp_path)
    assert scene.points is not None and len(scene.points) == 1000 and not scene.dropped
    assert f"{ROOM}/office_7.txt" not in {source.path for source in scene.identity.sources}


def test_lines_are_counted_where_the_files_only_differ_in_their_text(tmp_path: Path) -> None:
    folder = write(tmp_path)
    own = folder / "office_7.txt"
    own.write_bytes(own.read_bytes().replace(b" ", b"  "))
    scene = read(tmp_path)
    assert not scene.dropped and f"{ROOM}/office_7.txt" in {source.path for source in scene.identity.sources}


@pytest.mark.parametrize("damage", ["deleted", "empty", "cut", "cut between lines", "of another room"])
def test_a_room_that_lost_much_is_refused(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path)
    wall = folder / "Annotations/wall_1.txt"
    text = wall.read_bytes()
    if damage == "deleted":
        wall.unlink()
    elif damage == "of another room":
        floor = write(tmp_path, "Area_2/office_8", seed=1) / "Annotations/floor_1.txt"
        wall.write_bytes(floor.read_bytes())
    else:
        half = text[: text.index(b"\n", len(text) // 2) + 1]
        wall.write_bytes({"empty": b"", "cut": half[:-3], "cut between lines": half}[damage])
    with pytest.raises(RawDataError, match=rf"{ROOM}/Annotations: its files hold \d+ points, .*office_7.txt has 1000"):
        read(tmp_path)


def test_a_room_that_lost_little_is_counted(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "Annotations/chair_1.txt").unlink()
    scene = read(tmp_path)
    assert scene.points is not None and len(scene.points) == 996
    assert scene.dropped == {"point of the room's own file that no annotation file has": 4}
    write(tmp_path)
    floor = folder / "Annotations/floor_1.txt"
    floor.write_bytes(floor.read_bytes() + b"1 2 3 4 5 6\n")
    assert read(tmp_path).dropped == {"point of the annotation files that the room's own file has not": 1}


def test_files_of_unknown_classes_are_not_missed(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "Annotations/wall_1.txt").rename(folder / "Annotations/gramophone_1.txt")
    scene = read(tmp_path)
    assert scene.points is not None and len(scene.points) == 804
    assert scene.dropped == {"file that names no class": 1}


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_a_damaged_witness_costs_nothing(tmp_path: Path, damage: str) -> None:
    own = write(tmp_path) / "office_7.txt"
    text = own.read_bytes()
    own.write_bytes(
        text[: len(text) // 2 + 5].rstrip(b"\n") if damage == "cut" else text[:900] + bytes(512) + text[900:]
    )
    scene = read(tmp_path)
    assert scene.points is not None and len(scene.points) == 1000
    assert scene.dropped == {"room's own file is damaged: the points were not counted against it": 1}


@pytest.mark.parametrize("place", [0, 700, 3333, -4096])
def test_a_block_of_zeros_is_no_line(tmp_path: Path, place: int) -> None:
    floor = write(tmp_path) / "Annotations/floor_1.txt"
    data = bytearray(floor.read_bytes())
    start = place % len(data)
    data[start : start + 4096] = bytes(4096)
    floor.write_bytes(data)
    with pytest.raises(RawDataError, match=rf"floor_1.txt at byte {start}: a block of 4096 zero bytes"):
        read(tmp_path)


def test_angles_of_another_area_are_refused_and_a_cut_line_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    table = tmp_path / "Area_2/Area_2_alignmentAngle.txt"
    table.write_text("## Global alignment angle per disjoint space in Area_3 ##\noffice_7 90\n")
    with pytest.raises(RawDataError, match="line 1: these are the angles of Area_3"):
        read(tmp_path, align_rooms=True)
    table.write_text("## Global alignment angle per disjoint space in Area_2 ##\noffice_7 9")
    assert read(tmp_path, align_rooms=True).dropped == {"room alignment: the line of its angle may be cut off": 1}


def test_a_pose_of_another_scan_location_is_left_out(tmp_path: Path) -> None:
    from tests.ingest import test_s3dis_views as views

    views.write(tmp_path)
    pose = views.path(tmp_path, "pose")
    entries = json.loads(pose.read_text())
    pose.write_text(json.dumps(entries | {"camera_uuid": "cd" * 16}))
    (ref,) = SOURCE.plan(Store(tmp_path), S3DISOptions(views=""))
    assert isinstance(ref, SceneRef)
    assert SOURCE.read(ref).dropped["view with an invalid pose"] == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rgb", "view without its image"),
        ("pose", "view without a pose"),
        ("depth", "view without its depth image"),
        ("semantic", "view without its semantic image"),
    ],
)
def test_what_a_view_lacks_and_others_have_is_counted(tmp_path: Path, kind: str, reason: str) -> None:
    from tests.ingest import test_s3dis_views as views

    views.write(tmp_path, 2)
    views.path(tmp_path, kind, 1).unlink()
    (ref,) = SOURCE.plan(Store(tmp_path), S3DISOptions(views=""))
    assert isinstance(ref, SceneRef)
    assert SOURCE.read(ref).dropped == {reason: 1}


def test_a_room_without_the_file_that_its_neighbours_have_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "Area_2/office_8", seed=1)
    (tmp_path / ROOM / "office_7.txt").unlink()
    assert read(tmp_path).dropped == {"room's own file is not there: the points were not counted against it": 1}


def test_views_that_are_not_there_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(RecipeError, match="there is no folder 2D3DS"):
        list(SOURCE.plan(Store(tmp_path), S3DISOptions(views="2D3DS")))
    (tmp_path / "2D3DS" / "area_4").mkdir(parents=True)
    told = [item for item in SOURCE.plan(Store(tmp_path), S3DISOptions(views="2D3DS")) if isinstance(item, Notice)]
    assert [(item.scene_id, item.reason) for item in told] == [
        ("Area_2", "2D3DS has no views of it: its rooms go without")
    ]
