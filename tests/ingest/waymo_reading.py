"""Planning and reading the toy drive of either Waymo release."""

from __future__ import annotations

from pathlib import Path

from brickyard.ingest.source import Missing, SceneRef
from brickyard.ingest.waymo import v1, v2
from brickyard.ingest.waymo.frame import Options
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
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
