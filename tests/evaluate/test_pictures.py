"""Pictures of features: files that open, colours that repeat, queries that find what is alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brickyard.evaluate.features import random_student
from brickyard.evaluate.pictures import (
    MATCHES,
    SeenScene,
    best_matches,
    picture,
    seen_scenes,
    similarity,
    write_pictures,
    write_ply,
    write_query,
)
from brickyard.evaluate.show import RunSummary, read_features, run_page
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.students.point import PointStudentConfig
from tests.evaluate.rooms import room_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return room_corpus(tmp_path_factory.mktemp("rooms"), train=2, val=0, points=300)


@pytest.fixture(scope="module")
def scenes(corpus: Corpus) -> list[SeenScene]:
    student = random_student(PointStudentConfig(network="tiny", size=0.1), 0).eval()
    return list(seen_scenes(student, corpus, [0, 1]))


def test_scenes_are_drawn_and_written(tmp_path: Path, scenes: list[SeenScene], corpus: Corpus) -> None:
    points = corpus.scene(0).points
    assert points is not None
    assert (scenes[0].colours == points.color).all() and scenes[0].coloured
    np.testing.assert_allclose(scenes[0].xyz, points.xyz, atol=1e-3)
    written = write_pictures(scenes, tmp_path)
    assert [entry["scene"] for entry in written] == ["scannet/scene0000_00", "scannet/scene0001_00"]
    for entry in written:
        files = [item["file"] for item in entry["pictures"]]
        assert len(files) == len(set(files)) == 4
        pixels = [np.asarray(Image.open(tmp_path / name)) for name in files]
        assert all(p.shape == (480, 640, 3) and p.std() > 5 for p in pixels)
        assert (pixels[0] != pixels[1]).any() and (pixels[1] != pixels[3]).any()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_pictures(scenes, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_point_cloud_file_is_what_a_stock_reader_reads(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 256, (7, 3), dtype=np.uint8)
    write_ply(tmp_path / "a.ply", xyz, rgb)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert (np.stack([vertex[name] for name in "xyz"], 1) == xyz).all()
    assert (np.stack([vertex[name] for name in ("red", "green", "blue")], 1) == rgb).all()


def made(places: list[tuple[float, float, float]], features: torch.Tensor, key: str = "a/b") -> SeenScene:
    xyz = np.array(places, np.float32)
    colours = np.zeros((len(xyz), 3), np.uint8)
    return SeenScene(key=key, domain="indoor", xyz=xyz, colours=colours, coloured=True, features=features,
                     row=torch.arange(len(xyz)))  # fmt: skip


def test_matches_are_the_most_alike_one_for_each_place() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0, 3.0])
    scene = made(
        [(0, 0, 0), (0.1, 0, 0), (2, 0, 0), (2.2, 0, 0), (4, 0, 0), (6, 0, 0)],
        torch.stack([angles.cos(), angles.sin()], 1) * torch.arange(1, 7)[:, None],
    )
    values = similarity(scene.features[0], scene)
    torch.testing.assert_close(values, angles.cos())
    everywhere = best_matches(scene, values)
    assert [match.point for match in everywhere] == [0, 2, 4, 5]
    assert everywhere[1].similarity == pytest.approx(float(np.cos(0.2))) and everywhere[1].xyz == (2, 0, 0)
    assert [match.point for match in best_matches(scene, values, exclude=scene.xyz[0])] == [2, 4, 5]


def test_a_query_is_answered_in_every_scene(tmp_path: Path, scenes: list[SeenScene]) -> None:
    answer = write_query(scenes, 17, tmp_path)
    json.dumps(answer)
    assert [entry["scene"] for entry in answer["scenes"]] == [scene.key for scene in scenes]
    place = scenes[0].xyz[17]
    for scene, entry in zip(scenes, answer["scenes"], strict=True):
        assert len(entry["matches"]) == MATCHES and len(entry["pictures"]) == 2
        found = [match["similarity"] for match in entry["matches"]]
        assert found == sorted(found, reverse=True)
        best = entry["matches"][0]
        own = similarity(scenes[0].features[scenes[0].row[17]], scene)[scene.row].numpy()
        if scene is scenes[0]:
            own[np.linalg.norm(scene.xyz - place, axis=1) < 0.5] = -1
        assert best["similarity"] == pytest.approx(float(own.max()))
    with pytest.raises(RecipeError, match=r"points 0\.\.299, not 300"):
        write_query(scenes, 300, tmp_path)


def test_rings_mark_points(scenes: list[SeenScene]) -> None:
    grey = np.full((300, 3), 90, np.uint8)
    plain, marked = (picture(scenes[0], grey, "top", marks) for marks in ((), [(3, (255, 255, 255))]))
    assert (marked != plain).any(axis=2).sum() > 30 and marked.max() == 255


def test_the_page_of_a_run_shows_features(tmp_path: Path, scenes: list[SeenScene]) -> None:
    folder = tmp_path / "features"
    entries = write_pictures(scenes[:1], folder)
    (folder / "features.json").write_text(json.dumps({"scenes": entries, "query": write_query(scenes, 3, folder)}))
    shown, there = read_features(folder)
    assert [len(scene.pictures) for scene in shown] == [4, 2, 2] and there == 3
    head, rows = (
        ("protocol", "random", "raw inputs", "pretrained", "published by others"),
        (("knn", "1", "2", "3", "-"),),
    )
    run_page(
        RunSummary(name="x", features=shown, features_note="6 of 9", results=(("run", head, rows),)),
        tmp_path / "page.html",
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 8 and "Features, from above" in page and "6 of 9" in page
    assert "raw inputs" in page
    entries[0]["pictures"][0]["file"] = "../../secret.png"
    (folder / "features.json").write_text(json.dumps({"scenes": entries, "query": None}))
    with pytest.raises(BrickyardError, match=r"is no picture in the folder: .*writes it again"):
        read_features(folder)
