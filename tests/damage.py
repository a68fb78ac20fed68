"""Damaged files and what readers make of them: the one yardstick for our formats and for others.

A case is one file of a folder, one region of it, one kind of damage at one byte. It is applied to a copy of the folder,
which a reader (a function that yields (name, digest) of every sample) then reads in a forked process with a clock and a
limit of memory:

    detected    the reader raised, and what it had handed out until then was right
    harmless    every sample came, and is right
    wrong       a sample was handed out that is not what was written
    lost        fewer samples came, and nothing was said
    crash       the process died
    slow        it took longer than 5 s
    large       it took more than 1 GiB of memory

Only the standard library is needed, so that a reader can live in another virtual environment. A case costs about 10 ms
plus what the reader takes.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

MAX_SECONDS = 5.0
MAX_GROWTH = 1 << 30
ROOT = Path(__file__).parents[1]

Reader = Callable[[Path], Iterator[tuple[str, str]]]


class Region(NamedTuple):
    """Bytes start..end of a file; `part` is what they are to the format: payload, structure, index ..."""

    part: str
    start: int
    end: int


class Case(NamedTuple):
    """`kind` of damage at byte `place` of region start..end of a file."""

    file: str
    part: str
    kind: str
    start: int
    end: int
    place: int


class Outcome(NamedTuple):
    case: Case
    result: str
    seconds: float
    error: str


def flip(data: bytes, case: Case) -> bytes:
    return data[: case.place] + bytes([data[case.place] ^ 1 << case.place % 8]) + data[case.place + 1 :]


def zero(data: bytes, case: Case) -> bytes:
    """A run of zeros, as a lost page or sector leaves it; of ones where zeros were."""
    end = min(case.end, case.place + 64)
    blank = bytes(end - case.place)
    return data[: case.place] + (blank if data[case.place : end] != blank else b"\xff" * len(blank)) + data[end:]


def cut(data: bytes, case: Case) -> bytes:
    return data[: case.place]


def drop(data: bytes, case: Case) -> bytes:
    """Bytes are missing, and the rest moves up."""
    return data[: case.place] + data[min(case.end, case.place + 1 + case.place % 16) :]


def insert(data: bytes, case: Case) -> bytes:
    return data[: case.place] + data[case.place : case.place + 1 + case.place % 16] + data[case.place :]


def extend(data: bytes, case: Case) -> bytes:
    """More bytes at the end: the region's own, once more."""
    return data + data[case.place : case.end]


