"""Aria Synthetic Environments on simulated walks: against their truth, with every trap of the format, damage, size."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.ingest.ase.camera import DEVICE_FROM_CAMERA
from brickyard.ingest.ase.plan import split_of
from brickyard.ingest.ase.upright import quarter_turns
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.sameness import first_difference
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, Notice, SceneRef, find_source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from brickyard.shards.verify import reprojection_error
from tests.ingest.mutation import assert_survives

SOURCE = find_source("ase")
CLASSES = taxonomy("ase43").classes
WALK = "7"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ase")
    simulate(folder, datasets=("ase",), seed=3, config=SimulationConfig(ase_walks=2, ase_frames=4))
    return folder


@pytest.fixture
def raw(world: Path, tmp_path: Path) -> Path:
    """One walk to be changed."""
    shutil.copytree(world / "ase" / WALK, tmp_path / WALK)
    return tmp_path


def refs(root: Path, **options: Any) -> list[Any]:
    return list(SOURCE.plan(Store(str(root)), SOURCE.options(**{"every": 1, **options})))


def read(root: Path, **options: Any) -> Scene:
    found = [ref for ref in refs(root, **options) if isinstance(ref, SceneRef) and ref.scene_id == WALK]
    return SOURCE.read(found[0])


@pytest.fixture(scope="module")
def scene(world: Path) -> Scene:
    return read(world / "ase")


def test_frames_are_where_they_were_taken(world: Path, scene: Scene) -> None:
    assert scene.identity.split == "train" and len(scene.views) == 4
    for number, view in enumerate(scene.views):
        truth = np.load(world / "truth" / "ase" / WALK / f"pose_{number:07d}.npy")
        assert view.scene_from_camera is not None
        np.testing.assert_allclose(scene.world_from_scene @ view.scene_from_camera, truth, atol=1e-6)
        assert view.timestamp_ns == number * 100_000_000
        assert view.scene_from_camera[2, 0] < -0.8, "up points to the left of the stored image"


def test_depth_and_instances_are_the_truth(world: Path, scene: Scene) -> None:
    for number, view in enumerate(scene.views):
        assert view.depth is not None and view.depth.along == "ray" and view.instance is not None
        folder = world / "truth" / "ase" / WALK
        depth = np.load(folder / f"depth_{number:07d}.npy")
        ours = view.depth.values[::8, ::8] * view.depth.scale
        np.testing.assert_allclose(ours[ours > 0], depth[ours > 0], atol=6e-4)
        assert ((ours == 0) == ~np.isfinite(depth)).mean() > 0.999
        assert np.array_equal(view.instance[::8, ::8], np.load(folder / f"instance_{number:07d}.npy"))


def test_points_lie_on_what_all_frames_saw(scene: Scene) -> None:
    assert scene.points is not None and scene.points.normal is not None and scene.points.color is not None
    floor = scene.points.semantic["ase43"] == CLASSES.index("floor")
    assert floor.sum() > 1000
    assert abs(np.median(scene.points.xyz[floor, 2])) < 0.003 and np.median(scene.points.normal[floor, 2]) > 0.99
    paired = add_correspondences(scene, CorrespondenceConfig())
    for view in paired.views:
        assert view.pairs is not None and view.pairs.visible.mean() > 0.5
        assert reprojection_error(paired, view) < 0.05
    cells = np.unique(np.floor(scene.points.xyz.astype(np.float64) / 0.02).astype(int), axis=0)
    assert len(cells) > 0.98 * len(scene.points), "one point in a cube of 2 cm"
    view = paired.views[0]
    assert view.pairs is not None and view.instance is not None and scene.points.instance is not None
    column, row = view.pairs.pixel[view.pairs.visible].T
    same = view.instance[row, column] == scene.points.instance[view.pairs.point[view.pairs.visible]]
    assert same.mean() > 0.95


def test_classes_come_by_their_names(world: Path, scene: Scene) -> None:
    names = json.loads((world / "ase" / WALK / "object_instances_to_classes.json").read_text())
    assert scene.points is not None and scene.points.instance is not None
    for ident in np.unique(scene.points.instance):
        found = set(scene.points.semantic["ase43"][scene.points.instance == ident].tolist())
        assert found == {CLASSES.index(names[str(ident)])}


def test_the_scene_language_is_kept_in_the_frame_of_the_scene(world: Path, raw: Path, scene: Scene) -> None:
    path = raw / WALK / "ase_scene_language.txt"
    first, *_ = path.read_text().splitlines()
    wall, origin = scene.annotations["scene_language"][0], scene.world_from_scene[:3, 3]
    words = dict(word.split("=") for word in first.split(", ")[1:])
    assert wall["command"] == "make_wall" and wall.keys() - {"command"} == words.keys()
    assert wall["height"] == float(words["height"]) and wall["a_x"] == float(words["a_x"]) - origin[0]
    assert wall["b_y"] == float(words["b_y"]) - origin[1]
    path.write_text(f"{first}\nmake_wall, id=one\n")
    damaged = read(raw, every=4)
    assert damaged.annotations == {} and damaged.dropped["walk whose ase_scene_language.txt is damaged"] == 1
    path.unlink()
    assert read(raw, every=4).dropped["walk without its ase_scene_language.txt"] == 1


def test_semidense_points_have_no_colour(world: Path) -> None:
    found = read(world / "ase", points="semidense")
    text = gzip.decompress((world / "ase" / WALK / "semidense_points.csv.gz").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    precise = [list(map(float, row[2:5])) for row in rows if float(row[5]) <= 0.005 and float(row[6]) <= 0.01]
    assert found.points is not None and found.points.color is None
    moved = np.array(precise) - found.world_from_scene[:3, 3]
    np.testing.assert_allclose(found.points.xyz, moved, atol=1e-5)
    assert found.dropped["point that is not precise enough"] == len(rows) - len(precise)
    assert len(found.views) == 4


def test_the_constant_leads_from_the_camera_to_the_device() -> None:
    """Against a plain formula of the quaternion, scalar first, as Meta's code has it."""
    from pyquaternion import Quaternion

    turn = Quaternion(0.9441858687689326, 0.326409343828490850, 0.029274992008313648, 0.033361059956531547)
    np.testing.assert_allclose(DEVICE_FROM_CAMERA[:3, :3], turn.rotation_matrix, atol=1e-7)


