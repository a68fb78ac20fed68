"""The ScanNet reader on simulated rooms: every label, normal, depth and picture against the truth beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannet import SOURCE
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.simulate.scannet import NYU40, RAW_IDS
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Points, Scene, View
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

CONFIG = SimulationConfig(
    scannet_rooms=2, scannet_frames=4, scannet_spacing=0.15, scannet_color_size=(160, 120), scannet_depth_size=(80, 60)
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms")
    simulate(out, datasets=("scannet",), seed=11, config=CONFIG)
    return out


def _read(world: Path, **options: object) -> list[tuple[Scene, Path]]:
    chosen = ScanNetOptions(**({"frames_every": 1} | options))  # type: ignore[arg-type]
    refs = [item for item in SOURCE.plan(Store(world / "scannet"), chosen) if isinstance(item, SceneRef)]
    return [(SOURCE.read(ref), world / "truth/scannet" / f"{ref.sequence}_00") for ref in refs]


def _points(scene: Scene) -> Points:
    assert scene.points is not None
    return scene.points


def _pixels(xyz: np.ndarray, view: View, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pixel, depth) of points, in float64."""
    assert view.scene_from_camera is not None
    local = np.c_[xyz, np.ones(len(xyz))] @ np.linalg.inv(view.scene_from_camera).T
    ahead = np.where(local[:, 2] > 0.1, local[:, 2], np.nan)
    return (local[:, :3] @ intrinsics.T)[:, :2] / ahead[:, None], ahead


def _class_of(names: dict[str, int], name: str) -> dict[int, int]:
    """nyu40 id of the truth -> class; two raw categories of one nyu40 id have the same coarse class."""
    return {ident: taxonomy(name).from_raw.get(ident, -1) for ident in set(names.values())}


def test_labels_of_vertices_equal_the_truth(world: Path) -> None:
    for scene, truth in _read(world):
        points, label = _points(scene), np.load(truth / "label.npy")
        for name in ("nyu40", "scannet20"):
            expected = _class_of(NYU40, name)
            np.testing.assert_array_equal(points.semantic[name], [expected[int(i)] for i in label])
        np.testing.assert_array_equal(points.instance, np.load(truth / "instance.npy"))
        fine = points.semantic["scannet200"]
        for raw, ident in RAW_IDS.items():
            wanted = taxonomy("scannet200").from_raw.get(ident, -1)
            assert wanted == -1 or (label[fine == wanted] == NYU40[raw]).all(), raw


def test_label_images_equal_the_truth(world: Path) -> None:
    count = 0
    for scene, truth in _read(world):
        assert "instance image of another annotation" not in scene.dropped
        for view in scene.views:
            label, instance = np.load(truth / f"{view.name}_label.npy"), np.load(truth / f"{view.name}_instance.npy")
            assert label.shape == (view.height, view.width)
            for name in ("nyu40", "scannet20"):
                table = np.full(256, -1)
                table[list(_class_of(NYU40, name))] = list(_class_of(NYU40, name).values())
                np.testing.assert_array_equal(view.semantic[name], table[label])
            np.testing.assert_array_equal(view.instance, instance)
            count += 1
    assert count == 7  # of eight frames one has lost its pose


def test_label_images_say_of_a_vertex_what_its_own_labels_say(world: Path) -> None:
    """Independent of how the images were written: through pose and intrinsics onto the mesh's labels."""
    for scene, truth in _read(world):
        points = _points(scene)
        for view in scene.views:
            seen = np.load(truth / f"visible_{view.name}.npy")
            uv, _ = _pixels(points.xyz[seen], view, view.intrinsics)
            column, row = np.clip(np.rint(uv), 0, (view.width - 1, view.height - 1)).astype(int).T
            assert view.instance is not None and points.instance is not None and seen.sum() > 50
            assert (view.instance[row, column] == points.instance[seen]).mean() > 0.75
            for name, labels in view.semantic.items():
                assert (labels[row, column] == points.semantic[name][seen]).mean() > 0.75, name


