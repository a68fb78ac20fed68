"""A layer below `Store` that counts operations on files and, at one of them, pulls the plug or breaks the disk.

It stands where Brickyard touches a disk (functions of `os`) or an object store (the methods of the `pyarrow.fs` object
in a store), for places below one folder or URI and nowhere else. Operations are numbered from 1. What happens at
number `at`, before the operation is done:

  kill          SIGKILL of this process; the disk keeps everything that was done
  power         SIGKILL, and the disk loses what was not flushed: names in a folder since its last fsync, and the bytes
                of a file since its own
  power-some    as power, but of each folder some of the changes are there, the earlier ones first
  torn          half of the bytes of a write arrive, then SIGKILL; the same as kill for other operations
  full          from here on nothing can be written: ENOSPC; files can still be deleted
  readonly      from here on nothing can be written or deleted: EROFS
  denied        the same with EACCES
  broken        from here on everything fails: EIO
  hiccup        this one operation fails: EIO
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brickyard.shards.storage import Store

KILLS = ("kill", "power", "power-some", "torn")
ERRORS = {
    "full": errno.ENOSPC,
    "readonly": errno.EROFS,
    "denied": errno.EACCES,
    "broken": errno.EIO,
    "hiccup": errno.EIO,
}
MODES = (*KILLS, *ERRORS)
active: list[Faults] = []
"""The one whose `faults` block runs, if any."""
READS = ("broken", "hiccup")
"""Of these, the ones that concern what is only read, too."""
_WRITES = {"create", "write", "truncate", "fsync", "replace", "mkdir", "put", "commit"}
_DELETES = {"unlink", "delete"}
_WATCHED = ("open", "close", "fsync", "replace", "unlink", "mkdir", "scandir", "fdopen")


class Faults:
    """What happened to the files below a place, and what is to happen.

    Attributes:
        log: the operations, as (name, place relative to the folder).
        before: called with the name and the place of each operation that changes something, before it is done.
        paused: True while nothing is to be counted.
    """

    def __init__(self, place: str, mode: str = "kill", at: int = 0) -> None:
        self.mode, self.at = mode, at
        self.inside = place.partition("?")[0].rpartition("://")[2].rpartition("@")[2].rstrip("/")
        self.log: list[tuple[str, str]] = []
        self.before: Callable[[str, str], object] = lambda operation, path: None
        self._lock, self.paused = threading.RLock(), False
        self.paths: dict[int, str] = {}
        """Of open descriptors."""
        self._pending: list[tuple[str, Callable[[], None]]] = []
        """(folder, or file whose bytes they are; how to take it back) of what a disk may still lose, oldest first."""
        self._spare = None if "://" in place else Path(tempfile.mkdtemp(prefix=".faults-", dir=Path(place).parent))

    def below(self, path: object) -> str | None:
        """The path as text, if it is one below the place."""
        if self.paused or isinstance(path, int):
            return None
        text = os.fsdecode(path)  # type: ignore[arg-type]
        return text if text == self.inside or text.startswith(f"{self.inside}/") else None

    def count(self, operation: str, path: str, torn: Callable[[], None] = lambda: None) -> None:
        """Note an operation that is about to be done; raises or ends the process if its turn has come."""
        with self._lock:
            if operation in _WRITES | _DELETES:
                self.paused = True
                try:
                    self.before(operation, path[len(self.inside) + 1 :])
                finally:
                    self.paused = False
            self.log.append((operation, path[len(self.inside) + 1 :]))
            number = len(self.log)
            if not self.at or number < self.at:
                return
            if self.mode in KILLS:
                self._end(torn)
            if self.mode == "hiccup" and number > self.at:
                return
            if operation in _WRITES or self.mode in READS:
                self._fail(path)
            if operation in _DELETES and self.mode in ("readonly", "denied"):
                self._fail(path)

    def _fail(self, path: str) -> None:
        number = ERRORS[self.mode]
        raise OSError(number, os.strerror(number), path)

    def _end(self, torn: Callable[[], None]) -> None:
        self.paused = True
        if self.mode == "torn":
            torn()
        if self.mode.startswith("power"):
            draw = random.Random(self.at)
            shares = (0.0, draw.random(), 1.0) if self.mode == "power-some" else (0.0,)
            kept = {folder: draw.choice(shares) for folder, _ in self._pending}
            changes = {folder: sum(where == folder for where, _ in self._pending) for folder in kept}
            left = {folder: round(kept[folder] * changes[folder]) for folder in kept}
            for folder, back in reversed(self._pending):
                if changes[folder] > left[folder]:
                    with suppress(OSError):
                        back()
                changes[folder] -= 1
        os.kill(os.getpid(), signal.SIGKILL)

    def pending(self, path: str, back: Callable[[], None]) -> None:
        """A name has changed in its folder; the disk may still lose that."""
        self._pending.append((str(Path(path).parent), back))

    def wrote(self, path: str, half: int) -> None:
        """Bytes were written; the disk may still lose the second half of them."""
        self._pending.append((f"bytes of {path}", lambda: os.truncate(path, half)))

    def flushed(self, path: str) -> None:
        """The disk keeps what was done to this folder, or to the bytes of this file."""
        self._pending = [change for change in self._pending if change[0] not in (path, f"bytes of {path}")]

    def renamed(self, source: str, target: str) -> None:
        """Bytes that were not flushed go on under another name."""
        for number, (where, _) in enumerate(self._pending):
            if where == f"bytes of {source}":
                self._pending[number] = (f"bytes of {target}", lambda: os.truncate(target, 0))

    def copy(self, path: str) -> str | None:
        """Another name for a file that is about to lose its own."""
        if self._spare is None or not Path(path).is_file():
            return None
        spare = str(self._spare / str(len(list(self._spare.iterdir()))))
        os.link(path, spare)
        return spare

    def close(self) -> None:
        if self._spare is not None:
            shutil.rmtree(self._spare, ignore_errors=True)


@contextmanager
def faults(place: str, mode: str = "kill", at: int = 0) -> Iterator[Faults]:
    """Count, and do what is asked at operation `at` (0: nothing)."""
    state = Faults(place, mode, at)
    real = {name: getattr(os, name) for name in _WATCHED}
    init = Store.__init__
    for name, call in _local(state, real).items():
        setattr(os, name, call)
    Store.__init__ = _watched_store(state, init)  # type: ignore[method-assign]
    active.append(state)
    try:
        yield state
    finally:
        active.clear()
        for name, call in real.items():
            setattr(os, name, call)
        Store.__init__ = init  # type: ignore[method-assign]
        state.close()


def _local(state: Faults, real: dict[str, Any]) -> dict[str, Any]:
    """The functions of `os` that a writer of local files uses, watched."""

    def watched_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = state.below(path)
        fresh = name is not None and bool(flags & os.O_CREAT) and not os.path.lexists(name)
        if name is not None:
            state.count("create" if fresh else "open", name)
        descriptor: int = real["open"](path, flags, *rest, **options)
        if name is not None:
            state.paths[descriptor] = name
            if fresh:
                state.pending(name, lambda: real["unlink"](name))
        return descriptor

    def close(descriptor: int) -> None:
        state.paths.pop(descriptor, None)
        real["close"](descriptor)

    def fsync(descriptor: int) -> None:
        name = state.paths.get(descriptor)
        if name is not None:
            state.count("fsync", name)
        real["fsync"](descriptor)
        if name is not None:
            state.flushed(name)

    def replace(source: Any, target: Any, **options: Any) -> None:
        name, to = state.below(source), state.below(target)
        if name is None or to is None:
            return real["replace"](source, target, **options)
        state.count("replace", to)
        spare = state.copy(to)
        real["replace"](source, target, **options)
        state.renamed(name, to)

        def back() -> None:
            real["replace"](to, name)
            if spare is not None:
                real["replace"](spare, to)

        return state.pending(to, back)

    def unlink(path: Any, **options: Any) -> None:
        name = state.below(path)
        if name is None or not os.path.lexists(name):
            return real["unlink"](path, **options)
        state.count("unlink", name)
        spare = state.copy(name)
        real["unlink"](path, **options)
        return state.pending(name, lambda: real["replace"](spare, name))

    def mkdir(path: Any, *rest: Any, **options: Any) -> None:
        name = state.below(path)
        if name is None:
            return real["mkdir"](path, *rest, **options)
        state.count("mkdir", name)
        real["mkdir"](path, *rest, **options)
        return state.pending(name, lambda: shutil.rmtree(name))

    def scandir(path: Any = ".") -> Any:
        if (name := state.below(path)) is not None:
            state.count("list", name)
        return real["scandir"](path)

    def fdopen(descriptor: int, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = real["fdopen"](descriptor, mode, *rest, **options)
        name = state.paths.get(descriptor) if "w" in mode else None
        return file if name is None else _File(file, name, state)

    return {
        "open": watched_open, "close": close, "fsync": fsync, "replace": replace, "unlink": unlink, "mkdir": mkdir,
        "scandir": scandir, "fdopen": fdopen,
    }  # fmt: skip


class _File:
    """A local file that is being written."""

    def __init__(self, file: Any, name: str, state: Faults) -> None:
        self._file, self._name, self._state = file, name, state

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *problem: object) -> None:
        self._state.paths.pop(self._file.fileno(), None)
        self._file.close()

    def truncate(self) -> None:
        self._state.count("truncate", self._name)
        self._file.truncate()

    def write(self, data: memoryview) -> int:
        half = len(data) // 2
        self._state.count("write", self._name, torn=lambda: self._file.write(data[:half]))
        self._state.wrote(self._name, half)
        return int(self._file.write(data))


def _watched_store(state: Faults, init: Any) -> Any:
    """`Store.__init__`, whose file system is watched."""

    def watched(self: Store, *rest: Any, **options: Any) -> None:
        init(self, *rest, **options)
        self._fs = _FileSystem(self._fs, state)

    return watched


class _FileSystem:
    """A file system of pyarrow, watched."""

    def __init__(self, real: Any, state: Faults) -> None:
        self._real, self._state = real, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_file_info(self, what: Any) -> Any:
        if isinstance(what, list):
            return self._real.get_file_info(what)
        path = what if isinstance(what, str) else what.base_dir
        if (name := self._state.below(path)) is not None:
            self._state.count("look" if isinstance(what, str) else "list", name)
        return self._real.get_file_info(what)

    def open_input_file(self, path: str) -> Any:
        if (name := self._state.below(path)) is not None:
            self._state.count("open", name)
        return self._real.open_input_file(path)

    def delete_file(self, path: str) -> None:
        name = self._state.below(path)
        if name is None:
            self._real.delete_file(path)
            return
        self._state.count("delete", name)
        spare = self._state.copy(name)
        self._real.delete_file(path)
        if spare is not None:
            self._state.pending(name, lambda: Path(spare).replace(name))

    def open_output_stream(self, path: str) -> Any:
        if (name := self._state.below(path)) is None:
            return self._real.open_output_stream(path)
        self._state.count("put", name)
        return _Upload(self._real, name, self._state)


class _Upload:
    """A remote file that is being written; the store shows it when it is closed."""

    def __init__(self, real: Any, name: str, state: Faults) -> None:
        self._real, self._name, self._state, self._data = real, name, state, b""

    def __enter__(self) -> _Upload:
        return self

    def write(self, data: Any) -> None:
        self._state.count("write", self._name)
        self._data += bytes(data)

    def __exit__(self, kind: Any, *problem: object) -> None:
        if kind is None:
            self._state.count("commit", self._name)
            with self._real.open_output_stream(self._name) as stream:
                stream.write(self._data)
