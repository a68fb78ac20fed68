"""Habitat-Matterport 3D on simulated buildings: against their truth and another reader, with every trap, and damage."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.hm3d.glb import Glb
from brickyard.ingest.hm3d.names import chunk_number, piece_of, split_of
from brickyard.ingest.hm3d.read import ELSEWHERE, MOVED, UNKNOWN, UNPAIRED, UNTEXTURED
from brickyard.ingest.hm3d.semantics import classes, read_annotation
from brickyard.ingest.hm3d.surface import Mesh, areas, draw, read_mesh
from brickyard.ingest.hm3d.texture import Texture
from brickyard.ingest.sameness import first_difference
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, find_source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy
from tests.ingest.mutation import assert_survives

SOURCE = find_source("hm3d")
DENSITY = 0.05


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hm3d")
    simulate(folder, datasets=["hm3d"], config=SimulationConfig(hm3d_buildings=2))
    return folder


@pytest.fixture
def raw(world: Path, tmp_path: Path) -> Path:
    """The first building, which is annotated, to be changed."""
    for path in sorted((world / "hm3d").glob("hm3d-train-*")):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path


def plan(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), SOURCE.options(**{"density_m": DENSITY} | options)))


def refs(root: Path, **options: Any) -> list[SceneRef]:
    return [item for item in plan(root, **options) if isinstance(item, SceneRef)]


def read(root: Path, number: int = 0, **options: Any) -> Scene:
    return SOURCE.read(refs(root, **options)[number])


def the_mesh(raw: Path, ending: str = ".glb") -> Path:
    (path,) = (p for p in raw.glob(f"*/*/*{ending}") if p.name.count(".") == ending.count("."))
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any], binary: Callable[[bytes], bytes] = bytes) -> None:
    """Change the table of contents and the binary part of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    table = json.loads(data[20 : 20 + length])
    change(table)
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length : 28 + length] + binary(data[28 + length :])
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    path.write_bytes(head + struct.pack("<I4s", len(text), b"JSON") + text + rest)


# Against the truth


def test_every_point_is_what_its_triangle_is(world: Path) -> None:
    truth = world / "truth/hm3d"
    for ref in refs(world / "hm3d"):
        scene, piece = SOURCE.read(ref), truth / ref.scene_id
        assert scene.points is not None and scene.points.normal is not None
        corners = np.load(piece / "corners.npy").astype(np.float64)
        chosen = np.arange(0, len(scene.points), 61)
        xyz = scene.points.xyz[chosen].astype(np.float64) + scene.world_from_scene[:3, 3]
        face, off = _nearest(xyz, corners)
        assert off.max() < 2e-4
        color = np.load(piece / "color.npy")[face].astype(int)
        differs = np.abs(scene.points.color[chosen].astype(int) - color).max(axis=1)  # type: ignore[index]
        assert np.median(differs) <= 2 and np.percentile(differs, 95) <= 10  # JPEG; and triangles that touch
        along = np.abs(np.einsum("ij,ij->i", _normals(corners)[face], scene.points.normal[chosen]))
        assert np.median(along) > 0.999
        if ref.split != "train":
            assert not scene.points.semantic and scene.points.instance is None
            continue
        names = json.loads((truth / ref.sequence / "categories.json").read_text())[ref.scene_id.partition("/")[2]]
        wanted = np.array([classes()[name] for name in names])[face]
        assert (scene.points.semantic["hm3d40"][chosen] == wanted).mean() > 0.97
        assert scene.points.instance is not None
        assert (scene.points.instance[chosen] == np.load(piece / "instance.npy")[face]).mean() > 0.97


