"""Streaming from an object store: epochs over a small corpus, by round-trip time and number of threads.

The store is moto's S3 server behind a proxy that adds the latency to every answer, both in a process of their own: they
are Python, so about 100 MB/s is all that they give, and what is measured is how well latency is hidden. "ours" is a
`Stream` with verification on: "cold" fills an empty cache, "warm" reads from it. "naive" is what one would write
without us: a thread pool over scenes, one GET through `pyarrow.fs` for every blob, one after another, neither verified
nor tried again; it decodes the same fields with the same code. Opening a corpus is not counted, opening its shards is.
"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs

from brickyard.shards.cache import CacheConfig
from brickyard.shards.codecs import Quantised
from brickyard.shards.corpus import Corpus
from brickyard.shards.storage import Store, digest64
from brickyard.shards.stream import Stream
from tests.benchmarks.contestants import BATCH, write_bricks
from tests.benchmarks.material import material, room_copy
from tests.benchmarks.report import append, arguments, table
from tests.shards.faulty_proxy import FaultyProxy

LATENCIES_MS = (0, 20, 100)
THREADS = (1, 4, 16)
LOADERS = ("ours, cold", "ours, warm", "naive")
AHEAD = 4
COLUMNS = {
    "loader": "s loader",
    "latency_ms": "d latency ms",
    "threads": "d threads",
    "megabytes_per_second": ".1f MB/s",
    "slowest": ".1f min",
    "fastest": ".1f max",
    "scenes_per_second": ".1f scenes/s",
    "requests_per_scene": ".1f requests/scene",
}
Given = dict[str, int]
"""Scene -> digest of its arrays."""


@dataclass(frozen=True)
class Endpoint:
    """The store as seen over one latency."""

    address: str
    pipe: Connection

    @property
    def uri(self) -> str:
        return f"s3://key:secret@bricks/corpus?scheme=http&endpoint_override={self.address}&allow_bucket_creation=true"

    def requests(self) -> int:
        """GETs and HEADs since the last call."""
        self.pipe.send(self.address)
        return int(self.pipe.recv())


def _serve(pipe: Connection) -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxies: dict[str, tuple[FaultyProxy, float]] = {}
    for latency in LATENCIES_MS:
        proxy = FaultyProxy(f"{host}:{port}")
        proxies[proxy.address] = proxy, latency / 1000
        proxy.reset(latency_s=latency / 1000)
    pipe.send(list(proxies))
    while address := pipe.recv():
        proxy, latency_s = proxies[address]
        pipe.send(proxy.requests["GET"] + proxy.requests["HEAD"])
        proxy.reset(latency_s=latency_s)


@contextmanager
def endpoints() -> Iterator[dict[int, Endpoint]]:
    """Latency in ms -> endpoint; all show the same store."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield {latency: Endpoint(a, here) for latency, a in zip(LATENCIES_MS, here.recv(), strict=True)}
    finally:
        here.send("")
        process.join(10)
        process.kill()


def upload(folder: Path, uri: str) -> None:
    """Copy a corpus into the store."""
    source, target = Store(folder), Store(uri)
    target._fs.create_dir("bricks")
    for name in source.walk():
        target.write(name, source.read(name))


def _digest(fields: dict[str, Any]) -> int:
    arrays = {name: value.values if isinstance(value, Quantised) else value for name, value in sorted(fields.items())}
    return digest64(b"".join(name.encode() + np.ascontiguousarray(a).tobytes() for name, a in arrays.items()))


def ours(corpus: Corpus, threads: int, look: Callable[[dict[str, Any]], int]) -> Given:
    """One epoch of a stream."""
    stream = Stream(corpus, ["*"], batch=BATCH, threads=threads, epochs=1, ahead=AHEAD)
    return {sample.key: look({f: sample[f] for f in sample.fields}) for batch in stream for sample in batch}


