"""One door to bytes: raw datasets and corpora, on a local disk or an object store, through `pyarrow.fs`.

A `Store` is a root (a path or URI) and the few operations everything else is built from. Paths inside it are relative,
with forward slashes; a path that leaves the root is refused. Local ranges are read with `preadv` into the caller's
memory, because fresh pages cost ten times what the read itself costs. A file appears under its name only when it is
whole: written to a temporary name, flushed to the disk, renamed, and the folder flushed.

A remote store (s3://, gs://, ...) answers every request within bounded time or raises (see `shards.retry`). Ranges are
positional reads over shared handles, from any number of threads; one longer than 8 MiB is split, and up to 4 pieces of
a call are under way at once. Memory of a call beyond the caller's: the pieces under way, at most 4 * 8 MiB; the stores
of one S3 endpoint share up to 25 connections (see `shards.clients`). pyarrow gives no access to `Retry-After`; the
growing pauses stand in for it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow.fs as pafs
import xxhash

from brickyard.shards.atomic import Readable, remove_abandoned, write_whole
from brickyard.shards.clients import admit
from brickyard.shards.errors import BrickyardError, CorpusError
from brickyard.shards.filesystems import open_filesystem
from brickyard.shards.listing import Entry, Note, local_entries, local_files, printable, remote_entries
from brickyard.shards.retry import RetryPolicy, ShortRead, bounded, refined, retry
from brickyard.shards.uri import Location, hide

T = TypeVar("T")

_OPEN_FILES = 128
_REMOTE_HANDLES = 4096
"""A handle of a remote file is a name and a size: keeping it saves a request."""

_PIECE = 8 << 20
_PARALLEL = 4

Counts: TypeAlias = list[int]
Entries: TypeAlias = list[Entry]


def digest64(data: Readable) -> int:
    """xxh3-64 of the bytes, the digest recorded for every blob (24 GB/s a core: checking every read is free)."""
    return xxhash.xxh3_64_intdigest(memoryview(data))


class Store:
    """A folder on a local disk or an object store.

    Args:
        root: local path or URI that `pyarrow.fs` understands (s3://, gs://, file:// ...).
        retry: how long to keep asking a remote store.

    Attributes:
        local: whether it is on a disk.
        uri: where it is, fit to be shown: a `Location` hides credentials, and still opens the store it came from, also
            in another process that it was pickled to.
        rereads: how often bytes with a wrong digest are worth fetching again (a disk gives the same ones again).
        unlisted: what `list`, `sizes` and `walk` met and passed over: place (printable) -> why.
    """

    def __init__(
        self, root: str | os.PathLike[str], retry: RetryPolicy | None = None, *, bound: str | None = None
    ) -> None:
        text = os.fspath(root)
        self._bound = bound
        self.retry = retry or RetryPolicy()
        location = Location(text) if "://" in text else None
        if location is not None:
            self._fs, self._root = open_filesystem(location, self.retry)
        else:
            self._fs, self._root = pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
        self.local = isinstance(self._fs, pafs.LocalFileSystem)
        self.uri: str = self._root if self.local or location is None else location
        self.rereads = 0 if self.local else self.retry.rereads
        self.unlisted: dict[str, str] = {}
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({str(self.uri)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "retry": self.retry, "bound": self._bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"], state["retry"], bound=state["bound"])  # type: ignore[misc]

    def _ask(self, call: Callable[[], T]) -> T:
        """The value of a request; a remote one is tried again as the policy says, and never hangs."""
        if self.local:
            return call()

        def attempt() -> T:
            admit()
            return bounded(call, self.retry.request_s)

        try:
            return retry(attempt, self.retry)
        except OSError as problem:
            shown = hide(str(problem), self.uri.whole) if isinstance(self.uri, Location) else str(problem)
            if shown == str(problem):
                raise
            failure = type(refined(problem))(shown)
        raise failure  # without the cause, whose text has credentials in it

    def path(self, name: str) -> str:
        """Full path of `name`; raises `BrickyardError` for an absolute name or one with '..' in it."""
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
            raise BrickyardError(f"refused path {name!r}: it leaves the folder {self.uri}")
        return f"{self._root}/{name}" if name else self._root

    def refuse_links(self) -> Store:
        """From now on this store is one of files that we alone put there, a corpus: a link in it that leads out of the
        folder is refused by every method, with a `CorpusError`. The folder itself may be a link. Returns the store."""
        if self.local and self._bound is None:
            self._bound = os.path.realpath(self._root)
        return self

    def _inside(self, name: str, *, itself: bool = True) -> str:
        """`path`, checked for links that lead out; of a name that is replaced or deleted (not `itself`), its folder."""
        full = self.path(name)
        if self._bound is not None and name:
            real = os.path.realpath(full if itself else Path(full).parent)
            if real != self._bound and not real.startswith(self._bound.rstrip("/") + "/"):
                raise CorpusError(
                    f"{full} is, or lies behind, a link out of the folder ({real}): "
                    "what belongs to a corpus lies in its folder, put a copy there"
                )
        return full

    def below(self, name: str) -> Store:
        """The store of a folder inside this one."""
        full = self.path(name)
        if self.local:
            return Store(full, self.retry, bound=self._bound)
        place, mark, query = (self.uri.whole if isinstance(self.uri, Location) else self.uri).partition("?")
        return Store(f"{place.rstrip('/')}/{name}{mark}{query}", self.retry)

    def _entries(self, name: str) -> Entries:
        """What is directly inside a folder; what it cannot list is noted in `unlisted`. A folder of a corpus that
        cannot be listed raises: taken for empty, what is committed would be done again, or deleted."""
        full = self._inside(name)
        if self.local:
            return local_entries(full, self._noting(name), strict=self._bound is not None)
        return self._remote(full, self._noting(name), recursive=False)

    def _remote(self, full: str, note: Note, *, recursive: bool) -> Entries:
        selector = pafs.FileSelector(full, allow_not_found=True, recursive=recursive)
        return remote_entries(self._ask(lambda: self._fs.get_file_info(selector)), full, note)

    def _noting(self, name: str) -> Note:
        def note(place: str, why: str) -> None:
            self.unlisted[printable("/".join(part for part in (name.rstrip("/"), place) if part))] = why

        return note

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is no such file."""
        with self._lock:
            handle = None if self.local else self._open.get(name)
        if handle is not None:
            return int(handle.size())
        full = self._inside(name)
        info = self._ask(lambda: self._fs.get_file_info(full))
        return int(info.size) if info.type == pafs.FileType.File else None

    def exists(self, name: str = "") -> bool:
        full = self._inside(name)
        return bool(self._ask(lambda: self._fs.get_file_info(full)).type != pafs.FileType.NotFound)

    def list(self, name: str = "") -> list[str]:
        """Sorted names directly inside a folder (empty if it does not exist), folders with a trailing slash."""
        return sorted(entry.name + ("/" if entry.kind == "folder" else "") for entry in self._entries(name))

    def sizes(self, name: str = "") -> dict[str, int]:
        """File name -> bytes, for the files directly inside a folder, by one listing."""
        return {entry.name: entry.size for entry in self._entries(name) if entry.kind == "file"}

    def age(self, name: str, by: str) -> float:
        """Seconds by which a file is older than the file `by`, by the clock of the store; 0 where it does not say."""
        places = [self._inside(name), self._inside(by)]
        then, now = (info.mtime for info in self._ask(lambda: self._fs.get_file_info(places)))
        return 0.0 if then is None or now is None else float((now - then).total_seconds())

    def walk(self, name: str = "") -> Iterator[str]:
        """Names (relative to the store) of all files below a folder, sorted; each folder once, whatever links lead to
        it (see `shards.listing`)."""
        full, note = self._inside(name), self._noting(name)
        if self.local:
            found = local_files(full, note)
        else:
            found = sorted(e.name for e in self._remote(full, note, recursive=True) if e.kind == "file")
        yield from (f"{name.rstrip('/')}/{file}" for file in found) if name else found

    def read(self, name: str, whole: Callable[[bytes], bool] = lambda data: True, *, most: int | None = None) -> bytes:
        """All bytes of a file; from a remote store once more while `whole` says that they are damaged. A file of more
        than `most` bytes is a `CorpusError`."""
        if self.local:
            with open(_regular(self._inside(name)), "rb") as file:
                self._check_size(name, os.fstat(file.fileno()).st_size, most)
                return file.read()
        for _ in range(self.rereads + 1):
            self._forget(name)  # small files, such as a manifest, may be replaced
            size = self._ask(lambda: self._handle(name).size())
            self._check_size(name, size, most)
            memory = bytearray(size)
            data = bytes(memoryview(memory)[: self.read_into(name, 0, memoryview(memory))])
            if whole(data):
                break
        return data

    def _check_size(self, name: str, size: int, most: int | None) -> None:
        if most is not None and size > most:
            raise CorpusError(f"{self.uri}/{name} has {size} bytes, more than it may have ({most})")

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends before."""
        if not self.local:
            buffer = bytearray(length)
            return bytes(memoryview(buffer)[: self.read_into(name, offset, memoryview(buffer))])
        handle = self._handle(name)
        data = os.pread(handle.descriptor, length, offset)
        while len(data) < length and (more := os.pread(handle.descriptor, length - len(data), offset + len(data))):
            data += more
        return data

    def read_into(self, name: str, offset: int, memory: memoryview) -> int:
        """Fill `memory` from `offset`; returns the bytes read (short where the file ends). Safe from many threads."""
        if not self.local:
            return self.read_ranges(name, [(offset, memory)])[0]
        handle, done = self._handle(name), 0
        while done < len(memory):
            count = os.preadv(handle.descriptor, [memory[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, memoryview]]) -> Counts:
        """`read_into` for several (offset, memory) of one file, together where the store is remote."""
        if self.local:
            return [self.read_into(name, offset, memory) for offset, memory in ranges]
        pieces = [
            (number, offset + start, memory[start : start + _PIECE])
            for number, (offset, memory) in enumerate(ranges)
            for start in range(0, len(memory), _PIECE)
        ]
        if len(pieces) <= 1:
            counts = [self._read_piece(name, offset, memory) for _, offset, memory in pieces]
        else:
            with ThreadPoolExecutor(min(_PARALLEL, len(pieces)), thread_name_prefix="brickyard-read") as pool:
                counts = list(pool.map(lambda piece: self._read_piece(name, *piece[1:]), pieces))
        totals = [0] * len(ranges)
        for (number, _, _), count in zip(pieces, counts, strict=True):
            totals[number] += count
        return totals

    def _read_piece(self, name: str, offset: int, memory: memoryview) -> int:
        """One request of a remote file."""

        def request() -> bytes:
            handle = self._handle(name)
            wanted = max(0, min(len(memory), handle.size() - offset))
            data: bytes = handle.read_at(wanted, offset) if wanted else b""
            if len(data) != wanted:
                raise ShortRead(f"{len(data)} of {wanted} bytes at {offset} of {name} came")
            return data

        data = self._ask(request)
        memory[: len(data)] = data
        return len(data)

    def _handle(self, name: str) -> Any:
        """An open file. The least recently used ones are let go, and close when their last reader does so too."""
        with self._lock:
            if (handle := self._open.get(name)) is not None:
                self._open.move_to_end(name)
                return handle
        full = self._inside(name)  # opened outside the lock: a request must not make other files wait
        handle = _LocalFile(full) if self.local else self._fs.open_input_file(full)
        with self._lock:
            handle = self._open.setdefault(name, handle)
            self._open.move_to_end(name)
            while len(self._open) > (_OPEN_FILES if self.local else _REMOTE_HANDLES):
                self._open.popitem(last=False)
            return handle

    def _forget(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)

    def write(self, name: str, data: Readable) -> None:
        """Write a whole file so that it is either there with all its bytes or not there."""
        full = self._inside(name, itself=False)
        if not self.local:
            self._forget(name)
            self._ask(lambda: self._upload(full, data))
            return
        write_whole(Path(full), data)

    def _upload(self, full: str, data: Readable) -> None:
        """One attempt to write a remote file. An object store shows it when its last byte has arrived."""
        with self._fs.open_output_stream(full) as stream:
            stream.write(data)
        size, wanted = self._fs.get_file_info(full).size, memoryview(data).nbytes
        if size != wanted:
            raise ShortRead(f"{size} of {wanted} bytes of {full} arrived")

    def delete(self, name: str) -> None:
        full = self._inside(name, itself=False)
        self._forget(name)
        self._ask(lambda: self._fs.delete_file(full))

    def delete_abandoned(self, name: str) -> bool:
        """Delete a temporary file unless a process is writing it; returns whether it did."""
        if self.local:
            return remove_abandoned(Path(self._inside(name, itself=False)))
        self.delete(name)
        return True

    def close(self) -> None:
        """Let go of open files."""
        with self._lock:
            self._open.clear()


class _LocalFile:
    """A descriptor that closes when nobody refers to it any more, so that no reader ever holds a reused one."""

    def __init__(self, path: str) -> None:
        self.descriptor = _regular(path)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _regular(path: str) -> int:
    """A descriptor of a file. A pipe or a device in a file's place could hold its reader up for ever: it is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "there is no regular file", path)
    return descriptor