def swap(data: bytes, case: Case) -> bytes:
    """Two pieces of the file change places: the one at `place` and one half a file away."""
    other = (case.place + len(data) // 2) % len(data)
    low, high = sorted((case.place, other))
    size = min(32, high - low, len(data) - high)
    a, b = data[low : low + size], data[high : high + size]
    return data[:low] + b + data[low + size : high] + a + data[high + size :]


KINDS: dict[str, Callable[[bytes, Case], bytes]] = {
    kind.__name__: kind for kind in (flip, zero, cut, drop, insert, extend, swap)
}
DELETE, EXCHANGE = "delete", "exchange"
"""Damage to a whole file: it is gone, or another one of the same kind stands in its place."""


def apply(case: Case, folder: Path) -> bool:
    """Damage a file of a folder; False where the damage changes nothing."""
    path = folder / case.file
    data = path.read_bytes()
    if case.kind == DELETE:
        path.unlink()
        return True
    if case.kind == EXCHANGE:
        others = [p for p in sorted(path.parent.iterdir()) if p.suffix == path.suffix and p.is_file() and p != path]
        if not others:
            return False
        changed = others[0].read_bytes()
        others[0].write_bytes(data)
    else:
        changed = KINDS[case.kind](data, case)
    path.write_bytes(changed)
    return changed != data


def whole_file_cases(file: str, part: str) -> list[Case]:
    return [Case(file, part, kind, 0, 0, 0) for kind in (DELETE, EXCHANGE)]


def drawn_cases(file: str, regions: Iterable[Region], seed: int, per_region: int) -> list[Case]:
    """So many kinds of damage for every region, in turn, each at a byte drawn by the seed."""
    rng, names, cases = random.Random(f"{seed}/{file}"), list(KINDS), []
    count = 0
    for region in regions:
        for _ in range(per_region if region.end > region.start else 0):
            place = rng.choice((region.start, region.end - 1, rng.randrange(region.start, region.end)))
            cases.append(Case(file, region.part, names[count % len(names)], region.start, region.end, place))
            count += 1
    return cases


def every_case(file: str, regions: Iterable[Region], step: int = 1) -> Iterator[Case]:
    """Every kind of damage at every byte (or every `step`-th) of every region."""
    for region in regions:
        for place in range(region.start, region.end, step):
            for kind in KINDS:
                yield Case(file, region.part, kind, region.start, region.end, place)


# Running


def run(
    reader: str,
    folder: Path,
    cases: Sequence[Case],
    *,
    python: str = sys.executable,
    batch: int = 50,
    seconds: float = MAX_SECONDS,
    imports: Sequence[str] = (),
) -> list[Outcome]:
    """The outcome of every case that changes anything.

    Args:
        reader: "module:function" of a `Reader`.
        folder: what it reads; it is not touched.
        python: interpreter (of another virtual environment).
        batch: cases read by one process after another; 1 gives each its own.
        seconds: after which a case is slow.
        imports: modules that the reader would otherwise import anew for every case.
    """
    with tempfile.TemporaryDirectory(prefix="brickyard-damage-") as scratch:
        job = Path(scratch) / "job.json"
        what = {"reader": reader, "folder": str(folder), "cases": cases, "batch": batch, "seconds": seconds}
        what["imports"] = list(imports)
        job.write_text(json.dumps(what))
        done = subprocess.run(
            [python, "-m", "tests.damage", str(job)], cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"TMPDIR": scratch, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        result = job.with_suffix(".out")
        if done.returncode or not result.exists():
            raise RuntimeError(f"{reader}: exit code {done.returncode}: {done.stderr[-2000:]}")
        return [Outcome(Case(*row[0]), *row[1:]) for row in json.loads(result.read_text())]


def main() -> None:
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    module, _, function = job["reader"].partition(":")
    reader: Reader = getattr(import_module(module), function)
    for name in job["imports"]:
        import_module(name)
    folder, cases = Path(job["folder"]), [Case(*case) for case in job["cases"]]
    truth: dict[str, str] = {}
    for kind, *words in _forked(reader, folder, [None], seconds=120.0):
        if kind != "sample" and words[0]:
            raise RuntimeError(f"{reader.__name__} cannot read the intact folder: {words}")
        if kind == "sample":
            truth[words[0]] = words[1]
    outcomes: list[Any] = []
    while cases:
        some, cases = cases[: job["batch"]], cases[job["batch"] :]
        finished = _judge(_forked(reader, folder, some, job["seconds"]), some, truth, job["seconds"])
        outcomes += [outcome for outcome in finished if outcome.result != "unchanged"]
        cases = some[len(finished) :] + cases
    path.with_suffix(".out").write_text(json.dumps(outcomes))


def _judge(events: Iterator[list[Any]], cases: Sequence[Case], truth: dict[str, str], limit: float) -> list[Outcome]:
    """Outcomes of the first cases: up to the one that killed the process, or all."""
    outcomes: list[Outcome] = []
    seen: dict[str, str] = {}
    wrong = False
    for kind, *words in events:
        if kind == "sample":
            seen[words[0]] = words[1]
            wrong |= truth.get(words[0]) != words[1]
            continue
        error, seconds, large = words
        result = kind
        if kind == "end":
            result = (
                "wrong" if wrong else "detected" if error else "lost" if seen.keys() != truth.keys() else "harmless"
            )
            if result != "wrong" and (large or seconds > limit):
                result = "large" if large else "slow"
        outcomes.append(Outcome(cases[len(outcomes)], result, seconds, error))
        seen, wrong = {}, False
    return outcomes


def _forked(reader: Reader, folder: Path, cases: Sequence[Case | None], seconds: float) -> Iterator[list[Any]]:
    """What a child process reports of cases: ["sample", name, digest], then for each case ["end", error, seconds];
    ["crash" or "slow", ...] where it did not come to that."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.setpgid(0, 0)
        _read_all(reader, folder, cases, theirs)
    os.close(theirs)
    rest, began = b"", time.monotonic()
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], max(0.0, began + seconds + 0.5 - time.monotonic()))
            if not ready:
                yield ["slow", "", time.monotonic() - began, False]
                return
            data = os.read(ours, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event[0] == "begin":
                    began = time.monotonic()
                elif event[0] == "done":
                    return
                else:
                    yield event
        yield ["crash", "", time.monotonic() - began, False]
    finally:
        os.close(ours)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # with whatever it started
        os.waitpid(child, 0)


def _peak_bytes() -> int:
    """Of memory of its own and shared with its parent that the process has used; starts anew in a forked one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _read_all(reader: Reader, folder: Path, cases: Sequence[Case | None], pipe: int) -> None:
    """In the child process: never returns."""
    with os.fdopen(pipe, "w", buffering=1) as out, tempfile.TemporaryDirectory() as scratch:
        before = _peak_bytes()
        limit = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() + 3 * MAX_GROWTH
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        for number, case in enumerate(cases):
            copy = Path(scratch) / str(number)
            shutil.copytree(folder, copy)
            error, began = "", time.monotonic()
            if case is not None and not apply(case, copy):
                print(json.dumps(["unchanged", "", 0.0, False]), file=out)
            else:
                print('["begin"]', file=out)
                began = time.monotonic()
                try:
                    for name, digest in reader(copy):
                        print(json.dumps(["sample", name, digest]), file=out)
                except Exception as problem:
                    error = f"{type(problem).__name__}: {problem}"[:200]
                print(
                    json.dumps(["end", error, time.monotonic() - began, _peak_bytes() - before > MAX_GROWTH]), file=out
                )
            shutil.rmtree(copy, ignore_errors=True)
        print('["done"]', file=out, flush=True)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main()
