"""What loaders do beside being fast, found out by trying it: order, ranks, resume, random access, hostile data.

python -m tests.benchmarks.features     in about five minutes; peers get environments of their own (see `peers`)

Every loader streams the same numbered samples, shuffled, from one process per rank; what came when is compared. An
answer is "yes", or "no" with what was seen. `tests.benchmarks.comparison` puts the answers into the documentation,
beside rows that only a loader's own documentation can answer.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import PINS, interpreter
from tests.benchmarks.probed import GLOBAL_BATCH, Ask
from tests.benchmarks.report import append, arguments, table

ROOT = Path(__file__).parents[2]
LOADERS = {"npy": "torch", "webdataset": "webdataset", "mosaic": "streaming", "litdata": "litdata", "bricks": "numpy"}
"""Loader -> module that its environment must have."""
EVEN, UNEVEN = 96, 90
"""Samples: a multiple of the batch, and a number that four ranks do not divide."""
LIMIT_S = 90
Batches = list[list[int]]


class NoAnswer(RuntimeError):
    """A rank failed or did not end; the text says how."""


@dataclass(frozen=True)
class Probed:
    """A loader and its corpora, below a folder named by the number of samples."""

    name: str
    folder: Path

    def write(self, count: int) -> None:
        place = self.folder / str(count)
        place.mkdir(parents=True)
        _finish([_start(self.name, ["write", self.name, str(place), str(count)], {})])

    def ranks(self, count: int = EVEN, **ask: Any) -> list[dict[str, Any]]:
        """What every rank of a run says: "batches" and "state"."""
        world, port = ask.get("world", 1), _free_port()
        processes = []
        for rank in range(world):
            options = json.dumps(Ask(**ask)._replace(rank=rank)._asdict())
            environ = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
            words = ["run", self.name, str(self.folder / str(count)), options]
            processes.append(_start(self.name, words, environ))
        return [json.loads(text) for text in _finish(processes)]

    def order(self, **ask: Any) -> Batches:
        """Global batches, each sorted: where in a batch a sample stands is of no account."""
        return together(self.ranks(**ask))


def together(said: Sequence[dict[str, Any]]) -> Batches:
    steps = max(len(rank["batches"]) for rank in said)
    return [sorted(n for rank in said for n in (rank["batches"][t : t + 1] or [[]])[0]) for t in range(steps)]


def _start(loader: str, words: list[str], environ: dict[str, Any]) -> subprocess.Popen[str]:
    python, problem = interpreter(LOADERS[loader])
    if problem:
        raise NoAnswer(problem)
    return subprocess.Popen(
        [python, "-m", "tests.benchmarks.probed", *words], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in environ.items()},
    )  # fmt: skip


def _finish(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What each wrote; ends all of them, and their workers, whatever happens."""
    said = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                lines = [line for line in err.strip().splitlines() if line.strip()] or ["no message"]
                raise NoAnswer(f"error: {lines[-1][:160]}")
            said.append(out)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"nothing came for {LIMIT_S} s") from None
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return said


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Questions


def any_workers(loader: Probed) -> str:
    first, *others = (loader.order(workers=workers) for workers in (1, 2, 3))
    return "yes" if all(order == first for order in others) else "no"


def any_ranks(loader: Probed) -> str:
    first, *others = (loader.order(world=world) for world in (1, 2, 4))
    return "yes" if all(order == first for order in others) else "no"


def exactly_once(loader: Probed) -> str:
    """Four ranks that do not divide the samples: no sample twice, none left out, as many steps on each."""
    said = loader.ranks(UNEVEN, world=4)
    steps = {len(rank["batches"]) for rank in said}
    seen = Counter(n for batch in together(said) for n in batch)
    wrong = [
        len(steps) > 1 and "ranks differ in steps",
        seen.total() > len(seen) and f"{seen.total() - len(seen)} of {UNEVEN} repeated",
        len(seen) < UNEVEN and f"{UNEVEN - len(seen)} of {UNEVEN} left out",
    ]
    said_wrong = ", ".join(str(w) for w in wrong if w)
    return f"no: {said_wrong}" if said_wrong else "yes"


def resume(loader: Probed) -> str:
    """Three batches, a new process, the rest: together what an undisturbed run gives."""
    return _resumed(loader, 1, 1, workers=2)


def resume_elsewhere(loader: Probed) -> str:
    """From two ranks on to four and to one."""
    return _resumed(loader, 2, 4, workers=1) if (first := _resumed(loader, 2, 1, workers=1)) == "yes" else first


def _resumed(loader: Probed, before: int, after: int, *, workers: int) -> str:
    begun = loader.ranks(world=before, workers=workers, take=3)
    state = begun[0]["state"]
    if state is None:
        return "no"
    whole, rest = loader.order(world=before, workers=workers), loader.order(world=after, workers=workers, state=state)
    found = together(begun) + rest
    if found == whole:
        return "yes"
    seen = Counter(n for batch in found for n in batch)
    repeated, left_out = seen.total() - len(seen), EVEN - len(seen)
    if not repeated and not left_out:
        return "exact, but another order"
    return f"no: {repeated} repeated, {left_out} left out ({before} to {after} ranks)"


def random_access(loader: Probed) -> str:
    words = ["get", loader.name, str(loader.folder / str(EVEN)), "17"]
    try:
        (text,) = _finish([_start(loader.name, words, {})])
    except NoAnswer:
        return "no"
    return "yes" if json.loads(text) == 17 else "no"


def no_code(loader: Probed) -> str:
    """Whether data of a stranger are only data."""
    (text,) = _finish([_start(loader.name, ["trap", loader.name, str(loader.folder / "trap")], {})])
    return "no" if json.loads(text) else "yes"


QUESTIONS: dict[str, Callable[[Probed], str]] = {
    "any workers": any_workers, "any ranks": any_ranks, "exactly once": exactly_once, "resume": resume,
    "resume elsewhere": resume_elsewhere, "random access": random_access, "data cannot run code": no_code,
}  # fmt: skip


def run(*, dry: bool = False, only: str = "") -> list[dict[str, Any]]:
    """A row for every loader; prints the table, appends the record."""
    rows = []
    for name in LOADERS:
        if only not in name:
            continue
        row: dict[str, Any] = {"loader": name}
        with tempfile.TemporaryDirectory(prefix="brickyard-features-") as place:
            loader = Probed(name, Path(place))
            for count in (EVEN, UNEVEN):
                loader.write(count)
            for question, answer in QUESTIONS.items():
                try:
                    row[question] = answer(loader)
                except NoAnswer as problem:
                    row[question] = str(problem)
                print(f"{name}, {question}: {row[question]}", flush=True)
        rows.append(row)
    table("what loaders do", rows, {"loader": "s loader"} | {question: f"s {question}" for question in QUESTIONS})
    if not dry:
        append("features", {"samples": [EVEN, UNEVEN], "batch": GLOBAL_BATCH, "peers": PINS}, rows)
    return rows


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="loaders whose name contains this")
    run(**vars(parser.parse_args()))
