"""What is measured: real scans where the samples are, simulated ones of the same make elsewhere.

Two real rooms are few. A corpus is made of turned and shifted copies of them: each keeps the scan's sampling pattern,
noise and point order, on which compression depends, but has coordinates, normals and a quantisation grid of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.conftest import _SAMPLES

SIMULATED = SimulationConfig(
    scannet_rooms=2, scannet_frames=1, scannet_spacing=0.04, nuscenes_scenes=1, nuscenes_keyframes=1,
    nuscenes_sweeps=0, nuscenes_columns=1080,
)  # fmt: skip
OPTIONS = {"scannet": {"frames_every": 1}}
"""The sample's stream has only a few frames: all of them are taken."""
LABELS = "scannet20"


@dataclass(frozen=True)
class Material:
    """Scenes, and where they come from, in words that go into the results."""

    origin: str
    scenes: tuple[Scene, ...]


def material(dataset: str) -> Material:
    """All scenes of the samples of "scannet" or "nuscenes", or of a simulated world if there are none."""
    if (_SAMPLES / dataset).is_dir():
        scenes = _read(dataset, _SAMPLES / dataset)
        return Material(f"{len(scenes)} real {dataset} scene{'s'[: len(scenes) - 1]}", scenes)
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder), datasets=(dataset,), config=SIMULATED)
        scenes = _read(dataset, Path(folder) / dataset)
    return Material(f"{len(scenes)} simulated {dataset} scene{'s'[: len(scenes) - 1]}", scenes)


def _read(dataset: str, root: Path) -> tuple[Scene, ...]:
    source = find_source(dataset)
    options = source.options(**OPTIONS.get(dataset, {}))
    return tuple(source.read(item) for item in source.plan(Store(root), options) if isinstance(item, SceneRef))


def room_copy(rooms: Sequence[Scene], number: int) -> Scene:
    """Copy `number` of a room: points alone, with colour, normal and one label set."""
    scene = rooms[number % len(rooms)]
    points = scene.points
    assert points is not None and points.normal is not None
    rng = np.random.default_rng(number)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    normal = points.normal @ turn.T
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    copied = replace(
        points,
        xyz=(points.xyz @ turn.T + rng.uniform(-1, 1, 3)).astype(np.float32),
        normal=(normal / np.where(length == 0, 1, length)).astype(np.float32),
        semantic={LABELS: points.semantic[LABELS]},
        instance=None,
    )
    identity = replace(scene.identity, scene_id=f"{scene.identity.scene_id}-{number:05d}", sources=())
    return replace(scene, identity=identity, points=copied, views=())