def naive(corpus: Corpus, uri: str, threads: int, look: Callable[[dict[str, Any]], int]) -> Given:
    """One epoch, written by hand; `corpus` gives addresses and decodes, it reads nothing."""
    files, root = pafs.FileSystem.from_uri(uri)
    shards = {
        name: files.open_input_file(f"{root}/{name}") for name in {corpus.shard(row) for row in range(len(corpus))}
    }

    def scene(row: int) -> int:
        places, file = corpus.addresses(row), shards[corpus.shard(row)]
        blobs = {field: memoryview(file.read_at(place.length, place.offset)) for field, place in places.items()}
        header = corpus.header(row, blobs)
        return look({f: corpus.read_field(row, header, f, places, ahead=blobs) for f in header.fields})

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(corpus.keys, pool.map(scene, range(len(corpus))), strict=True))


@dataclass(frozen=True)
class Bench:
    """The corpus on the disk (also the truth), and a folder for caches."""

    local: Corpus
    folder: Path

    def epoch(self, loader: str, endpoint: Endpoint, threads: int, look: Callable[[dict[str, Any]], int]) -> float:
        """Seconds of an epoch; checks that every scene was given."""
        if loader == "naive":
            start = time.perf_counter()
            given = naive(self.local, endpoint.uri, threads, look)
        else:
            cold = tempfile.mkdtemp(dir=self.folder)
            place = cold if loader == "ours, cold" else str(self.folder / "warm")
            corpus = Corpus.open(endpoint.uri, cache=CacheConfig(folder=place))
            endpoint.requests()
            start = time.perf_counter()
            given = ours(corpus, threads, look)
        took = time.perf_counter() - start
        if given != self.expected(look):
            raise SystemExit(f"remote benchmark is void: {loader} gave other scenes")
        return took

    def expected(self, look: Callable[[dict[str, Any]], int]) -> Given:
        return ours(self.local, 1, look) if look is _digest else dict.fromkeys(self.local.keys, 0)


def _ignore(fields: dict[str, Any]) -> int:
    return 0


def measure(bench: Bench, ends: dict[int, Endpoint], repeats: int) -> list[dict[str, Any]]:
    """A row for every loader, latency and number of threads; the loaders take turns."""
    megabytes = sum(p.length for row in range(len(bench.local)) for p in bench.local.addresses(row).values()) / 1e6
    rows = []
    for loader in reversed(LOADERS):  # "naive" and "warm" first: the latter fills its cache
        bench.epoch(loader, ends[0], 4, _digest)
    for latency, end in ends.items():
        for threads in THREADS:
            times: dict[str, list[float]] = {loader: [] for loader in LOADERS}
            requests = dict.fromkeys(LOADERS, 0)
            for turn in range(repeats):
                for loader in LOADERS[turn % 3 :] + LOADERS[: turn % 3]:
                    end.requests()
                    times[loader].append(bench.epoch(loader, end, threads, _ignore))
                    requests[loader] = end.requests()
            rows += [
                {
                    "loader": loader,
                    "latency_ms": latency,
                    "threads": threads,
                    "megabytes_per_second": megabytes / statistics.median(times[loader]),
                    "slowest": megabytes / max(times[loader]),
                    "fastest": megabytes / min(times[loader]),
                    "scenes_per_second": len(bench.local) / statistics.median(times[loader]),
                    "requests_per_scene": requests[loader] / len(bench.local),
                    "epoch_seconds": times[loader],
                }
                for loader in LOADERS
            ]
    return rows


def run(*, scenes: int = 16, repeats: int = 3, dry: bool = False) -> list[dict[str, Any]]:
    """Write a corpus into the store, measure, print, append the record."""
    rooms = material("scannet")
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place, endpoints() as ends:
        folder = Path(place)
        write_bricks(folder / "corpus", [room_copy(rooms.scenes, number) for number in range(scenes)], "zstd")
        upload(folder / "corpus", ends[0].uri)
        bench = Bench(Corpus.open(folder / "corpus"), folder)
        rows = measure(bench, ends, repeats)
        size = sum(path.stat().st_size for path in (folder / "corpus").rglob("*") if path.is_file()) / 1e6
    title = f"{scenes} turned copies of {rooms.origin}, {size:.0f} MB, median of {repeats} interleaved epochs, verified"
    table(f"remote: {title}", rows, COLUMNS)
    if not dry:
        settings = {"scenes": scenes, "repeats": repeats, "batch": BATCH, "ahead": AHEAD}
        append("remote", settings, rows, material=[rooms.origin])
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__, scenes=16, repeats=3).parse_args()))
