"""The stream: (corpora, rows, seed) -> batches, the same ones on any number of ranks and threads, resumable anywhere.

Places 0, 1, 2, ... are visits to scenes (see `shards.visits`): each epoch is a true permutation, a mixture visits its
portions by weight. Batches are the next so many places, or bins of a budget of cost (see `shards.batching`), whatever
epoch they fall in; rank r of w takes the r-th of w equal slices. So every rank makes the same steps and the state is
three numbers. Threads read, verify, decode and call `prepare` (all of which release the GIL); a scene whose bytes are
damaged is replaced by another one that depends on its place alone, recorded, and counted against a limit. So is one
that `choose` or `prepare` calls unfit (`UnfitSceneError`), against a limit of its own; the other one gets its draws.

What is read of a scene can be chosen first: `choose` sees the scene's header and draws views or frames, and only their
bytes are fetched. That costs a read of the header before the others; without `choose` all is one.

Memory: let S = (ahead + 2) * batch / world be the scenes of this rank that are ahead or in the caller's hands, and D
the bytes of one scene's asked fields, as stored plus decoded (plus float32 coordinates if somebody asks for those),
each rounded up to a power of two. Beyond the indices a stream takes at most

    S * D                      without `prepare`, or if its items keep the sample's arrays
    threads * D + S * item     with a `prepare` whose items are copies

plus, where sizes differ between scenes, buffers kept for reuse (`shards.buffers`; 1 GiB at most). After a few batches
nothing is allocated any more.

Ending: threads end with the iterator: when it is used up, closed or dropped, and on any exception, Ctrl-C included. A
call that does not return is waited for a few seconds and then left behind (`shards.workers`), and a batch that does not
come within `watchdog_s` raises `StalledError`, after all stacks went to stderr, instead of hanging.
"""

from __future__ import annotations

import fnmatch
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.batching import Budget, Place, by_cost, by_count
from brickyard.shards.buffers import BufferPool, Lease
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import HEADER, SceneHeader
from brickyard.shards.errors import BrickyardError, CorpusError, CorruptDataError, ImageError, UnfitSceneError
from brickyard.shards.reasons import sentence
from brickyard.shards.visits import Portion, Visits
from brickyard.shards.workers import GRACE_S, Workers, stacks

STATE_VERSION = 2
_REPLACEMENTS = 8
"""Damaged scenes in a row that are one too many."""
_TRIES = 64
"""Scenes for one place, damaged ones and unfit ones together."""

Prepare = Callable[["Sample", np.random.Generator], Any]
Choose = Callable[["Sample", np.random.Generator], Iterable[str] | None]
_Bins = list[list[tuple[int, "Future[tuple[Any, Lease]]"]]]
"""(place, item to come) of the scenes of each bin."""


class StalledError(BrickyardError, TimeoutError):
    """The next batch did not come in time; the text says which scenes were waited for, and where each was stuck."""


class Sample:
    """One scene on its way to the device: `sample["points/xyz"]` and so on (see `shards.codecs.decode` for the types).

    Attributes:
        key: "dataset/scene_id".
        row: row in the index.
        position: place in the global order.
        step: of the training that the sample is for, from 0: the number of its global batch, or, where `accumulate`
            batches make a step, of that step. The same on any number of ranks and after a restart.
        header: identity, cameras, poses, and the specs of all fields, whether they are read or not.
    """

    def __init__(
        self, key: str, row: int, position: int, header: SceneHeader, fields: Mapping[str, Any], *, step: int = 0
    ) -> None:
        self.key, self.row, self.position, self.header, self._fields = key, row, position, header, fields
        self.step = step

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]

    def __contains__(self, field: object) -> bool:
        return field in self._fields

    @property
    def fields(self) -> list[str]:
        """Names of the fields that were asked for and are there; none in `choose`."""
        return list(self._fields)

    @property
    def views(self) -> int:
        """Number of views of the scene."""
        return len(self.header.views)


