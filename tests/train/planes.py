"""Clips of textured planes: a wall and a few boards before it, seen by a camera that moves along it, drawn by numpy.

Poses and intrinsics are exact, pixels are those of the planes at the pixels' centres, and nearer boards move faster: so
the middle of two neighbours is a poor picture of a view between them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Identity, Scene, View
from brickyard.shards.storage import Store

Array = NDArray[np.float64]


def plane_clip(number: int = 0, *, frames: int = 12, size: tuple[int, int] = (40, 32), split: str = "train") -> Scene:
    """A clip with poses, different for every number; `size` is (width, height)."""
    rng = np.random.default_rng(number)
    boards = [(4.0, np.array([-9.0, -9, 9, 9]), rng.uniform(0, 7, 9))]
    boards += [
        (depth, np.array([x, y, x + 0.7, y + 0.8]), rng.uniform(0, 7, 9))
        for depth, x, y in zip((3.0, 2.2), rng.uniform(-0.9, 0.3, 2), rng.uniform(-0.8, 0.1, 2), strict=True)
    ]
    side, turn = 0.5 * rng.choice((-1, 1)), 0.06 * rng.choice((-1, 1))
    views = []
    for k, share in enumerate(np.linspace(-1, 1, frames)):
        angle = turn * share
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = side * share, 0.1 * share**2, 0.2 * share
        views.append(plane_view(f"frame-{k:03d}", boards, pose, size, 33_000_000 * k))
    return Scene(
        identity=Identity(
            dataset="planes", version="1", split=split, sequence=f"walk-{number}", scene_id=f"clip-{number:03d}",
            timestamp_ns=None, domain="video", licence="CC0-1.0",
        ),
        world_from_scene=np.eye(4),
        views=tuple(views),
    )  # fmt: skip


def plane_view(name: str, boards: list[Any], pose: Array, size: tuple[int, int], time: int) -> View:
    width, height = size
    focal = 1.2 * min(size)
    matrix = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    file = io.BytesIO()
    Image.fromarray(picture(boards, pose, matrix, size)).save(file, "JPEG", quality=95, subsampling=0)
    return View(
        name=name, image=file.getvalue(), image_format="jpeg", width=width, height=height, intrinsics=matrix,
        scene_from_camera=pose, timestamp_ns=time,
    )  # fmt: skip


def picture(boards: list[Any], pose: Array, matrix: Array, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (height, width, 3): the boards at z = depth, farthest first."""
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    ahead = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(matrix).T @ pose[:3, :3].T
    image = np.zeros((*row.shape, 3))
    for depth, (left, top, right, bottom), phase in boards:
        place = pose[:3, 3] + ahead * ((depth - pose[2, 3]) / ahead[..., 2])[..., None]
        x, y = place[..., 0], place[..., 1]
        color = [0.5 + 0.25 * np.sin(3 * x + phase[k]) + 0.25 * np.sin(4 * y + phase[k + 3]) for k in range(3)]
        seen = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        image[seen] = np.stack(color, -1)[seen]
    return np.asarray(np.clip(255 * image, 0, 255).round(), np.uint8)


def clip_corpus(folder: Path, scenes: list[Scene]) -> Corpus:
    """A corpus of scenes."""
    store, fingerprint = Store(folder), {"clips": len(scenes)}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(store)
