"""Readers against damaged files: thousands of them, in a child process that may not crash, hang or eat the memory.

    def test_damaged_files_end_in_a_scene_or_an_error(tmp_path):
        write_the_smallest_scene(tmp_path)
        assert_survives(SOURCE, tmp_path, ["scan.bin", "labels.json"])

Each damaged file is planned and read like any other. What may come of it: a Scene that keeps the contract, a scene the
plan reports as missing, or an error that names the dataset and a file. The damage is a pure function of (file, seed,
case), so the case number in a failure's text reproduces it.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.ingest.source import Missing, SceneRef, Source
from brickyard.shards.errors import BrickyardError, RawDataError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

MAX_SECONDS = 5.0
MAX_GROWTH = 1 << 30
ALL = os.environ.get("BRICKYARD_MUTANTS") == "all"
MANY, SAMPLED = 500, 8
"""So many cases of a format or more are tried one in eight, in which all kinds of damage come up; `make mutants` tries
all."""
_LIES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_WORDS = (
    b"nan",
    b"-inf",
    b"1e999",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"",
    b"\x00",
    b"\xff\xfe",
    b"[[[[",
    b'"',
    b"x",
)


@dataclass(frozen=True)
class Survived:
    """What came of the cases: counts (of all, judged by those that were tried), and the slowest one in
    seconds."""

    scenes: int
    missing: int
    errors: int
    errors_with_place: int
    slowest_s: float


def mutate(data: bytes, seed: int, case: int) -> tuple[str, bytes]:
    """(what was done, damaged bytes); never equal to `data` unless that is empty."""
    rng = np.random.default_rng((seed, case))
    kind = _KINDS[case % len(_KINDS)]
    place = int(rng.integers(max(len(data), 1)))
    if rng.random() < 0.5:  # headers and footers decide most
        place = min(int(rng.exponential(40)), max(len(data) - 1, 0))
        place = len(data) - 1 - place if rng.random() < 0.3 and data else place
    damaged = kind(data, place, rng)
    if damaged == data:
        damaged = data[:place] + b"?" + data[place:]
    return f"{kind.__name__.strip('_')} at {place}", damaged


def _flip(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if changed:
            changed[place] ^= 1 << int(rng.integers(8))
            place = int(rng.integers(len(changed)))
    return bytes(changed)


def _cut(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    return data[:place]


def _drop(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    return data[:place] + data[place + int(rng.integers(1, 64)) :]


def _repeat(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    piece = data[place : place + int(rng.integers(1, 200))]
    return data[:place] + piece * int(rng.integers(2, 20)) + data[place:]


def _extend(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 100))) if rng.random() < 0.5 else data + data[place:]


def _lie(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    """A number that a header might hold, at any width and byte order."""
    width = int(rng.choice((1, 2, 4, 8)))
    order = "little" if rng.random() < 0.8 else "big"
    value = _LIES[int(rng.integers(len(_LIES)))] & ((1 << 8 * width) - 1)
    return data[:place] + value.to_bytes(width, order) + data[place + width :]  # type: ignore[arg-type]


def _word(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    """A word of a text (or a run of bytes) replaced by what no writer meant."""
    match = re.compile(rb"[-+.\w]+").search(data, place)
    start, end = match.span() if match and match.end() - match.start() < 64 else (place, place + 3)
    return data[:start] + _WORDS[int(rng.integers(len(_WORDS)))] + data[end:]


def _swap(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    length = int(rng.integers(1, 64))
    other = int(rng.integers(max(len(data), 1)))
    low, high = sorted((place, other))
    length = min(length, high - low)
    return (
        data[:low]
        + data[high : high + length]
        + data[low + length : high]
        + data[low : low + length]
        + data[high + length :]
    )


def _blank(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    length = min(int(rng.integers(1, 200)), len(data) - place)
    return data[:place] + bytes([int(rng.choice((0, 32, 255)))]) * length + data[place + length :]


_KINDS = (_flip, _lie, _word, _cut, _repeat, _drop, _extend, _swap, _blank)


def assert_survives(
    source: Source,
    folder: Path | str,
    paths: Sequence[str],
    *,
    options: Any = None,
    count: int = 2000,
    tried: int | None = None,
    seed: int = 0,
) -> Survived:
    """Damage the files `paths` (relative to `folder`) `count` times in turn, and read what is left.

    Args:
        tried: about so many of the cases, unless `ALL` are asked for; by default all of a few and an eighth of many.

    Raises:
        AssertionError: a case that crashed, hung for 5 s, took 1 GiB, raised another error than ours, broke the
            contract of a Scene, or gave an error without the dataset's or any file's name.
    """
    with tempfile.TemporaryDirectory(prefix="brickyard-mutation-") as scratch:
        root = Path(scratch) / "raw"
        shutil.copytree(folder, root)
        options = source.options() if options is None else options
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        job = _Job(source, root, tuple(paths), options, count, _step(count, tried), seed, Path(scratch) / "log")
        child = context.Process(target=_run, args=(job, theirs))
        child.start()
        theirs.close()
        try:
            result: Survived | str = ours.recv()
        except EOFError:
            child.join()
            result = f"the process died with exit code {child.exitcode}: {job.log.read_text()[-3000:]}"
        child.join()
    assert isinstance(result, Survived), f"{source.dataset}: {result}"
    return result


@dataclass(frozen=True)
class _Job:
    source: Source
    root: Path
    paths: tuple[str, ...]
    options: Any
    count: int
    step: int
    seed: int
    log: Path


def _step(count: int, tried: int | None) -> int:
    """From case to case; no multiple of three, so that all kinds of damage come up."""
    if ALL:
        return 1
    step = max(1, count // tried) if tried is not None else 1 if count < MANY else SAMPLED
    return step if step % 3 else step + 1


def _run(job: _Job, answer: Any) -> None:
    answer.send(_cases(job))
    answer.close()


def _cases(job: _Job) -> Survived | str:
    intact = {path: (job.root / path).read_bytes() for path in job.paths}
    refs = [item for item in job.source.plan(Store(job.root), job.options) if isinstance(item, SceneRef)]
    users = {path: [ref for ref in refs if path in ref.files.values()][:2] for path in job.paths}
    for ref in refs[:2]:  # warm: imports and native start-up are not the cases' doing
        job.source.read(ref)
    before = _peak_bytes()
    limit = _data_bytes() + MAX_GROWTH
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for case in range(0, job.count, job.step):
        path = job.paths[case // len(_KINDS) % len(job.paths)]
        what, damaged = mutate(intact[path], job.seed, case)
        label = f"case {case}, {path}: {what}"
        (job.root / path).write_bytes(damaged)
        with job.log.open("w") as log:
            print(label, file=log, flush=True)
            faulthandler.dump_traceback_later(MAX_SECONDS, exit=True, file=log)
            began = time.perf_counter()
            problem = _case(job, users[path], outcomes)
            slowest = max(slowest, time.perf_counter() - began)
            faulthandler.cancel_dump_traceback_later()
        (job.root / path).write_bytes(intact[path])
        if problem or _peak_bytes() - before > MAX_GROWTH:
            return f"{label}: {problem or 'took more than 1 GiB'}"
    scenes, missing, errors, places = (job.step * outcomes[name] for name in ("scene", "missing", "error", "place"))
    return Survived(scenes, missing, errors, places, slowest)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _data_bytes() -> int:
    """Private memory that is mapped now; the limit of it is what a mutated length runs into."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[5]) * resource.getpagesize()


def _case(job: _Job, refs: list[SceneRef], outcomes: Counter[str]) -> str | None:
    """What is wrong with what came of one damaged file; a payload is read by its own references, a table is planned."""
    try:
        chosen: list[SceneRef | Missing] = list(refs)
        if not refs:
            chosen = list(job.source.plan(Store(job.root), job.options))[:2]
        for item in chosen:
            if isinstance(item, Missing):
                outcomes["missing"] += 1
                continue
            scene = job.source.read(item)
            if not isinstance(scene, Scene):
                return f"read returned {type(scene).__name__}"
            scene.validate()
            outcomes["scene"] += 1
    except BrickyardError as problem:
        outcomes["error"] += 1
        if isinstance(problem, RawDataError):
            outcomes["place"] += problem.offset is not None or problem.line is not None
            named = problem.dataset and problem.path
        else:
            named = str(problem)
        return None if named else f"an error without a file: {problem!r}"
    except BaseException as problem:
        return f"{type(problem).__name__}: {problem}"
    return None
