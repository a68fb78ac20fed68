"""Would `obstore` read object stores faster than `shards.storage`? Ranges and a listing, from the same endpoint.

The endpoint is that of `tests.benchmarks.remote`: moto's server behind a proxy that adds the latency. Both clients get
the same ranges of one object with at most four requests under way, and list the same objects; they take turns. Wall
time says how well latency is hidden, processor time (of this process alone) what a client costs. obstore belongs to
nobody's requirements: `pip install obstore==0.12.1`.

python -m tests.benchmarks.obstore_reads --repeats 7
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from brickyard.shards.storage import Store
from tests.benchmarks.remote import Endpoint, endpoints
from tests.benchmarks.report import append, arguments, table

LATENCIES_MS = (0, 20)
SIZES = (64 << 10, 1 << 20)
RANGES = 48
OBJECTS = 2000
THREADS = 4
COLUMNS = {"what": "s what", "latency_ms": "d latency ms", "ours_ms": ".0f ours, ms", "obstore_ms": ".0f obstore, ms",
           "ours_cpu_ms": ".0f ours, CPU ms", "obstore_cpu_ms": ".0f obstore, CPU ms"}  # fmt: skip
Job = Callable[[], Any]


@dataclass(frozen=True)
class Task:
    """The same work for both, and what must come of it."""

    what: str
    ours: Job
    theirs: Job
    expected: Any


def tasks(end: Endpoint, data: bytes) -> Iterator[Task]:
    """Ranges of two sizes, and a listing."""
    import obstore
    from obstore.store import S3Store

    ours, theirs = Store(end.uri), S3Store(
        "bricks", prefix="corpus", endpoint=f"http://{end.address}", region="us-east-1", access_key_id="key",
        secret_access_key="secret", client_options={"allow_http": True},
    )  # fmt: skip
    places = [number * max(SIZES) for number in range(RANGES)]

    def threads(get: Callable[[int], bytes]) -> Job:
        def job() -> list[bytes]:
            with ThreadPoolExecutor(THREADS) as pool:
                return list(pool.map(get, places))

        return job

    for size in SIZES:
        yield Task(
            f"{RANGES} ranges of {size >> 10} KiB",
            threads(lambda start, size=size: ours.read_range("object", start, size)),
            threads(lambda start, size=size: bytes(obstore.get_range(theirs, "object", start=start, length=size))),
            [data[start : start + size] for start in places],
        )
    yield Task(
        f"listing {OBJECTS} objects",
        lambda: list(ours.list("many")),
        lambda: [entry["path"].rpartition("/")[2] for page in obstore.list(theirs, prefix="many") for entry in page],
        [f"{number:05d}" for number in range(OBJECTS)],
    )


def measured(task: Task, repeats: int) -> dict[str, Any]:
    """Medians of wall and processor time, in milliseconds; the first turn opens connections and does not count."""
    wall: dict[str, list[float]] = {"ours": [], "obstore": []}
    processor: dict[str, list[float]] = {"ours": [], "obstore": []}
    for turn in range(repeats + 1):
        both = [("ours", task.ours), ("obstore", task.theirs)]
        for name, job in both if turn % 2 else reversed(both):
            begin = time.perf_counter(), time.process_time()
            found = job()
            wall[name].append(1000 * (time.perf_counter() - begin[0]))
            processor[name].append(1000 * (time.process_time() - begin[1]))
            if found != task.expected:
                raise SystemExit(f"obstore benchmark is void: {name}, {task.what}: another result")
    row: dict[str, Any] = {"what": task.what}
    row |= {f"{name}_ms": statistics.median(times[1:]) for name, times in wall.items()}
    return row | {f"{name}_cpu_ms": statistics.median(times[1:]) for name, times in processor.items()}


def run(*, repeats: int = 7, dry: bool = False) -> list[dict[str, Any]]:
    """Fill the store, measure, print, append the record."""
    import obstore

    data = np.random.default_rng(0).bytes(RANGES * max(SIZES))
    rows = []
    with endpoints() as ends:
        store = Store(ends[0].uri)
        store._fs.create_dir("bricks")
        store.write("object", data)
        for number in range(OBJECTS):
            store.write(f"many/{number:05d}", b"x")
        for latency in LATENCIES_MS:
            rows += [measured(task, repeats) | {"latency_ms": latency} for task in tasks(ends[latency], data)]
    table(f"obstore {obstore.__version__}: medians of {repeats}, {THREADS} threads", rows, COLUMNS)
    if not dry:
        append("obstore", {"repeats": repeats, "threads": THREADS, "obstore": obstore.__version__}, rows)
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__, repeats=7).parse_args()))
