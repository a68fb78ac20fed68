"""Leaving: stock numpy, webdataset and Pointcept's own way of loading read what was exported, value by value."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.infra.cli import main
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.export.advice import advice
from brickyard.shards.export.folder import unique_names
from brickyard.shards.export.plain import export_plain
from brickyard.shards.export.ply import export_ply, ply_bytes
from brickyard.shards.export.pointcept import export_pointcept, scene_folders, segment_names
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus, toy_scene


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def corpus_of(folder: Path, scenes: list[Scene]) -> Corpus:
    build = fingerprint_digest({})
    start_build(Store(folder), {})
    commit_task(Store(folder), 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(Store(folder), 1, build, [], {})
    return Corpus.open(folder)


def renamed(number: int, **identity: Any) -> Scene:
    scene = toy_scene(number, views=0)
    return replace(scene, identity=replace(scene.identity, **identity))


def load_as_pointcept(folder: Path, count_segments: str = "segment") -> dict[str, np.ndarray]:
    """What its DefaultDataset does with a scene: the arrays it knows, cast as it casts them."""
    known = ("coord", "color", "normal", "strength", "segment", "instance", "pose")
    data = {path.stem: np.load(path) for path in folder.glob("*.npy") if path.stem in known}
    if count_segments in data:
        data["segment"] = data.pop(count_segments).reshape([-1]).astype(np.int32)
    data["instance"] = data["instance"].reshape([-1]).astype(np.int32)
    return data | {name: data[name].astype(np.float32) for name in ("coord", "color", "normal")}


def test_pointcept_folders_hold_the_scenes(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=6)
    seen: list[tuple[int, int]] = []
    done = export_pointcept(corpus, Store(tmp_path / "out"), progress=lambda *at: seen.append(at))
    assert done == {"scenes": 6, "points": 2400, "without_points": 0}
    assert seen == [(n, 6) for n in range(7)]
    assert sorted(p.name for p in (tmp_path / "out/train").iterdir()) == [f"scene-{n:03d}" for n in range(6)]
    for number in range(6):
        folder, points = tmp_path / f"out/train/scene-{number:03d}", corpus.scene(number).points
        assert points is not None and points.intensity is not None and points.instance is not None
        dtypes = {path.stem: str(np.load(path).dtype) for path in folder.glob("*.npy")}
        assert dtypes == {"coord": "float32", "color": "uint8", "normal": "float32", "segment": "int16",
                          "instance": "int32", "strength": "float32", "pose": "float64"}  # fmt: skip
        data = load_as_pointcept(folder)
        assert np.array_equal(data["coord"], points.xyz) and np.array_equal(data["color"], points.color)
        assert np.array_equal(data["normal"], points.normal)
        assert np.array_equal(data["segment"], points.semantic["nuscenes16"])
        assert data["instance"].min() == -1 and np.array_equal(data["instance"] + 1, points.instance)
        assert data["strength"].shape == (400, 1)
        assert np.array_equal(data["strength"][:, 0], points.intensity / np.float32(255))
        assert np.array_equal(data["pose"], np.eye(4))
        notes = json.loads((folder / "scene.json").read_text())
        assert notes["identity"]["licence"] == "CC0-1.0" and notes["taxonomies"] == {"segment.npy": "nuscenes16"}
        behind = ["ring", "time_offset", "return_number", "return_count", "elongation"]
        assert notes["left_behind"] == behind + ["views"] * (number != 4)
    text = (tmp_path / "out/LICENCES.txt").read_text()
    assert "CC0-1.0: toy" in text and "https://spdx.org/licenses/CC0-1.0.html" in text


def test_each_dataset_has_its_own_ways(tmp_path: Path) -> None:
    waymo = renamed(0, dataset="waymo_v2", sequence="segment.1", scene_id="segment.1/15", split="val")
    assert waymo.points is not None and waymo.points.intensity is not None
    waymo = replace(waymo, points=replace(waymo.points, intensity_unit="raw"))
    room = renamed(1, dataset="s3dis", sequence="Area_5", scene_id="Area_5/office_1", split="val")
    clip = replace(renamed(2, dataset="waymo_v2"), points=None)
    (tmp_path / "c").mkdir()
    corpus = corpus_of(tmp_path / "c", [waymo, room, clip])
    (tmp_path / "c/LICENSE.waymo").write_text("the terms")
    done = export_pointcept(corpus, Store(tmp_path / "out"))
    assert done == {"scenes": 2, "points": 800, "without_points": 1}
    strength = np.load(tmp_path / "out/waymo_v2/validation/segment-1/15/strength.npy")
    found = corpus.scene(0).points
    assert found is not None and found.intensity is not None
    assert np.array_equal(strength[:, 0], np.tanh(found.intensity))
    assert (tmp_path / "out/s3dis/Area_5/office_1/coord.npy").is_file()
    assert (tmp_path / "out/LICENSE.waymo").read_text() == "the terms"


def test_segments_are_called_what_the_loaders_ask_for() -> None:
    assert segment_names({"scannet20": 0, "scannet200": 0, "nyu40": 0}) == {
        "scannet20": "segment20", "scannet200": "segment200", "nyu40": "segment_nyu40"
    }  # fmt: skip
    assert segment_names({"s3dis13": 0}) == {"s3dis13": "segment"}
    names = {"b/c": "segment_b-c-2", "b c": "segment_b-c", "a": "segment"}
    assert segment_names(dict.fromkeys(names)) == names


def test_names_are_safe_and_unique() -> None:
    names = unique_names(["a/b", "a b", "A-B", "../../etc", "", "ü", "x" * 300, "x" * 301, "scene0000_00"])
    assert names == ["a-b", "a-b-2", "A-B-3", "etc", "scene", "scene-2", "x" * 120, "x" * 120 + "-2", "scene0000_00"]


def test_scenes_that_differ_only_in_signs_get_folders_of_their_own(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path / "c", [renamed(0, scene_id="a/b"), renamed(1, scene_id="a b"), renamed(2, split="x/y")]
    )
    assert scene_folders(corpus) == ["train/a-b", "train/a-b-2", "x-y/scene-002"]


def test_plain_samples_by_stock_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    corpus = toy_corpus(tmp_path / "c", scenes=7)
    stored = sum(place.length for row in range(2) for place in corpus.addresses(row).values())
    done = export_plain(corpus, Store(tmp_path / "out"), shard_bytes=stored)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("train-*.tar"))
    assert done == {"scenes": 7, "shards": len(tars)} and len(tars) > 2
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 7
    for number, sample in enumerate(samples):
        scene = corpus.scene(number)
        assert scene.points is not None
        assert sample["json"]["identity"]["scene_id"] == scene.identity.scene_id and "fields" not in sample["json"]
        plain = {k: v for k, v in vars(scene.points).items() if isinstance(v, np.ndarray)}
        assert len(plain) == 10
        for name, values in plain.items():
            found = sample[f"points.{name}.npy"]
            assert found.dtype == values.dtype and np.array_equal(found, values), name
        assert np.array_equal(sample["points.semantic.nuscenes16.npy"], scene.points.semantic["nuscenes16"])
        arrays = len(plain) + 1
        for i, view in enumerate(scene.views):
            assert sample[f"view{i}.image.png"].shape == (40, 64, 3)
            assert view.superpixels is not None and view.pairs is not None
            assert np.array_equal(sample[f"view{i}.superpixels.npy"], view.superpixels.labels)
            for name in ("point", "pixel", "visible", "depth"):
                assert np.array_equal(sample[f"view{i}.pair_{name}.npy"], getattr(view.pairs, name))
            arrays += 5
        if scene.views:
            first, second = scene.views
            assert second.depth is not None
            assert np.array_equal(sample["view0.semantic.nuscenes16.npy"], first.semantic["nuscenes16"])
            assert np.array_equal(sample["view0.instance.npy"], first.instance)
            assert np.array_equal(sample["view1.depth.npy"], second.depth.values)
            arrays += 3
        assert sum(name.endswith(".npy") for name in sample) == arrays
    with tarfile.open(tars[0]) as archive:
        image = archive.extractfile("train-00000-000000.view0.image.png")
        assert image is not None and image.read() == corpus.scene(0).views[0].image


def test_ply_files_by_plyfile(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    corpus = toy_corpus(tmp_path / "c", scenes=3)
    done = export_ply(corpus, Store(tmp_path / "out"))
    assert done == {"scenes": 3, "points": 1200, "without_points": 0}
    assert sorted(p.name for p in (tmp_path / "out/train").iterdir()) == [f"scene-{n:03d}.ply" for n in range(3)]
    for number in range(3):
        points = corpus.scene(number).points
        assert points is not None and points.color is not None and points.normal is not None
        table = plyfile.PlyData.read(tmp_path / f"out/train/scene-{number:03d}.ply")["vertex"].data
        assert table.dtype.itemsize == 3 * 4 + 3 * 4 + 3 + 2 + 4 + 4 + 1 + 4 + 1 + 1 + 4
        for names, values in (("x y z", points.xyz), ("nx ny nz", points.normal), ("red green blue", points.color)):
            found = np.stack([table[name] for name in names.split()], axis=1)
            assert found.dtype == values.dtype and np.array_equal(found, values), names
        assert np.array_equal(table["label"], points.semantic["nuscenes16"])
        for name in ("intensity", "instance", "ring", "time_offset", "return_number", "return_count", "elongation"):
            assert np.array_equal(table[name], getattr(points, name)), name
    head = ply_bytes(corpus.scene(0)).split(b"end_header")[0].decode("ascii").splitlines()
    assert 'comment scene_id "scene-000"' in head and 'comment licence "CC0-1.0"' in head
    assert 'comment label taxonomy "nuscenes16"' in head and 'comment label 3 "car"' in head
    assert 'comment intensity_unit "byte"' in head and 'comment world_crs "EPSG:32632"' in head


def test_ply_has_what_the_scene_has_and_survives_any_name(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    scene = renamed(0, scene_id="Zürich\nelement vertex 5\n" + "x" * 2000)
    assert scene.points is not None
    labels = {name: scene.points.semantic["nuscenes16"] + np.int16(i) for i, name in enumerate(("a", "b c", "b/c"))}
    data = ply_bytes(replace(scene, points=replace(scene.points, color=None, ring=None, semantic=labels)))
    assert max(map(len, data.split(b"end_header")[0].split(b"\n"))) < 200
    (tmp_path / "a.ply").write_bytes(data)
    table = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"].data
    assert len(table) == 400 and not {"red", "ring"} & set(table.dtype.names)
    for name, taxonomy in (("label", "a"), ("label_b-c", "b c"), ("label_b-c-2", "b/c")):
        assert np.array_equal(table[name], labels[taxonomy])
    text = "".join(re.findall(rb"comment scene_id (.*)\n", data)[i].decode() for i in range(13))
    assert json.loads(text) == scene.identity.scene_id


def test_what_a_reader_will_miss_is_said(tmp_path: Path) -> None:
    def without(scene: Scene, **points: Any) -> Scene:
        assert scene.points is not None
        return replace(scene, points=replace(scene.points, **points))

    room = {"dataset": "rooms", "domain": "indoor"}
    scenes = [
        without(renamed(0, **room), normal=None, normal_source=None),
        renamed(1, **room),
        replace(without(renamed(2, dataset="walks"), semantic={}), dropped={"labels without a taxonomy": 400}),
        without(renamed(3, dataset="waymo_v2"), semantic={}),  # never had labels: nothing to say
    ]
    corpus = corpus_of(tmp_path / "c", scenes)
    normals, labels, outdoor = advice(corpus, "pointcept")
    assert normals.startswith("rooms: 1 of 2 scenes have no normals") and "neighbours: 16" in normals
    assert labels.startswith("walks: 1 of 1 scenes have no labels") and "labels without a taxonomy" in labels
    assert outdoor.startswith("walks: ") and "DefaultDataset" in outdoor
    assert advice(corpus, "ply") == advice(corpus, "webdataset-plain") == [labels]


def test_splits_lie_in_tars_of_their_own(tmp_path: Path) -> None:
    scenes = [renamed(n, split=split) for n, split in enumerate(["train", "val", "train", "a b", "a-b"])]
    export_plain(corpus_of(tmp_path / "c", scenes), Store(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert names == ["a-b-00000.tar", "a-b-2-00000.tar", "train-00000.tar", "val-00000.tar"]


@pytest.mark.parametrize("layout", ["pointcept", "ply", "webdataset-plain"])
def test_a_killed_export_goes_on(tmp_path: Path, layout: str) -> None:
    toy_corpus(tmp_path / "c", scenes=20, per_shard=20)
    program = (
        "import sys; from brickyard.shards.corpus import Corpus; from brickyard.shards.storage import Store;"
        "from brickyard.shards.export.plain import export_plain;"
        "from brickyard.shards.export.ply import export_ply;"
        "from brickyard.shards.export.pointcept import export_pointcept;"
        "c, o = Corpus.open(sys.argv[1]), Store(sys.argv[2]);"
        "writers = {'pointcept': export_pointcept, 'ply': export_ply};"
        "writers.get(sys.argv[3], lambda c, o: export_plain(c, o, shard_bytes=70_000))(c, o)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "c")]
    done = {"pointcept": "train/*/scene.json", "ply": "train/scene-*.ply"}.get(layout, "train-*.tar")
    dying = f"from tests.killing import kill_at_rename; kill_at_rename({'*/' + done!r}, 4); {program}"
    child = subprocess.run([command[0], "-c", dying, command[-1], str(tmp_path / "a"), layout], check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "a").glob(done))) == 3
    assert "finished" not in (tmp_path / "a/export.json").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob(done)}
    for name in ("a", "b"):
        subprocess.run([*command, str(tmp_path / name), layout], check=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert before and all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


def test_exports_do_not_mix(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=2)
    export_pointcept(corpus, Store(tmp_path / "out"))
    before = files(tmp_path / "out")
    export_pointcept(corpus, Store(tmp_path / "out"))
    assert files(tmp_path / "out") == before
    with pytest.raises(CorpusError, match="another export"):
        export_plain(corpus, Store(tmp_path / "out"))
    with pytest.raises(CorpusError, match="another export"):
        export_pointcept(toy_corpus(tmp_path / "d", scenes=3), Store(tmp_path / "out"))
    with pytest.raises(CorpusError, match="not empty"):
        export_plain(corpus, Store(tmp_path / "c"))
    export_plain(corpus, Store(tmp_path / "tars"))
    with pytest.raises(CorpusError, match="shard_bytes"):
        export_plain(corpus, Store(tmp_path / "tars"), shard_bytes=5)


def test_damage_is_not_exported(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "c", scenes=3)
    place = corpus.addresses(2)["points/color"]
    path = tmp_path / "c" / corpus.shard(2)
    data = bytearray(path.read_bytes())
    data[place.offset + 20] ^= 1
    path.write_bytes(data)
    for export in (export_pointcept, export_ply, export_plain):
        with pytest.raises(CorruptDataError, match=r"scene-002.*points/color"):
            export(corpus, Store(tmp_path / export.__name__))
        assert "finished" not in (tmp_path / export.__name__ / "export.json").read_text()
    assert not (tmp_path / "export_pointcept/train/scene-002/scene.json").exists()
    assert not (tmp_path / "export_ply/train/scene-002.ply").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_corpus(tmp_path / "c", scenes=2)
    for layout, count in (("pointcept", 800), ("ply", 800), ("webdataset-plain", None)):
        out = tmp_path / layout
        assert main(["export", str(tmp_path / "c"), "--to", layout, "--out", str(out), "--json"]) == 0
        printed = capsys.readouterr()
        result = json.loads(printed.out)
        assert len(result["warnings"]) == printed.err.count("warning: ") == (layout == "pointcept")
        assert (result["scenes"], result.get("points"), result["layout"]) == (2, count, layout)
    assert main(["export", str(tmp_path / "c"), "--to", "pointcept", "--out", str(tmp_path / "c")]) == 1
    assert "not empty" in capsys.readouterr().err
