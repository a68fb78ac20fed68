"""Memory that is used again. Fresh pages cost ten times what the bytes written to them cost, so decoders write into
buffers that come back.

A buffer comes back only when nobody holds an array on it any more: Python refuses to release a memoryview that is still
in use, and the pool then lets that buffer go instead of reusing it. Arrays therefore never change under their owner.
"""

from __future__ import annotations

import threading

_SMALLEST = 1 << 12


class BufferPool:
    """Buffers by size class (powers of two), shared by threads.

    Args:
        limit: bytes kept for reuse at most.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._free: dict[int, list[bytearray]] = {}
        self._kept = 0
        self._limit = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> tuple[bytearray, memoryview]:
        """A buffer and a view of its first `size` bytes (not zeroed)."""
        rank = max(_SMALLEST, 1 << max(0, size - 1).bit_length())
        with self._lock:
            free = self._free.get(rank)
            buffer = free.pop() if free else None
            if buffer is not None:
                self._kept -= rank
        if buffer is None:
            buffer = bytearray(rank)
        return buffer, memoryview(buffer)[:size]

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back that nobody uses."""
        with self._lock:
            if self._kept + len(buffer) <= self._limit:
                self._free.setdefault(len(buffer), []).append(buffer)
                self._kept += len(buffer)


class Lease:
    """The buffers of one scene; `allocate` has the signature decoders ask for."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._held: list[tuple[bytearray, memoryview]] = []

    def allocate(self, size: int) -> memoryview:
        buffer, view = self._pool.take(size)
        self._held.append((buffer, view))
        return view

    def end(self) -> bool:
        """Give back what is no longer in use; True if that was everything."""
        still = []
        for buffer, view in self._held:
            try:
                view.release()
            except BufferError:
                still.append((buffer, view))
            else:
                self._pool.give(buffer)
        self._held = still
        return not still
