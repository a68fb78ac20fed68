"""Pull the plug at every operation on files that a command does, run the command again, and compare.

For each scenario (a small build, a layer, a repair ...), each way to fail (`tests.faults`) and each operation: the
command runs in a process of its own, which fails there. Then, in another one,

  * every file is either as it was before or as it is after an undisturbed run, or has the name of a temporary one;
  * a reader sees a whole corpus, the one before or the one after, or is refused with a sentence;
  * at every other point `gc` runs, and the reader sees what it saw;
  * the same command runs again and ends in the same bytes as the undisturbed run; then `gc` leaves no orphan.

During an undisturbed run, a reader looks before every change. Object stores (moto's server) have no power failures:
what was written is there.

python -m tests.kill_matrix [--only build,layer] [--sample 20] [--seed 0]     (make kill-matrix: all of it)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brickyard.shards.atomic import TEMPORARY
from brickyard.shards.errors import BrickyardError
from brickyard.shards.orphans import collect
from brickyard.shards.storage import Store
from tests.faults import KILLS, MODES, READS, faults

Tree = dict[str, bytes]
_TOLD, _UNFORESEEN = 3, 4


@dataclass(frozen=True)
class Scenario:
    """What is done, and where.

    Attributes:
        prepare: makes what is there before, in a folder (path or URI).
        act: the command.
        look: what a reader sees: a name for the state, or an exception of ours.
        modes: the ways to fail.
    """

    prepare: Callable[[str], object]
    act: Callable[[str], object]
    look: Callable[[str], str]
    modes: tuple[str, ...] = MODES
    remote: bool = False


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: the operations, the files before and after, what readers may see."""

    operations: list[list[str]]
    before: Tree
    after: Tree
    seen: list[str]


def tree(place: str) -> Tree:
    """Every file, without the logs of builds, which tell times."""
    if "://" in place:
        store = Store(place)
        found = {name: store.read(name) for name in store.walk()}
    else:
        folder = Path(place)
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "/log/" not in name}


def is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(TEMPORARY) or name.endswith("/build.lock")


def seen(scenario: Scenario, place: str) -> str:
    """What a reader sees; anything but a whole state or a sentence raises."""
    try:
        return scenario.look(place)
    except BrickyardError as problem:
        assert place.partition("?")[0].rpartition("@")[2] in str(problem), f"not said where: {problem}"
        return "refused"


class Matrix:
    """The points of one scenario.

    Args:
        home: a folder for everything.
        place: gives the path or URI of a fresh folder for a point.
        looks: a reader looks before every so-many-th change of the undisturbed run.
    """

    def __init__(self, name: str, scenario: Scenario, home: Path, place: Callable[[str], str], looks: int = 1) -> None:
        self.name, self.scenario, self.home, self.place, self.looks = name, scenario, home, place, looks
        self.whole = Whole(**self._child(self._undisturbed)[1])

    def _child(self, call: Callable[[], Any]) -> tuple[int, Any]:
        """(exit code, or minus the signal; what the call returned or raised) of a call in a process of its own."""
        answer = self.home / "answer"
        answer.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            code = 0
            try:
                value = call()
            except (BrickyardError, OSError) as problem:
                code, value = _TOLD, f"{type(problem).__name__}: {problem}"
            except BaseException:
                code, value = _UNFORESEEN, traceback.format_exc()
            answer.write_text(json.dumps(value, default=lambda data: data.decode("latin-1")))
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        value = json.loads(answer.read_text()) if answer.exists() else None
        if call == self._undisturbed and code:
            raise AssertionError(f"{self.name}, undisturbed: {value}")
        return code, value

    def _undisturbed(self) -> dict[str, Any]:
        place = self.place("whole")
        self.scenario.prepare(place)
        before = tree(place)
        states = {seen(self.scenario, place)}

        def look(operation: str, path: str) -> None:
            if len(state.log) % self.looks == 0:
                states.add(seen(self.scenario, place))

        with faults(place) as state:
            state.before = look
            self.scenario.act(place)
        last = seen(self.scenario, place)
        whole = Whole(state.log, before, tree(place), sorted(states | {last}))  # type: ignore[arg-type]
        self._check_whole(whole, place, last)
        return {"operations": whole.operations, "before": whole.before, "after": whole.after, "seen": whole.seen}

    def _check_whole(self, whole: Whole, place: str, last: str) -> None:
        assert last != "refused", "the command has made nothing that can be read"
        assert len(whole.seen) <= 3, f"a reader saw {whole.seen}"
        assert not [name for name in whole.after if is_temporary(name)]
        assert not [orphan for folder in folders(place) for orphan in collect(folder, older_s=0)]

    def point(self, mode: str, at: int) -> str | None:
        """What is wrong when operation `at` fails, if anything."""
        place = self.place(f"{mode}-{at}")
        code, said = self._child(lambda: self._fail(place, mode, at))
        if code == _UNFORESEEN or (code < 0 and mode not in KILLS) or code < -signal.SIGKILL:
            return f"ended with {code}: {said}"
        code, wrong = self._child(lambda: self._settle(place, clean=at % 2 == 1, failed=code != 0))
        if not self.scenario.remote:
            shutil.rmtree(place)
        return None if code == 0 else str(wrong)

    def _fail(self, place: str, mode: str, at: int) -> None:
        self.scenario.prepare(place)
        with faults(place, mode, at):
            self.scenario.act(place)

    def _settle(self, place: str, *, clean: bool, failed: bool) -> None:
        whole, there = self.whole, tree(place)
        for name, data in there.items():
            known = [t[name].encode("latin-1") for t in (whole.before, whole.after) if name in t]  # type: ignore[attr-defined]
            assert is_temporary(name) or data in known or name.endswith("export.json"), f"{name} is half written"
        state = seen(self.scenario, place)
        assert state in whole.seen, f"a reader sees {state}, not one of {whole.seen}"
        if clean:
            for folder in folders(place):
                collect(folder, delete=True, older_s=0)
            assert seen(self.scenario, place) == state, "gc has taken something away"
        self.scenario.act(place)
        after = tree(place)
        wanted = {name: data.encode("latin-1") for name, data in whole.after.items()}  # type: ignore[attr-defined]
        assert after.keys() == wanted.keys(), f"other files: {sorted(after.keys() ^ wanted.keys())}"
        assert after == wanted, f"other bytes: {[name for name in after if after[name] != wanted[name]]}"
        for folder in folders(place):
            collect(folder, delete=True, older_s=0)
            assert not [name for name in folder.walk() if TEMPORARY in name]
        assert tree(place) == after, "gc has deleted what is needed"


