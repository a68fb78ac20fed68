"""Threads that never keep their program from ending: a small pool of daemons.

The pool of `concurrent.futures` waits for its threads for ever, on shutdown and again when the interpreter ends, so one
call that hangs in native code or on a dead network folder hangs the whole run. These threads are waited for only so
long: one that is still busy then is left behind, does nothing more once its call returns, and dies with the process.
Cost: about 20 us a task.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

GRACE_S = 5.0
"""How long `close` waits for calls that are under way."""

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """A number of threads that run calls in the order they were submitted.

    Args:
        name: of the threads, as stacks and debuggers show it.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks,), name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        _LIVE.add(self)

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """The future result of a call. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("these workers are closed")
        future: Future[T] = Future()
        self._tasks.put((future, call, arguments))
        return future

    def close(self, grace_s: float = GRACE_S) -> list[threading.Thread]:
        """Cancel what has not begun and wait for the rest; returns the threads that are still busy after the grace."""
        self._closed = True
        with contextlib.suppress(Empty):
            while True:
                if (task := self._tasks.get_nowait()) is not None:
                    task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + grace_s
        for thread in self._threads:
            if thread is not threading.current_thread():  # a generator may be collected anywhere
                thread.join(max(0.0, deadline - time.monotonic()))
        _LIVE.discard(self)
        return [thread for thread in self._threads if thread.is_alive()]


_LIVE: weakref.WeakSet[Workers] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A daemon that runs while the interpreter is taken down may crash it: end them before."""
    for workers in list(_LIVE):
        workers.close(GRACE_S)


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        future, call, arguments = task
        if future.set_running_or_notify_cancel():
            try:
                result = call(*arguments)
            except BaseException as problem:
                future.set_exception(problem)
            else:
                future.set_result(result)
                del result
        del task, future, call, arguments  # an idle thread must not keep the last scene alive


def stacks() -> str:
    """The Python stack of every thread, with names, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "".join(
        f"Thread {names.get(ident, '?')} ({ident}):\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