def _nearest(xyz: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face that holds each point, and how far from its plane and its inside that is."""
    faces, offs = [], []
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = _normals(corners)
    for point in xyz:
        plane = np.abs(np.einsum("ij,ij->i", normal, point - a))
        outside = np.zeros(len(a))
        for one, two in ((a, b), (b, c), (c, a)):
            inward = np.cross(normal, two - one)
            inward /= np.linalg.norm(inward, axis=1, keepdims=True) + 1e-30
            outside = np.maximum(outside, -np.einsum("ij,ij->i", inward, point - one))
        distance = np.maximum(plane, outside)
        faces.append(int(distance.argmin()))
        offs.append(float(distance.min()))
    return np.array(faces), np.array(offs)


def _normals(corners: np.ndarray) -> np.ndarray:
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(cross / (np.linalg.norm(cross, axis=1, keepdims=True) + 1e-30))


def test_meshes_are_those_that_trimesh_reads(world: Path) -> None:
    """Places, faces and texture coordinates, which it turns upside down; through the scene's graph."""
    trimesh = pytest.importorskip("trimesh")
    ref = refs(world / "hm3d", pieces=False)[0]
    files = RawFiles(ref)
    glb = Glb(files, ref.files["mesh"])
    other = trimesh.load(world / "hm3d" / ref.files["mesh"], process=False)
    for primitive in glb.primitives():
        mesh = read_mesh(glb, primitive)
        transform, geometry = other.graph.get(primitive.name)
        theirs = other.geometry[geometry]
        np.testing.assert_allclose(mesh.xyz, trimesh.transform_points(theirs.vertices, transform), atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, theirs.faces)
        assert mesh.uv is not None
        np.testing.assert_allclose(mesh.uv * (1, -1) + (0, 1), theirs.visual.uv, atol=1e-6)


def test_there_are_as_many_points_as_the_area_asks_for(world: Path) -> None:
    for density in (0.05, 0.1):
        for ref in refs(world / "hm3d", density_m=density):
            corners = np.load(world / "truth/hm3d" / ref.scene_id / "corners.npy").astype(np.float64)
            cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            area = float(np.linalg.norm(cross, axis=1).sum() / 2)
            points = SOURCE.read(ref).points
            assert points is not None and abs(len(points) - area / density**2) <= 4
            assert 0.2 < ref.points_estimate / len(points) < 5


@given(st.lists(st.floats(1e-4, 2), min_size=1, max_size=30), st.floats(0.05, 0.5))
def test_every_triangle_gets_its_share_within_a_point(edges: list[float], density: float) -> None:
    xyz = np.concatenate([[[0, 0, k], [edge, 0, k], [0, edge, k]] for k, edge in enumerate(edges)]).astype(np.float64)
    mesh = Mesh(xyz, np.arange(len(xyz), dtype=np.int32).reshape(-1, 3), None, np.zeros_like(xyz, np.float32))
    found = draw(mesh, density, "a key")
    share = areas(mesh) / density**2
    counts = np.bincount(found.face, minlength=len(edges))
    assert abs(len(found.face) - share.sum()) <= 1
    scale = len(found.face) / max(share.sum(), 1e-9)
    assert (np.abs(counts - share * scale) < 2 + 1e-6).all()
    assert (found.weight >= -1e-12).all() and np.allclose(found.weight.sum(axis=1), 1)
    again = draw(mesh, density, "a key")
    np.testing.assert_array_equal(found.weight, again.weight)


def test_pieces_make_the_building(world: Path) -> None:
    whole = read(world / "hm3d", pieces=False)
    parts = [SOURCE.read(ref) for ref in refs(world / "hm3d") if ref.sequence == whole.identity.scene_id]
    assert whole.points is not None and len(parts) == 2
    assert abs(len(whole.points) - sum(len(part.points) for part in parts)) <= 8  # type: ignore[arg-type]
    storeys = [part.world_from_scene[2, 3] for part in parts]
    assert storeys == [0.0, 3.0], "z is up"


# Textures


@given(
    st.floats(-3, 3), st.floats(-3, 3), st.sampled_from([10497, 33071, 33648]), st.sampled_from([10497, 33071, 33648])
)
def test_texels_are_those_of_a_plain_reading(u: float, v: float, across: int, down: int) -> None:
    texels = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
    places = []
    for value, size, wrap in ((v, 5, down), (u, 3, across)):
        place = int(np.floor(value * size))
        if wrap == 33071:
            place = min(max(place, 0), size - 1)
        elif wrap == 33648:
            period = [*range(size), *reversed(range(size))]
            place = period[place % (2 * size)]
        else:
            place %= size
        places.append(place)
    found = Texture(texels, (across, down)).at(np.array([[u, v]]))
    assert found.tolist() == [texels[places[0], places[1]].tolist()]


def test_a_chunk_without_a_texture_is_counted(raw: Path) -> None:
    before = read(raw, pieces=False)
    rewrite(the_mesh(raw), lambda table: table["meshes"][0]["primitives"][0].pop("material"))
    after = read(raw, pieces=False)
    assert after.dropped[UNTEXTURED] == 1 and len(after.points) < len(before.points)  # type: ignore[arg-type]


# Annotations


def test_labels_may_be_left_out(raw: Path) -> None:
    labelled, plain = read(raw), read(raw, labels=False)
    assert labelled.points is not None and plain.points is not None
    assert plain.points.semantic == {} and plain.points.instance is None
    np.testing.assert_array_equal(labelled.points.xyz, plain.points.xyz)
    assert labelled.dropped[MOVED] == 1


def test_categories_may_hold_commas_and_slashes(tmp_path: Path) -> None:
    lines = ["HM3D Semantic Annotations", '1,00000A,"magazines, albums, bookshelf",0', '2,0000FF,"sheets / clothes",-1',
             '3,00F000,"wall",2', "", '4,F00000,"spaceship",2', '5,0000FE,"unknown",1']  # fmt: skip
    (tmp_path / "names.txt").write_text("\n".join(lines))
    dropped: Counter[str] = Counter()
    ref = SceneRef(dataset="hm3d", scene_id="a", split="none", sequence="a", root=str(tmp_path), files={})
    found = read_annotation(RawFiles(ref), "names.txt", dropped)
    names = taxonomy("hm3d40").classes
    colors = np.array([[0, 0, 10], [0, 0xF0, 0], [0xF0, 0, 0], [1, 2, 3], [0, 0, 254]], np.uint8)
    semantic, instance, unknown = found.of(colors)
    assert [names[k] if k >= 0 else None for k in semantic] == ["objects", "wall", None, None, None]
    assert instance.tolist() == [1, 3, 4, 0, 5] and unknown == 1
    assert dropped["instance of the unknown category 'spaceship'"] == 1
    assert not any("'unknown'" in text for text in dropped)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[1:], r"semantic\.txt line 1: begins with"),
        (lambda lines: [*lines, "7,ABC,wall,1"], "is no line such as"),
        (lambda lines: [*lines, lines[1]], "stands for two instances"),
    ],
)
def test_a_list_that_is_none_is_refused(raw: Path, change: Any, problem: str) -> None:
    path = the_mesh(raw, ".semantic.txt")
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(RawDataError, match=problem):
        read(raw)
    assert read(raw, labels=False).points is not None


