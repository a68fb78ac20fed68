"""What the stream promises: the same global batches on any number of ranks and threads, exact epochs, exact resume."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.shards.codecs import Pairs, Quantised
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.stream import Sample, Stream
from tests.worlds import toy_corpus, toy_scene

FIELDS = ("points/xyz", "points/semantic.*", "views/*/pairs")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("stream") / "corpus", scenes=12)


def key(sample: Sample, rng: np.random.Generator) -> tuple[str, float]:
    return sample.key, float(rng.random())


def global_batches(corpus: Corpus, steps: int, world: int = 1, **options: Any) -> list[list[Any]]:
    ranks = [iter(Stream(corpus, FIELDS, batch=4, prepare=key, rank=r, world=world, **options)) for r in range(world)]
    return [[item for rank in ranks for item in next(rank)] for _ in range(steps)]


def test_every_epoch_visits_every_scene_once(corpus: Corpus) -> None:
    stream = Stream(corpus, FIELDS, batch=5, prepare=key, epochs=3)
    seen = [name for items in stream for name, _ in items]
    assert Counter(seen) == dict.fromkeys(corpus.keys, 3)
    assert [set(seen[i : i + 12]) for i in (0, 12, 24)] == [set(corpus.keys)] * 3
    assert seen[:12] != seen[12:24]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_order_does_not_depend_on_ranks_and_threads(corpus: Corpus, world: int, threads: int) -> None:
    assert global_batches(corpus, 7) == global_batches(corpus, 7, world=world, threads=threads)


def test_order_depends_on_the_seed(corpus: Corpus) -> None:
    assert global_batches(corpus, 3, seed=1) != global_batches(corpus, 3, seed=2)


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
@pytest.mark.parametrize("world", [1, 2])
def test_resume_goes_on_exactly_there(corpus: Corpus, stop: int, world: int) -> None:
    stream = Stream(corpus, FIELDS, batch=4, prepare=key)
    batches = iter(stream)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(stream.state()))
    batches.close()  # type: ignore[attr-defined]
    assert len(json.dumps(state)) < 300
    assert global_batches(corpus, 4, world=world, state=state) == global_batches(corpus, stop + 4)[stop:]


def test_state_of_another_corpus_is_refused(corpus: Corpus) -> None:
    state = Stream(corpus, FIELDS, batch=4).state()
    with pytest.raises(CorpusError, match="another seed"):
        Stream(corpus, FIELDS, batch=4, seed=5, state=state)
    with pytest.raises(CorpusError, match="another rows"):
        Stream(corpus, FIELDS, batch=4, rows=[1, 2], state=state)


def test_samples_hold_what_was_asked_for_and_nothing_else(corpus: Corpus) -> None:
    for items in Stream(corpus, FIELDS, batch=4, epochs=1):
        for sample in items:
            scene = toy_scene(int(sample.key[-3:]), views=sample.views)
            assert scene.points is not None
            xyz = sample["points/xyz"]
            assert isinstance(xyz, Quantised)
            assert np.abs(xyz.dequantise() - scene.points.xyz).max() <= 1 / 512
            assert np.array_equal(sample["points/semantic.nuscenes16"], scene.points.semantic["nuscenes16"])
            for number, view in enumerate(scene.views):
                pairs = sample[f"views/{number}/pairs"]
                assert isinstance(pairs, Pairs)
                assert view.pairs is not None
                assert np.array_equal(pairs.pixel, view.pairs.pixel)
                assert sample.header.view(number).name == view.name
            assert len(sample.fields) == 2 + len(scene.views)
            assert "views/0/image" not in sample


def test_samples_that_are_kept_do_not_change(corpus: Corpus) -> None:
    kept = [sample for items in Stream(corpus, ("points/color",), batch=2, epochs=4) for sample in items]
    for sample in kept:
        points = toy_scene(int(sample.key[-3:])).points
        assert points is not None
        assert np.array_equal(sample["points/color"], points.color)


def damaged(folder: Path, field: str) -> tuple[Corpus, str]:
    """A corpus with one flipped bit in one field of one scene, and that scene's key."""
    corpus = toy_corpus(folder, scenes=12)
    row = 7
    place = corpus.addresses(row)[field]
    path = folder / corpus.shard(row)
    data = bytearray(path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)
    return Corpus.open(folder), corpus.keys[row]


@pytest.mark.parametrize("field", ["header", "points/xyz", "views/1/pairs"])
def test_a_flipped_bit_is_named_with_shard_scene_and_field(tmp_path: Path, field: str) -> None:
    corpus, name = damaged(tmp_path / "c", field)
    with pytest.raises(CorruptDataError) as caught:
        list(Stream(corpus, FIELDS, batch=4, epochs=1))
    assert caught.value.scene == name
    assert caught.value.field == field
    assert (tmp_path / "c" / caught.value.shard).exists()


def test_a_damaged_scene_is_replaced_and_nothing_else_moves(tmp_path: Path, corpus: Corpus) -> None:
    bad, name = damaged(tmp_path / "c", "points/xyz")
    stream = Stream(bad, FIELDS, batch=4, prepare=key, bad_scenes=1, epochs=2)
    got = [item for items in stream for item in items]
    want = [item for items in Stream(corpus, FIELDS, batch=4, prepare=key, epochs=2) for item in items]
    assert list(stream.replaced) == [name]
    assert [b for a, b in zip(got, want, strict=True) if a != b] == [item for item in want if item[0] == name]
    again = Stream(bad, FIELDS, batch=4, prepare=key, bad_scenes=1, epochs=2, threads=3)
    assert [item for items in again for item in items] == got


def test_damage_in_a_field_nobody_asked_for_is_harmless(tmp_path: Path) -> None:
    corpus, _ = damaged(tmp_path / "c", "views/0/image")
    assert sum(map(len, Stream(corpus, FIELDS, batch=4, epochs=1))) == 12


def test_an_error_in_prepare_reaches_the_caller_and_ends_the_threads(corpus: Corpus) -> None:
    def fail(sample: Sample, rng: np.random.Generator) -> None:
        raise ZeroDivisionError(sample.key)

    with pytest.raises(ZeroDivisionError):
        next(iter(Stream(corpus, FIELDS, batch=2, prepare=fail)))


def test_impossible_requests_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="multiple"):
        Stream(corpus, FIELDS, batch=3, world=2)
    with pytest.raises(CorpusError, match="empty"):
        Stream(corpus, FIELDS, batch=2, rows=[])
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="a seed must"):
            Stream(corpus, FIELDS, batch=2, seed=seed)