def folders(place: str) -> list[Store]:
    """What of a place `gc` looks after."""
    store = Store(place)
    begun = ("build.json", "manifest.json", "export.json")
    inside = [store.below(name.rstrip("/")) for name in store.list() if name.endswith("/")]
    return [folder for folder in inside if any(folder.exists(name) for name in begun)]


def points(matrix: Matrix, sample: int | None, draw: random.Random) -> list[tuple[str, int]]:
    """(mode, operation) of all points at which something can differ, or of so many of them, each mode in turn."""
    operations = [name for name, _ in matrix.whole.operations]
    changes = [at for at, name in enumerate(operations, 1) if name not in ("look", "list", "open")]
    every = {mode: range(1, len(operations) + 1) if mode in READS else changes for mode in matrix.scenario.modes}
    if sample is None:
        return [(mode, at) for mode, numbers in every.items() for at in numbers]
    modes = [*matrix.scenario.modes]
    draw.shuffle(modes)
    return [(mode, draw.choice(every[mode])) for mode in (modes * sample)[:sample]]


@contextmanager
def object_store() -> Iterator[Callable[[str], str]]:
    """Gives the URI of a folder in an S3 server that runs in a process of its own, as long as this one."""
    code = (
        "from moto.server import ThreadedMotoServer as S; import sys, urllib.request as u\n"
        "s = S(ip_address='127.0.0.1', port=0, verbose=False); s.start()\n"
        "h, p = s.get_host_and_port(); u.urlopen(u.Request(f'http://{h}:{p}/bricks', method='PUT'))\n"
        "print(h, p, flush=True); sys.stdin.read()"
    )
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    server = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=null, text=True)
    try:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        options = f"scheme=http&endpoint_override={host}:{port}"
        yield lambda name: f"s3://key:secret@bricks/{name}?{options}"
    finally:
        server.kill()
        server.wait()


def main(words: Sequence[str] | None = None) -> int:
    from tests.kill_scenarios import LOCAL, REMOTE, make_material

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="scenarios, comma-separated; default: all")
    parser.add_argument("--modes", default="", help="ways to fail, comma-separated; default: all of the scenario's")
    parser.add_argument("--sample", type=int, default=None, help="points of each scenario, and few looks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    chosen = [name for name in (*LOCAL, *REMOTE) if not options.only or name in options.only.split(",")]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as folder, ExitStack() as stack:
        home, remote = Path(folder), str
        if set(chosen) & REMOTE.keys():
            remote = stack.enter_context(object_store())
        make_material(home)
        for name in chosen:
            begin = time.perf_counter()
            scenario = LOCAL[name](home) if name in LOCAL else REMOTE[name](home)
            if options.modes:
                scenario = replace(scenario, modes=tuple(options.modes.split(",")))
            where = (lambda at, name=name: remote(f"{name}-{at}".replace(" ", "-"))) if scenario.remote else (
                lambda at, name=name: str(home / f"{name}-{at}")
            )  # fmt: skip
            matrix = Matrix(name, scenario, home, where, looks=1 if options.sample is None else 7)
            draw = random.Random(f"{options.seed} {name}")
            todo = points(matrix, options.sample, draw)
            done: Counter[str] = Counter()
            for mode, at in todo:
                problem = matrix.point(mode, at)
                done[mode] += 1
                if problem:
                    wrong += 1
                    operation = " ".join(matrix.whole.operations[at - 1])
                    said = {"scenario": name, "mode": mode, "at": at, "before": operation, "wrong": problem}
                    print(json.dumps(said), flush=True)
            said = {"scenario": name, "operations": len(matrix.whole.operations), "points": sum(done.values()),
                    "by_mode": dict(done), "seen": len(matrix.whole.seen),
                    "seconds": round(time.perf_counter() - begin, 1)}  # fmt: skip
            print(json.dumps(said), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
