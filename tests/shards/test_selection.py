"""Selections: chosen scenes with weights and reasons, bound to their corpus."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.scene_list import read_scene_list
from brickyard.shards.selection import Selection, read_selection, select, write_selection
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from tests.worlds import toy_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("selection") / "corpus")


def test_conditions_choose(corpus: Corpus, tmp_path: Path) -> None:
    assert select(corpus).keys == tuple(corpus.keys)
    chosen = select(corpus, datasets=["toy"], splits=["train"], domains=["outdoor"], at_least={"n_views": 1})
    assert set(corpus.keys) - set(chosen.keys) == {"toy/scene-004", "toy/scene-009"}
    assert select(corpus, at_least={"visible_share": 0.0}).keys == chosen.keys  # no views: unknown, so not met
    assert select(corpus, datasets=["other"]).keys == select(corpus, at_most={"n_points": 399}).keys == ()
    assert '"n_views": 1' in chosen.reasons[0]
    with pytest.raises(CorpusError, match="no number 'n_point' in the index; there are"):
        select(corpus, at_least={"n_point": 1})
    write_selection(Store(tmp_path), "chosen.parquet", chosen)
    again = read_selection(Store(tmp_path), "chosen.parquet")
    assert (again.keys, again.reasons, again.corpus, again.about) == (
        chosen.keys, chosen.reasons, chosen.corpus, chosen.about
    )  # fmt: skip
    stream = Stream(corpus, ["points/xyz"], batch=5, rows=again.rows(corpus), epochs=1)
    assert Counter(sample.key for items in stream for sample in items) == dict.fromkeys(chosen.keys, 1)


def test_lists_of_scenes_choose(corpus: Corpus, tmp_path: Path) -> None:
    """By id, by key or by sequence, blank lines aside; what a corpus has nothing of is another corpus's list."""
    listed = tmp_path / "some.txt"
    listed.write_text("scene-003\n\n  toy/scene-005\n")
    names = read_scene_list(listed)
    assert select(corpus, only=names).keys == ("toy/scene-003", "toy/scene-005")
    rest = select(corpus, without=names)
    assert set(rest.keys) == set(corpus.keys) - {"toy/scene-003", "toy/scene-005"}
    assert rest.about["conditions"] == {"without": "some.txt (2 names)"}
    listed.write_text(str(corpus.index.column("sequence")[0]))
    sequences = corpus.index.column("sequence").to_pylist()
    assert len(select(corpus, only=read_scene_list(listed)).keys) == sequences.count(sequences[0])
    for text, problem in (("scene-0061", "none of the 1 names of some.txt"), (" \n", "lists no scene")):
        listed.write_text(text)
        with pytest.raises(CorpusError, match=problem):
            select(corpus, only=read_scene_list(listed))
    with pytest.raises(CorpusError, match="cannot be read as a list of scenes"):
        read_scene_list(tmp_path / "none.txt")


def test_domains_and_datasets_have_weights(corpus: Corpus, tmp_path: Path) -> None:
    chosen = select(corpus, weights={"outdoor": 0.5, "toy": 3.0})
    assert chosen.weights.tolist() == [1.5] * 12
    assert chosen.about["weights"] == {"outdoor": 0.5, "toy": 3.0}
    write_selection(Store(tmp_path), "weighted.parquet", chosen)
    assert read_selection(Store(tmp_path), "weighted.parquet").weights.tolist() == [1.5] * 12
    with pytest.raises(CorpusError, match="a weight for 'indoor', but the chosen scenes are of outdoor, toy"):
        select(corpus, weights={"indoor": 2.0})


@given(st.lists(st.floats(0.015625, 5, width=32), min_size=12, max_size=12), st.integers(0, 1000))
def test_weights_are_visits(corpus: Corpus, weights: list[float], seed: int) -> None:
    selection = replace(select(corpus), weights=np.array(weights, np.float32))
    counts = Counter(selection.rows(corpus, seed).tolist())
    assert all(abs(counts[row] - weight) < 1 for row, weight in enumerate(weights))
    assert np.array_equal(selection.rows(corpus, seed), selection.rows(corpus, seed))


def test_the_rest_of_a_weight_is_a_chance(corpus: Corpus) -> None:
    selection = replace(select(corpus), weights=np.full(12, 1.25, np.float32))
    mean = np.mean([len(selection.rows(corpus, seed)) for seed in range(400)])
    assert abs(mean / 12 - 1.25) < 0.02


def test_what_does_not_fit_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    good = select(corpus)
    with pytest.raises(CorpusError, match="over the corpus"):
        replace(good, corpus="other").rows(corpus)
    with pytest.raises(CorpusError, match="names toy/x"):
        Selection(good.corpus, ("toy/x",), np.ones(1, np.float32), ("",)).rows(corpus)
    for keys, weights in ((("a", "a"), [1, 1]), (("a",), [0]), (("a",), [np.nan]), (("a",), [1, 1])):
        with pytest.raises(CorpusError):
            Selection(good.corpus, keys, np.array(weights, np.float32), ("",) * len(keys))
    store = Store(tmp_path)
    with pytest.raises(CorpusError, match="does not exist"):
        read_selection(store, "none.parquet")
    write_selection(store, "good.parquet", good)
    data = (tmp_path / "good.parquet").read_bytes()
    for place in range(0, len(data), 7):
        (tmp_path / "bad.parquet").write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        try:
            read = read_selection(store, "bad.parquet")
        except CorpusError:
            continue
        assert (read.keys, read.reasons, read.weights.tolist()) == (good.keys, good.reasons, good.weights.tolist())
