"""A world small enough to learn in seconds: things of a few shapes and colours stand in a ring around the sensor.

Every class has a shape (what the 3D network can see) and a colour (what the image network can see); labels are the
classes. Images are panorama strips: the column is the azimuth, which makes pairs without a camera model.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Correspondences, Identity, Points, Scene, Superpixels, View
from brickyard.shards.storage import Store

WIDTH, HEIGHT, SECTORS, PER_SECTOR = 128, 64, 16, 60
COLOURS = np.array([(220, 30, 30), (30, 200, 40), (40, 60, 220), (230, 220, 40)], np.uint8)


def ring_scene(number: int, *, split: str = "train", views: int = 2) -> Scene:
    """A ring of 16 things of 4 classes; class 0 is a wall, 1 a post, 2 a box, 3 grass."""
    rng = np.random.default_rng((7, number))
    kinds = rng.integers(0, 4, SECTORS)
    sector = np.repeat(np.arange(SECTORS), PER_SECTOR)
    kind, n = kinds[sector], len(sector)
    spread = np.array([0.45, 0.08, 0.3, 0.5])[kind]
    azimuth = (sector + 0.5 + rng.uniform(-1, 1, n) * spread) * 2 * np.pi / SECTORS
    distance = 6 + np.array([0.05, 0.1, 0.5, 2.0])[kind] * rng.uniform(-1, 1, n)
    height = np.array([3.0, 3.0, 1.0, 0.1])[kind] * rng.uniform(0, 1, n) - 1.5
    xyz = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), height], axis=1).astype(np.float32)
    return Scene(
        identity=Identity(
            dataset="rings", version="1", split=split, sequence=str(number), scene_id=f"ring-{number:03d}",
            timestamp_ns=None, domain="outdoor", licence="CC0-1.0",
        ),
        world_from_scene=np.eye(4),
        points=Points(
            xyz=xyz,
            intensity=rng.uniform(0, 255, n).astype(np.float32),
            intensity_unit="byte",
            semantic={"nuscenes16": kind.astype(np.int16)},
        ),
        views=tuple(_strip(kinds, azimuth, height, rng, view) for view in range(views)),
    )  # fmt: skip


def _strip(kinds: np.ndarray, azimuth: np.ndarray, height: np.ndarray, rng: np.random.Generator, number: int) -> View:
    """Half of the panorama, 8 sectors of 16 columns."""
    column = np.floor(azimuth / np.pi * WIDTH).astype(int) - number * WIDTH
    row = np.floor((1.6 - height) / 3.2 * HEIGHT).astype(int)
    seen = np.flatnonzero((column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)).astype(np.int32)
    labels = np.repeat(np.arange(8), 16)[None, :] + 8 * np.repeat(np.arange(2), HEIGHT // 2)[:, None]
    colour = COLOURS[kinds[number * 8 + labels % 8]].astype(int)
    image = np.clip(colour + rng.integers(-20, 20, colour.shape), 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=95)
    return View(
        name=f"strip-{number}",
        image=data.getvalue(),
        image_format="jpeg",
        width=WIDTH,
        height=HEIGHT,
        intrinsics=np.eye(3),
        superpixels=Superpixels(labels=labels.astype(np.uint16), provenance="blocks"),
        pairs=Correspondences(
            point=seen,
            pixel=np.stack([column[seen], row[seen]], axis=1).astype(np.uint16),
            depth=np.full(len(seen), 6, np.float32),
            visible=np.arange(len(seen)) % 3 != 0,
            provenance="azimuth",
        ),
    )


def ring_corpus(folder: Path, *, train: int = 6, val: int = 2, blind: int = 0) -> Corpus:
    """A committed corpus of rings; the first `blind` training scenes have no images."""
    store, fingerprint = Store(folder), {"rings": [train, val, blind]}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    scenes = [ring_scene(i, views=0 if i < blind else 2) for i in range(train)]
    scenes += [ring_scene(1000 + i, split="val") for i in range(val)]
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)
