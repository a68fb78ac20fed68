"""The S3DIS reader on a small release written here, whole and with the damages of the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.plan import S3DISOptions
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

ROOM = "Area_5/office_2"
OBJECTS = {
    "wall_1.txt": b"-19.557 -13.432 2.210 112 108 96\n-19.548 -13.431 2.215 161 157 145\n",
    "ceiling_1.txt": b"-18.000 -12.001 3.048 185 187 182\n-18.001 -12.000 3.048 0 255 1\n-17.5 -12.25 3.049 9 8 7\n",
    "floor_1.txt": b"-17.999 -11.000 0.002 1 2 3\n",
}


def release(root: Path, objects: dict[str, bytes], room: str = ROOM) -> Path:
    folder = root / room / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    return root


def plan(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), S3DISOptions(**options)))


def read(root: Path, **options: Any) -> Scene:
    (ref,) = plan(root, **options)
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


def world(scene: Scene) -> np.ndarray:
    assert scene.points is not None
    return scene.points.xyz @ scene.world_from_scene[:3, :3].T + scene.world_from_scene[:3, 3]


def numbers(*objects: str) -> np.ndarray:
    return np.array([line.split() for name in objects for line in OBJECTS[name].splitlines()], np.float64)


def test_a_room_is_its_annotation_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    scene = read(release(tmp_path, OBJECTS))
    expected = numbers("ceiling_1.txt", "floor_1.txt", "wall_1.txt")
    points = scene.points
    assert points is not None and points.color is not None and points.instance is not None
    np.testing.assert_allclose(world(scene), expected[:, :3], atol=1e-6)
    np.testing.assert_array_equal(points.color, expected[:, 3:])
    assert points.semantic["s3dis13"].tolist() == [0, 0, 0, 1, 2, 2]
    assert points.instance.tolist() == [1, 1, 1, 2, 3, 3]
    assert np.abs(points.xyz).max() < 4, "shifted near zero"
    identity = scene.identity
    assert (identity.key, identity.split, identity.sequence) == (f"s3dis/{ROOM}", "val", "Area_5")
    assert (identity.version, identity.licence, identity.domain) == ("v1.2-aligned", "LicenseRef-S3DIS", "indoor")
    assert [source.path for source in identity.sources] == [f"{ROOM}/Annotations/{name}" for name in sorted(OBJECTS)]
    assert not scene.dropped


def test_areas_make_the_splits(tmp_path: Path) -> None:
    for room in ("Area_1/office_1", "Area_2/WC_1", "Area_5/office_1"):
        release(tmp_path, OBJECTS, room)
    (tmp_path / "Area_7/office_1/Annotations").mkdir(parents=True)
    (tmp_path / "Area_1/__MACOSX").mkdir()

    def splits(**options: Any) -> dict[str, str]:
        return {item.scene_id: item.split for item in plan(tmp_path, **options) if isinstance(item, SceneRef)}

    assert splits() == {"Area_1/office_1": "train", "Area_2/WC_1": "train", "Area_5/office_1": "val"}
    assert splits(val_area=2) == {"Area_1/office_1": "train", "Area_2/WC_1": "val", "Area_5/office_1": "train"}
    with pytest.raises(RecipeError, match="val_area"):
        S3DISOptions(val_area=0)
    with pytest.raises(RawDataError, match="no folder Area_1"):
        plan(tmp_path / "Area_1")


def test_clutter_of_the_release_is_counted_never_read(tmp_path: Path) -> None:
    stray = {
        ".DS_Store": b"\0\0\0\1Bud1", "wall_3 (1).txt": OBJECTS["wall_1.txt"], "gramophone_1.txt": b"0 0 0 1 1 1\n",
        "notes.md": b"", "beam_1.txt": b"",
    }  # fmt: skip
    scene = read(release(tmp_path, OBJECTS | stray))
    assert scene.points is not None and len(scene.points) == 6
    assert scene.dropped == {"file that names no class": 3, "empty annotation file": 1}


def test_stairs_are_clutter_by_custom(tmp_path: Path) -> None:
    points = read(release(tmp_path, {"stairs_1.txt": OBJECTS["floor_1.txt"]})).points
    assert points is not None
    assert taxonomy("s3dis13").classes[points.semantic["s3dis13"][0]] == "clutter"


def test_rooms_without_objects_are_missing(tmp_path: Path) -> None:
    (tmp_path / "Area_3/hallway_2").mkdir(parents=True)
    (item,) = plan(tmp_path)
    assert isinstance(item, Missing) and item.scene_id == "Area_3/hallway_2" and "Annotations" in item.reason


@pytest.mark.parametrize("stray", [b"\x10", b"\0", b"\v", b"\f", b"\xff"])
def test_stray_bytes_of_the_release(tmp_path: Path, stray: bytes) -> None:
    """Instead of a space: repaired. Inside a number: a digit is lost, the point is left out. Both are counted."""
    scene = read(
        release(tmp_path, OBJECTS | {"ceiling_1.txt": OBJECTS["ceiling_1.txt"].replace(b"185 ", b"185" + stray)})
    )
    expected = numbers("ceiling_1.txt", "floor_1.txt", "wall_1.txt")
    np.testing.assert_allclose(world(scene), expected[:, :3], atol=1e-6)
    assert scene.points is not None and scene.points.color is not None
    np.testing.assert_array_equal(scene.points.color, expected[:, 3:])
    assert scene.dropped == {"line repaired: a stray byte instead of a space": 1}
    broken = OBJECTS["ceiling_1.txt"].replace(b"12.001", b"12." + stray + b"01")
    scene = read(release(tmp_path, OBJECTS | {"ceiling_1.txt": broken}))
    np.testing.assert_allclose(world(scene), expected[1:, :3], atol=1e-6)
    assert scene.dropped == {"unreadable line": 1}


def test_a_digit_lost_at_the_end_of_a_number_is_not_repaired(tmp_path: Path) -> None:
    broken = OBJECTS["ceiling_1.txt"].replace(b"185 187", b"18\x10 187")
    assert read(release(tmp_path, {"ceiling_1.txt": broken})).dropped == {"unreadable line": 1}


def test_other_line_ends_spaces_and_decimals_are_read(tmp_path: Path) -> None:
    text = b"  1.5\t-2 3e-1 167.000000 1.0 2 \r\n\r\n.25 +1. 2 0 0 255\n"
    scene = read(release(tmp_path, {"chair_12.txt": text}))
    np.testing.assert_allclose(world(scene), [[1.5, -2, 0.3], [0.25, 1, 2]], atol=1e-6)
    assert not scene.dropped


def test_six_decimals_of_everything_mean_the_same(tmp_path: Path) -> None:
    """As the release that is not aligned writes them; a number with two points stays unreadable."""
    long = {
        name: b"".join(b"%.6f %.6f %.6f %.6f %.6f %.6f\n" % tuple(map(float, row.split())) for row in text.splitlines())
        for name, text in OBJECTS.items()
    }
    short, scene = read(release(tmp_path / "short", OBJECTS)), read(release(tmp_path / "long", long))
    assert scene.points is not None and short.points is not None
    np.testing.assert_array_equal(scene.points.xyz, short.points.xyz)
    np.testing.assert_array_equal(scene.points.color, short.points.color)
    long["floor_1.txt"] += b"1.2.000000 2.000000 3.000000 4.000000 5.000000 6.000000\n"
    assert read(release(tmp_path / "long", long)).dropped == {"unreadable line": 1}


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    scene = read(release(tmp_path, {"wall_1.txt": OBJECTS["wall_1.txt"][:-2]}))
    assert scene.points is not None and len(scene.points) == 1
    assert scene.dropped == {"last line cut off": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1 2 3 4 5\n" * 9, r"line 4.*4 bad lines"),
        (b"1 2 3 4 5 6 7\n" * 9, "4 bad lines"),
        (b"1.2.3 2 3 4 5 6\n" * 9, "4 bad lines"),
        (b"1 2 3 4 5 300\n", "1 points have a colour that is not 0..255, such as 1 2 3 4 5 300"),
        (b"1 2 3 4 5 6.5\n", "a colour"),
        (b"1e9 2 3 4 5 6\n", "a coordinate beyond"),
        (b"1e999 2 3 4 5 6\n" * 9, "4 bad lines"),
        (b"nan 2 3 4 5 6\n" * 9, "4 bad lines"),
        (b"PK\x03\x04" * 9000, "no file has a point"),
        (b" " * 9_000_000 + b"\n1 2 3 4 5\n" * 9, "bad lines"),
    ],
)  # fmt: skip
def test_text_that_is_no_annotation_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(RawDataError, match=message):
        read(release(tmp_path, {"wall_1.txt": text}))


def test_rooms_are_turned_by_their_angle_and_the_world_stays(tmp_path: Path) -> None:
    release(tmp_path, OBJECTS)
    table = "## Global alignment angle per disjoint space in Area_5 ##\noffice_1 12\noffice_2 90\n"
    (tmp_path / "Area_5/Area_5_alignmentAngle.txt").write_text(table)
    plain, turned = read(tmp_path), read(tmp_path, align_rooms=True)
    assert plain.identity.version == turned.identity.version == "v1.2"
    np.testing.assert_allclose(world(turned), world(plain), atol=1e-5)
    assert plain.points is not None and turned.points is not None
    x, y, z = plain.points.xyz.T
    np.testing.assert_allclose(turned.points.xyz, np.stack([-y, x, z], axis=1), atol=1e-6)
    (tmp_path / "Area_5/Area_5_alignmentAngle.txt").write_text("office_2 much\n")
    with pytest.raises(RawDataError, match=r"line 1: expected `office_2 <degrees>`"):
        read(tmp_path, align_rooms=True)
    (tmp_path / "Area_5/Area_5_alignmentAngle.txt").unlink()
    assert read(tmp_path, align_rooms=True).dropped == {"room alignment: there is no angle for this room": 1}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_rooms_give_a_scene_or_an_error_for_people(tmp_path_factory: Any, data: st.DataObject) -> None:
    content = bytearray(OBJECTS["ceiling_1.txt"] * 3)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        patch = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\n", b" ", b"-", b"e", b"."])))
        content[place : place + data.draw(st.sampled_from([0, 1, 30]))] = patch
    root = release(tmp_path_factory.getbasetemp() / "s3dis", {"wall_1.txt": bytes(content) or b"\0"})
    try:
        scene = read(root).validate()
    except RawDataError as problem:
        assert ROOM in str(problem)
    else:
        assert scene.points is not None
        lines = len([line for line in bytes(content).replace(b"\r", b"\n").split(b"\n") if line.strip()])
        assert len(scene.points) <= lines <= len(scene.points) + sum(scene.dropped.values()) + content.count(b"\r")
