"""Scenes that are whole but do not do are replaced by the rule for damaged ones, and counted apart from them."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, CorruptDataError, ImageError, UnfitSceneError
from brickyard.shards.stream import Sample, Stream
from tests.worlds import toy_corpus

SHORT = ("scene-003", "scene-007", "scene-008")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("unfit") / "corpus", scenes=10)


def refuse(sample: Sample, rng: np.random.Generator) -> tuple[str, ...]:
    if sample.key.endswith(SHORT):
        raise UnfitSceneError(f"too short for {rng.integers(100)} frames")
    return ("points/xyz",)


def draw(sample: Sample, rng: np.random.Generator) -> tuple[str, int, int]:
    return sample.key, sample.position, int(rng.integers(100))


def stream(corpus: Corpus, **options: Any) -> Stream:
    return Stream(corpus, ["points/*"], batch=4, seed=5, **{"choose": refuse, "prepare": draw, **options})


def test_an_unfit_scene_is_replaced_with_its_draws_and_nothing_else_moves(corpus: Corpus) -> None:
    ours, theirs = stream(corpus), stream(corpus, choose=None)
    found, whole = ([one for batch in islice(s, 10) for one in batch] for s in (ours, theirs))
    assert {key.partition("/")[2] for key in ours.unfit} == set(SHORT) and not ours.replaced
    assert all(reason.startswith("too short for ") for reason in ours.unfit.values())
    changed = [(a, b) for a, b in zip(found, whole, strict=True) if a != b]
    assert changed and all(b[0].endswith(SHORT) and a[1:] == b[1:] for a, b in changed)
    assert not any(key.endswith(SHORT) for key, *_ in found)
    assert len({a[0] for a, _ in changed}) > 2  # chance, not one scene for all


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_order_is_the_same_on_any_ranks_and_after_a_restart(corpus: Corpus, world: int) -> None:
    whole = list(islice(stream(corpus), 9))
    first = stream(corpus, threads=3)
    assert list(islice(first, 4)) == whole[:4]
    state = json.loads(json.dumps(first.state()))
    ranks = [iter(stream(corpus, rank=r, world=world, state=state)) for r in range(world)]
    assert [[one for rank in ranks for one in next(rank)] for _ in range(5)] == whole[4:]


def test_prepare_may_refuse_too(corpus: Corpus) -> None:
    def late(sample: Sample, rng: np.random.Generator) -> tuple[str, int, int]:
        refuse(sample, np.random.default_rng(0))
        return draw(sample, rng)

    by_choice, by_item = stream(corpus), stream(corpus, choose=None, prepare=late)
    assert list(islice(by_choice, 6)) == list(islice(by_item, 6))
    assert by_choice.unfit.keys() == by_item.unfit.keys()


def test_their_number_has_a_limit_of_its_own(corpus: Corpus) -> None:
    list(islice(stream(corpus, unfit_scenes=3), 9))
    with pytest.raises(CorpusError, match=r"3 scenes \(toy/scene-00.*too short for .*: select .*`unfit_scenes`"):
        list(islice(stream(corpus, unfit_scenes=2), 9))


def test_where_no_scene_does_it_says_so(corpus: Corpus) -> None:
    def none(sample: Sample, rng: np.random.Generator) -> tuple[str, ...]:
        raise UnfitSceneError(f"the clip has {sample.views} frames, the window 48")

    with pytest.raises(CorpusError, match=r"none of 64 scenes.*scenes \(toy/.*has 2 frames, the window 48: select"):
        next(iter(stream(corpus, choose=none)))


def test_an_image_that_prepare_cannot_decode_is_damage(corpus: Corpus, tmp_path: Path) -> None:
    def decode(sample: Sample, rng: np.random.Generator) -> tuple[str, int, int]:
        if sample.key.endswith(SHORT[0]):
            raise ImageError("views/1 (front): truncated", 77)
        return draw(sample, rng)

    with pytest.raises(CorruptDataError, match=r"shards/.*scene toy/scene-003: views/1 \(front\): truncated"):
        list(islice(stream(corpus, choose=None, prepare=decode), 5))
    allowed = stream(corpus, choose=None, prepare=decode, bad_scenes=1)
    assert len(list(islice(allowed, 5))) == 5
    assert list(allowed.replaced) == ["toy/scene-003"] and not allowed.unfit
