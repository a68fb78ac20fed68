"""One door to bytes: raw datasets and corpora, on a local disk or an object store, through `pyarrow.fs`.

A `Store` is a root (a path or URI) and the few operations everything else is built from. Paths inside it are relative,
with forward slashes; a path that leaves the root is refused. Local ranges are read with `preadv` into the caller's
memory, because fresh pages cost ten times what the read itself costs. A file appears under its name only when it is
whole: written to a temporary name, flushed to the disk, renamed, and the folder flushed.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.fs as pafs
import xxhash

from shards.errors import BrickyardError, CorpusError

TEMPORARY = ".partial-"
"""Prefix of the name of a file that is still being written; readers ignore such files, builds remove them."""

_OPEN_FILES = 128

Readable: TypeAlias = bytes | bytearray | memoryview | Any
"""Anything with the buffer protocol, `pyarrow.Buffer` included."""


def digest64(data: Readable) -> int:
    """xxh3-64 of the bytes, the digest recorded for every blob (24 GB/s a core: checking every read is free)."""
    return xxhash.xxh3_64_intdigest(memoryview(data))


class Store:
    """A folder on a local disk or an object store.

    Args:
        root: local path or URI that `pyarrow.fs` understands (s3://, gs://, file:// ...).
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if "://" in text:
            try:
                self._fs, self._root = pafs.FileSystem.from_uri(text)
            except (pa.ArrowException, OSError) as problem:
                raise CorpusError(f"{text} is no address this program can open: {problem}") from problem
        else:
            self._fs, self._root = pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
        self.local = isinstance(self._fs, pafs.LocalFileSystem)
        self.uri = self._root if self.local else text
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    def path(self, name: str) -> str:
        """Full path of `name`; raises `BrickyardError` for an absolute name or one with '..' in it."""
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
            raise BrickyardError(f"refused path {name!r}: it leaves the folder {self.uri}")
        return f"{self._root}/{name}" if name else self._root

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is no such file."""
        info = self._fs.get_file_info(self.path(name))
        return int(info.size) if info.type == pafs.FileType.File else None

    def exists(self, name: str = "") -> bool:
        return bool(self._fs.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def list(self, name: str = "") -> list[str]:
        """Sorted names directly inside a folder (empty if it does not exist), folders with a trailing slash."""
        full = self.path(name)
        infos = self._fs.get_file_info(pafs.FileSelector(full, allow_not_found=True))
        return sorted(i.base_name + ("/" if i.type == pafs.FileType.Directory else "") for i in infos)

    def sizes(self, name: str = "") -> dict[str, int]:
        """File name -> bytes, for the files directly inside a folder, by one listing."""
        infos = self._fs.get_file_info(pafs.FileSelector(self.path(name), allow_not_found=True))
        return {i.base_name: int(i.size) for i in infos if i.type == pafs.FileType.File}

    def walk(self, name: str = "") -> Iterator[str]:
        """Names (relative to the store) of all files below a folder, sorted."""
        infos = self._fs.get_file_info(pafs.FileSelector(self.path(name), allow_not_found=True, recursive=True))
        for full in sorted(i.path for i in infos if i.type == pafs.FileType.File):
            yield full[len(self._root) + 1 :] if full.startswith(self._root) else full

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        if self.local:
            return Path(self.path(name)).read_bytes()
        with self._fs.open_input_file(self.path(name)) as file:
            return bytes(file.read())

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends before."""
        buffer = bytearray(length)
        return bytes(buffer[: self.read_into(name, offset, memoryview(buffer))])

    def read_into(self, name: str, offset: int, memory: memoryview) -> int:
        """Fill `memory` from `offset`; returns the bytes read (short where the file ends). Safe from many threads."""
        handle = self._handle(name)
        if self.local:
            done = 0
            while done < len(memory):
                count = os.preadv(handle.descriptor, [memory[done:]], offset + done)
                if count == 0:
                    break
                done += count
            return done
        data = handle.read_at(len(memory), offset)
        memory[: len(data)] = data
        return len(data)

    def _handle(self, name: str) -> Any:
        """An open file. The least recently used ones are let go, and close when their last reader does so too."""
        with self._lock:
            handle = self._open.get(name)
            if handle is None:
                full = self.path(name)
                handle = _LocalFile(full) if self.local else self._fs.open_input_file(full)
                self._open[name] = handle
            self._open.move_to_end(name)
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return handle

    def write(self, name: str, data: Readable) -> None:
        """Write a whole file so that it is either there with all its bytes or not there."""
        full = self.path(name)
        if not self.local:
            with self._fs.open_output_stream(full) as stream:
                stream.write(data)
            return
        target = Path(full)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{target.name}"
        with temporary.open("wb") as file:
            file.write(memoryview(data))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)

    def delete(self, name: str) -> None:
        self._fs.delete_file(self.path(name))

    def close(self) -> None:
        """Let go of open files."""
        with self._lock:
            self._open.clear()


class _LocalFile:
    """A descriptor that closes when nobody refers to it any more, so that no reader ever holds a reused one."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
