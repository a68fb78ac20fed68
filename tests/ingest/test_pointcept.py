"""Pointcept's folders: what was exported comes back, what its preprocessors write is read, nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.infra.cli import main
from brickyard.infra.config import load
from brickyard.ingest.contract import assert_source_ok
from brickyard.ingest.pointcept import SOURCE, PointceptOptions
from brickyard.ingest.source import Missing, SceneRef, find_source
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.scene import Points, Scene
from brickyard.shards.storage import Store
from tests.ingest.mutation import assert_survives
from tests.worlds import toy_corpus

N = 40


def arrays(count: int = N) -> dict[str, np.ndarray]:
    """A scene as the preprocessor of ScanNet saves it."""
    rng = np.random.default_rng(count)
    normal = rng.normal(size=(count, 3))
    return {
        "coord": (rng.normal(size=(count, 3)) * 3).astype(np.float32),
        "color": rng.integers(0, 256, (count, 3), dtype=np.uint8),
        "normal": (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        "segment20": rng.integers(-1, 20, count).astype(np.int16),
        "segment200": rng.integers(-1, 200, count).astype(np.int16),
        "instance": rng.integers(-1, 9, count).astype(np.int16),
    }


def write(folder: Path, values: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in values.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def planned(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), PointceptOptions(**options)))


def read_one(root: Path, **options: Any) -> tuple[Scene, Points]:
    (ref,) = planned(root, **options)
    assert isinstance(ref, SceneRef)
    scene = SOURCE.read(ref)
    assert scene.points is not None
    return scene, scene.points


def test_it_is_installed_and_keeps_its_promises(tmp_path: Path) -> None:
    assert find_source("pointcept") is SOURCE
    for number in range(3):
        write(tmp_path / f"train/scene000{number}_00", arrays(N + number))
    street = arrays() | {"strength": np.random.default_rng(0).random((N, 1)).astype(np.float32), "pose": np.eye(4)}
    write(tmp_path / "training/segment-1/0000", street)
    assert_source_ok(SOURCE, str(tmp_path), scenes=4)


def test_a_scannet_scene_is_read(tmp_path: Path) -> None:
    values = arrays()
    write(tmp_path / "val/scene0011_01", values)
    (tmp_path / "val/scene0011_01/superpoint.npy").write_bytes(b"not ours")
    scene, points = read_one(tmp_path, licence="LicenseRef-ScanNet", version="v2")
    identity = scene.identity
    assert (identity.split, identity.sequence, identity.scene_id) == ("val", "scene0011", "val/scene0011_01")
    assert (identity.licence, identity.version, identity.domain) == ("LicenseRef-ScanNet", "v2", "indoor")
    assert len(identity.sources) == 6 and np.array_equal(scene.world_from_scene, np.eye(4))
    assert np.array_equal(points.xyz, values["coord"]) and np.array_equal(points.color, values["color"])
    assert np.array_equal(points.normal, values["normal"]) and points.normal_source == "pointcept"
    assert points.semantic.keys() == {"scannet20", "scannet200"}
    assert scene.dropped == {"superpoint.npy: not read": 1}
    assert np.array_equal(points.semantic["scannet200"], values["segment200"])
    assert np.array_equal(points.instance, values["instance"].astype(np.int32) + 1)
    assert points.intensity is None


def build(folder: Path, root: Path, options: PointceptOptions) -> Corpus:
    store, key = Store(folder), fingerprint_digest({})
    start_build(store, {})
    refs = [ref for ref in SOURCE.plan(Store(root), options) if isinstance(ref, SceneRef)]
    commit_task(store, 0, key, [encode_scene(SOURCE.read(ref)) for ref in refs], [])
    finish_build(store, 1, key, [], {})
    return Corpus.open(folder)


def test_a_corpus_survives_leaving_and_coming_back(tmp_path: Path) -> None:
    first = toy_corpus(tmp_path / "a", scenes=6)
    export_pointcept(first, Store(tmp_path / "out"))
    options = PointceptOptions(domain="outdoor", taxonomy="nuscenes16", licence="CC0-1.0")
    second = build(tmp_path / "b", tmp_path / "out", options)
    assert len(second) == 6
    for row in range(6):
        before, after = first.scene(row).points, second.scene(f"train/scene-{row:03d}").points
        assert before is not None and after is not None
        for name in ("xyz", "color", "instance"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
        np.testing.assert_allclose(before.normal, after.normal, atol=1e-6)  # type: ignore[arg-type]
        assert np.array_equal(before.semantic["nuscenes16"], after.semantic["nuscenes16"])
        assert before.intensity is not None and after.intensity_unit == "unit"
        assert np.array_equal(after.intensity, before.intensity / np.float32(255))
    export_pointcept(second, Store(tmp_path / "again"))
    for row in range(6):
        for name in ("coord", "color", "segment", "instance", "strength", "pose"):
            path = f"scene-{row:03d}/{name}.npy"
            again = tmp_path / f"again/train/train-{path}"
            assert (tmp_path / "out/train" / path).read_bytes() == again.read_bytes()


@pytest.mark.real
def test_a_real_room_leaves_and_comes_back(tmp_path: Path, samples: Path) -> None:
    source, store = find_source("scannet"), Store(samples / "scannet")
    refs = [ref for ref in source.plan(store, source.options(frames_every=1)) if isinstance(ref, SceneRef)]
    scene = next(scene for scene in map(source.read, refs) if scene.points is not None and scene.points.semantic)
    start_build(Store(tmp_path / "a"), {})
    commit_task(Store(tmp_path / "a"), 0, fingerprint_digest({}), [encode_scene(scene)], [])
    finish_build(Store(tmp_path / "a"), 1, fingerprint_digest({}), [], {})
    assert export_pointcept(Corpus.open(tmp_path / "a"), Store(tmp_path / "out"))["scenes"] == 1
    back = build(tmp_path / "b", tmp_path / "out", PointceptOptions()).scene(0)
    assert scene.points is not None and back.points is not None and len(back.points) > 50_000
    assert back.identity.sequence == scene.identity.sequence
    assert np.abs(back.points.xyz - scene.points.xyz).max() <= 1 / 2048 + 1e-6
    assert np.array_equal(back.points.color, scene.points.color)
    assert back.points.semantic.keys() == scene.points.semantic.keys() == {"nyu40", "scannet20", "scannet200"}
    for name, labels in scene.points.semantic.items():
        assert np.array_equal(back.points.semantic[name], labels)
    assert np.array_equal(back.points.instance, scene.points.instance)
    assert scene.points.normal is not None and back.points.normal is not None
    kept = np.linalg.norm(scene.points.normal, axis=1) > 0
    cosine = np.einsum("nc,nc->n", scene.points.normal[kept], back.points.normal[kept])
    assert cosine.min() > np.cos(np.radians(0.68))


def test_folders_give_splits_and_sequences(tmp_path: Path) -> None:
    few = {"coord": arrays()["coord"]}
    for folder in ("waymo/validation/segment-7/0003", "waymo/validation/segment-7/0004", "s3dis/Area_5/office_1",
                   "s3dis/Area_2/hall_1", "other/scene", "train/a"):  # fmt: skip
        write(tmp_path / folder, few)
    found = {ref.scene_id: (ref.split, ref.sequence) for ref in planned(tmp_path) if isinstance(ref, SceneRef)}
    assert found == {
        "waymo/validation/segment-7/0003": ("val", "waymo/validation/segment-7"),
        "waymo/validation/segment-7/0004": ("val", "waymo/validation/segment-7"),
        "s3dis/Area_5/office_1": ("val", "s3dis/Area_5"),
        "s3dis/Area_2/hall_1": ("train", "s3dis/Area_2"),
        "other/scene": ("none", "other/scene"),
        "train/a": ("train", "train/a"),
    }
    options = load("splits: {Area_2: test}", PointceptOptions, where="recipe")
    splits = {item.scene_id: item.split for item in SOURCE.plan(Store(tmp_path), options) if isinstance(item, SceneRef)}
    assert splits["s3dis/Area_2/hall_1"] == "test" and splits["train/a"] == "none"


def test_the_dataset_has_a_name(tmp_path: Path) -> None:
    write(tmp_path / "raw/train/scene0000_00", arrays())
    write(tmp_path / "raw/train/scene0001_00", {"color": arrays()["color"]})
    ref, lost = planned(tmp_path / "raw", dataset="scannet")
    assert isinstance(ref, SceneRef) and (ref.dataset, ref.key) == ("pointcept", "scannet/train/scene0000_00")
    assert lost.key == "scannet/train/scene0001_00"
    scene = SOURCE.read(ref)
    assert scene.identity.key == ref.key and scene.identity.dataset == "scannet"
    (tmp_path / "recipe.yaml").write_text(
        "name: named\nsources:\n  - {dataset: pointcept, root: raw, options: {dataset: scannet}}\n"
    )
    command = ["build", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "c"), "--in-process"]
    assert main([*command, "--allow-quarantined", "1"]) == 0
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.keys == [ref.key] and corpus.select(dataset="scannet").tolist() == [0]
    for name in ("", "a/b", "..", "a b"):
        with pytest.raises(RecipeError, match="dataset"):
            PointceptOptions(dataset=name)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"split/scene/coord\.npy"):
        planned(tmp_path)
    write(tmp_path / "train/a", {"color": arrays()["color"]})
    (item,) = planned(tmp_path)
    assert isinstance(item, Missing) and "no coord.npy" in item.reason
    with pytest.raises(RecipeError, match="strength_unit"):
        PointceptOptions(strength_unit="metres")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="dev"):
        PointceptOptions(splits={"a": "dev"})


def test_other_shapes_and_dtypes_of_the_field(tmp_path: Path) -> None:
    """S3DIS' columns, ScanNet++'s three labels a point, colours as floats, Fortran order, big endian, version 2."""
    labels = np.tile(np.arange(N, dtype=np.int64)[:, None] % 13, (1, 3))
    labels[5:, 1:] = -1
    values = {
        "coord": np.asfortranarray(arrays()["coord"].astype(">f8")), "color": arrays()["color"].astype(np.float64),
        "normal": np.full((N, 3), 2, np.float32), "segment": labels, "instance": np.full((N, 1), -1, np.int16),
        "strength": np.arange(N, dtype=np.uint8), "segment_mine": labels[:, 0],
    }  # fmt: skip
    values["normal"][:3] = ((0, 0, 0), (np.nan, 0, 0), (1e-5, 0, 0))
    write(tmp_path / "Area_1/office_1", values)
    sink = io.BytesIO()
    np.lib.format.write_array(sink, values["color"], version=(2, 0))  # type: ignore[no-untyped-call]
    (tmp_path / "Area_1/office_1/color.npy").write_bytes(sink.getvalue())
    scene, points = read_one(tmp_path, taxonomy="s3dis13", strength_unit="byte")
    assert np.array_equal(points.xyz, arrays()["coord"]) and np.array_equal(points.color, arrays()["color"])
    assert points.normal is not None and np.allclose(points.normal[3:], 3**-0.5) and not points.normal[:3].any()
    assert np.array_equal(points.semantic["s3dis13"], labels[:, 0]) and not np.any(points.instance)
    assert np.array_equal(points.semantic["mine"], labels[:, 0])
    assert points.intensity is not None and points.intensity.tolist() == list(range(N))
    assert scene.dropped == {"invalid normal": 2, "further labels of s3dis13": 10}
    assert read_one(tmp_path, strength_unit="byte")[0].dropped["labels without a taxonomy"] == N


def test_far_coordinates_are_shifted_and_come_back(tmp_path: Path) -> None:
    world = arrays()["coord"].astype(np.float64) + np.array([691_000.25, 5_335_000.5, 520.0])
    turn = np.array([[0.0, -1, 0, 3], [1, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]])
    write(tmp_path / "train/city", {"coord": world, "pose": turn.astype(np.float32)})
    scene, points = read_one(tmp_path, domain="outdoor")
    assert np.abs(points.xyz).max() < 50
    again = points.xyz @ scene.world_from_scene[:3, :3].T + scene.world_from_scene[:3, 3]
    np.testing.assert_allclose(again, world @ turn[:3, :3].T + turn[:3, 3], atol=1e-5)


def raw(header: bytes, version: bytes = b"\x01\x00", body: bytes = b"") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + body


class Trap:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (Path.touch, (Path("touched"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("coord", b"", r"no \.npy"),
        ("coord", b"\x93NUMPY\x01\x00\xff\xff", "header"),
        ("coord", raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': (40, 3), }"), "480 bytes must follow"),
        ("coord", raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 3), }"), "expected floats"),
        ("coord", raw(b"{'descr': '<f1', 'fortran_order': False, 'shape': (1, 3), }", body=b"abc"), "header"),
        ("coord", raw(b"{'descr': '|O', 'fortran_order': False, 'shape': (40, 3), }", body=b"c"), "header"),
        ("coord", raw(b"__import__('os').abort()"), "header"),
        ("coord", np.zeros((0, 3), np.float32), r"expected floats \(N, 3\)"),
        ("coord", np.full((N, 3), np.inf, np.float32), "not finite"),
        ("coord", np.zeros((N, 3), np.int32), "expected floats"),
        ("coord", np.zeros((N, 4), np.float32), "expected floats"),
        ("color", np.zeros((N - 1, 3), np.uint8), r"expected numbers \(40, 3\)"),
        ("color", np.full((N, 3), 256, np.int32), r"0\.\.255"),
        ("segment20", np.full(N, 20), r"leave -1\.\.19 of scannet20"),
        ("segment20", np.full(N, 255, np.uint8), "leave"),
        ("segment20", np.zeros((N, 0), np.int16), "expected whole numbers"),
        ("instance", np.full(N, -2), "from -1"),
        ("instance", np.full(N, 2**31 - 1), "from -1"),
        ("strength", np.full(N, np.nan, np.float32), "not finite"),
        ("strength", np.full(N, 1e300), "not finite"),
        ("pose", np.zeros((4, 4)), "rigid"),
        ("pose", np.eye(4)[:3], "expected floats"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, data: Any, problem: str) -> None:
    folder = write(tmp_path / "train/a", arrays())
    if isinstance(data, bytes):
        (folder / f"{name}.npy").write_bytes(data)
    else:
        np.save(folder / f"{name}.npy", data)
    with pytest.raises(RawDataError, match=problem) as caught:
        read_one(tmp_path)
    assert caught.value.path == f"train/a/{name}.npy" and caught.value.scene == "train/a"


def test_no_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "train/a", arrays())
    np.save(folder / "color.npy", np.array([Trap()] * N, dtype=object), allow_pickle=True)
    with pytest.raises(RawDataError, match="array of numbers"):
        read_one(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_damaged_files_end_in_a_scene_or_an_error(tmp_path: Path) -> None:
    values = {name: values for name, values in arrays(60).items() if name in ("coord", "normal", "segment20")}
    write(tmp_path / "train/a", values | {"pose": np.eye(4)})
    paths = [f"train/a/{name}.npy" for name in ("coord", "normal", "segment20", "pose")]
    result = assert_survives(SOURCE, tmp_path, paths, count=2000)
    assert result.scenes > 100 and result.errors > 1000 and result.errors_with_place > 0.8 * result.errors
