"""One process for each loader, which times its epochs when it is told to: so each has a peak of memory and a processor
time of its own, and epochs of different loaders can be interleaved, which shares out the noise of a busy machine.

The process runs in the loader's environment, as `python -m tests.benchmarks.measuring LOADER FOLDER`, reads what to do
from stdin, a word a line, and answers in JSON on stdout, a line an answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import xxhash

from brickyard.shards.codecs import Quantised
from tests.benchmarks.contestants import (
    ARRAYS,
    BATCH,
    PEER_WRITERS,
    Contestant,
    Epoch,
    contestants,
    read_npy,
)
from tests.benchmarks.peers import interpreter

_TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = 4096
ROOT = Path(__file__).parents[2]


class Server:
    """A loader in a process of its own.

    Args:
        entry: whose loader.
        folder: of the run.
    """

    def __init__(self, entry: Contestant, folder: Path) -> None:
        self.name = entry.name
        self._process = subprocess.Popen(
            [interpreter(entry.module)[0], "-m", "tests.benchmarks.measuring", entry.name, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def ask(self, what: str) -> dict[str, Any]:
        """One epoch: "timed" (seconds, cpu_seconds, points), "memory" (working_bytes) or "checked"
        (checksum, errors). Or "write": make the loader's layout from the npy folders."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it may have failed while opening; then its reason waits to be read
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process of this loader died")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise RuntimeError(f"{self.name}: {answer['failure']}")
        return answer

    def close(self) -> None:
        """End the process and its workers."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _serve(entry: Contestant, folder: Path, answers: TextIO) -> None:
    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    tasks: dict[str, Callable[[Epoch, Path, int], dict[str, Any]]] = {
        "timed": _timed, "memory": _memory, "checked": _checked,
    }  # fmt: skip
    epoch, start = None, 0
    for line in sys.stdin:
        try:
            if line.strip() == "write":
                PEER_WRITERS[entry.layout](folder / entry.layout, folder / "npy")
                tell({})
                continue
            if epoch is None:
                epoch = entry.open(folder)
                start = _memory_of_tree()
            tell(tasks[line.strip()](epoch, folder, start))
        except Exception as problem:
            tell({"failure": repr(problem)})


def _timed(epoch: Epoch, folder: Path, start: int) -> dict[str, Any]:
    """One epoch. The consumer reads one byte of every page, so that no loader gets by with a promise of data."""
    scenes = points = touched = 0
    cpu, clock = _cpu_of_tree(), time.perf_counter()
    for batch in epoch():
        for scene in batch:
            scenes += 1
            points += len(scene["xyz"])
            touched += sum(int(_flat(scene[name])[::PAGE].sum()) for name in ARRAYS)
    took = time.perf_counter() - clock
    return {"seconds": took, "cpu_seconds": _cpu_of_tree() - cpu, "points": points, "scenes": scenes}


def _flat(values: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = values.values if isinstance(values, Quantised) else np.asarray(values)
    return array.reshape(-1).view(np.uint8)


def _memory(epoch: Epoch, folder: Path, start: int) -> dict[str, Any]:
    """One epoch, looking at the memory of the process and its workers after every batch; nothing is timed."""
    peak = 0
    for _ in epoch():
        peak = max(peak, _memory_of_tree())
    return {"working_bytes": peak - start}


def _checked(epoch: Epoch, folder: Path, start: int) -> dict[str, Any]:
    """One epoch held against the original arrays: a checksum of all that is exact, the worst error of what is not."""
    checksum, names, worst_xyz, worst_normal = 0, set(), 0.0, 0.0
    for batch in epoch():
        assert len(batch) <= BATCH
        for scene in batch:
            truth = read_npy(folder / "npy" / scene["name"])
            xyz = scene["xyz"].dequantise() if isinstance(scene["xyz"], Quantised) else scene["xyz"]
            got = {"xyz": np.asarray(xyz), **{name: np.asarray(scene[name]) for name in ARRAYS[1:]}}
            for name in ARRAYS:
                same = (got[name].dtype, got[name].shape) == (truth[name].dtype, truth[name].shape)
                assert same, f"{scene['name']}/{name} has another dtype or shape"
            exact = scene["name"].encode() + got["color"].tobytes() + got["label"].tobytes()
            checksum ^= xxhash.xxh3_64_intdigest(exact)
            names.add(scene["name"])
            worst_xyz = max(worst_xyz, float(np.abs(got["xyz"] - truth["xyz"]).max()))
            worst_normal = max(worst_normal, _largest_angle(got["normal"], truth["normal"]))
    return {
        "checksum": f"{checksum:016x}", "distinct": len(names),
        "max_xyz_error_mm": worst_xyz * 1000, "max_normal_error_degrees": worst_normal,
    }  # fmt: skip


def _largest_angle(a: Any, b: Any) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    crossed = np.linalg.norm(np.cross(a, b), axis=1)
    return float(np.degrees(np.arctan2(crossed, (a * b).sum(axis=1)).max()))


def _tree(pid: int) -> Iterator[int]:
    """A process and all processes below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in _text(task / "children").split():
            yield from _tree(int(child))


def _text(path: Path) -> str:
    """A file of /proc, empty if its thread or process has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _memory_of_tree() -> int:
    """Bytes of resident memory, pages shared by several processes shared out among them (PSS)."""
    total = 0
    for pid in _tree(os.getpid()):
        lines = _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _cpu_of_tree() -> float:
    """Processor seconds, user and system, of this process and its workers so far."""
    total = time.process_time()
    for pid in list(_tree(os.getpid()))[1:]:
        if fields := _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split():
            total += (int(fields[11]) + int(fields[12])) * _TICK
    return total


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _serve(
        next(entry for entry in contestants(only_installed=False) if entry.name == sys.argv[1]),
        Path(sys.argv[2]),
        channel,
    )
