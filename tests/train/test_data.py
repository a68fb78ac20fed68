"""The adapter for PyTorch's DataLoader: the stream's own order, with and without workers, and exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.stream import Sample, Stream
from brickyard.train.data import StreamDataset
from tests.worlds import toy_corpus

FIELDS = ("points/xyz",)
Make = Callable[..., StreamDataset]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("data") / "corpus", scenes=12)


def prepare(sample: Sample, rng: np.random.Generator) -> tuple[str, torch.Tensor]:
    return sample.key, torch.from_numpy(sample["points/xyz"].dequantise().copy())


def collate(items: list[Any]) -> dict[str, Any]:
    return {"keys": [key for key, _ in items], "xyz": torch.cat([xyz for _, xyz in items])}


def dataset(corpus: Corpus, **options: Any) -> StreamDataset:
    given: dict[str, Any] = {"batch": 5, "epochs": 2, "prepare": prepare, "collate": collate, "seed": 3} | options
    return StreamDataset(corpus, FIELDS, **given)


class Info:
    """What torch says in a worker process."""

    num_workers = 2

    def __init__(self, number: int) -> None:
        self.id = number


def keys(loader: Any) -> list[list[str]]:
    return [batch["keys"] for batch in loader]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_order_is_the_streams_for_any_number_of_workers(corpus: Corpus, workers: int) -> None:
    stream = Stream(corpus, FIELDS, batch=5, epochs=2, prepare=prepare, seed=3)
    wanted = [[key for key, _ in items] for items in stream]
    loader = DataLoader(dataset(corpus), batch_size=None, num_workers=workers)
    assert keys(loader) == wanted
    assert keys(loader) == wanted  # a second pass is the same run again
    assert sum(map(len, wanted)) == 24


def test_values_arrive(corpus: Corpus) -> None:
    (batch, *_) = DataLoader(dataset(corpus), batch_size=None, num_workers=1)
    rows = [corpus.scene(key).points for key in batch["keys"]]
    assert torch.equal(batch["xyz"], torch.cat([torch.from_numpy(points.xyz) for points in rows if points]))


@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_resume_without_workers(corpus: Corpus, stop: int) -> None:
    whole, first = keys(dataset(corpus)), dataset(corpus)
    batches = iter(first)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(first.state_dict()))
    again = dataset(corpus)
    again.load_state_dict(state)
    assert keys(DataLoader(again, batch_size=None)) == whole[stop:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [5, Budget(points=1500, bins=1)])
def test_state_after_so_many_batches(corpus: Corpus, workers: int, batch: int | Budget) -> None:
    def join(items: list[Any]) -> dict[str, Any]:
        return collate(items if batch == 5 else [one for bin_ in items for one in bin_])

    whole = keys(dataset(corpus, batch=batch, collate=join))
    for stop in (0, 1, 3):
        again = dataset(corpus, batch=batch, collate=join)
        again.load_state_dict(dataset(corpus, batch=batch).state_after(stop))
        assert keys(DataLoader(again, batch_size=None, num_workers=workers)) == whole[stop:]
    with pytest.raises(ValueError, match="fewer than 1000"):
        dataset(corpus, batch=batch).state_after(1000)


def test_workers_save_and_restore_like_torchdata(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """StatefulDataLoader keeps a state of every worker and gives each its own back; done by hand here."""

    def worker(number: int, state: dict[str, Any] | None) -> StreamDataset:
        copy = dataset(corpus)
        if state is not None:
            copy.load_state_dict(json.loads(json.dumps(state)))
        return copy

    whole = keys(dataset(corpus))
    for stop in range(len(whole) + 1):
        got: list[list[list[str]]] = []
        states: list[dict[str, Any]] = []
        for number in range(2):
            monkeypatch.setattr("brickyard.train.data.get_worker_info", lambda number=number: Info(number))
            copy = worker(number, None)
            mine = iter(copy)
            for _ in range((stop + 1 - number) // 2):
                next(mine)
            states.append(copy.state_dict())
        for number in range(2):
            monkeypatch.setattr("brickyard.train.data.get_worker_info", lambda number=number: Info(number))
            got.append([batch["keys"] for batch in worker(number, states[number])])
        assert sorted(got[0] + got[1]) == sorted(whole[stop:])


def test_what_cannot_work_is_refused_with_a_reason(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as worker, pytest.raises(ValueError, match="num_workers=0"):
        worker.setattr("brickyard.train.data.get_worker_info", lambda: Info(0))
        next(iter(dataset(corpus, prepare=None, collate=None)))
    with pytest.raises(ValueError, match="multiple of world"):
        dataset(corpus, world=2)
    other = dataset(corpus, seed=4)
    with pytest.raises(CorpusError, match="another seed"):
        other.load_state_dict(dataset(corpus).state_dict())


def test_ranks_share_the_batches(corpus: Corpus, tmp_path: Path) -> None:
    whole = keys(dataset(corpus, batch=4))
    halves = [keys(dataset(corpus, batch=4, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
