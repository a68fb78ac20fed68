"""Rooms small enough to probe in a second: a floor, walls, and boxes of two kinds that only colour tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Identity, Points, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

CLASSES = ("wall", "floor", "table", "chair")
COLOURS = np.array([(200, 200, 190), (120, 80, 40), (200, 40, 40), (40, 60, 200)], float)


def room(number: int, *, split: str = "train", points: int = 600, normals: bool = True) -> Scene:
    """A room of 4 x 4 x 2 metres with four boxes."""
    rng = np.random.default_rng((11, number))
    ids = np.array([taxonomy("scannet20").classes.index(name) for name in CLASSES])
    kind = rng.choice(4, points, p=[0.3, 0.3, 0.2, 0.2])
    xyz, normal = rng.uniform(0, 4, (points, 3)), np.zeros((points, 3))
    floor, wall = kind == 1, kind == 0
    xyz[floor, 2], normal[floor] = 0, (0, 0, 1)
    side = rng.integers(0, 2, points)
    xyz[wall, 2] = rng.uniform(0, 2, wall.sum())
    xyz[wall & (side == 0), 0] = 0
    xyz[wall & (side == 1), 1] = 0
    normal[wall & (side == 0), 0] = normal[wall & (side == 1), 1] = 1
    corners = rng.uniform(0.6, 3.2, (4, 2))
    for box, what in enumerate((2, 2, 3, 3)):
        own = (kind == what) & (rng.integers(0, 2, points) == box % 2)
        xyz[own, :2] = corners[box] + rng.uniform(0, 0.6, (own.sum(), 2))
        xyz[own, 2], normal[own] = 0.6, (0, 0, 1)
    color = COLOURS[kind] + rng.normal(0, 20, (points, 3))
    return Scene(
        identity=Identity(
            dataset="scannet", version="1", split=split, sequence=f"scene{number:04d}",
            scene_id=f"scene{number:04d}_00",
            timestamp_ns=None, domain="indoor", licence="CC0-1.0",
        ),
        world_from_scene=np.eye(4),
        points=Points(
            xyz=xyz.astype(np.float32),
            color=np.clip(color, 0, 255).astype(np.uint8),
            normal=normal.astype(np.float32) if normals else None,
            normal_source="drawn" if normals else None,
            semantic={"scannet20": ids[kind].astype(np.int16)},
        ),
    )  # fmt: skip


def room_corpus(folder: Path, *, train: int = 4, val: int = 2, points: int = 600, normals: bool = True) -> Corpus:
    """A committed corpus of rooms."""
    store, fingerprint = Store(folder), {"rooms": [train, val, points, normals]}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    scenes = [room(i, points=points, normals=normals) for i in range(train)]
    scenes += [room(1000 + i, split="val", points=points, normals=normals) for i in range(val)]
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)
