"""The ScanNet reader on real scans: ground truth labels, real poses, and a mixture of releases."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.scannet import SOURCE, annotation
from brickyard.ingest.scannet.plan import ScanNetOptions
from brickyard.ingest.source import Missing, RawFiles, SceneRef
from brickyard.shards.cameras import camera_from_scene, project, project_to
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.ingest.test_scannet_simulated import assert_normals

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def refs(samples: Path) -> dict[str, SceneRef]:
    items = list(SOURCE.plan(Store(samples / "scannet"), ScanNetOptions(frames_every=1)))
    return {item.scene_id: item for item in items if isinstance(item, SceneRef)}


@pytest.fixture(scope="module")
def room(refs: dict[str, SceneRef]) -> Scene:
    return SOURCE.read(refs["scene0000_00"])


def test_plan_finds_both_scans_in_the_training_split(refs: dict[str, SceneRef]) -> None:
    assert {scan: (ref.split, ref.sequence) for scan, ref in refs.items()} == {
        "scene0000_00": ("train", "scene0000"), "scene0470_00": ("train", "scene0470"),
    }  # fmt: skip
    assert abs(refs["scene0000_00"].points_estimate - 81_369) < 4000


def test_labels_equal_the_ground_truth(room: Scene, samples: Path) -> None:
    folder = samples / "scannet/scans/scene0000_00"
    nyu40 = np.load(folder / "scene0000_00_gt_nyu40_per_vertex.npy")
    instance = np.load(folder / "scene0000_00_gt_instance_per_vertex.npy")
    assert room.points is not None
    np.testing.assert_array_equal(room.points.semantic["nyu40"] + 1, nyu40)
    np.testing.assert_array_equal(room.points.instance, instance)


def test_labels_from_objects_equal_labels_ply(refs: dict[str, SceneRef], room: Scene) -> None:
    ref = refs["scene0000_00"]
    files = {role: path for role, path in ref.files.items() if role not in ("labels", "sens")}
    points = SOURCE.read(SceneRef(**{**vars(ref), "files": files})).points
    assert points is not None and room.points is not None
    np.testing.assert_array_equal(points.semantic["nyu40"], room.points.semantic["nyu40"])


def test_frames_see_the_golden_number_of_vertices(room: Scene) -> None:
    assert [view.name for view in room.views] == ["frame-000000", "frame-000001", "frame-000003"]
    assert room.dropped == {"invalid pose": 1}
    assert room.points is not None
    counts = []
    for view in room.views:
        seen = project(room.points.xyz, view)
        with np.errstate(invalid="ignore"):
            inside = ((seen.uv >= 0) & (seen.uv < (view.width, view.height))).all(axis=1)
        counts.append(int((inside & (seen.depth > 0.2)).sum()))
    assert counts == [4532, 6105, 18745]


def test_depth_agrees_with_the_mesh_where_it_is_seen(room: Scene) -> None:
    blind = replace(room, views=tuple(replace(view, depth=None) for view in room.views))
    for view, paired in zip(room.views, add_correspondences(blind, CorrespondenceConfig()).views, strict=True):
        assert room.points is not None and paired.pairs is not None
        assert view.depth is not None and view.depth.values.shape == (480, 640)
        chosen = room.points.xyz[paired.pairs.point[paired.pairs.visible]]
        seen = project_to(chosen, camera_from_scene(view), view.depth.intrinsics)
        inside = ((seen.uv > 0) & (seen.uv < (639, 479))).all(axis=1)
        column, row = np.rint(seen.uv[inside]).astype(int).T
        surface = view.depth.values[row, column] * view.depth.scale
        error = np.abs(seen.depth[inside] - surface)[surface > 0]
        assert len(error) > 1000 and np.median(error) < 0.05
        assert (error < 0.05).mean() > 0.8


@pytest.mark.parametrize("scan", ["scene0000_00", "scene0470_00"])
def test_normals_equal_an_independent_computation(refs: dict[str, SceneRef], samples: Path, scan: str) -> None:
    points = SOURCE.read(replace(refs[scan], details={**refs[scan].details, "max_frames": 0})).points
    assert points is not None
    assert_normals(points, samples / "scannet" / refs[scan].files["mesh"])


def test_alignment_leaves_every_projection_in_place(refs: dict[str, SceneRef], room: Scene) -> None:
    aligned = SOURCE.read(replace(refs["scene0000_00"], details={**refs["scene0000_00"].details, "align_axes": True}))
    assert aligned.points is not None and room.points is not None
    assert np.abs(aligned.points.xyz - room.points.xyz).max() > 0.5
    for before, after in zip(room.views, aligned.views, strict=True):
        one, two = project(room.points.xyz, before), project(aligned.points.xyz, after)
        near = one.depth > 0.3
        np.testing.assert_allclose(one.uv[near], two.uv[near], atol=0.05)
        np.testing.assert_allclose(one.depth[near], two.depth[near], atol=1e-5)


def test_clips_of_the_stream(samples: Path) -> None:
    options = ScanNetOptions(clips=ClipOptions(frames=4), read_depth=False)
    ref, missing = SOURCE.plan(Store(samples / "scannet"), options)
    assert isinstance(ref, SceneRef) and isinstance(missing, Missing) and "sens is missing" in missing.reason
    clip = SOURCE.read(ref)
    assert [view.timestamp_ns for view in clip.views] == [0, 33_333_000, 66_666_000, 99_999_000]
    assert [view.scene_from_camera is None for view in clip.views] == [False, False, True, False]
    assert clip.points is None and clip.dropped == {"invalid pose": 1}
    assert {(view.width, view.height) for view in clip.views} == {(1296, 968)}


def test_ids_of_label_images_have_their_classes(samples: Path) -> None:
    """Where 549 ids stand in 607 rows, an id has the class of its most frequent row."""
    files = RawFiles(SceneRef(dataset="scannet", scene_id="", split="", sequence="", root=str(samples), files={}))
    table = annotation.read_label_table(files, "scannet/scannetv2-labels.combined.tsv", dropped := Counter[str]())
    assert not dropped
    nyu40 = annotation.nyu40_ids(table)
    names = {"pipe": 40, "shower door": 8, "cabinet door": 8, "wall": 1, "chair": 5}
    assert {name: int(nyu40[table[name].scannet_id]) for name in names} == names
    ambiguous = {name for name, ids in table.items() if nyu40[ids.scannet_id] != ids.nyu40_id}
    assert ambiguous == {"pipes", "cabinet doors", "shower doors"}


@pytest.mark.parametrize("clips", [None, ClipOptions(frames=4)])
def test_contract(samples: Path, tmp_path: Path, clips: ClipOptions | None) -> None:
    for name in ("scans/scene0000_00", "splits"):
        shutil.copytree(samples / "scannet" / name, tmp_path / name)
    shutil.copy(samples / "scannet/scannetv2-labels.combined.tsv", tmp_path)
    options = ScanNetOptions(frames_every=1, max_frames=2, align_axes=True, clips=clips)
    assert_source_ok(SOURCE, str(tmp_path), options, scenes=1)


def test_normals_point_into_the_room(room: Scene) -> None:
    points = room.points
    assert points is not None and points.normal is not None
    floor = points.semantic["nyu40"] == 1
    assert (points.normal[floor, 2] > 0.9).mean() > 0.85


def test_a_scan_with_nothing_but_meshes(refs: dict[str, SceneRef]) -> None:
    scene = SOURCE.read(refs["scene0470_00"])
    assert scene.points is not None and len(scene.points) == 67_465
    assert set(scene.points.semantic) == {"nyu40", "scannet20"} and scene.points.instance is None
    assert not scene.views
    absent = (".sens", "_vh_clean_2.0.010000.segs.json", ".aggregation.json")
    assert scene.dropped == {f"file not there: {suffix}": 1 for suffix in absent}


def test_annotation_of_release_v1_is_refused(samples: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "scans/scene0000_00"
    mixed.mkdir(parents=True)
    for path in (samples / "scannet/scans/scene0000_00").iterdir():
        if path.suffix != ".sens":
            shutil.copy(path, mixed)
    target = mixed / "scene0000_00.aggregation.json"
    target.unlink()
    shutil.copy(samples / "scannet/extra_v1_annotation/scene0000_00.aggregation.json", target)
    (ref,) = SOURCE.plan(Store(tmp_path), ScanNetOptions())
    assert isinstance(ref, SceneRef)
    with pytest.raises(RawDataError, match=r"segments it names are not in .*different releases"):
        SOURCE.read(ref)