def test_colours_that_are_not_in_the_list_are_counted(raw: Path) -> None:
    path = the_mesh(raw, ".semantic.txt")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], *lines[3:]]))
    found = read(raw)
    assert found.points is not None and found.points.instance is not None
    assert found.dropped[UNKNOWN] == int((found.points.instance == 0).sum()) > 0


def test_the_semantic_mesh_of_another_release_labels_nothing(raw: Path) -> None:
    def shifted(data: bytes) -> bytes:
        return np.float32(3.0).tobytes() * 8 + data[32:]

    rewrite(the_mesh(raw, ".semantic.glb"), lambda table: None, shifted)
    assert read(raw).dropped[ELSEWHERE] == 1

    def renamed(table: dict[str, Any]) -> None:
        table["nodes"][0]["name"] = "chunk999_group000_sub000"

    rewrite(the_mesh(raw, ".semantic.glb"), renamed)
    assert read(raw).dropped[UNPAIRED] == 1


# What is planned


def test_names() -> None:
    assert piece_of("chunk012_group000_sub003") == "000_003" == piece_of("chunk1_group000_sub003_semantic")
    assert piece_of("chunk012_group000") is None is piece_of("terrain") and chunk_number("chunk012_group0_sub1") == 12
    assert [split_of(f"{n:05d}-x") for n in (0, 799, 800, 899, 900, 999)] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2


