"""Local files that are there with all their bytes or not there, whatever happens while they are written."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path
from typing import Any, TypeAlias

TEMPORARY = ".partial-"
"""Prefix of the name of a file that is still being written; readers ignore such files, builds remove them."""

Readable: TypeAlias = bytes | bytearray | memoryview | Any
"""Anything with the buffer protocol, `pyarrow.Buffer` included."""


def write_whole(target: Path, data: Readable) -> None:
    """Write a local file so that it is either there with all its bytes, whatever happens, or not there.

    The bytes go to a temporary name beside it, which the next writer of the same file takes over if this one is killed;
    a write that fails removes it. Folders that are not there are made.
    """
    make_folder(target.parent)
    descriptor, temporary = _open_temporary(target)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            file.truncate()
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    flush(target.parent)


def _open_temporary(target: Path) -> tuple[int, Path]:
    """An open temporary file for a target, locked while its writer lives.

    Its name is the same each time, so what a killed writer left is found again. Where another writer holds it (or the
    file system knows no locks), this one takes a name of its own.
    """
    names = [f"{TEMPORARY}{target.name}", f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{target.name}"]
    for path in (target.with_name(name) for name in names):
        last = path.name == names[-1]
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError:
            if last:
                raise
            continue
        if _is_mine(descriptor, path) or last:
            return descriptor, path
        if _lock(descriptor) is None:
            path.unlink(missing_ok=True)  # where nothing can be locked, nobody writes under this name
        os.close(descriptor)
    raise AssertionError("unreachable: the last name is returned or raises")


def _is_mine(descriptor: int, path: Path) -> bool:
    """Whether this process now holds the lock of the temporary file of that name, a regular file without other names
    (a link's other end must not be written)."""
    try:
        if not _lock(descriptor):
            return False
        mine, there = os.fstat(descriptor), path.lstat()
    except OSError:
        return False
    same = (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
    return same and stat.S_ISREG(mine.st_mode) and mine.st_nlink == 1


def remove_abandoned(temporary: Path) -> bool:
    """Remove a temporary file unless a process is writing it; returns whether it did."""
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # a link, a folder, a file of another user: no writer of ours is at it
        return _removed(temporary)
    try:  # while it is locked, no new writer takes it over
        return _lock(descriptor) is not False and _removed(temporary)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether this process has locked the file now, or else another one has; None where files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _removed(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each flushed into the one that holds it."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        flush(path.parent)


def flush(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