def png(values: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def test_values_that_are_no_distance_are_none(raw: Path) -> None:
    path = raw / WALK / "depth" / "depth0000000.png"
    values = np.array(Image.open(path)).astype(np.uint16)
    known = int(((values > 100) & (values < 65535)).sum())
    values[350:360, 350:360] = 100
    values[360:370, 350:360] = 65535
    values[370:380, 350:360] = 0
    path.write_bytes(png(values))
    found = read(raw)
    depth = found.views[0].depth
    assert depth is not None and not depth.values[350:380, 350:360].any()
    assert int((depth.values > 0).sum()) == known - 300
    assert found.dropped["pixel nearer than the near plane"] == 200


def test_a_partial_download_is_read_at_its_own_numbers(raw: Path) -> None:
    for name in ("rgb/vignette0000001.jpg", "depth/depth0000001.png", "depth/depth0000002.png"):
        (raw / WALK / name).unlink()
    (raw / WALK / "instances" / "instance0000003.png").unlink()
    found = read(raw)
    assert [view.name for view in found.views] == ["frame-0000000", "frame-0000003"]
    assert found.dropped["frame without its colour or its depth"] == 1
    assert found.dropped["frame without its instances"] == 1
    assert [view.name for view in read(raw, every=4).views] == ["frame-0000000"]


def test_without_names_there_are_no_classes(raw: Path) -> None:
    (raw / WALK / "object_instances_to_classes.json").unlink()
    found = read(raw)
    assert found.points is not None and not found.points.semantic and found.points.instance is not None
    assert found.dropped["walk without its object_instances_to_classes.json"] == 1


def test_unknown_classes_are_counted(raw: Path) -> None:
    path = raw / WALK / "object_instances_to_classes.json"
    names = json.loads(path.read_text())
    number = next(key for key, name in names.items() if name == "floor")
    path.write_text(json.dumps({**names, number: "spaceship"}))
    found = read(raw)
    assert found.points is not None and found.dropped["instance of the unknown class 'spaceship'"] == 1
    assert CLASSES.index("floor") not in found.points.semantic["ase43"]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_images_that_were_turned_upright_are_refused(raw: Path, turns: int) -> None:
    """The colours alone, or colours, depth and instances together, as people do."""
    for path in (raw / WALK / "rgb").iterdir():
        Image.fromarray(np.rot90(np.array(Image.open(path)), turns)).save(path, quality=95)
    with pytest.raises(RawDataError, match=r"colours fit their depth turned by .* turned upright"):
        read(raw)
    for folder in ("depth", "instances"):
        for path in (raw / WALK / folder).iterdir():
            path.write_bytes(png(np.ascontiguousarray(np.rot90(np.array(Image.open(path)).astype(np.uint16), turns))))
    with pytest.raises(RawDataError, match="neighbouring frames contradict each other"):
        read(raw)


def test_colours_as_they_are_need_no_turn(scene: Scene) -> None:
    pairs = []
    for view in scene.views:
        assert view.depth is not None
        pairs.append((np.array(Image.open(io.BytesIO(view.image))), view.depth.values))
    assert quarter_turns(pairs) == 0
    flat = np.full((704, 704, 3), 90, np.uint8)
    assert quarter_turns([(flat, np.full((704, 704), 2000, np.uint16))]) == 0


def test_another_size_is_refused(raw: Path) -> None:
    for path in (raw / WALK / "rgb").iterdir():
        Image.open(path).resize((1408, 1408)).save(path)
    with pytest.raises(RawDataError, match=r"1408x1408 pixels, the camera has 704x704"):
        read(raw)


def test_poses_that_are_none_cost_their_frames(raw: Path) -> None:
    path = raw / WALK / "trajectory.csv"
    head, *rows = path.read_text().splitlines()
    columns = rows[1].split(",")
    rows[1] = ",".join([*columns[:6], "2.0", *columns[7:]])
    rows[2] = ",".join([*columns[:3], "", *columns[4:]])
    path.write_text("\n".join([head, *rows]) + "\n")
    found = read(raw)
    assert [view.name for view in found.views] == ["frame-0000000", "frame-0000003"]
    assert found.dropped["frame whose pose is impossible"] == 2
    path.write_text("\n".join([head.replace("qw_world_device", "q"), *rows]) + "\n")
    with pytest.raises(RawDataError, match="has no column qw_world_device"):
        read(raw)
    path.write_text(head + "\n")
    with pytest.raises(RawDataError, match="none of its rows holds a pose"):
        read(raw)


def test_columns_that_are_more_and_empty_do_not_matter(raw: Path, scene: Scene) -> None:
    """As a recording of a real device has them."""
    path = raw / WALK / "trajectory.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"gravity_x_world,{head},quality_score", *(f",{row}," for row in rows)]) + "\n")
    found = read(raw)
    assert scene.points is not None and found.points is not None
    np.testing.assert_array_equal(found.points.xyz, scene.points.xyz)


def test_plans(world: Path, tmp_path: Path) -> None:
    found = refs(world / "ase", split="hashed")
    assert [ref.scene_id for ref in found] == ["0", "7"]
    (tmp_path / "12").mkdir()
    (tmp_path / "007").mkdir()
    (tmp_path / "walks.zip").write_bytes(b"PK")
    found = refs(tmp_path)
    assert [type(item) for item in found] == [Notice, Missing]
    assert "unpack it" in found[0].reason and "trajectory.csv not there" in found[1].reason
    with pytest.raises(RawDataError, match="no walk of Aria Synthetic Environments"):
        refs(world)
    with pytest.raises(RecipeError, match="grid_m"):
        SOURCE.options(grid_m=5)
    shares = Counter(split_of(str(walk), "hashed") for walk in range(20_000))
    assert 0.09 < shares["val"] / 20_000 < 0.11 and split_of("0", "published") == "train"


@given(seed=st.integers(0, 2**32 - 1))
def test_pictures_without_a_common_edge_say_nothing(seed: int) -> None:
    """Such as a wall before the lens: chance alone may not refuse a walk."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(4):
        color = np.kron(rng.integers(0, 255, (16, 16)), np.ones((8, 8))).astype(np.uint8)
        depth = (2000 + rng.normal(0, 3, (128, 128))).astype(np.uint16)
        frames.append((np.repeat(color[..., None], 3, axis=2), depth))
    assert quarter_turns(frames) == 0


@pytest.mark.parametrize(("points", "prefix"), [("fused", ""), ("semidense", "./"), ("semidense", "train/")])
def test_zips_stay_packed(world: Path, tmp_path: Path, points: str, prefix: str) -> None:
    whole = SOURCE.read(next(ref for ref in refs(world / "ase", points=points, every=4) if ref.scene_id == WALK))
    pack(world / "ase", tmp_path / "train_chunk_0000000.zip", prefix)
    found = refs(tmp_path, points=points, every=4)
    assert [ref.scene_id for ref in found] == [str(walk) for walk in range(10)]
    packed = SOURCE.read(found[int(WALK)])
    assert first_difference(whole.points, packed.points) is None and packed.dropped == whole.dropped
    assert all(first_difference(a, b) is None for a, b in zip(whole.views, packed.views, strict=True))
    with pytest.raises(RawDataError, match=r"1/trajectory\.csv: file is missing"):
        SOURCE.read(found[1])


def test_a_walk_that_was_not_unpacked_to_its_end_is_completed_from_its_zip(world: Path, tmp_path: Path) -> None:
    pack(world / "ase", tmp_path / "train_chunk_0000000.zip")
    shutil.copytree(world / "ase" / WALK, tmp_path / WALK)
    shutil.rmtree(tmp_path / WALK / "depth")
    whole, mended = (
        SOURCE.read(next(ref for ref in refs(root, every=4) if ref.scene_id == WALK))
        for root in (world / "ase", tmp_path)
    )
    assert first_difference(whole.points, mended.points) is None


def test_a_cut_zip_is_refused(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "train_chunk_0000000.zip"
    pack(world / "ase", path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RawDataError, match=r"train_chunk_0000000\.zip: .*no directory"):
        SOURCE.read(refs(tmp_path)[0])


def pack(root: Path, path: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.relative_to(root).parts[0].isdecimal():
                archive.write(file, prefix + str(file.relative_to(root)))


def test_many_walks_are_planned_quickly(tmp_path: Path) -> None:
    """A fiftieth of the release; all of it takes fifty times as long and as much."""
    for walk in range(2000):
        (tmp_path / str(walk)).mkdir()
        (tmp_path / str(walk) / "trajectory.csv").touch()
    begin = time.process_time()
    found = refs(tmp_path)
    assert len(found) == 2000 and [int(ref.scene_id) for ref in found] == list(range(2000))
    assert time.process_time() - begin < 5


def test_the_contract(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "ase" / "0", tmp_path / "0")
    assert_source_ok(SOURCE, str(tmp_path), SOURCE.options(points="semidense", every=4), scenes=1)


def test_mutated_files_end_in_a_scene_or_an_error(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "ase" / WALK, tmp_path / WALK)
    for kind in ("rgb", "depth", "instances"):
        for path in sorted((tmp_path / WALK / kind).iterdir())[1:]:
            path.unlink()
    paths = [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*")) if p.is_file() and "semi" not in p.name]
    survived = assert_survives(SOURCE, tmp_path, paths, count=2000, tried=12, options=SOURCE.options(every=1))
    assert survived.scenes > 500 and survived.errors > 200
    semidense = SOURCE.options(every=1, points="semidense")
    survived = assert_survives(
        SOURCE, tmp_path, [f"{WALK}/semidense_points.csv.gz"], count=600, tried=15, options=semidense
    )
    assert survived.errors > 300


def test_a_bomb_is_not_inflated(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brickyard.ingest.ase.tables.MAX_POINTS_TEXT", 1000)
    with pytest.raises(RawDataError, match="holds more than 1000 bytes"):
        read(raw, points="semidense")


def test_a_reading_is_the_same_again(world: Path, scene: Scene) -> None:
    again = read(world / "ase")
    assert scene.points is not None and again.points is not None
    assert np.array_equal(scene.points.xyz, again.points.xyz) and scene.dropped == again.dropped
    assert replace(scene, points=None, views=()).identity == again.identity
