"""What a corpus was described by, over its index; also where it has grown since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.described import COLUMNS, described, write_described
from brickyard.shards.encode import encode_scene
from brickyard.shards.selection import select
from brickyard.shards.storage import Store
from tests.worlds import toy_scene

FINGERPRINT: dict[str, Any] = {"toy": "grows"}


def corpus_of(folder: Path, scenes: int, was: list[dict[str, Any]]) -> Corpus:
    """Scenes that have the figure `motion` since they were built, in shards of one."""
    store, build = Store(str(folder)), fingerprint_digest(FINGERPRINT)
    start_build(store, FINGERPRINT)
    for number in range(scenes):
        scene = replace(toy_scene(number, views=0), figures={"motion": float(number)})
        commit_task(store, number, build, [encode_scene(scene)], [])
    finish_build(store, scenes, build, [], {"was": was} if was else {})
    return Corpus.open(folder)


def columns_of(row: int) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"figures": [("width_m", 10.0 + row)], "place": [float(row), 0.0, 0.0]}


def test_scenes_that_came_since_keep_what_the_index_knows(tmp_path: Path) -> None:
    first = corpus_of(tmp_path, 2, [])
    write_described(first, columns_of, provenance={"by": "a test"})
    was = {"corpus": first.manifest["digest"], "fingerprint": first.fingerprint, "scenes": 2}
    corpus = corpus_of(tmp_path, 3, [was])
    table = described(corpus)
    assert [dict(figures) for figures in table.column("figures").to_pylist()] == [
        {"motion": 0.0, "width_m": 10.0}, {"motion": 1.0, "width_m": 11.0}, {"motion": 2.0},
    ]  # fmt: skip
    assert table.column("place").to_pylist() == [[0, 0, 0], [1, 0, 0], None]
    assert len(select(corpus, at_least={"motion": 1.5}).keys) == 1
    write_described(corpus, columns_of, provenance={"by": "a test"})
    assert dict(described(corpus).column("figures").to_pylist()[2]) == {"motion": 2.0, "width_m": 12.0}
