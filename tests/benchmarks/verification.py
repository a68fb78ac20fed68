"""What checking every byte costs: processor time to read and decode a scene, with the digests checked and without.

One thread, page cache warm. For every scene both ways take turns and the least of several times counts, so that other
work on the machine does not: the difference of two epochs would drown in it. xyz stays codes, which is what leaves
verification the largest share.

python -m tests.benchmarks.verification
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.shards.buffers import Lease
from brickyard.shards.codecs import Compressor
from brickyard.shards.corpus import Corpus
from brickyard.shards.storage import digest64
from brickyard.shards.stream import Stream
from tests.benchmarks.contestants import FIELDS, unverified, write_bricks
from tests.benchmarks.material import material, room_copy
from tests.benchmarks.report import append, arguments, seconds, table

COMPRESSORS: tuple[Compressor, ...] = ("zstd", "lz4")
COLUMNS = {
    "compressor": "s compressor", "checked_ms": ".3f ms a scene", "unchecked_ms": ".3f ms unchecked",
    "percent": "+.1f % of the time", "expected": ".1f % expected from xxh3 alone",
}  # fmt: skip


def least(corpus: Corpus, repeats: int) -> dict[str, float]:
    """Milliseconds a scene, "checked" and "unchecked": the mean over scenes of the least time of each."""
    stream = Stream(corpus, FIELDS, batch=1, threads=1)
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {"checked": nullcontext, "unchecked": unverified}
    times = {way: np.full(len(corpus), np.inf) for way in ways}
    for turn in range(repeats):
        for row in range(len(corpus)):
            for way in list(ways)[:: 1 if turn % 2 else -1]:
                lease = Lease(stream._pool)
                with ways[way]():
                    begun = time.thread_time()
                    sample = stream._read(corpus, row, row, 0, lease)
                    took = time.thread_time() - begun
                del sample
                lease.end()
                times[way][row] = min(times[way][row], took)
    return {way: 1000 * float(values.mean()) for way, values in times.items()}


def run(*, scenes: int = 32, repeats: int = 30, dry: bool = False) -> list[dict[str, Any]]:
    """Measure, print, append the record."""
    rooms = material("scannet")
    copies = [room_copy(rooms.scenes, number) for number in range(scenes)]
    memory = np.random.default_rng(0).integers(0, 255, 1 << 19, np.uint8)
    speed = len(memory) / seconds(lambda: digest64(memory.data))
    rows = []
    for compressor in COMPRESSORS:
        with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place:
            write_bricks(Path(place) / "corpus", copies, compressor)
            corpus = Corpus.open(Path(place) / "corpus")
            found = least(corpus, repeats)
            size = sum(p.length for row in range(scenes) for p in corpus.addresses(row).values()) / scenes
        rows.append({
            "compressor": compressor, "checked_ms": found["checked"], "unchecked_ms": found["unchecked"],
            "percent": 100 * (found["checked"] / found["unchecked"] - 1),
            "expected": 100 * size / speed * 1000 / found["unchecked"], "xxh3_gigabytes_per_second": speed / 1e9,
        })  # fmt: skip
    table(f"cost of verification: {scenes} turned copies of {rooms.origin}, least of {repeats}", rows, COLUMNS)
    if not dry:
        append("verification", {"scenes": scenes, "repeats": repeats}, rows, material=[rooms.origin])
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__, scenes=32, repeats=30).parse_args()))
