"""What a task costs where it runs: seconds of each stage and of each scene, and the most memory it held."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SLOWEST = 3
"""Scenes of a task that are named with their seconds."""


@dataclass(frozen=True)
class Cost:
    """What a task cost.

    Attributes:
        host, process: where it ran.
        began, ended: seconds since 1970, of that machine's clock.
        stages: name -> seconds of "read", "normals", "superpixels", "correspondences", "encode" and "write".
        slowest: (key, seconds) of the scenes that took longest.
        memory_bytes: the most that its process held at a time, libraries included.
    """

    host: str
    process: int
    began: float
    ended: float
    stages: dict[str, float]
    slowest: tuple[tuple[str, float], ...]
    memory_bytes: int


@dataclass
class Meter:
    """Runs along with a task, in its process."""

    began: float = field(default_factory=time.time)
    stages: dict[str, float] = field(default_factory=dict)
    scenes: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with suppress(OSError):  # from here on the kernel's high-water mark is this task's, not the one's before
            Path("/proc/self/clear_refs").write_text("5")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside, also where it fails."""
        with _added(self.stages, name):
            yield

    @contextmanager
    def scene(self, key: str) -> Iterator[None]:
        """Time the making of a scene, all tries together."""
        with _added(self.scenes, key):
            yield

    def cost(self) -> Cost:
        """So far."""
        slowest = sorted(self.scenes.items(), key=lambda item: (-item[1], item[0]))[:SLOWEST]
        return Cost(
            socket.gethostname(), os.getpid(), self.began, time.time(), dict(self.stages), tuple(slowest), _peak()
        )


@contextmanager
def _added(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin


def _peak() -> int:
    with suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
