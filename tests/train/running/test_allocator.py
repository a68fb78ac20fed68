"""Freed memory stays with the process: counted in pages that the system had to give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from brickyard.train.running.allocator import keep_pages
if sys.argv[1] == "keep" and not keep_pages():
    print(-1)
    sys.exit()
def work():
    for _ in range(20):
        np.ones(4 << 20)  # 32 MiB
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, cwd=root)
    return int(done.stdout)


def test_large_arrays_get_the_pages_of_those_before() -> None:
    kept, fresh = faults("keep"), faults("free")
    if kept < 0:
        pytest.skip("this C library has no mallopt")
    assert kept < 200
    assert kept < fresh
