"""A corpus on an object store: the same samples as from the disk, whatever the network does, in bounded time.

The store is a real HTTP S3 endpoint (moto's server); between it and us stands a proxy that injects faults.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.fs as pafs
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.shards.cache import CacheConfig
from brickyard.shards.clients import shared
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError, CorruptDataError
from brickyard.shards.fetch import coalesce
from brickyard.shards.index import Address
from brickyard.shards.retry import RetryPolicy, bounded, is_transient, retry
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.shards.uri import Location, hide, redact
from tests.shards.faulty_proxy import FAULTS, FaultyProxy
from tests.worlds import toy_corpus

pytest.importorskip("moto")
pytestmark = pytest.mark.timeout(60)

KEY, SECRET = "AKIDEXAMPLE", "s3cr/t+Value"
FAST = RetryPolicy(
    attempts=12, base_s=0.01, cap_s=0.1, deadline_s=30, request_s=0.3, idle_s=1, connect_s=1, rereads=8
)  # fmt: skip


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultyProxy(f"{host}:{port}", seed=7)
    yield proxy
    proxy.close()
    server.stop()


def uri(proxy: FaultyProxy, folder: str) -> str:
    login = f"{KEY}:{quote(SECRET, safe='')}@"
    return f"s3://{login}bricks/{folder}?scheme=http&endpoint_override={proxy.address}&allow_bucket_creation=true"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("remote") / "corpus", scenes=8)


@pytest.fixture(scope="module")
def remote(proxy: FaultyProxy) -> Corpus:
    """The same corpus, built on the object store."""
    proxy.reset()
    store = Store(uri(proxy, "corpus"))
    store._fs.create_dir("bricks")
    return toy_corpus(store.uri, scenes=8)


def plain(value: Any) -> Any:
    """Something comparable, to the bit, of a decoded field."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    parts = {name: getattr(value, name) for name in getattr(value, "__slots__", None) or vars(value)}
    return {name: plain(part) for name, part in parts.items() if not name.startswith("_")}


def epoch(corpus: Corpus, threads: int = 4) -> dict[str, dict[str, str]]:
    """Scene -> field -> digest of what a stream yields for it."""
    stream = Stream(corpus, ["*"], batch=4, threads=threads, epochs=1)
    return {
        sample.key: {f: xxhash.xxh3_64_hexdigest(repr(plain(sample[f])).encode()) for f in sample.fields}
        for items in stream
        for sample in items
    }


# Retries


def test_pauses_grow_with_full_jitter_and_end() -> None:
    pauses: list[tuple[float, float]] = []
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise OSError("AWS Error SLOW_DOWN (HTTP status 503)")

    with pytest.raises(OSError, match=r"SLOW_DOWN.*gave up after 6 attempts"):
        retry(
            call,
            RetryPolicy(attempts=6, base_s=1, cap_s=5),
            sleep=lambda s: None,
            uniform=lambda a, b: pauses.append((a, b)) or b,  # type: ignore[func-returns-value]
            clock=lambda: 0.0,
        )
    assert len(calls) == 6
    assert pauses[:5] == [(0, 1), (0, 2), (0, 4), (0, 5), (0, 5)]


def test_no_attempt_begins_after_the_deadline() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def call() -> None:
        now[0] += 3
        raise TimeoutError("late")

    with pytest.raises(OSError, match=r"gave up after 4 attempts in 13\.5"):
        retry(
            call,
            RetryPolicy(attempts=99, base_s=1, cap_s=1, deadline_s=12),
            sleep=sleep,
            uniform=lambda a, b: 0.5,
            clock=lambda: now[0],
        )


def test_a_trained_generator_is_left_alone() -> None:
    random.seed(5)
    before = random.getstate()
    outcomes = iter([OSError("reset"), OSError("reset"), None])

    def call() -> int:
        if (problem := next(outcomes)) is not None:
            raise problem
        return 7

    assert retry(call, RetryPolicy(), sleep=lambda s: None) == 7
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("problem", "transient"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("no answer within 60 s"), True),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during GetObject operation: No response body."), True),
        (OSError("AWS Error UNKNOWN (HTTP status 429) during GetObject operation"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 408) during GetObject operation"), True),
        (FileNotFoundError("Path does not exist"), False),
        (PermissionError("no"), False),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation: No response body."), False),
        (OSError("AWS Error RESOURCE_NOT_FOUND during GetObject operation: No response body."), False),
        (OSError("AWS Error NO_SUCH_BUCKET during HeadObject operation"), False),
        (OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation"), False),
        (OSError("google::cloud::Status(PERMISSION_DENIED: ...)"), False),
        (OSError("google::cloud::Status(UNAVAILABLE: ...)"), True),
    ],
)
def test_what_is_tried_again(problem: OSError, transient: bool) -> None:
    assert is_transient(problem) is transient


