"""One S3 client for an endpoint and its credentials, shared by every store of the process, made within bounded time.

pyarrow makes a client under a lock that every request of the process holds while it is under way, whichever client it
belongs to. So a request that was abandoned but still drips (see `shards.retry`) keeps new clients from being made, and
16 threads that read without a pause do so too, for as long as they read. Therefore: what has a client already never
waits for another; for a new one our own requests hold back for a moment, up to `_QUIET_S`; and where that does not
help, the wait ends in an error.

pyarrow's clean-up at the end of the process takes the same lock. Where it would wait for an abandoned request, the
process ends without it, with its own exit status (on Linux with glibc).

Limits: each request abandoned and not ended keeps one of the client's 25 connections. Memory: clients are kept for
good, a few hundred kB each; a job has one or two.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

import pyarrow.fs as pafs

from brickyard.shards.retry import abandoned

_QUIET_S = 5.0
"""Requests begin again after so long, whether the client is there or not."""

_clients: dict[Hashable, Future[pafs.FileSystem]] = {}
_lock = threading.Lock()
_quiet = threading.Event()
_quiet.set()


def shared(key: Hashable, make: Callable[[], pafs.FileSystem], seconds: float) -> pafs.FileSystem:
    """The process's client for `key`, made by `make` where there is none yet.

    Raises:
        TimeoutError: it could not be made within so many seconds. It is made as soon as it can be; asking again helps.
        Exception: what `make` raised; the next call tries again.
    """
    key = (os.getpid(), key)  # a forked child must not talk over its parent's connections
    with _lock:
        future = _clients.get(key)
        if new := future is None:
            future = _clients[key] = Future()
    if new:
        threading.Thread(target=_make, args=(key, make, future), name="brickyard-client", daemon=True).start()
        _hold_back(future, min(seconds, _QUIET_S))
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():  # raised by `make`
            raise
        busy = f"; {count} abandoned request(s) have not ended" if (count := abandoned()) else ""
        why = f"pyarrow makes none while another request of this process is under way{busy}"
        raise TimeoutError(f"no S3 client within {seconds:g} s ({why}): try again later") from None


def admit() -> None:
    """Wait, for a moment at most, while a client is being made. To be called before every request."""
    _quiet.wait(_QUIET_S)


def _make(key: Hashable, make: Callable[[], pafs.FileSystem], future: Future[pafs.FileSystem]) -> None:
    try:
        future.set_result(make())
    except BaseException as problem:  # handed to those who wait
        with _lock:
            _clients.pop(key, None)
        future.set_exception(problem)


def _hold_back(future: Future[Any], seconds: float) -> None:
    """Let no request begin until the client is there."""
    _quiet.clear()
    try:
        future.exception(seconds)
    except TimeoutError:
        pass
    finally:
        _quiet.set()


def _leave() -> None:
    """End the process although a request has not ended: neither wait for it nor tear down the SDK under its feet.

    glibc hands the exit status to `on_exit`'s functions, the one registered last first: here `_exit` itself. Elsewhere
    the process ends when its requests do.
    """
    if not abandoned():
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        atexit.unregister(pafs.ensure_s3_finalized)
        library.on_exit(library._exit, None)


atexit.register(_leave)  # runs before pyarrow's clean-up, which was registered earlier
