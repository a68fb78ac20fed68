"""Posed images beside a point file: which file they belong to, which views a scene gets, and damages."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointfiles import SOURCE
from brickyard.ingest.pointfiles.plan import PointFilesOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives

XYZ = np.random.default_rng(2).random((200, 3)) * (8, 8, 3) + (1000, 2000, 50)
OPENGL_NORTH = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def pose(*place: float, south: bool = False) -> list[list[float]]:
    matrix = OPENGL_NORTH.copy()
    matrix[:3, 3] = place
    if south:
        matrix[:2, :3] *= -1
    return matrix.tolist()


def write(root: Path, frames: list[dict[str, Any]], *, name: str = "transforms.json", **more: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    header = "ply\nformat ascii 1.0\nelement vertex 200\n" + "".join(f"property double {a}\n" for a in "xyz")
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in XYZ)
    (root / "a.ply").write_text(header + "end_header\n" + rows)
    content = {"fl_x": 40, "w": 64, "h": 48, "frames": frames} | more
    (root / name).write_text(json.dumps(content))
    for frame in frames:
        stream = io.BytesIO()
        Image.new("RGB", (64, 48), (9, 99, 200)).save(stream, "JPEG")
        (root / frame["file_path"]).write_bytes(stream.getvalue())


def read(root: Path, **options: Any) -> list[Scene]:
    refs = SOURCE.plan(Store(root), PointFilesOptions(**options))
    return [SOURCE.read(ref) for ref in refs if isinstance(ref, SceneRef)]


FRAMES = [{"file_path": f"{n}.jpg", "transform_matrix": pose(1000.5 + n, 1995, 51)} for n in range(8)]
BACK = {"file_path": "back.jpg", "transform_matrix": pose(1004, 1995, 51, south=True)}


def test_views_that_see_the_scene_spread_evenly(tmp_path: Path) -> None:
    write(tmp_path, [*FRAMES, BACK])
    (tmp_path / "3.jpg").unlink()
    (scene,) = read(tmp_path, max_views=3)
    assert [view.name for view in scene.views] == ["0", "4", "7"]
    assert scene.dropped == {
        "views that see no point": 1, "views whose image is missing": 1, "views beyond max_views": 4
    }  # fmt: skip
    first = scene.views[0].scene_from_camera
    assert first is not None and scene.points is not None
    world = scene.world_from_scene @ first
    np.testing.assert_allclose(world[:3, 3], [1000.5, 1995, 51])
    np.testing.assert_allclose(world[:3, :3] @ [0, 0, 1], [0, 1, 0], atol=1e-12, err_msg="it looks north")
    np.testing.assert_allclose(world[:3, :3] @ [0, 1, 0], [0, 0, -1], atol=1e-12, err_msg="y is down")
    paths = [source.path for source in scene.identity.sources]
    assert paths == ["0.jpg", "4.jpg", "7.jpg", "a.ply", "transforms.json"]


def test_a_strip_has_the_views_that_see_it(tmp_path: Path) -> None:
    narrow = {"fl_x": 400}
    write(tmp_path, [frame | narrow for frame in FRAMES])
    west, east = read(tmp_path, max_points=100)
    assert [view.name for view in west.views] == ["0", "1", "2", "3", "4"]
    assert [view.name for view in east.views] == ["3", "4", "5", "6", "7"]
    for scene in (west, east):
        place = scene.views[-1].scene_from_camera
        assert place is not None
        number = int(scene.views[-1].name)
        np.testing.assert_allclose((scene.world_from_scene @ place)[:3, 3], [1000.5 + number, 1995, 51])


def test_whose_poses_they_are(tmp_path: Path) -> None:
    write(tmp_path, FRAMES[:1], ply_file_path="a.ply")
    write(tmp_path, FRAMES[:2], name="b.transforms.json")
    (tmp_path / "b.ply").write_bytes((tmp_path / "a.ply").read_bytes())
    (tmp_path / "c.ply").write_bytes((tmp_path / "a.ply").read_bytes())
    assert [len(scene.views) for scene in read(tmp_path)] == [1, 2, 0]


def test_units_of_the_file_hold_for_its_poses(tmp_path: Path) -> None:
    write(tmp_path, FRAMES[:1])
    (scene,) = read(tmp_path, metres_per_unit=0.5)
    pose = scene.views[0].scene_from_camera
    assert pose is not None
    np.testing.assert_allclose((scene.world_from_scene @ pose)[:3, 3], [500.25, 997.5, 25.5])


def test_poses_of_a_file_with_two_units_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, FRAMES[:2])
    (scene,) = read(tmp_path, metres_per_unit=1.0, metres_per_height_unit=0.3048)
    assert not scene.views and scene.dropped == {"views of a file with heights in another unit": 2}


def test_damages_and_lies(tmp_path: Path) -> None:
    write(tmp_path, FRAMES[:2])
    assert_source_ok(SOURCE, str(tmp_path))
    assert_source_ok(SOURCE, str(tmp_path), PointFilesOptions(max_points=60, overlap_m=0.3))
    survived = assert_survives(SOURCE, tmp_path, ["transforms.json", "0.jpg"], count=600)
    assert survived.scenes > 50 and survived.errors > 50
    write(tmp_path, FRAMES[:1])
    (tmp_path / "0.jpg").write_bytes(b"\xff\xd8 no image \xff\xd9")
    with pytest.raises(RawDataError, match=r"0\.jpg"):
        read(tmp_path)