def test_a_call_that_never_ends_is_abandoned() -> None:
    let_go = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0.1 s"):
        bounded(let_go.wait, 0.1)
    let_go.set()
    with pytest.raises(KeyError):
        bounded(lambda: {}["nothing"], 100)


# Secrets

_TEXT = st.text("abcXYZ019+/=_~ ", min_size=8, max_size=20)


@settings(max_examples=100, deadline=None)
@given(_TEXT, _TEXT, _TEXT)
def test_no_secret_is_shown(key: str, secret: str, token: str) -> None:
    key, secret, token = f"K{key}k", f"S{secret}s", f"T{token}t"
    login = f"{quote(key, safe='')}:{quote(secret, safe='')}@"
    query = f"region=eu&secret_key={quote(secret, safe='')}&session_token={quote(token, safe='')}"
    whole = f"s3://{login}bucket/folder@home?{query}"
    shown = Location(whole)
    assert shown == "s3://***@bucket/folder@home?region=eu&secret_key=***&session_token=***"
    assert str(shown) == f"{shown}" == json.loads(json.dumps({"u": shown}))["u"]
    assert pickle.loads(pickle.dumps(shown)).whole == whole  # noqa: S301
    message = hide(f"{whole}: bad signature of {secret} ({quote(token, safe='')})", whole)
    assert not any(text in message for text in (secret, token, quote(secret, safe=""), quote(token, safe="")))


def test_a_password_with_a_raw_slash_is_hidden_too() -> None:
    assert redact(f"s3://{KEY}:s3cr/t@bucket/c") == "s3://***@bucket/c"
    assert redact("s3://host:9000/mail@home") == "s3://host:9000/mail@home"


@pytest.mark.parametrize("scheme", ["s3", "gs", "abfs", "ftp"])
def test_errors_of_addresses_hide_secrets(scheme: str) -> None:
    with pytest.raises(CorpusError) as caught:
        Store(f"{scheme}://{KEY}:{quote(SECRET, safe='')}@bucket/c?nonsense=1")
    text = "".join(traceback.format_exception(caught.value))
    assert "***" in text and SECRET not in text and quote(SECRET, safe="") not in text and KEY not in text


def _read_elsewhere(store: Store, name: str) -> tuple[str, int]:
    return str(store), len(store.read(name))


def test_credentials_reach_workers_but_no_file(remote: Corpus, proxy: FaultyProxy) -> None:
    store = remote.store
    assert KEY not in repr(store) and SECRET not in repr(store) and "***@bricks/corpus" in store.uri
    assert Store(store.uri).size("manifest.json") == store.size("manifest.json")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        shown, size = pool.apply(_read_elsewhere, (store, "manifest.json"))
    assert size == store.size("manifest.json") and SECRET not in shown and KEY not in shown
    for name in store.walk():
        assert KEY.encode() not in store.read(name) and SECRET.encode() not in store.read(name)
    with pytest.raises(FileNotFoundError) as caught:
        store.read("none")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_keys_may_stand_in_the_query(remote: Corpus, proxy: FaultyProxy) -> None:
    options = f"scheme=http&endpoint_override={proxy.address}"
    store = Store(f"s3://bricks/corpus?access_key={KEY}&secret_key={quote(SECRET, safe='')}&{options}")
    assert store.read("manifest.json") == remote.store.read("manifest.json")
    assert KEY not in store.uri and quote(SECRET, safe="") not in store.uri


# Ranges

_PLACES = st.lists(st.builds(Address, st.integers(0, 5000), st.integers(1, 900), st.just(0)), max_size=30, unique=True)


@settings(max_examples=100, deadline=None)
@given(_PLACES, st.integers(0, 300), st.integers(1, 2000))
def test_coalescing(places: list[Address], gap: int, longest: int) -> None:
    groups = coalesce(places, gap, longest)
    assert sorted((p for g in groups for p in g), key=lambda p: (p.offset, p.length)) == sorted(
        places, key=lambda p: (p.offset, p.length)
    )
    spans = [(g[0].offset, max(p.offset + p.length for p in g)) for g in groups]
    for group, (begin, end) in zip(groups, spans, strict=True):
        assert len(group) == 1 or end - begin <= longest
        reach = begin
        for place in group:
            assert place.offset - reach <= gap
            reach = max(reach, place.offset + place.length)
    for (begin, end), group, (_, after) in zip(spans, groups[1:], spans[1:], strict=False):
        first = group[0]
        assert first.offset - end > gap or max(end, first.offset + first.length) - begin > longest, after


