"""A stream ends when it should: no thread is left, nothing hangs, and a stall is explained."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brickyard.shards.stream
from brickyard.shards.codecs import Quantised
from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Sample, StalledError, Stream
from brickyard.shards.workers import Workers, stacks
from tests.worlds import toy_corpus

FIELDS = ("points/xyz", "points/color")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("ending") / "corpus", scenes=12)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threads()
    yield
    gc.collect()
    assert threads() == before


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("brickyard"))


class Named:
    """As much of a sample as `Block` looks at."""

    def __init__(self, key: str) -> None:
        self.key = key


class Block:
    """A `prepare` that is stuck at one scene until it is let go, as native code is."""

    def __init__(self, at: str = "toy/scene-003") -> None:
        self.at, self.inside, self.go = at, threading.Event(), threading.Event()

    def __call__(self, sample: Sample | Named, rng: np.random.Generator | None) -> str:
        if sample.key == self.at:
            self.inside.set()
            self.go.wait()
        return sample.key


def leave(blocks: Block) -> None:
    """Let go, and wait until the threads that were left behind have gone."""
    blocks.go.set()
    wait_until(lambda: not threads())


def wait_until(holds: Callable[[], bool]) -> None:
    """However long a busy machine takes; what never holds ends with the time limit of the test."""
    while not holds():
        time.sleep(0.01)


def test_threads_run_while_it_runs_and_end_with_it(corpus: Corpus) -> None:
    batches = iter(Stream(corpus, FIELDS, batch=4, epochs=2, threads=3))
    next(batches)
    assert len(threads()) == 3
    assert len(list(batches)) == 5
    assert not threads()


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_giving_up_early_ends_the_threads(corpus: Corpus, how: str) -> None:
    stream = Stream(corpus, FIELDS, batch=2, threads=2)
    batches = iter(stream)
    next(batches)
    if how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "drop":
        del batches
    else:
        del batches
        for _ in stream:
            break
    gc.collect()
    assert not threads()


def test_after_an_error_the_stream_goes_on_where_it_was(corpus: Corpus) -> None:
    broken = True

    def prepare(sample: Sample, rng: np.random.Generator) -> str:
        if broken and sample.key == "toy/scene-005":
            raise ZeroDivisionError(sample.key)
        return sample.key

    stream = Stream(corpus, FIELDS, batch=1, prepare=prepare, epochs=1)
    seen: list[str] = []
    with pytest.raises(ZeroDivisionError, match="scene-005"):
        seen.extend(item for items in stream for item in items)
    assert not threads()
    broken = False
    seen = [item for items in Stream(corpus, FIELDS, batch=1, prepare=prepare, epochs=1, state=stream.state())
            for item in items]  # fmt: skip
    assert seen[0] == "toy/scene-005"


def test_a_network_time_out_is_not_taken_for_a_stall(corpus: Corpus) -> None:
    def prepare(sample: Sample, rng: np.random.Generator) -> str:
        raise TimeoutError("of the teacher's server")

    with pytest.raises(TimeoutError, match="teacher's server") as caught:
        next(iter(Stream(corpus, FIELDS, batch=2, prepare=prepare)))
    assert not isinstance(caught.value, StalledError)


def test_ctrl_c_while_prepare_is_blocked(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brickyard.shards.stream, "GRACE_S", 0.2)
    block = Block()

    def interrupt() -> None:
        block.inside.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, name="finger").start()
    with pytest.raises(KeyboardInterrupt):
        list(Stream(corpus, FIELDS, batch=2, prepare=block, epochs=1))
    assert not block.go.is_set()
    wait_until(lambda: len(threads()) == 1)  # the blocked one cannot be ended; once it is let go it does nothing more
    leave(block)


def test_the_watchdog_names_a_prepare_that_sleeps(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    block = Block()
    with pytest.raises(StalledError, match=r"1\.5 s, waiting for `prepare` of toy/scene-003 at place \d+") as caught:
        list(Stream(corpus, FIELDS, batch=2, prepare=block, epochs=1, watchdog_s=1.5))
    assert isinstance(caught.value, TimeoutError)
    shown = capsys.readouterr().err
    assert shown.count("no batch for 1.5 s") == 1
    assert "Thread brickyard-stream-" in shown
    assert "self.go.wait()" in shown  # the line it is stuck at
    assert "Thread MainThread" in shown
    leave(block)


def test_the_watchdog_names_a_read_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, block = toy_corpus(tmp_path), Block()
    victim = corpus.addresses(3)["points/color"]
    real = corpus.store.read_into

    def stalls(name: str, offset: int, memory: memoryview) -> int:
        if (name, offset) == (corpus.shard(3), victim.offset):
            block.go.wait()
        return real(name, offset, memory)

    monkeypatch.setattr(corpus.store, "read_into", stalls)
    with pytest.raises(StalledError, match=r"waiting for the read of toy/scene-003 at place \d+"):
        list(Stream(corpus, FIELDS, batch=4, epochs=1, watchdog_s=1.5, threads=2))
    leave(block)


def test_a_slow_consumer_is_no_stall(corpus: Corpus) -> None:
    for number, _ in enumerate(Stream(corpus, FIELDS, batch=4, epochs=1, watchdog_s=1.0)):
        if number == 0:
            time.sleep(1.2)


def test_a_blocked_call_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "corpus")
    program = f"""
        import brickyard.shards.stream, brickyard.shards.workers, time
        from brickyard.shards.corpus import Corpus
        Stream = brickyard.shards.stream.Stream
        brickyard.shards.stream.GRACE_S = brickyard.shards.workers.GRACE_S = 0.2
        def prepare(sample, rng):
            if sample.position > 3:
                time.sleep(1000)
            return sample.key
        batches = iter(Stream(Corpus.open({str(tmp_path / "corpus")!r}), ["points/xyz"], batch=2, prepare=prepare))
        print(next(batches))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "toy/scene" in done.stdout


def test_workers_cancel_what_has_not_begun() -> None:
    workers, block = Workers(1, "brickyard-test"), Block("x")
    first = workers.submit(block, Named("x"), None)
    block.inside.wait()
    later = [workers.submit(int, "7") for _ in range(5)]
    assert [thread.name for thread in workers.close(0.05)] == ["brickyard-test-0"]
    assert all(future.cancelled() for future in later)
    with pytest.raises(RuntimeError, match="closed"):
        workers.submit(int)
    assert "brickyard-test-0" in stacks()
    leave(block)
    assert first.result() == "x"


def test_many_streams_leave_nothing(corpus: Corpus) -> None:
    handed: list[Any] = []
    for number in range(20):
        batches = iter(Stream(corpus, FIELDS, batch=4, seed=number, threads=4))
        handed.append(next(batches)[0]["points/xyz"])
        del batches
    assert not threads()
    assert all(isinstance(xyz, Quantised) for xyz in handed)
