"""Simulated Structured3D houses against their truth, through the reader and through a plain second reading."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.structured3d import SOURCE
from brickyard.ingest.structured3d.plan import Structured3DOptions
from brickyard.shards.cameras import depth_camera, project
from brickyard.shards.scene import Scene
from brickyard.shards.taxonomy import taxonomy
from tests.ingest import structured3d_toy as toy

EVERY_PIXEL = {"grid_m": 0, "min_cosine": 0, "keep_unlabelled": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.world(tmp_path_factory.mktemp("structured3d"))


def truth(root: Path, scene: Scene, name: str) -> Any:
    return np.load(root.parent / "truth/structured3d" / scene.identity.scene_id / f"{name}.npy")


def in_world(scene: Scene, xyz: Any) -> Any:
    return xyz @ scene.world_from_scene[:3, :3].T + scene.world_from_scene[:3, 3]


def test_rooms_of_all_splits(root: Path) -> None:
    found = toy.refs(root)
    assert [(ref.sequence, ref.split) for ref in found] == [
        ("scene_00012", "train"), ("scene_01850", "train"), ("scene_03007", "val")
    ]  # fmt: skip
    scene = SOURCE.read(found[0])
    assert scene.identity.scene_id.startswith("scene_00012/room_") and scene.identity.domain == "indoor"
    assert {file.path for file in scene.identity.sources} == {
        "Structured3D_annotation_3d.zip", "Structured3D_bbox.zip", "Structured3D_panorama_00.zip",
        "Structured3D_perspective_full_00.zip",
    }  # fmt: skip


@pytest.mark.parametrize("points", ["panorama", "perspective"])
def test_every_pixel_is_a_point_where_a_plain_reading_has_it(root: Path, points: str) -> None:
    """Coordinates, colours, classes and instances, pixel by pixel, in the order of the picture."""
    for number, ref in enumerate(toy.refs(root)):
        scene = toy.read(root, number, points=points, views="none", min_agreement=0, **EVERY_PIXEL)
        plain, cloud = toy.Plain(root, ref.scene_id), scene.points
        names = ["panorama/full"] if points == "panorama" else [f"perspective/full/{k}" for k in range(2)]
        where = [plain.panorama()] if points == "panorama" else [plain.perspective(k) for k in range(2)]
        images = {
            kind: [plain.image(f"{name}/{kind}.png") for name in names] for kind in ("depth", "semantic", "instance")
        }
        measured = np.concatenate([image.ravel() > 0 for image in images["depth"]])
        places = np.concatenate([part.reshape(-1, 3) for part in where])[measured]
        assert cloud is not None and cloud.color is not None and cloud.instance is not None
        lost = scene.dropped.get("pixel at an edge or seen at a grazing angle", 0)
        assert len(cloud) == len(places) - lost and lost < 0.01 * len(places)
        distance, pixel = cKDTree(places).query(in_world(scene, cloud.xyz))
        assert distance.max() < 2e-6 and (np.diff(pixel) > 0).all()
        color = np.concatenate([plain.image(f"{name}/rgb_rawlight.png")[..., :3].reshape(-1, 3) for name in names])
        np.testing.assert_array_equal(cloud.color, color[measured][pixel])
        nyu40 = np.concatenate([image.ravel() for image in images["semantic"]])[measured][pixel].astype(int)
        np.testing.assert_array_equal(cloud.semantic["nyu40"], nyu40 - 1)
        instance = np.concatenate([image.ravel() for image in images["instance"]])[measured][pixel].astype(int)
        np.testing.assert_array_equal(cloud.instance, np.where(instance == 65535, 0, instance + 1))
        assert len(np.unique(cloud.instance)) > 3


def test_class_25_is_sonatas_list(root: Path) -> None:
    known, all_ = taxonomy("structured3d25"), taxonomy("nyu40")
    assert len(known.classes) == 25 and list(known.from_raw.values()) == list(range(25))
    names = {"nightstand": "night stand"}
    assert [all_.classes[raw - 1] for raw in known.from_raw] == [names.get(name, name) for name in known.classes]
    labels = toy.read(root).points
    assert labels is not None
    expected = np.array([known.from_raw.get(ident + 1, -1) for ident in labels.semantic["nyu40"].tolist()])
    np.testing.assert_array_equal(labels.semantic["structured3d25"], expected)


def test_normals_are_those_of_the_surfaces_and_point_to_the_camera(root: Path) -> None:
    for number, ref in enumerate(toy.refs(root)):
        scene = toy.read(root, number, points="panorama", views="panorama", grid_m=0, keep_unlabelled=True)
        cloud, plain = scene.points, toy.Plain(root, ref.scene_id)
        assert cloud is not None and cloud.normal is not None and cloud.normal_source is not None
        assert cloud.normal_source.startswith("depth-cross-product")
        measured = plain.image("panorama/full/depth.png").ravel() > 0
        _, pixel = cKDTree(plain.panorama().reshape(-1, 3)[measured]).query(in_world(scene, cloud.xyz))
        true = truth(root, scene, "panorama_full_normal").reshape(-1, 3)[measured][pixel].astype(float)
        angle = np.degrees(np.arccos(np.clip(np.abs((cloud.normal * true).sum(axis=1)), 0, 1)))
        assert np.median(angle) < 1.0 and np.percentile(angle, 90) < 6
        eye = truth(root, scene, "panorama_eye")
        assert (((eye - in_world(scene, cloud.xyz)) * cloud.normal).sum(axis=1) > 0).all()


def test_views_are_the_truth_and_see_the_points(root: Path) -> None:
    for number in range(3):
        scene = toy.read(root, number)
        assert [view.name for view in scene.views] == ["panorama", "perspective-0", "perspective-1"]
        assert [view.camera_model for view in scene.views] == ["equirectangular", "pinhole", "pinhole"]
        assert scene.points is not None
        for view in scene.views:
            kind, _, position = view.name.partition("-")
            stem = f"{kind}_full_{position}".rstrip("_")
            assert view.depth is not None and view.instance is not None and view.scene_from_camera is not None
            depth, label = truth(root, scene, f"{stem}_depth"), truth(root, scene, f"{stem}_label")
            assert view.depth.along == ("ray" if kind == "panorama" else "z")
            np.testing.assert_array_equal(view.depth.values > 0, np.isfinite(depth))
            known = np.isfinite(depth)
            assert np.abs(view.depth.values * view.depth.scale - depth)[known].max() < 0.00051
            np.testing.assert_array_equal(view.semantic["nyu40"], label.astype(int) - 1)
            instance = truth(root, scene, f"{stem}_instance")
            np.testing.assert_array_equal(view.instance, np.where(instance == 65535, 0, instance + 1))
            if position:
                pose = truth(root, scene, f"perspective_{position}_pose")
                np.testing.assert_allclose(scene.world_from_scene @ view.scene_from_camera, pose, atol=2e-6)
            seen = project(scene.points.xyz, depth_camera(view, view.depth))
            pixel = np.rint(np.nan_to_num(seen.uv, nan=-1)).astype(int)
            inside = (pixel >= 0).all(axis=1) & (pixel < (view.width, view.height)).all(axis=1)
            column, row = pixel[inside].T
            off = np.abs(seen.along(view.depth.along)[inside] - view.depth.values[row, column] * view.depth.scale)
            same = view.semantic["nyu40"][row, column] == scene.points.semantic["nyu40"][inside]
            assert inside.sum() > 5000 and same[off < 0.02].mean() > 0.98 and (off < 0.1).mean() > 0.8


def test_thinned_points_are_a_choice_of_all(root: Path) -> None:
    thin, whole = toy.read(root, grid_m=0.05).points, toy.read(root, grid_m=0).points
    assert thin is not None and whole is not None and thin.color is not None and whole.color is not None
    cell = np.floor(whole.xyz.astype(np.float64) / 0.05).astype(int)
    _, first = np.unique(cell, axis=0, return_index=True)
    np.testing.assert_array_equal(thin.xyz, whole.xyz[np.sort(first)])
    np.testing.assert_array_equal(thin.color, whole.color[np.sort(first)])


def test_the_room_is_not_its_mirror_image(root: Path) -> None:
    """Clouds of the usual preprocessing are (world y, world x, z). From the camera, walls follow one another clockwise
    in a panorama from left to right; in ours they do so on the floor plan, in those clouds they do not."""
    ours: list[float] = []
    mirrored: list[float] = []
    for number, ref in enumerate(toy.refs(root)):
        scene = toy.read(root, number, points="panorama", views="panorama", grid_m=0)
        plain, cloud = toy.Plain(root, ref.scene_id), scene.points
        assert cloud is not None
        rows = [line.split() for line in plain.bytes("panorama/layout.txt").decode().splitlines()]
        corners = np.array(rows, int)[1::2]
        places = np.array([in_world(scene, cloud.xyz)[_nearest(scene, column, row)] for column, row in corners])
        assert _area(places) < -3, "clockwise seen from above, as the columns rise"
        assert _area(places[:, [1, 0, 2]]) > 3, "the mirror image is told by this"
        annotation = json.loads(zipfile.ZipFile(root / "Structured3D_annotation_3d.zip").read(
            f"Structured3D/{ref.sequence}/annotation_3d.json"))  # fmt: skip
        floor = np.array([junction["coordinate"] for junction in annotation["junctions"]])[:4] / 1000
        distance, order = cKDTree(floor[:, :2]).query(places[:, :2])
        assert len(set(order.tolist())) >= 3
        ours += distance.tolist()
        mirrored += cKDTree(floor[:, :2]).query(places[:, [1, 0]])[0].tolist()
    assert np.median(ours) < 0.2 and np.median(mirrored) > 0.6


def _nearest(scene: Scene, column: int, row: int) -> int:
    """The floor point that appears nearest to a pixel of the panorama."""
    assert scene.points is not None
    floor = np.flatnonzero((scene.points.semantic["nyu40"] == 1) | (scene.points.semantic["nyu40"] == 0))
    seen = project(scene.points.xyz[floor], scene.views[0]).uv
    return int(floor[np.hypot(*(seen - (column, row)).T).argmin()])


def _area(places: Any) -> float:
    x, y = places[:, 0], places[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@pytest.mark.parametrize(
    ("configuration", "light"), [("empty", "raw"), ("simple", "raw"), ("full", "cold"), ("simple", "warm")]
)
def test_furniture_and_light_are_chosen(root: Path, configuration: str, light: str) -> None:
    options = {"configuration": configuration, "light": light, "points": "panorama", "views": "panorama"}
    scene = toy.read(root, **options)
    plain = toy.Plain(root, scene.identity.scene_id)
    assert scene.views[0].image == plain.bytes(f"panorama/{configuration}/rgb_{light}light.png")
    np.testing.assert_array_equal(
        scene.views[0].semantic["nyu40"], truth(root, scene, f"panorama_{configuration}_label").astype(int) - 1
    )
    assert (scene.views[0].instance is None) == (configuration != "full")
    if configuration == "empty":
        both = toy.read(root, configuration="empty")
        assert len(both.views) == 3 and both.views[1].image == plain.bytes("perspective/empty/0/rgb_rawlight.png")


def test_zips_and_folders_give_the_same_scenes(root: Path, tmp_path: Path) -> None:
    one, other = toy.read(root), toy.read(toy.world(tmp_path, packed=False, houses=1))
    assert one.points is not None and other.points is not None
    np.testing.assert_array_equal(one.points.xyz, other.points.xyz)
    assert [view.image for view in one.views] == [view.image for view in other.views]
    assert one.dropped == other.dropped


def test_it_keeps_the_promises_of_a_source(root: Path, tmp_path: Path) -> None:
    assert_source_ok(SOURCE, str(root), scenes=2)
    loose = toy.world(tmp_path, packed=False, houses=1)
    assert_source_ok(SOURCE, str(loose), Structured3DOptions(points="panorama", max_views=1), scenes=1)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.zip")}

    one, two, three = (toy.world(tmp_path / str(k), houses=1, tiny=True, seed=seed) for k, seed in enumerate((4, 4, 5)))
    assert digests(one) == digests(two) != digests(three)