def test_depth_images_agree_with_the_mesh(world: Path) -> None:
    errors = []
    for scene, truth in _read(world):
        for view in scene.views:
            assert view.depth is not None
            seen = np.load(truth / f"visible_{view.name}.npy")
            uv, depth = _pixels(_points(scene).xyz[seen], view, view.depth.intrinsics)
            height, width = view.depth.values.shape
            inside = ((uv > 0) & (uv < (width - 1, height - 1))).all(axis=1)
            column, row = np.rint(uv[inside]).astype(int).T
            measured = view.depth.values[row, column] * view.depth.scale
            errors.append(np.abs(measured - depth[inside])[measured > 0])
    error = np.concatenate(errors)
    assert len(error) > 1000 and np.median(error) < 0.02 and (error < 0.1).mean() > 0.8


def test_normals_equal_an_independent_computation(world: Path) -> None:
    for scene, _ in _read(world, max_frames=0):
        path = world / f"scannet/scans/{scene.identity.scene_id}/{scene.identity.scene_id}_vh_clean_2.ply"
        assert_normals(_points(scene), path)


def assert_normals(points: Points, path: Path, atol: float = 2e-6) -> None:
    """trimesh's own parser, face normals and areas in float64, summed at the vertices."""
    surface = trimesh.load(path, process=False)
    assert points.normal is not None and len(surface.vertices) == len(points)
    total = np.zeros((len(points), 3))
    weighted = surface.area_faces[:, None] * surface.face_normals  # zero for faces that trimesh calls degenerate
    for corner in range(3):
        np.add.at(total, surface.faces[:, corner], weighted)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    clear = length[:, 0] > 1e-7  # where the faces around a vertex cancel out, the direction is noise
    assert clear.mean() > 0.999
    np.testing.assert_allclose(points.normal[clear], (total / length)[clear], atol=atol)


def test_alignment_moves_poses_with_the_points(world: Path) -> None:
    for (plain, _), (aligned, _) in zip(_read(world), _read(world, align_axes=True), strict=True):
        moved = np.abs(_points(plain).xyz - _points(aligned).xyz).max()
        assert moved > 0.5, "the simulated world is turned against its walls"
        for before, after in zip(plain.views, aligned.views, strict=True):
            one, depth = _pixels(_points(plain).xyz, before, before.intrinsics)
            two, again = _pixels(_points(aligned).xyz, after, after.intrinsics)
            near = depth > 0.3
            np.testing.assert_allclose(one[near], two[near], atol=0.01)
            np.testing.assert_allclose(depth[near], again[near], atol=1e-5)
        straight, turned = (_wall_normals(scene).max(axis=1) for scene in (aligned, plain))
        assert 1 - np.median(straight) < 0.2 * (1 - np.median(turned))


def _wall_normals(scene: Scene) -> np.ndarray:
    points = _points(scene)
    assert points.normal is not None
    return np.abs(points.normal[points.semantic["nyu40"] == 0])


def test_contract_of_scans_and_clips(world: Path) -> None:
    root = str(world / "scannet")
    assert_source_ok(SOURCE, root, ScanNetOptions(frames_every=1, max_frames=2, align_axes=True), scenes=2)
    assert_source_ok(SOURCE, root, ScanNetOptions(clips=ClipOptions(frames=3, overlap=1)), scenes=2)


def test_clips_see_what_the_scan_sees(world: Path) -> None:
    scans = {scene.identity.sequence: scene for scene, _ in _read(world)}
    for clip, _ in _read(world, clips=ClipOptions(frames=4)):
        frames = {view.name: view for view in scans[clip.identity.sequence].views}
        assert len(clip.views) == 4 and clip.identity.timestamp_ns == 1_000_000_000
        for view in clip.views:
            if view.scene_from_camera is not None:
                other = frames[view.name]
                assert view.image == other.image and view.timestamp_ns == other.timestamp_ns
                np.testing.assert_array_equal(view.scene_from_camera, other.scene_from_camera)
