"""A bounded folder on a local disk for what was fetched from far away; any number of processes may share it.

One file a blob, named by the digest of (corpus, shard, offset, length, digest), written to a temporary name and
renamed. A file's modification time is when it was last used. The lock file holds the bytes that are in use: a writer
reserves room under the lock, and where there is none it first deletes what was used least recently, down to 90 % of the
limit. Readers take no lock. The cache is never believed: whoever reads from it checks the digest, and drops what is
wrong.

Whatever a process dies of, it leaves at most a temporary file (removed by a later clean-up) and a reservation too many
(put right by it); a file deleted while another process reads it is read to its end or fetched again.

Disk: at most `max_bytes`, temporary files included, plus the file system's rounding to blocks. Memory: none that stays;
a clean-up holds about 300 bytes a file. Time: a hit is an open, a read and a stamp, about 30 us and the bytes.
"""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from brickyard.shards.atomic import TEMPORARY
from brickyard.shards.errors import CorpusError
from brickyard.shards.index import Address

_LOCK = "lock"
_KEEP = 0.9
_ABANDONED_S = 600.0
"""A temporary file so old has no writer any more."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where fetched bytes are kept.

    Attributes:
        folder: on a local disk; made if it is not there.
        max_bytes: that its files may take together.
    """

    folder: str
    max_bytes: int = 64 << 30

    def __post_init__(self) -> None:
        if self.max_bytes <= 0 or not self.folder:
            raise ValueError("a cache needs a folder and max_bytes above 0")


class Cache:
    """The blobs of one corpus in a cache folder (which other corpora may share).

    Args:
        config: folder and size.
        corpus: digest of the corpus.

    Raises:
        CorpusError: the folder cannot be used.
    """

    def __init__(self, config: CacheConfig, corpus: str) -> None:
        self.config, self._corpus = config, corpus
        self._folder = Path(config.folder).expanduser().absolute()
        self._warned = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as problem:
            raise CorpusError(f"the cache folder {self._folder} cannot be used: {problem}") from problem

    def has(self, shard: str, place: Address) -> bool:
        """Whether there is a file of the right size for a blob; one of another size is deleted."""
        try:
            size = self._path(shard, place).stat().st_size
        except OSError:
            return False
        if size != place.length:
            self.drop(shard, place)
        return size == place.length

    def get(self, shard: str, place: Address, memory: memoryview) -> bool:
        """Fill `memory` with a blob; False where it is not there. The bytes are not verified."""
        try:
            descriptor = os.open(self._path(shard, place), os.O_RDONLY)
        except OSError:
            return False
        try:
            done = 0
            while done < len(memory) and (count := os.preadv(descriptor, [memory[done:]], done)):
                done += count
            with suppress(OSError):
                os.utime(descriptor)
            return done == len(memory)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def put(self, shard: str, place: Address, data: memoryview) -> None:
        """Keep a blob. Trouble with the disk is a warning, once: reading goes on without the cache."""
        path = self._path(shard, place)
        if len(data) > self.config.max_bytes or path.exists():
            return
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{path.name}"
        try:
            path.parent.mkdir(exist_ok=True)
            self._reserve(temporary, len(data))
            with temporary.open("r+b") as file:
                file.write(data)
            temporary.replace(path)
        except OSError as problem:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._warned:
                self._warned = True
                warnings.warn(f"the cache {self._folder} cannot be written ({problem}); reading goes on", stacklevel=2)

    def drop(self, shard: str, place: Address) -> None:
        """Delete a blob whose bytes are wrong."""
        with suppress(OSError):
            self._path(shard, place).unlink()

    def _path(self, shard: str, place: Address) -> Path:
        what = f"{self._corpus}\0{shard}\0{place.offset}\0{place.length}\0{place.digest}"
        name = xxhash.xxh3_128_hexdigest(what.encode())
        return self._folder / name[:2] / name

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The lock file's descriptor, held alone among threads and processes; a dead holder's lock is free."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _reserve(self, temporary: Path, size: int) -> None:
        """Make room for a file, count it, and create it with its final size, so that every recount sees it whole."""
        with self._locked() as lock:
            text = os.pread(lock, 32, 0)
            used = int(text) if text.strip().isdigit() else self._clean(self.config.max_bytes)
            if used + size > self.config.max_bytes:
                used = self._clean(max(0, int(self.config.max_bytes * _KEEP) - size))
            with temporary.open("xb") as file:
                file.truncate(size)
            os.pwrite(lock, b"%031d\n" % (used + size), 0)

    def _clean(self, target: int) -> int:
        """Delete what was used least recently until `target` bytes are left; returns the bytes that are left."""
        found: list[tuple[int, int, str]] = []
        for folder in self._folder.iterdir():
            if folder.is_dir():
                with suppress(OSError), os.scandir(folder) as entries:
                    found += [item for entry in entries if (item := _entry(entry)) is not None]
        used = sum(size for _, size, _ in found)
        for stamp, size, path in sorted(found):
            written = Path(path).name.startswith(TEMPORARY)
            abandoned = written and stamp < time.time_ns() - int(_ABANDONED_S * 1e9)
            if abandoned or (used > target and not written):
                with suppress(OSError):
                    Path(path).unlink()
                    used -= size
        return used


def _entry(entry: os.DirEntry[str]) -> tuple[int, int, str] | None:
    """(last use in ns, bytes, path) of a file, or None where it has just gone."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, entry.path
