"""Data-efficient splits: drawn ones nest and stay, listed ones are what the file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.evaluate.features import Encoder, RawStudent
from brickyard.evaluate.labels import row_labels
from brickyard.evaluate.splits import DataConfig, LabelledPoints, train_rows, val_rows
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.train.students.point import PointStudent, PointStudentConfig
from tests.evaluate.rooms import room_corpus

CONFIG = DataConfig(taxonomy="scannet20", threads=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return room_corpus(tmp_path_factory.mktemp("rooms"), train=20, val=1, points=60)


def test_shares_of_the_scenes_nest_and_depend_on_the_seed(corpus: Corpus) -> None:
    chosen = {share: set(train_rows(corpus, replace(CONFIG, fraction=share)).tolist()) for share in (0.01, 0.05, 0.2)}
    assert [len(rows) for rows in chosen.values()] == [1, 1, 4]
    assert chosen[0.01] <= chosen[0.05] <= chosen[0.2] < set(train_rows(corpus, CONFIG).tolist())
    others = {tuple(train_rows(corpus, replace(CONFIG, fraction=0.2, draw_seed=seed)).tolist()) for seed in range(5)}
    assert len(others) > 1
    assert "5 % of the scenes, drawn by seed 0" in replace(CONFIG, fraction=0.05).choice


def test_every_nth_scene_or_sequence_as_the_publications_count(corpus: Corpus) -> None:
    """SLidR: whole drives from the n-th on, scans from the first on."""
    names = [corpus.keys[row].rpartition("/")[2] for row in train_rows(corpus, CONFIG).tolist()]
    tenth = replace(CONFIG, fraction=0.1)
    scans = train_rows(corpus, replace(tenth, every="scene"))
    assert [names[row] for row in scans.tolist()] == [names[0], names[10]]
    drives = train_rows(corpus, replace(tenth, every="sequence"))
    assert [names[row] for row in drives.tolist()] == [names[9], names[19]]
    assert replace(tenth, every="scene").choice == "10 % of the scenes, every 10th scene"
    assert len(train_rows(corpus, replace(CONFIG, every="sequence"))) == 20
    with pytest.raises(RecipeError, match="every 100th sequence of 20 is none"):
        train_rows(corpus, replace(CONFIG, every="sequence", fraction=0.01))
    with pytest.raises(ValueError, match=r"must be 1 / n, found 0\.3"):
        replace(CONFIG, every="scene", fraction=0.3)


def test_a_sequence_is_taken_whole_in_the_order_of_the_corpus() -> None:
    """As SLidR's code counts: of 700 drives, of which each has 3 scans here, numbers 100, 200, ... 700."""
    names = [f"drive {(11 * number) % 700}" for number in range(700) for _ in range(3)]
    index = SimpleNamespace(column=lambda name: SimpleNamespace(to_pylist=lambda: names))
    corpus: Any = SimpleNamespace(select=lambda **_: np.arange(len(names)), index=index)
    rows = train_rows(corpus, DataConfig(every="sequence", fraction=0.01))
    assert rows.tolist() == [3 * number + scan for number in range(99, 700, 100) for scan in range(3)]


def test_few_validation_scenes_are_always_the_same(tmp_path: Path) -> None:
    corpus = room_corpus(tmp_path, train=1, val=8, points=40)
    few = [val_rows(corpus, replace(CONFIG, val_scenes=count)).tolist() for count in (2, 4, 99)]
    assert [len(rows) for rows in few] == [2, 4, 8] and set(few[0]) < set(few[1]) and few[1] == sorted(few[1])


def test_a_list_of_scenes(tmp_path: Path, corpus: Corpus) -> None:
    path = tmp_path / "scannet-lr.txt"
    path.write_text("scene0003_00\nscene0007\nscannet/scene0001_00\n\n")
    rows = train_rows(corpus, replace(CONFIG, scene_list=path))
    assert [corpus.keys[row] for row in rows] == [f"scannet/scene{i:04d}_00" for i in (1, 3, 7)]
    assert replace(CONFIG, scene_list=path, fraction=0.2).choice == "scenes of scannet-lr.txt"
    path.write_text("scene0003_00\nscene9999_00\n")
    with pytest.raises(RecipeError, match="1 of its 2 scenes are not in the training split, 'scene9999_00'"):
        train_rows(corpus, replace(CONFIG, scene_list=path))
    with pytest.raises(RecipeError, match="cannot be read"):
        train_rows(corpus, replace(CONFIG, scene_list=tmp_path / "none.txt"))


def test_few_points_keep_their_labels() -> None:
    labels = np.arange(100) % 7 - 1
    few = LabelledPoints(replace(CONFIG, points_per_scene=20)).keep("a/b", labels)
    more = LabelledPoints(replace(CONFIG, points_per_scene=50)).keep("a/b", labels)
    assert (few >= 0).sum() == 20 and (more >= 0).sum() == 50
    assert (few[few >= 0] == labels[few >= 0]).all() and ((few >= 0) <= (more >= 0)).all()
    other = LabelledPoints(replace(CONFIG, points_per_scene=20)).keep("a/c", labels)
    assert (other != few).any()
    assert LabelledPoints(CONFIG).keep("a/b", labels) is labels


def test_lists_of_points(tmp_path: Path) -> None:
    labels = np.arange(10) % 3
    np.save(tmp_path / "one.npy", np.array([2, 5], np.int32))
    (tmp_path / "two.txt").write_text("1 3\n4\n")
    folder = LabelledPoints(replace(CONFIG, points_list=tmp_path))
    assert np.flatnonzero(folder.keep("d/one", labels) >= 0).tolist() == [2, 5]
    assert np.flatnonzero(folder.keep("d/two", labels) >= 0).tolist() == [1, 3, 4]
    with pytest.raises(RecipeError, match=r"neither three.npy nor three.txt"):
        folder.keep("d/three", labels)
    with pytest.raises(RecipeError, match=r"has 3 points, but the list names 2..5"):
        folder.keep("d/one", labels[:3])
    lines = tmp_path / "lines.txt"
    lines.write_text("one 7 8\ntwo 0\n")
    listed = LabelledPoints(replace(CONFIG, points_list=lines))
    assert np.flatnonzero(listed.keep("d/one", labels) >= 0).tolist() == [7, 8]
    lines.write_text("one 7 x\n")
    with pytest.raises(RecipeError, match="line 1: expected numbers"):
        LabelledPoints(replace(CONFIG, points_list=lines))
    np.save(tmp_path / "four.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(RecipeError, match="cannot be read as an array"):
        folder.keep("d/four", labels)
    np.save(tmp_path / "five.npy", np.zeros((2, 2)))
    with pytest.raises(RecipeError, match="expected a row of integers"):
        folder.keep("d/five", labels)


def test_a_labelled_point_labels_its_voxel_whoever_speaks_for_it(corpus: Corpus) -> None:
    like = PointStudent(PointStudentConfig(network="tiny", size=1.0))  # many points a voxel
    encoder = Encoder(RawStudent(like, ("height",)), corpus, "scannet20")
    kept = LabelledPoints(replace(CONFIG, points_per_scene=5))
    scene = next(encoder.scenes(train_rows(corpus, CONFIG)[:1]))
    labels = row_labels(scene, kept)
    few = torch.from_numpy(kept.keep(scene.key, scene.labels.numpy()))
    touched = scene.rows.inverse[few >= 0].unique()
    assert set((labels >= 0).nonzero()[:, 0].tolist()) == set(touched.tolist()) and len(touched) >= 2
    for row in touched.tolist():
        assert int(labels[row]) in few[scene.rows.inverse == row].tolist()
