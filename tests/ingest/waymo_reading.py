"""Planning and reading the toy drive of either Waymo release, and damaging its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ingest.source import Missing, SceneRef
from ingest.waymo import v1, v2
from ingest.waymo.frame import Options
from shards.errors import RawDataError
from shards.scene import Scene
from shards.storage import Store
from tests.ingest import waymo_toy as toy

SOURCES = {"v1": v1.SOURCE, "v2": v2.SOURCE}


def write(release: str, root: Path, frames: list[toy.ToyFrame]) -> Path:
    return (toy.write_v1 if release == "v1" else toy.write_v2)(root, frames)


def planned(release: str, root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCES[release].plan(Store(root), options or Options(cameras=("FRONT", "SIDE_LEFT"))))


def refs(release: str, root: Path, options: Options | None = None) -> list[SceneRef]:
    items = planned(release, root, options)
    assert all(isinstance(item, SceneRef) for item in items), items
    return [item for item in items if isinstance(item, SceneRef)]


def scene_of(release: str, root: Path, frames: list[toy.ToyFrame], options: Options | None = None) -> Scene:
    write(release, root, frames)
    return SOURCES[release].read(refs(release, root, options)[-1])


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Flipped, cut, extended, and with a run of bytes overwritten."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        place = int(rng.integers(len(data)))
        tail = int(rng.integers(1, 9))
        found.append((
            data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :],
            data[:place],
            data[:place] + rng.bytes(tail) + data[place:],
            data[:place] + rng.bytes(tail) + data[place + tail :],
            data[:place] + b"\xff" * tail + data[place + tail :],
        )[number % 5])  # fmt: skip
    return found


def survives(read: Callable[[], Scene]) -> bool:
    """Whether a read gave a Scene; any error but `RawDataError` fails the test."""
    try:
        read()
    except RawDataError:
        return False
    return True
