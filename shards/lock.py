"""One writer at a time in a folder: a lock that its holder cannot forget, however it ends.

The kernel holds it (`flock`), so it goes with the process, be it killed; the file `build.lock` that a killed writer
leaves says nothing, and the next writer takes it over. Object stores have no locks: there, what is written twice is
written with the same bytes (see `shards.build`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brickyard.shards.atomic import make_folder
from brickyard.shards.errors import CorpusError
from brickyard.shards.storage import Store

LOCK = "build.lock"


@contextmanager
def only_writer(store: Store) -> Iterator[None]:
    """Hold the lock of a local folder, which is made if need be; raises `CorpusError` if another process writes
    there."""
    if not store.local:
        yield
        return
    path = Path(store.refuse_links().path(LOCK))
    make_folder(path.parent)
    try:  # nothing is emptied: the folder may be somebody's, its lock a link to something precious
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if path.is_symlink():
            raise CorpusError(f"{path} is a link, not the lock of a build: remove it") from problem
        raise
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise CorpusError(f"another process is building in {store.uri}; wait for it or stop it") from problem
        except OSError as problem:
            where = "a file system without locks? build on another one, or mount it with them"
            raise CorpusError(f"{path} cannot be locked ({problem.strerror}): {where}") from problem
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise CorpusError(f"another process has just built in {store.uri}; run the command again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