def test_a_long_range_is_read_in_pieces(
    proxy: FaultyProxy, remote: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("brickyard.shards.storage._PIECE", 1 << 20)
    data = np.random.default_rng(0).bytes((2 << 20) + 12345)
    remote.store.write("long", data)
    proxy.reset()
    assert remote.store.read("long") == data
    assert proxy.requests["GET"] == 3
    assert remote.store.read_range("long", len(data) - 10, 100) == data[-10:]
    assert remote.store.read_range("long", len(data) + 10, 100) == b""
    remote.store.delete("long")
    assert remote.store.size("long") is None


# Streams


def test_built_remotely_byte_for_byte(local: Corpus, remote: Corpus) -> None:
    names = list(local.store.walk())
    assert names == list(remote.store.walk())
    assert all(local.store.read(name) == remote.store.read(name) for name in names)


def test_a_scene_is_one_request(local: Corpus, remote: Corpus, proxy: FaultyProxy) -> None:
    expected = epoch(local)
    assert epoch(remote) == expected
    proxy.reset()
    assert epoch(remote) == expected
    assert proxy.requests == {"GET": len(remote)}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_wrong_sample_and_no_hang(local: Corpus, remote: Corpus, proxy: FaultyProxy, fault: str) -> None:
    """A quarter of the answers is bad, and yet every sample is the right one, to the bit."""
    proxy.reset({fault: 0.25}, latency_s=0.002)
    corpus = Corpus.open(Store(remote.store.uri, FAST))
    found = epoch(corpus)
    assert proxy.injected[fault] >= 2
    proxy.reset()
    assert found == epoch(local)


def test_all_faults_at_once_with_a_cache(
    local: Corpus, remote: Corpus, proxy: FaultyProxy, tmp_path: Path
) -> None:  # fmt: skip
    proxy.reset(dict.fromkeys(FAULTS, 0.05), latency_s=0.002)
    corpus = Corpus.open(Store(remote.store.uri, FAST), cache=CacheConfig(folder=str(tmp_path), max_bytes=1 << 24))
    expected = epoch(local)
    assert epoch(corpus, threads=8) == expected
    assert sum(proxy.injected.values()) >= 2
    proxy.reset()
    assert epoch(corpus) == expected
    assert not proxy.requests  # what was fetched from a bad network is whole, and is not fetched again


def test_writes_are_tried_again(proxy: FaultyProxy, local: Corpus, remote: Corpus) -> None:
    target = Store(uri(proxy, "retried"), FAST)
    proxy.methods = ("PUT", "HEAD")
    try:
        proxy.reset({"unavailable": 0.2, "reset": 0.1})
        for name in local.store.walk():
            target.write(name, local.store.read(name))
    finally:
        proxy.methods = ("GET",)
    assert min(proxy.injected[fault] for fault in ("unavailable", "reset")) >= 1
    proxy.reset()
    assert {name: target.read(name) for name in target.walk()} == {
        name: local.store.read(name) for name in local.store.walk()
    }


def test_a_small_file_is_written_by_one_request(proxy: FaultyProxy, remote: Corpus) -> None:
    proxy.reset()
    remote.store.write("small", b"bytes")
    assert proxy.requests["PUT"] == 1 and not proxy.requests["POST"]
    remote.store.delete("small")


def test_damage_in_the_store_is_named(local: Corpus, proxy: FaultyProxy, remote: Corpus) -> None:
    proxy.reset()
    target = Store(uri(proxy, "damaged"), FAST)
    shard, place = local.shard(0), local.addresses(0)["points/xyz"]
    for name in local.store.walk():
        data = bytearray(local.store.read(name))
        if name == shard:
            data[place.offset + place.length // 2] ^= 1
        target.write(name, bytes(data))
    corpus = Corpus.open(target)
    with pytest.raises(CorruptDataError) as caught:
        corpus.scene(0)
    assert (caught.value.shard, caught.value.scene, caught.value.field) == (shard, local.keys[0], "points/xyz")
    assert proxy.requests["GET"] < 2 * len(corpus) + 3 + FAST.rereads
    target.delete(shard)
    with pytest.raises(CorruptDataError, match="the shard is missing"):
        Corpus.open(Store(target.uri, FAST)).scene(0)


def test_what_does_not_change_is_asked_once(proxy: FaultyProxy, remote: Corpus) -> None:
    store = Store(remote.store.uri, FAST)
    proxy.reset()
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    assert sum(proxy.requests.values()) == 1


def test_silence_ends_without_our_own_clock(proxy: FaultyProxy, remote: Corpus) -> None:
    """The S3 client's own limit on idle connections works on this system (pyarrow's documentation doubts it)."""
    policy = dataclasses.replace(FAST, attempts=1, request_s=50, idle_s=1)
    store = Store(remote.store.uri, policy)
    size = store.size("manifest.json")
    proxy.reset(latency_s=20)  # a patient client would get its answer
    with pytest.raises(OSError, match="gave up after 1 attempts"):
        store.size("index.parquet")
    proxy.reset()
    assert size


# Clients


def other(proxy: FaultyProxy, key: str) -> str:
    """The address of the corpus for somebody else, for whom the process has no client yet."""
    return uri(proxy, "corpus").replace(KEY, key)


def test_what_was_abandoned_delays_only_new_clients(proxy: FaultyProxy, remote: Corpus) -> None:
    """A byte every 0.2 s satisfies the S3 client, and pyarrow makes no other client until the request has ended."""
    store = Store(remote.store.uri, FAST)
    size = store.size("index.parquet")
    proxy.reset({"dripping": 1})
    with pytest.raises(OSError, match=r"no answer within 0\.2 s"):
        Store(store.uri, dataclasses.replace(FAST, attempts=1, request_s=0.2)).read("index.parquet")
    proxy.faults = {}
    assert Store(store.uri, FAST).size("index.parquet") == size  # the client is there
    with pytest.raises(CorpusError, match=r"opened now: no S3 client within 0\.3 s .*1 abandoned") as caught:
        Store(other(proxy, "AKIDSTRANGER"), FAST)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    proxy.reset()
    patient = dataclasses.replace(FAST, request_s=30)
    assert Store(other(proxy, "AKIDSTRANGER"), patient).size("index.parquet") == size


def test_a_client_can_be_made_while_others_read_all_the_time(proxy: FaultyProxy, remote: Corpus) -> None:
    proxy.reset(latency_s=0.02)
    patient = dataclasses.replace(FAST, request_s=30)
    store, over, read = Store(remote.store.uri, patient), threading.Event(), threading.Barrier(9)

    def work() -> int:
        count = 0
        while not over.is_set():
            count += len(store.read_range("index.parquet", 0, 10)) == 10
            if count == 2:
                read.wait()
        return count

    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(work) for _ in range(8)]
        try:
            read.wait()
            Store(other(proxy, "AKIDBUSY"), patient)  # or an error after the half minute
        finally:
            over.set()
    assert all(count.result() > 1 for count in counts)


def test_a_client_is_made_once_and_failures_are_not_kept() -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        time.sleep(0.05)
        if len(calls) == 1:
            raise OSError("no luck")
        return pafs.LocalFileSystem()

    with pytest.raises(OSError, match="no luck"):
        shared("once", make, 1)
    with ThreadPoolExecutor(8) as pool:
        found = set(map(id, pool.map(lambda _: shared("once", make, 1), range(8))))
    assert len(found) == 1 and len(calls) == 2


_LEAVE = """
import sys
from brickyard.shards.retry import RetryPolicy
from brickyard.shards.storage import Store
try:
    Store(sys.stdin.read(), RetryPolicy(attempts=1, request_s=0.2)).read("index.parquet")
except OSError as problem:
    print(problem)
sys.exit(3)
"""


def test_a_process_ends_while_a_request_drips(proxy: FaultyProxy, remote: Corpus) -> None:
    proxy.reset({"dripping": 1})
    address = uri(proxy, "corpus")
    command = [sys.executable, "-c", _LEAVE]
    done = subprocess.run(command, input=address, capture_output=True, text=True, timeout=100, check=False)
    proxy.reset()
    assert done.returncode == 3 and "no answer within 0.2 s" in done.stdout and not done.stderr


def test_a_store_that_is_down_is_said_to_be(proxy: FaultyProxy, local: Corpus) -> None:
    policy = dataclasses.replace(FAST, attempts=3)
    with pytest.raises(OSError, match="gave up after 3 attempts"):
        Store("s3://a:b@bricks/c?scheme=http&endpoint_override=127.0.0.1:9", policy).read("manifest.json")


def test_a_slash_in_a_secret_is_a_sentence() -> None:
    secret = "/".join(("ex", "am+ple", "of-a-secret"))
    with pytest.raises(CorpusError, match="write '/' as %2F") as caught:
        Store(f"s3://KEYKEYKEY:{secret}@bucket/corpus?scheme=http&endpoint_override=127.0.0.1:9")
    assert "of-a-secret@" not in "".join(traceback.format_exception(caught.value))
