"""Two corpora compared by what their indices say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.diff import diff
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.worlds import toy_corpus, toy_scene


def corpus_of(folder: Path, scenes: list[Scene]) -> Corpus:
    store = Store(folder)
    start_build(store, {"of": str(folder)})
    build = fingerprint_digest({"of": str(folder)})
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


def test_the_same_scenes_are_equal_in_any_container_and_order(tmp_path: Path) -> None:
    one = toy_corpus(tmp_path / "a")
    two = toy_corpus(tmp_path / "b", per_shard=3, container="webdataset")
    three = corpus_of(tmp_path / "c", [toy_scene(i, views=0 if i % 5 == 4 else 2) for i in reversed(range(12))])
    for other in (two, three):
        found = diff(one, other)
        assert found.equal
        assert found.same == 12


def test_every_difference_is_named(tmp_path: Path) -> None:
    scenes = [toy_scene(i) for i in range(5)]
    one = corpus_of(tmp_path / "a", scenes)
    assert scenes[1].points is not None
    assert scenes[2].points is not None
    changed = [
        replace(scenes[1], points=replace(scenes[1].points, color=255 - scenes[1].points.color)),
        replace(scenes[2], points=replace(scenes[2].points, elongation=None)),
        replace(scenes[3], identity=replace(scenes[3].identity, split="val")),
        scenes[4],
        toy_scene(9),
    ]
    found = diff(one, corpus_of(tmp_path / "b", changed))
    assert not found.equal
    assert (found.only_first, found.only_second, found.same) == (("toy/scene-000",), ("toy/scene-009",), 1)
    assert found.changed["toy/scene-001"] == ("points/color",)
    assert set(found.changed["toy/scene-002"]) == {"header", "-points/elongation"}
    assert set(found.changed["toy/scene-003"]) == {"split", "header"}
    assert found.changed.keys() == {"toy/scene-001", "toy/scene-002", "toy/scene-003"}
