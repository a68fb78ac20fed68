"""The cache: bounded, verified on every read, shared by processes that may die at any moment."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.cache import Cache, CacheConfig
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import Address
from brickyard.shards.storage import digest64
from brickyard.shards.stream import Stream
from tests.worlds import toy_corpus

pytestmark = pytest.mark.timeout(60)


def blob(number: int, size: int = 1000) -> tuple[Address, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return Address(number * 10_000, size, digest64(data)), data


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder) if path.exists())


def held(cache: Cache, number: int) -> bool:
    place, data = blob(number)
    memory = memoryview(bytearray(len(data)))
    return cache.has("s", place) and cache.get("s", place, memory) and bytes(memory) == data


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = Cache(CacheConfig(folder=str(tmp_path), max_bytes=10_000), "corpus")
    for number in range(10):
        place, data = blob(number)
        cache.put("s", place, memoryview(data))
        time.sleep(0.01)  # file systems stamp in steps of a few milliseconds
    assert held(cache, 0)  # used again: now number 1 is the oldest
    place, data = blob(10)
    cache.put("s", place, memoryview(data))
    assert total(tmp_path) <= 10_000
    assert held(cache, 0) and held(cache, 10) and not held(cache, 1)


def test_one_corpus_does_not_see_another(tmp_path: Path) -> None:
    config = CacheConfig(folder=str(tmp_path))
    place, data = blob(1)
    Cache(config, "a").put("s", place, memoryview(data))
    assert Cache(config, "a").has("s", place)
    assert not Cache(config, "b").has("s", place) and not Cache(config, "a").has("t", place)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_files_are_replaced(tmp_path: Path, damage: str) -> None:
    toy = toy_corpus(tmp_path / "corpus", scenes=2)
    corpus = Corpus.open(tmp_path / "corpus", cache=CacheConfig(folder=str(tmp_path / "cache")))
    expected = toy.scene(0).points.xyz.tobytes()  # type: ignore[union-attr]
    corpus.scene(0)
    good = {path: path.read_bytes() for path in files(tmp_path / "cache")}
    assert len(good) == len(set(toy.addresses(0).values()))
    for path, data in good.items():
        flipped = bytes([data[0] ^ 1]) + data[1:]
        path.write_bytes({"flip": flipped, "cut": data[:-1], "empty": b""}[damage])
    assert corpus.scene(0).points.xyz.tobytes() == expected  # type: ignore[union-attr]
    assert {path: path.read_bytes() for path in files(tmp_path / "cache")} == good


def test_the_cache_is_what_is_read(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "corpus", scenes=2)
    corpus = Corpus.open(tmp_path / "corpus", cache=CacheConfig(folder=str(tmp_path / "cache")))
    before = corpus.scene(0).points.xyz.tobytes()  # type: ignore[union-attr]
    (tmp_path / "corpus" / corpus.shard(0)).write_bytes(b"gone")
    assert corpus.scene(0).points.xyz.tobytes() == before  # type: ignore[union-attr]


def test_trouble_with_the_disk_is_a_warning(tmp_path: Path) -> None:
    cache = Cache(CacheConfig(folder=str(tmp_path)), "corpus")
    place, data = blob(1)
    cache._path("s", place).parent.write_bytes(b"a file where a folder should be")
    with pytest.warns(UserWarning, match="cannot be written"):
        cache.put("s", place, memoryview(data))
    cache.put("s", place, memoryview(data))  # said once
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CorpusError, match="cannot be used"):
        Cache(CacheConfig(folder=str(tmp_path / "file")), "corpus")


_WORKER = """
import sys, os, signal
from pathlib import Path
import numpy as np
from brickyard.shards.cache import Cache, CacheConfig
from brickyard.shards.index import Address
from brickyard.shards.storage import digest64
from brickyard.shards.stream import Stream
{blob}
folder, seed, death = sys.argv[1], int(sys.argv[2]), sys.argv[3]
cache = Cache(CacheConfig(folder=folder, max_bytes=20_000), "corpus")
if death:
    kill = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    setattr(*(Path, "replace", kill) if death == "write" else (Cache, "_clean", kill))
hits = 0
for turn in range(250):
    number = (turn * 7 + seed * 13) % 50 if turn % 3 else turn % 4
    place, data = blob(number)
    memory = memoryview(bytearray(len(data)))
    if cache.has("s", place) and cache.get("s", place, memory):
        assert bytes(memory) == data
        hits += 1
    else:
        cache.put("s", place, memoryview(data))
print(hits)
""".replace("{blob}", inspect.getsource(blob))  # importing this file would take each worker a second


def test_processes_share_a_folder_and_die(tmp_path: Path) -> None:
    """Four processes press 50 kB into 20 kB; one is killed before its file has its name, one holding the lock."""
    (tmp_path / "lock").write_bytes(b"")
    command = [sys.executable, "-c", _WORKER, str(tmp_path)]
    root, environment = Path(__file__).parents[2], os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(i), death], cwd=root, env=environment, stdout=subprocess.PIPE)
        for i, death in enumerate(["", "", "write", "clean"])
    ]
    largest = 0
    while any(worker.poll() is None for worker in workers):
        largest = max(largest, total_now(tmp_path))
        time.sleep(0.01)
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, -signal.SIGKILL, -signal.SIGKILL]
    assert all(int(output) > 0 for output in outputs[:2])
    assert 0 < largest <= 20_000
    assert total(tmp_path) <= 20_000


def total_now(folder: Path) -> int:
    """Bytes in a folder that others change. Files are counted as they are met, so it may miss some, never invent any
    but those deleted meanwhile."""
    size = 0
    for path in list(folder.rglob("*")):
        try:
            size += path.stat().st_size if path.is_file() and path.name != "lock" else 0
        except OSError:
            continue
    return size


def test_the_order_of_a_stream_does_not_depend_on_the_cache(tmp_path: Path) -> None:
    toy_corpus(tmp_path / "corpus")
    cached = Corpus.open(tmp_path / "corpus", cache=CacheConfig(folder=str(tmp_path / "cache"), max_bytes=20_000))
    runs = []
    for corpus in (Corpus.open(tmp_path / "corpus"), cached, cached):  # without, filling (and overflowing), warm
        stream = Stream(corpus, ("points/xyz",), batch=4, seed=5, epochs=2, threads=3)
        runs.append([(s.key, s["points/xyz"].dequantise().tobytes()) for batch in stream for s in batch])
    assert len(runs[0]) == 24
    assert runs[0] == runs[1] == runs[2]
