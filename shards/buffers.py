"""Memory that is used again. Fresh pages cost ten times what the bytes written to them cost, so decoders write into
buffers that come back.

A buffer comes back only when nobody holds an array on it any more, which its reference count tells; until then the pool
lets it be. Arrays therefore never change under their owner.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 1 << 12
_UNUSED = 2
"""Reference count of a buffer only we know: a local variable, and the argument of `getrefcount`."""


class BufferPool:
    """Buffers by size class (powers of two), shared by threads.

    Args:
        limit: bytes kept for reuse at most.

    Attributes:
        made: bytes of all buffers made so far; it stops growing once there are enough.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._free: dict[int, list[NDArray[np.uint8]]] = {}
        self._kept = self.made = 0
        self._limit = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> NDArray[np.uint8]:
        """A buffer of at least `size` bytes (not zeroed)."""
        rank = max(_SMALLEST, 1 << max(0, size - 1).bit_length())
        with self._lock:
            if free := self._free.get(rank):
                self._kept -= rank
                return free.pop()
            self.made += rank
        return np.empty(rank, np.uint8)

    def give(self, buffer: NDArray[np.uint8]) -> None:
        """Take a buffer back that nobody uses."""
        with self._lock:
            if self._kept + len(buffer) <= self._limit:
                self._free.setdefault(len(buffer), []).append(buffer)
                self._kept += len(buffer)


class Lease:
    """The buffers of one scene; `allocate` has the signature decoders ask for."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._held: list[NDArray[np.uint8]] = []

    def allocate(self, size: int) -> memoryview:
        buffer = self._pool.take(size)
        self._held.append(buffer)
        return buffer.data[:size]

    def end(self) -> bool:
        """Give back what is no longer in use; True if that was everything."""
        still = []
        while self._held:
            buffer = self._held.pop()
            if sys.getrefcount(buffer) > _UNUSED:
                still.append(buffer)
            else:
                self._pool.give(buffer)
        self._held = still
        return not still
