"""What is read of a scene, chosen by its header: fewer bytes, in one more request, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.shards.batching import Budget
from brickyard.shards.cache import CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.layers import LayeredCorpus, write_layer
from brickyard.shards.storage import Store
from brickyard.shards.stream import Sample, Stream, matching
from tests.shards.counting import counted, six_views
from tests.worlds import toy_corpus

FIELDS = ("points/xyz", "views/*/image", "views/*/pairs")
VIEWS = 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return six_views(tmp_path_factory.mktemp("choosing") / "corpus", scenes=7)


def drawn(sample: Sample, rng: np.random.Generator) -> list[int]:
    return rng.permutation(sample.views)[:2].tolist()


def choose(sample: Sample, rng: np.random.Generator) -> Iterator[str]:
    """Two views of six, by the header alone."""
    assert not sample.fields and sample.header.points is not None
    yield "points/xyz"
    for number in drawn(sample, rng):
        yield f"views/{number}/image"
        yield f"views/{number}/pairs"


def item(sample: Sample, rng: np.random.Generator) -> tuple[Any, ...]:
    """What is in two views, which are drawn again here."""
    numbers = drawn(sample, rng)
    images = [bytes(sample[f"views/{number}/image"]) for number in numbers]
    pairs = [int(sample[f"views/{number}/pairs"].point.sum()) for number in numbers]
    return sample.key, sample.position, sample.step, numbers, images, pairs, rng.random()


def test_only_what_is_chosen_is_there(corpus: Corpus) -> None:
    for (sample,) in Stream(corpus, FIELDS, batch=1, epochs=1, choose=choose, seed=3):
        numbers = drawn(sample, np.random.default_rng((3, sample.position)))
        wanted = {"points/xyz", *(f"views/{n}/{part}" for n in numbers for part in ("image", "pairs"))}
        assert set(sample.fields) == wanted and len(wanted) == 5


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world=st.sampled_from([1, 2, 3]), threads=st.integers(1, 3), stop=st.integers(0, 4), seed=st.integers(0, 2**63 - 1),
    batch=st.sampled_from([6, Budget(points=1300, bins=6, window=12), Budget(cost="n_views", most=12, bins=6)]),
)  # fmt: skip
def test_items_are_those_of_a_stream_that_reads_everything(
    corpus: Corpus, *, world: int, threads: int, stop: int, seed: int, batch: int | Budget
) -> None:
    """On any ranks and threads, and after a restart; the state does not know of the choice."""
    plain = Stream(corpus, FIELDS, batch=batch, prepare=item, seed=seed)
    whole = list(islice(plain, stop + 3))
    first = Stream(corpus, FIELDS, batch=batch, prepare=item, seed=seed, choose=choose, threads=threads)
    assert list(islice(first, stop)) == whole[:stop]
    state = json.loads(json.dumps(first.state()))
    ranks = [
        Stream(corpus, FIELDS, batch=batch, prepare=item, seed=seed, choose=choose, threads=threads, rank=rank,
               world=world, state=state)
        for rank in range(world)
    ]  # fmt: skip
    shares = [list(islice(rank, 3)) for rank in ranks]
    assert [[one for share in step for one in share] for step in zip(*shares, strict=True)] == whole[stop:]


def test_none_reads_what_the_stream_was_asked_for(corpus: Corpus) -> None:
    found = next(iter(Stream(corpus, ["points/xyz", "views/*/pairs"], batch=7, choose=lambda *_: None)))
    assert all(len(sample.fields) == 1 + VIEWS for sample in found)
    nothing = next(iter(Stream(corpus, FIELDS, batch=7, choose=lambda *_: ())))
    assert all(not sample.fields and sample.views == VIEWS for sample in nothing)
    absent = next(
        iter(Stream(corpus, FIELDS, batch=7, choose=lambda *_: ("points/nothing", "points/[cx]*", "views/9/*")))
    )
    assert all(set(sample.fields) == {"points/color", "points/xyz"} for sample in absent)


names = st.lists(st.text(alphabet="ab/*?[]1", max_size=6), max_size=12)


@given(names, names)
def test_matching_is_fnmatch_and_names_are_themselves(found: list[str], patterns: list[str]) -> None:
    import fnmatch

    wanted = tuple(n for n in found if any(n == p or fnmatch.fnmatchcase(n, p) for p in patterns))
    assert matching(found, patterns) == wanted


def test_requests_and_bytes(corpus: Corpus, tmp_path: Path) -> None:
    """From a store where blobs are read by ranges: a second request for each scene, but two images of six. Without a
    choice it is the one request that it was."""
    count = 7
    cached = [Corpus.open(corpus.store.uri, cache=CacheConfig(folder=str(tmp_path / name))) for name in "ab"]
    with counted() as whole:
        plain = [one for batch in Stream(cached[0], FIELDS, batch=1, epochs=1, prepare=item) for one in batch]
    with counted() as less:
        chosen = [
            one for batch in Stream(cached[1], FIELDS, batch=1, epochs=1, prepare=item, choose=choose) for one in batch
        ]
    assert plain == chosen
    assert whole.calls == whole.reads == count and less.calls == 2 * count
    assert 2 / 6 < less.bytes / whole.bytes < 0.4


def test_from_a_disk_nothing_is_read_twice(corpus: Corpus) -> None:
    with counted() as whole:
        list(Stream(corpus, FIELDS, batch=1, epochs=1, prepare=item))
    with counted() as less:
        list(Stream(corpus, FIELDS, batch=1, epochs=1, prepare=item, choose=choose))
    asked = 1 + 1 + 2 * VIEWS  # header, points, images and pairs
    assert whole.reads == 7 * asked and less.reads == 7 * (2 + 2 * 2)
    assert whole.calls == less.calls == 0 and 2 / 6 < less.bytes / whole.bytes < 0.4


def test_a_damaged_choice_is_replaced_and_what_is_not_chosen_harms_nobody(tmp_path: Path) -> None:
    corpus = six_views(tmp_path / "c", scenes=7)
    place, path = corpus.addresses(3)["views/4/image"], tmp_path / "c" / corpus.shard(3)
    data = bytearray(path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)
    last = Stream(corpus, FIELDS, batch=7, epochs=1, choose=lambda *_: ("views/4/image",), bad_scenes=1)
    assert len({sample.key for sample in next(iter(last))}) == 6 and list(last.replaced) == [corpus.keys[3]]
    others = Stream(corpus, FIELDS, batch=7, epochs=1, choose=lambda *_: ("views/[!4]/image",))
    assert len({sample.key for sample in next(iter(others))}) == 7


def test_an_error_in_choose_reaches_the_caller(corpus: Corpus) -> None:
    def fail(sample: Sample, rng: np.random.Generator) -> None:
        raise ZeroDivisionError(sample.key)

    with pytest.raises(ZeroDivisionError):
        next(iter(Stream(corpus, FIELDS, batch=2, choose=fail)))


def test_fields_of_a_layer_can_be_chosen(tmp_path: Path) -> None:
    from brickyard.shards.codecs import encode_array

    corpus = toy_corpus(tmp_path, scenes=3)
    write_layer(corpus, "h", lambda row: {f"points/{n}": encode_array(np.full(400, row)) for n in "ab"}, provenance={})
    layered = LayeredCorpus.open(Store(tmp_path), layers=["h"])
    for (sample,) in Stream(layered, ["*"], batch=1, epochs=1, choose=lambda *_: ["h/points/b"]):
        assert sample.fields == ["h/points/b"] and sample["h/points/b"][0] == sample.row
