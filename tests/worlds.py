"""Small scenes made by hand, for tests that need any scene at all."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.containers import ContainerName
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import (
    Correspondences,
    Depth,
    Identity,
    Part,
    Points,
    RollingShutter,
    Scene,
    Superpixels,
    View,
)
from brickyard.shards.storage import Store


def toy_view(rng: np.random.Generator, number: int, points: int, *, depth: bool = False) -> View:
    width, height = 64, 40
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    chosen = np.sort(rng.choice(points, points // 4, replace=False)).astype(np.int32)
    columns = rng.integers(0, width, len(chosen))
    rows = rng.integers(0, height, len(chosen))
    later = np.random.default_rng(number)  # its own: the older fields stay as they were
    blocks = rng.integers(0, 150, (height // 8, width // 8)).astype(np.uint16)
    return View(
        name=f"camera-{number}",
        image=data.getvalue(),
        image_format="png",
        width=width,
        height=height,
        intrinsics=np.array([[50.0, 0, 32], [0, 50.0, 20], [0, 0, 1]]),
        scene_from_camera=np.eye(4),
        timestamp_ns=1_000_000_007 * number,
        rolling_shutter=RollingShutter(
            direction="right", readout_s=0.044, velocity=later.normal(size=3), angular_velocity=np.full(3, 0.05)
        ) if number == 0 else None,
        semantic={"nuscenes16": later.integers(-1, 16, (height, width)).astype(np.int16)} if number == 0 else {},
        instance=later.integers(0, 70_000, (height, width)).astype(np.int32) if number == 0 else None,
        depth=Depth(
            values=rng.integers(0, 5000, (30, 40), dtype=np.uint16), scale=0.001, intrinsics=np.eye(3)
        ) if depth else None,
        superpixels=Superpixels(labels=np.kron(blocks, np.ones((8, 8), np.uint16)), provenance="blocks of 8"),
        pairs=Correspondences(
            point=chosen,
            pixel=np.stack([columns, rows], axis=1).astype(np.uint16),
            depth=rng.uniform(1, 60, len(chosen)).astype(np.float32),
            visible=rng.random(len(chosen)) < 0.8,
            provenance="drawn",
        ),
    )  # fmt: skip


def toy_scene(number: int = 0, *, points: int = 400, views: int = 2, split: str = "train") -> Scene:
    """A scene with every modality the contract knows, different for every number."""
    rng, later = np.random.default_rng(number), np.random.default_rng(number)
    normal = rng.normal(size=(points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal[0] = 0
    return Scene(
        identity=Identity(
            dataset="toy", version="1", split=split, sequence=f"walk-{number // 4}", scene_id=f"scene-{number:03d}",
            timestamp_ns=number, domain="outdoor", licence="CC0-1.0",
        ),
        world_from_scene=np.eye(4),
        world_crs="EPSG:32632",
        part=Part(
            whole=f"walk-{number // 4}", core_min=np.array([-10, -np.inf, -np.inf]), core_max=np.full(3, np.inf)
        ) if number % 2 else None,
        points=Points(
            xyz=(rng.normal(size=(points, 3)) * (20, 20, 2)).astype(np.float32),
            color=rng.integers(0, 256, (points, 3), dtype=np.uint8),
            normal=normal.astype(np.float32),
            normal_source="drawn",
            intensity=rng.integers(0, 256, points).astype(np.float32),
            intensity_unit="byte",
            ring=rng.integers(0, 32, points, dtype=np.uint8),
            time_offset=rng.uniform(-0.05, 0, points).astype(np.float32),
            semantic={"nuscenes16": rng.integers(-1, 16, points).astype(np.int16)},
            instance=rng.integers(0, 5, points).astype(np.int32),
            return_number=later.integers(1, 3, points, dtype=np.uint8),
            return_count=np.full(points, 2, np.uint8),
            elongation=later.uniform(0, 1.5, points).astype(np.float32),
        ),
        views=tuple(toy_view(rng, i, points, depth=i == 1) for i in range(views)),
        dropped={"invalid pose": 1},
    )  # fmt: skip


def toy_corpus(folder: object, scenes: int = 12, per_shard: int = 5, container: ContainerName = "parquet") -> Corpus:
    """A committed corpus of toy scenes, some without views."""
    store = Store(str(folder))
    fingerprint = {"toy": scenes}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    encoded = [encode_scene(toy_scene(i, views=0 if i % 5 == 4 else 2)) for i in range(scenes)]
    groups = [encoded[i : i + per_shard] for i in range(0, scenes, per_shard)]
    for task, group in enumerate(groups):
        commit_task(store, task, build, group, [], container=container)
    finish_build(store, len(groups), build, [], {})
    return Corpus.open(store.uri)
