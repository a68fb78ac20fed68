"""A stream as a `torch.utils.data.IterableDataset`, for training code that is built around PyTorch's DataLoader.

    loader = DataLoader(StreamDataset(corpus, fields, batch=16, prepare=prepare, collate=collate), batch_size=None)

The dataset gives whole batches, so `batch_size=None`. With `num_workers=0` the stream's own threads do the work, which
is the fast way: worker processes send every array through shared memory, which costs more than decoding it. With
workers, worker k of n makes batches k, k + n, ...; a DataLoader takes them in turn, so the order is the same.
`state_dict` and `load_state_dict` are what torchdata's StatefulDataLoader asks for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from brickyard.shards.batching import Budget
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream

Collate = Callable[[list[Any]], Any]


class StreamDataset(IterableDataset[Any]):
    """Batches of a `Stream`.

    Args:
        corpus, fields, batch: of the stream.
        collate: makes of the stream's list what the loop wants; runs in the process that iterates.
        rank, world: this process among those that train together; from torch.distributed where it is in use.
        options: other arguments of `Stream`. With worker processes there must be a `prepare` that gives what can be
            sent to another process, and damaged scenes are counted by every worker for itself.
    """

    def __init__(
        self,
        corpus: Corpus,
        fields: Sequence[str],
        *,
        batch: int | Budget,
        collate: Collate | None = None,
        rank: int | None = None,
        world: int | None = None,
        **options: Any,
    ) -> None:
        used = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._corpus, self._fields, self._collate = corpus, tuple(fields), collate
        self._options = options | {
            "batch": batch,
            "rank": rank if rank is not None else torch.distributed.get_rank() if used else 0,
            "world": world if world is not None else torch.distributed.get_world_size() if used else 1,
        }
        self._state = self._stream(
            options.get("state")
        ).state()  # impossible arguments are refused now, not in a worker
        self._skip: int | None = None

    def _stream(self, state: Mapping[str, Any] | None) -> Stream:
        return Stream(self._corpus, self._fields, **{**self._options, "state": state})

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        turn, turns = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            if self._options.get("prepare") is None:
                raise ValueError(
                    "samples cannot be sent from worker processes: use num_workers=0 (the stream has threads), "
                    "or give `prepare` and return arrays or tensors from it"
                )
            self._corpus = copy.copy(self._corpus)
            self._corpus.store = copy.copy(self._corpus.store)  # open files and locks are not shared with the parent
        stream = self._stream(self._state)
        skip = turn if self._skip is None else self._skip
        batches = stream.batches(skip, turns)
        try:
            for items in batches:
                self._state, self._skip = stream.state(), turns - 1
                yield items if self._collate is None else self._collate(items)
        finally:
            batches.close()
        self._state, self._skip = self._stream(self._options.get("state")).state(), None  # the next pass is a new one

    # State

    def state_dict(self) -> dict[str, Any]:
        """Where the dataset stands in this process, as JSON. A worker's copy is at another place than the original in
        the main process: where workers are used without StatefulDataLoader, take `state_after`."""
        return {"stream": dict(self._state), "skip": self._skip}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; raises `CorpusError` if it belongs to another corpus, selection, seed or batching."""
        self._state = self._stream(state["stream"]).state()
        self._skip = state["skip"]

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state after so many batches of a pass, for any number of workers: it needs no data, only the index."""
        stream = self._stream(self._options.get("state"))
        state = stream.state()
        if batches:
            last = next(islice(stream.plan(), batches - 1, None), None)
            if last is None:
                raise ValueError(f"a pass has fewer than {batches} batches")
            state |= {"place": list(last[0]), "batches": state["batches"] + batches}
        return {"stream": state, "skip": None}