class Stream:
    """Iterate over batches: lists of `prepare(sample, rng)`, or of samples where `prepare` is None. With a `Budget`, a
    batch is a list of bins, each such a list.

    Args:
        corpus: an open corpus, or the portions of a mixture.
        fields: names or patterns ("views/*/image"); only these are read. A field a scene does not have is left out.
        batch: scenes in a global batch (over all ranks), or a budget of cost; must be a multiple of `world`.
        seed: of the order and of the generators given to `prepare`.
        rows: rows of the index to use (a selection); all by default. Portions have their own.
        rank, world: this process among those that train together.
        threads: that read and decode.
        prepare: runs in those threads; its generator depends on (seed, place) alone.
        choose: says which fields of a scene to read, as names or patterns like `fields`; None, or where it returns
            None, reads `fields`. It is given the sample before anything but the header is read, and a generator in the
            state that `prepare` will be given it in: what both draw in the same way is the same.
        epochs: end after so many (the last batch may be short, bins may be empty); None goes on for ever, which is the
            only thing a mixture can do.
        shuffle: False keeps the order of `rows`.
        state: from `state()`; raises `CorpusError` if it belongs to another corpus, selection, seed or batching.
        bad_scenes: how many damaged scenes may be replaced before the stream raises `CorruptDataError`; an `ImageError`
            of `prepare` is damage, too.
        unfit_scenes: how many that are unfit may be replaced before it raises `CorpusError`; None for any number.
        ahead: batches prepared in advance.
        watchdog_s: longest wait for a batch, seconds; None waits for ever.
        accumulate: batches that make a step, for `Sample.step`.
    """

    def __init__(
        self,
        corpus: Corpus | Sequence[Portion],
        fields: Sequence[str],
        *,
        batch: int | Budget,
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
        unfit_scenes: int | None = None,
        ahead: int = 2,
        watchdog_s: float | None = 600.0,
        choose: Choose | None = None,
        accumulate: int = 1,
    ) -> None:
        if isinstance(corpus, Corpus):
            portions: Sequence[Portion] = [Portion(corpus=corpus, rows=None if rows is None else np.asarray(rows))]
        elif rows is not None:
            raise ValueError("the portions of a mixture have rows of their own")
        else:
            portions = corpus
        self.visits = Visits(portions, seed, shuffle=shuffle)
        parts = batch.bins if isinstance(batch, Budget) else batch
        if parts <= 0 or world <= 0 or parts % world or not 0 <= rank < world:
            raise ValueError(f"batch {batch} must be a positive multiple of world {world}, and rank {rank} below it")
        self.patterns, self.batch, self.seed = tuple(fields), batch, seed
        if accumulate < 1:
            raise ValueError(f"accumulate must be positive, found {accumulate}")
        self.rank, self.world, self.threads, self.prepare, self.choose = rank, world, max(1, threads), prepare, choose
        self.bad_scenes, self.ahead, self.watchdog_s, self.accumulate = bad_scenes, ahead, watchdog_s, accumulate
        self.unfit_scenes = unfit_scenes
        self.replaced: dict[str, str] = {}
        self.unfit: dict[str, str] = {}
        self._end = None if epochs is None else epochs * self.visits.epoch_length
        self._lock = threading.Lock()
        self._pool = BufferPool()
        self._place: Place = (0, 0)
        self._batches = 0  # handed out before this place
        self._doing: dict[int, tuple[str, str]] = {}  # place -> (what a thread does there, scene)
        self._field_cache: dict[tuple[str, ...], tuple[str, ...]] = {}
        if state is not None:
            self._restore(state)

    # State

    def state(self) -> dict[str, Any]:
        """Where the stream stands after the last batch it handed out; a few hundred bytes of JSON."""
        return self._identity() | {"place": list(self._place), "batches": self._batches}

    def _identity(self) -> dict[str, Any]:
        budget = self.batch.identity if isinstance(self.batch, Budget) else None  # batches by count may change
        return {"version": STATE_VERSION} | self.visits.identity | {"budget": budget}

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise CorpusError(
                    f"the stream's state belongs to another {name} ({state.get(name)}, here {value}); "
                    "resume with the corpus, selection and seed it was saved with"
                )
        place, step = state["place"]
        self._place = (int(place), int(step))
        batches = state.get("batches")
        self._batches = self._batches_before() if batches is None else int(batches)

    def _batches_before(self) -> int:
        """Batches before the place, counted: for states of versions that did not keep their number."""
        if not isinstance(self.batch, Budget):
            return -(-self._place[0] // self.batch)
        steps = by_cost(self.visits, self.batch, (0, 0), self._end)
        return sum(1 for _ in takewhile(lambda step: step[0] <= self._place, steps))

    @property
    def epoch(self) -> int:
        """Epoch of the next batch's first scene."""
        return self._place[0] // self.visits.epoch_length

    def plan(self) -> Iterator[tuple[Place, list[list[int]]]]:
        """(place after the batch, this rank's bins of places) of every batch to come; nothing is read."""
        if isinstance(self.batch, Budget):
            share = self.batch.bins // self.world
            for after, bins in by_cost(self.visits, self.batch, self._place, self._end):
                yield after, bins[self.rank * share : (self.rank + 1) * share]
            return
        share = self.batch // self.world
        for after, (places,) in by_count(self.batch, self._place, self._end):
            yield after, [places[self.rank * share : (self.rank + 1) * share]]

    # Iteration

    def __iter__(self) -> Iterator[list[Any]]:
        return self.batches()

    def batches(self, skip: int = 0, every: int = 1) -> Generator[list[Any], None, None]:
        """The batches to come, from number `skip` on and of these every so many: for processes that take turns."""
        pending: deque[tuple[int, Place, _Bins]] = deque()
        leases: list[Lease] = []
        batches = islice(enumerate(self.plan(), self._batches), skip, None, every)
        workers, grace = Workers(self.threads, "brickyard-stream"), GRACE_S
        try:
            while True:
                while len(pending) <= self.ahead and (work := next(batches, None)) is not None:
                    number, (after, places) = work
                    step = number // self.accumulate
                    awaited = [[(p, workers.submit(self._load, p, step)) for p in bin_] for bin_ in places]
                    pending.append((number, after, awaited))
                if not pending:
                    return
                number, after, awaited = pending.popleft()
                results = self._collect(awaited)
                leases = [lease for lease in leases if not lease.end()]
                leases += [lease for bin_ in results for _, lease in bin_]
                items: list[Any] = [[item for item, _ in bin_] for bin_ in results]
                del results, awaited
                self._place, self._batches = after, number + 1
                if isinstance(self.batch, Budget):
                    yield items
                else:
                    yield items.pop()
                del items
        except StalledError:
            grace = 0.0  # it was waited for long enough
            raise
        finally:
            workers.close(grace)

    def _collect(self, awaited: _Bins) -> list[list[tuple[Any, Lease]]]:
        """The items of a batch; raises `StalledError` if they do not come within the time of the watchdog."""
        deadline = None if self.watchdog_s is None else time.monotonic() + self.watchdog_s
        results: list[list[tuple[Any, Lease]]] = []
        for bin_ in awaited:
            results.append([])
            for _, future in bin_:
                try:
                    results[-1].append(future.result(deadline and max(0.0, deadline - time.monotonic())))
                except TimeoutError:
                    if future.done():  # its own error, such as that of a network
                        results[-1].append(future.result())
                        continue
                    raise self._stalled(awaited) from None
        return results

    def _stalled(self, awaited: _Bins) -> StalledError:
        """The error, after the stacks of all threads went to stderr."""
        late = [place for bin_ in awaited for place, future in bin_ if not future.done()]
        known = [(place, *self._doing[place]) for place in late if place in self._doing]
        shown = [f"{what} of {scene} at place {place}" for place, what, scene in known[:4]]
        shown += [f"{len(late) - len(shown)} more scenes"] if len(late) > len(shown) else []
        text = f"no batch for {self.watchdog_s:g} s, waiting for " + ", ".join(shown)
        print(f"brickyard: {text}; the threads are at:\n{stacks()}", file=sys.stderr, flush=True)
        return StalledError(f"{text}; the stacks of all threads are on stderr (the limit is `watchdog_s`)")

    def _load(self, place: int, step: int) -> tuple[Any, Lease]:
        """The item of a place, replaced if its scene is damaged."""
        try:
            return self._attempts(place, step)
        finally:
            self._doing.pop(place, None)

    def _attempts(self, place: int, step: int) -> tuple[Any, Lease]:
        portion, row = self.visits.at(place)
        corpus = self.visits.corpora[portion]
        damaged = 0
        for attempt in range(_TRIES):
            lease = Lease(self._pool)
            try:
                return self._item(corpus, row, place, step, lease), lease
            except CorruptDataError as problem:
                damaged += 1
                self._count_bad(corpus.keys[row], problem)
                if damaged == _REPLACEMENTS:
                    raise CorpusError(
                        f"{_REPLACEMENTS} damaged scenes at place {place}; run `brickyard verify`"
                    ) from problem
            except UnfitSceneError as problem:
                self._count_unfit(corpus.keys[row], problem)
            lease.end()
            row = self.visits.substitute(portion, place, attempt)
        raise CorpusError(
            f"none of {_TRIES} scenes at place {place} does; {sentence(self.unfit.items())}: select scenes that do"
        )

    def _item(self, corpus: Corpus, row: int, place: int, step: int, lease: Lease) -> Any:
        """What is handed out of a scene; raises `CorruptDataError` or `UnfitSceneError` where there is none."""
        sample = self._read(corpus, row, place, step, lease)
        if self.prepare is None:
            return sample
        self._doing[place] = ("`prepare`", sample.key)
        try:
            item = self.prepare(sample, self._generator(place))
        except ImageError as problem:
            raise CorruptDataError(str(problem), shard=corpus.shard(row), scene=sample.key) from problem
        del sample
        lease.end()
        return item

    def _generator(self, place: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, place))

    def _read(self, corpus: Corpus, row: int, place: int, step: int, lease: Lease) -> Sample:
        key = corpus.keys[row]
        self._doing[place] = ("the read", key)
        places = corpus.addresses(row)
        first = (HEADER, *(self._wanted(tuple(places)) if self.choose is None else ()))
        ahead = corpus.fetch(row, {name: places[name] for name in first if name in places}, lease.allocate)
        header = corpus.header(row, ahead)
        if self.choose is None:
            names = self._wanted(tuple(header.fields))
        else:
            names = self._chosen(Sample(key, row, place, header, {}, step=step))
            ahead = corpus.fetch(row, {name: places[name] for name in names if name in places}, lease.allocate)
        fields = {name: corpus.read_field(row, header, name, places, lease.allocate, ahead=ahead) for name in names}
        return Sample(key, row, place, header, fields, step=step)

    def _chosen(self, sample: Sample) -> tuple[str, ...]:
        """Names of the fields that `choose` wants to read of a scene."""
        assert self.choose is not None
        self._doing[sample.position] = ("`choose`", sample.key)
        chosen = self.choose(sample, self._generator(sample.position))
        self._doing[sample.position] = ("the read", sample.key)
        names = tuple(sample.header.fields)
        return self._wanted(names) if chosen is None else matching(names, chosen)

    def _wanted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if names not in self._field_cache:
            self._field_cache[names] = matching(names, self.patterns)
        return self._field_cache[names]

    def _count_bad(self, key: str, problem: CorruptDataError) -> None:
        with self._lock:
            self.replaced.setdefault(key, str(problem))
            if len(self.replaced) > self.bad_scenes:
                raise problem

    def _count_unfit(self, key: str, problem: UnfitSceneError) -> None:
        with self._lock:
            self.unfit.setdefault(key, str(problem))
            if self.unfit_scenes is not None and len(self.unfit) > self.unfit_scenes:
                told = sentence(self.unfit.items())
                raise CorpusError(f"{told}: select scenes that do, or allow more (`unfit_scenes`)") from problem


def matching(names: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Those names that are among the patterns or match one, in their order."""
    given = set(patterns)
    wild = [pattern for pattern in given if any(sign in pattern for sign in "*?[")]
    return tuple(name for name in names if name in given or any(fnmatch.fnmatchcase(name, p) for p in wild))
