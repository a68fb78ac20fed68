"""Native decoders in a child process with little memory and little time, that has no file and sends messages.

A decoder written in C trusts its input: a damaged file makes it crash, loop or ask for all memory. Here that ends a
child and nothing else. The child is this file, run as a script: it limits itself, then runs the function `main` of the
script it was started for, which gets a file to read from and yields bytes. That file has no descriptor: every range is
asked of the parent, which reads it through `RawFiles`. So object stores need no copy on disk, a long film costs only
the ranges that are decoded, and what was read is recorded. No pickle: a message is one letter, a length and bytes.

A start costs 60 ms and what the script imports (PyAV: another 90 ms).
"""

from __future__ import annotations

import io
import json
import os
import resource
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HEAD = struct.Struct("<cI")
RANGE = struct.Struct("<QI")
MAX_RANGE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may take.

    Attributes:
        memory_bytes: address space, Python and libraries (about 300 MB) included.
        seconds: of processor time, and of the clock.
        answer_bytes: of all messages together.
    """

    memory_bytes: int = 2 << 30
    seconds: int = 60
    answer_bytes: int = 1 << 30


class BoundedError(Exception):
    """What became of a child that did not finish, in words for people."""


def run_bounded(
    script: Path, request: Mapping[str, Any], read: Callable[[int, int], bytes], size: int, limits: Limits
) -> Iterator[bytes]:
    """The messages that `main(file, request)` of a script yields in a child process.

    Args:
        script: a Python file with `main(file, request) -> Iterator[bytes]`; `file` has read, seek and tell.
        request: JSON-like values.
        read: (offset, length) -> exactly these bytes of the input; what it raises goes through to the caller.
        size: bytes of the input.

    Raises:
        BoundedError: `main` raised an exception (its text), or the child broke a limit or died.
    """
    with tempfile.TemporaryFile() as words:
        command = [sys.executable, "-P", __file__, str(script), str(limits.memory_bytes), str(limits.seconds)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words)
        late = threading.Event()

        def stop() -> None:
            late.set()
            child.kill()

        clock = threading.Timer(limits.seconds, stop)
        clock.daemon = True
        clock.start()
        try:
            yield from _converse(child, json.dumps(dict(request)).encode(), read, size, limits)
        except (EOFError, BrokenPipeError) as problem:
            status = child.wait()
            if late.is_set() or status == -signal.SIGXCPU:
                raise BoundedError(f"decoding took longer than {limits.seconds} s") from problem
            raise BoundedError(_last_words(words) or f"the decoder died with status {status}") from problem
        finally:
            clock.cancel()
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]
            child.wait()


def _converse(
    child: subprocess.Popen[bytes], request: bytes, read: Callable[[int, int], bytes], size: int, limits: Limits
) -> Iterator[bytes]:
    assert child.stdin is not None and child.stdout is not None
    left = limits.answer_bytes
    child.stdin.write(struct.pack("<IQ", len(request), size) + request)
    child.stdin.flush()
    while True:
        kind, length = HEAD.unpack(_exactly(child.stdout, HEAD.size))
        left -= length
        if left < 0:
            raise BoundedError(f"the decoder wrote more than {limits.answer_bytes} bytes")
        data = _exactly(child.stdout, length)
        if kind == b"R" and length == RANGE.size:
            offset, count = RANGE.unpack(data)
            offset = min(offset, size)
            child.stdin.write(read(offset, min(count, size - offset, MAX_RANGE)))
            child.stdin.flush()
        elif kind == b"M":
            yield data
        elif kind == b"E":
            raise BoundedError(data.decode("utf-8", "replace")[:300])
        elif kind == b"D":
            return
        else:
            raise BoundedError("the decoder sent nonsense")


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _last_words(words: IO[bytes]) -> str:
    words.seek(max(words.seek(0, 2) - 2000, 0))
    lines = words.read(2000).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


class ParentFile:
    """The child's side of the input: every read asks the parent."""

    def __init__(self, size: int, source: IO[bytes], sink: IO[bytes]) -> None:
        self.size, self._source, self._sink, self._place = size, source, sink, 0

    def read(self, count: int = -1) -> bytes:
        count = self.size if count < 0 else count
        count = max(0, min(count, self.size - self._place, MAX_RANGE))
        if count == 0:
            return b""
        send(self._sink, b"R", RANGE.pack(self._place, count))
        self._place += count
        return _exactly(self._source, count)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self.size)[whence])
        return self._place

    def tell(self) -> int:
        return self._place


def send(sink: IO[bytes], kind: bytes, data: bytes) -> None:
    sink.write(HEAD.pack(kind, len(data)) + data)
    sink.flush()


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]  # cannot be raised again
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _child() -> None:
    script, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Whatever a library prints must not get between the messages.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 1 << 20)
    sys.path.append(str(Path(__file__).parent.parent))
    length, size = struct.unpack("<IQ", _exactly(source, 12))
    request = json.loads(_exactly(source, length))
    try:
        for message in runpy.run_path(script)["main"](ParentFile(size, source, sink), request):
            send(sink, b"M", message)
    except MemoryError:
        send(sink, b"E", f"decoding takes more than {memory >> 20} MiB of memory".encode())
    except Exception as problem:
        send(sink, b"E", (str(problem) or type(problem).__name__).encode())
    else:
        send(sink, b"D", b"")


if __name__ == "__main__":
    _child()
