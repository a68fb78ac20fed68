"""What reads small Parquet files reads them with the thread that asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.worlds import toy_corpus

COUNT = """
import os, sys
import pyarrow as pa, pyarrow.parquet as pq
from brickyard.shards.corpus import Corpus
from brickyard.shards.selection import read_selection, select, write_selection
from brickyard.shards.storage import Store

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
corpus = Corpus.open(sys.argv[1])
if sys.argv[2] == "ours":
    write_selection(Store(sys.argv[1] + ".chosen"), "some.parquet", select(corpus))
    assert len(read_selection(Store(sys.argv[1] + ".chosen"), "some.parquet").keys) == len(corpus)
else:
    pq.read_table(sys.argv[1] + "/index.parquet")
print(threads() - before)
"""


def started(corpus: Path, who: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, corpus, who], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_no_thread_outlives_the_reading(tmp_path: Path) -> None:
    """Arrow's hold bytes of ours, and one that lets go of them while the interpreter ends kills the process."""
    toy_corpus(tmp_path / "corpus")
    assert started(tmp_path / "corpus", "arrow") > 0
    assert started(tmp_path / "corpus", "ours") == 0
