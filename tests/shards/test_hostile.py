"""A corpus made by somebody who means harm: digests are right, and what they protect is nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.build import commit_task, fingerprint_digest, finish_build, start_build
from shards.corpus import Corpus
from shards.encode import encode_scene
from shards.errors import BrickyardError, CorpusError, CorruptDataError
from shards.storage import Store
from shards.stream import Stream
from shards.verify import verify
from tests.worlds import toy_scene


def corpus_with_header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Corpus:
    encoded = encode_scene(toy_scene(0))
    header = json.loads(encoded.header)
    changed = change(header)
    data = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    store = Store(folder)
    build = fingerprint_digest({})
    start_build(store, {})
    commit_task(store, 0, build, [replace(encoded, header=data)], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


def field(name: str, **change: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header["fields"][name].update(change)


NONSENSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dtype that numpy would parse": field("points/xyz", dtype="(1,i4"),
    "dtype of objects": field("points/xyz", dtype="|O"),
    "endless shape": lambda h: json.dumps(h).replace("[400, 3]", "[1e999, 3]", 1).encode(),
    "bomb": field("points/color", shape=[2**29, 3]),
    "step of nan": lambda h: json.dumps(h).replace('"step": 0.00', '"step": NaN, "x": 0.00', 1).encode(),
    "step of zero": field("points/xyz", step=0),
    "step beyond float": field("points/xyz", step=10**400),
    "origin too short": field("points/xyz", origin=[0.0, 0.0]),
    "empty palette": field("points/intensity", table=[]),
    "codec of another kind": field("points/xyz", codec="octahedral"),
    "unknown codec": field("points/xyz", codec="pickle"),
    "spec is a number": lambda h: h["fields"].update({"points/xyz": 5}),
    "fields is a list": lambda h: h.update(fields=[{}]),
    "views are numbers": lambda h: h.update(views=[1, 2]),
    "points without their facts": lambda h: h.update(points={}),
    "identity misses names": lambda h: h.update(identity={}),
    "superpixels of another image": field("views/0/superpixels", shape=[4000, 4000]),
    "too many pairs": field("views/0/pairs", count=10**9),
    "deeply nested": lambda h: b"[" * 100_000 + b"]" * 100_000,
    "not JSON": lambda h: b"\xff\xfe",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_an_error_that_names_the_scene(tmp_path: Path, what: str) -> None:
    corpus = corpus_with_header(tmp_path, NONSENSE[what])
    with pytest.raises(BrickyardError, match="toy/scene-000"):
        corpus.scene(0)
    with pytest.raises(CorruptDataError):
        list(Stream(corpus, ("*",), batch=1, epochs=1))
    assert any("toy/scene-000" in problem for problem in verify(corpus, deep=True).problems)


@pytest.mark.parametrize(
    "change",
    [{"shards": 5}, {"shards": [{}]}, {"quarantined": [{"x": 1}]}, {"format": "one"}, {"index_digest": None}],
)
def test_a_nonsense_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    from shards.corpus import manifest_digest

    corpus_with_header(tmp_path, lambda header: None)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    with pytest.raises(CorpusError):
        Corpus.open(tmp_path)


def test_many_shards_need_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shards import storage

    monkeypatch.setattr(storage, "_OPEN_FILES", 4)
    store = Store(tmp_path)
    for number in range(20):
        store.write(f"{number}", bytes([number]) * 10)
    assert [store.read_range(f"{n}", 3, 1)[0] for n in range(20)] == list(range(20))
    assert len(store._open) == 4
