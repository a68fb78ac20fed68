"""The stream: (corpus, rows, seed) -> batches, the same ones on any number of ranks and threads, resumable anywhere.

Positions 0, 1, 2, ... count scenes since the beginning; position g lies in epoch g // n and is a permutation's element
g % n (see `shards.order`). A batch is the next `batch` positions, whatever epoch they fall in, and rank r of w takes
the r-th of its w equal slices: every rank makes the same steps, each epoch visits each scene exactly once, and the
state is one number. Threads read, verify, decode and call `prepare` (all of which release the GIL); a scene whose bytes
are damaged is replaced by another one that depends on its position alone, recorded, and counted against a budget.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from shards.buffers import BufferPool, Lease
from shards.corpus import Corpus
from shards.encode import SceneHeader
from shards.errors import CorpusError, CorruptDataError
from shards.order import permute

STATE_VERSION = 2
_REPLACEMENTS = 8

Prepare = Callable[["Sample", np.random.Generator], Any]


class Sample:
    """One scene on its way to the device: `sample["points/xyz"]` and so on (see `shards.codecs.decode` for the types).

    Attributes:
        key: "dataset/scene_id".
        row: row in the index.
        position: place in the global order.
        header: identity, cameras, poses.
    """

    def __init__(self, key: str, row: int, position: int, header: SceneHeader, fields: Mapping[str, Any]) -> None:
        self.key, self.row, self.position, self.header, self._fields = key, row, position, header, fields

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]

    def __contains__(self, field: object) -> bool:
        return field in self._fields

    @property
    def fields(self) -> list[str]:
        """Names of the fields that were asked for and are there."""
        return list(self._fields)

    @property
    def views(self) -> int:
        """Number of views of the scene."""
        return len(self.header.views)


class Stream:
    """Iterate over batches: lists of `prepare(sample, rng)`, or of samples where `prepare` is None.

    Args:
        corpus: an open corpus.
        fields: names or patterns ("views/*/image"); only these are read. A field a scene does not have is left out.
        batch: scenes in a global batch (over all ranks); must be a multiple of `world`.
        seed: of the order and of the generators given to `prepare`.
        rows: rows of the index to use (a selection); all by default.
        rank, world: this process among those that train together.
        threads: that read and decode.
        prepare: runs in those threads; its generator depends on (seed, position) alone.
        epochs: end after so many (the last batch may be short); None goes on for ever.
        shuffle: False keeps the order of `rows`.
        state: from `state()`; raises `CorpusError` if it belongs to another corpus, selection or seed.
        bad_scenes: how many damaged scenes may be replaced before the stream raises `CorruptDataError`.
        ahead: batches prepared in advance.
    """

    def __init__(
        self,
        corpus: Corpus,
        fields: Sequence[str],
        *,
        batch: int,
        seed: int = 0,
        rows: Sequence[int] | NDArray[np.int64] | None = None,
        rank: int = 0,
        world: int = 1,
        threads: int = 2,
        prepare: Prepare | None = None,
        epochs: int | None = None,
        shuffle: bool = True,
        state: Mapping[str, Any] | None = None,
        bad_scenes: int = 0,
        ahead: int = 2,
    ) -> None:
        self.corpus, self.patterns, self.batch, self.seed = corpus, tuple(fields), batch, seed
        self.rows = np.arange(len(corpus)) if rows is None else np.asarray(rows, np.int64)
        if not len(self.rows):
            raise CorpusError(f"the selection of {corpus.store.uri} is empty: there is nothing to stream")
        if batch <= 0 or world <= 0 or batch % world or not 0 <= rank < world:
            raise ValueError(f"batch {batch} must be a positive multiple of world {world}, and rank {rank} below it")
        self.rank, self.world, self.threads, self.prepare = rank, world, max(1, threads), prepare
        self.epochs, self.shuffle, self.bad_scenes, self.ahead = epochs, shuffle, bad_scenes, ahead
        self.replaced: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pool = BufferPool()
        self._position = 0
        self._field_cache: dict[tuple[str, ...], tuple[str, ...]] = {}
        if state is not None:
            self._restore(state)

    # State

    def state(self) -> dict[str, Any]:
        """Where the stream stands after the last batch it handed out; a few hundred bytes of JSON."""
        return self._identity() | {"position": self._position}

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "corpus": self.corpus.fingerprint,
            "rows": xxhash.xxh3_64_hexdigest(np.ascontiguousarray(self.rows, "<i8").tobytes()),
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise CorpusError(
                    f"the stream's state belongs to another {name} ({state.get(name)}, here {value}); "
                    "resume with the corpus, selection and seed it was saved with"
                )
        self._position = int(state["position"])

    # Order

    @property
    def epoch(self) -> int:
        """Epoch of the next batch's first scene."""
        return self._position // len(self.rows)

    def row_at(self, position: int) -> int:
        """Row of the index at a place of the global order."""
        epoch, place = divmod(position, len(self.rows))
        return int(self.rows[permute(place, len(self.rows), self.seed, epoch) if self.shuffle else place])

    def _slices(self) -> Iterator[tuple[int, range]]:
        """(position after the batch, this rank's positions) of every batch to come."""
        end = None if self.epochs is None else self.epochs * len(self.rows)
        start = self._position
        while end is None or start < end:
            stop = start + self.batch if end is None else min(start + self.batch, end)
            share = self.batch // self.world
            yield stop, range(min(start + self.rank * share, stop), min(start + (self.rank + 1) * share, stop))
            start = stop

    # Iteration

    def __iter__(self) -> Iterator[list[Any]]:
        pending: deque[tuple[int, list[Future[tuple[Any, Lease]]]]] = deque()
        leases: list[Lease] = []
        slices = self._slices()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="brickyard-stream")
        try:
            while True:
                while len(pending) <= self.ahead and (work := next(slices, None)) is not None:
                    pending.append((work[0], [pool.submit(self._load, position) for position in work[1]]))
                if not pending:
                    return
                stop, futures = pending.popleft()
                results = [future.result() for future in futures]
                leases = [lease for lease in leases if not lease.end()]
                leases += [lease for _, lease in results]
                items = [item for item, _ in results]
                del results, futures
                self._position = stop
                yield items
                del items
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, position: int) -> tuple[Any, Lease]:
        """The item of a position, replaced if its scene is damaged."""
        row = self.row_at(position)
        for attempt in range(_REPLACEMENTS):
            lease = Lease(self._pool)
            try:
                sample = self._read(row, position, lease)
            except CorruptDataError as problem:
                lease.end()
                self._count_bad(row, problem)
                row = self._substitute(position, attempt)
                continue
            if self.prepare is None:
                return sample, lease
            item = self.prepare(sample, np.random.default_rng((self.seed, position)))
            del sample
            lease.end()
            return item, lease
        raise CorpusError(f"{_REPLACEMENTS} damaged scenes in a row at position {position}; run `brickyard verify`")

    def _read(self, row: int, position: int, lease: Lease) -> Sample:
        header = self.corpus.header(row)
        places = self.corpus.addresses(row)
        fields = {
            name: self.corpus.read_field(row, header, name, places, lease.allocate) for name in self._wanted(header)
        }
        return Sample(self.corpus.keys[row], row, position, header, fields)

    def _wanted(self, header: SceneHeader) -> tuple[str, ...]:
        names = tuple(header.fields)
        if names not in self._field_cache:
            hits = tuple(n for n in names if any(fnmatch.fnmatchcase(n, p) for p in self.patterns))
            self._field_cache[names] = hits
        return self._field_cache[names]

    def _count_bad(self, row: int, problem: CorruptDataError) -> None:
        with self._lock:
            self.replaced.setdefault(self.corpus.keys[row], str(problem))
            if len(self.replaced) > self.bad_scenes:
                raise problem

    def _substitute(self, position: int, attempt: int) -> int:
        """Another row, by position and attempt alone."""
        digest = xxhash.xxh3_64_intdigest(f"{self.seed}/{position}/{attempt}".encode())
        return int(self.rows[digest % len(self.rows)])