def test_plans(world: Path, raw: Path) -> None:
    found = refs(world / "hm3d")
    assert [ref.split for ref in found] == ["train", "train", "val", "val"]
    assert {ref.sequence for ref in found} == {ref.scene_id.partition("/")[0] for ref in found}
    largest = plan(world / "hm3d", largest=1)
    assert [type(item) for item in largest] == [SceneRef, Notice] and "3 pieces are smaller" in largest[1].reason  # type: ignore[union-attr]
    assert largest[0].scene_id == max(found, key=lambda ref: ref.points_estimate).scene_id
    flat = raw / "flat"
    shutil.copytree(next(path for path in raw.glob("hm3d-train-glb/*") if path.is_dir()), flat / found[0].sequence)
    (only,) = {ref.sequence for ref in refs(flat)}
    assert only == found[0].sequence and "semantic" not in refs(flat)[0].files
    for options in ({"density_m": 0}, {"largest": -1}, {"pieces": False, "largest": 3}, {"version": "?"}):
        with pytest.raises(RecipeError, match="hm3d options"):
            SOURCE.options(**options)
    with pytest.raises(RawDataError, match="no building of HM3D is here"):
        plan(world)


def test_textures_of_basis_universal_are_told(raw: Path) -> None:
    the_mesh(raw).unlink()
    (item,) = plan(raw)
    assert isinstance(item, Missing) and "take the archive hm3d-<split>-glb" in item.reason
    basis = next(raw.glob("*/*/*.basis.glb"))
    shutil.copy(basis, basis.with_name(basis.name.replace(".basis", "")))
    (item,) = plan(raw)
    assert isinstance(item, Missing) and "its textures are Basis Universal" in item.reason


def test_chunks_of_other_names_are_told(raw: Path) -> None:
    def renamed(table: dict[str, Any]) -> None:
        table["nodes"][0]["name"] = "terrain"

    rewrite(the_mesh(raw), renamed)
    told = [item for item in plan(raw) if isinstance(item, Notice)]
    assert len(told) == 1 and "1 of 3 chunks are not called chunk###_group###_sub###" in told[0].reason


# Damage


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t["accessors"][0].update(count=2**30), "needs .* bytes, its view has"),
        (lambda t: t["accessors"][0].update(count=-1), "has -1 entries"),
        (lambda t: t["accessors"][0].update(sparse={}), "is sparse"),
        (lambda t: t["accessors"][0].update(componentType=5123), "expected VEC3"),
        (lambda t: t["bufferViews"][0].update(byteLength=2**40), "ends after the file"),
        (lambda t: t["bufferViews"][0].update(byteOffset=-4), "ends after the file"),
        (lambda t: t["bufferViews"][0].update(byteStride=4), "needs .* bytes, its view has"),
        (lambda t: t["buffers"][0].update(uri="file:///etc/passwd"), "lies in another file"),
        (lambda t: t["images"][0].update(uri="data:,"), "lies in another file or in its name"),
        (lambda t: t["nodes"][0].update(children=[0]), "stands below itself"),
        (lambda t: t["nodes"][0].update(matrix=[1.0] * 15), "is none"),
        (lambda t: t["nodes"][0].update(scale=[1e300, 1e300, 1e300], matrix=None), "is none"),
        (lambda t: t["meshes"][0]["primitives"][0].update(mode=1), "not made of triangles"),
        (lambda t: t["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"), "accessors\\[None\\]"),
        (lambda t: t.update(extensionsRequired=["KHR_draco_mesh_compression"]), "which is not read"),
        (lambda t: t["textures"][0].pop("source"), "has no image"),
        (lambda t: t["nodes"][0].update(translation=[1e9, 0, 0]), "coordinates beyond"),
    ],
)
def test_lies_are_refused(raw: Path, change: Any, problem: str) -> None:
    before = refs(raw)[0]
    rewrite(the_mesh(raw), change)
    with pytest.raises(RawDataError, match=problem):
        SOURCE.read(before)
    assert all(isinstance(item, SceneRef | Missing) for item in plan(raw))


def test_the_contract(raw: Path) -> None:
    assert_source_ok(SOURCE, str(raw), SOURCE.options(density_m=0.1), scenes=1)


def test_the_same_points_on_every_run(raw: Path) -> None:
    assert first_difference(read(raw), read(raw)) is None


def test_mutated_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    config = SimulationConfig(hm3d_buildings=1, hm3d_rooms=1, hm3d_spacing=2.0)
    simulate(tmp_path, datasets=["hm3d"], config=config)
    root = tmp_path / "hm3d"
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*.glb")) if "basis" not in path.name]
    names += [str(path.relative_to(root)) for path in root.rglob("*.semantic.txt")]
    survived = assert_survives(SOURCE, root, names, count=2000, options=SOURCE.options(density_m=0.2))
    assert survived.scenes > 200 and survived.errors > 600
