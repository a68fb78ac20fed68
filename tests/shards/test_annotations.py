"""What a dataset says of a scene beyond points and pixels comes back as it was, and costs nobody who does not ask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.ingest.sameness import first_difference
from brickyard.shards import annotations
from brickyard.shards.annotations import FIELD, annotation_bytes
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import CorruptDataError, SceneError
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from tests.worlds import toy_scene

BOX = {"label": "chair", "instance": 3, "center": [1.0, 2.0, 0.5], "size": [0.5, 0.5, 1.0],
       "rotation": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]}  # fmt: skip
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


def corpus_of(folder: Path, found: dict[str, Any]) -> Corpus:
    build, store = fingerprint_digest({}), Store(folder)
    start_build(store, {})
    commit_task(store, 0, build, [encode_scene(replace(toy_scene(0), annotations=found))], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


@settings(max_examples=100, deadline=None)
@given(found=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,39}", fullmatch=True), VALUES, max_size=4))
def test_what_is_kept_comes_back_equal(found: dict[str, Any]) -> None:
    text = bytes(annotation_bytes(found)).decode()
    assert first_difference(json.loads(text), found) is None


def test_a_corpus_keeps_them(tmp_path: Path) -> None:
    found = {"boxes": [BOX], "layout": {"floor": [[0.0, 0.1, 1e-300]], "Größe": None}}
    corpus = corpus_of(tmp_path, found)
    assert corpus.scene(0).annotations == found
    (sample,) = next(iter(Stream(corpus, ["points/xyz"], batch=1, threads=1)))
    assert FIELD not in sample
    (sample,) = next(iter(Stream(corpus, [FIELD], batch=1, threads=1)))
    assert json.loads(bytes(sample[FIELD])) == found


def test_scenes_without_any_have_the_bytes_they_had() -> None:
    assert FIELD not in encode_scene(toy_scene(0)).blobs


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"Boxes": []}, "cannot be called 'Boxes'"),
        ({"boxes": (1, 2)}, "lists, not tuples"),
        ({"boxes": {1: 2}}, "not numbers, as keys"),
        ({"boxes": float("nan")}, "must be JSON"),
        ({"boxes": object()}, "must be JSON"),
        ({"boxes": "\ud800"}, "must be JSON"),
    ],
)
def test_what_would_not_come_back_is_refused(found: dict[str, Any], why: str) -> None:
    with pytest.raises(SceneError, match=why):
        replace(toy_scene(0), annotations=found).validate()


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 are kept"):
        annotation_bytes({"boxes": [BOX]})


def test_damaged_ones_are_an_error_that_names_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "brickyard.shards.encode.annotation_bytes", lambda found: np.frombuffer(b'{"boxes": [', np.uint8)
    )
    corpus = corpus_of(tmp_path, {"boxes": [BOX]})
    with pytest.raises(CorruptDataError, match=toy_scene(0).identity.scene_id):
        corpus.scene(0)


@pytest.mark.parametrize("found", [{"boxes": 2**70}, {"boxes": [float("inf")]}])
def test_what_no_reader_would_accept_is_not_written(found: dict[str, Any]) -> None:
    with pytest.raises(SceneError, match="must be JSON"):
        replace(toy_scene(0), annotations=found).validate()


def test_neither_is_what_is_nested_too_deep() -> None:
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(SceneError, match="must be JSON"):
        replace(toy_scene(0), annotations={"boxes": deep}).validate()
