"""Rooms with posed frames of colour and depth, exact: the box and the ball of `rendering.solids`, four metres long.

The colour camera is not the depth camera: it has another size and another focal length. The room stands away from the
origin of its scene, so that nothing works by chance.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.cameras import project
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.scene import Correspondences, Depth, Identity, Points, Scene, View
from brickyard.shards.storage import Store
from tests.train.rendering.solids import HIGH, LOW, cast

METRES = 4.0
PLACE = np.array([7.0, -3.0, 1.0])
DEPTH_SIZE, COLOR_SIZE = (32, 24), (48, 40)


def pose(number: int, of: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A camera that looks at the ball from somewhere around it, metres of the scene."""
    angle = 2 * np.pi * (number + rng.random()) / of
    eye = np.array([0.33 * np.cos(angle), 0.25 * np.sin(angle), -0.2 + 0.05 * rng.standard_normal()])
    ahead = np.array([0.05, 0.0, -0.28]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack((right, np.cross(ahead, right), ahead), 1)
    matrix[:3, 3] = METRES * eye + PLACE
    return matrix


def camera(size: tuple[int, int], focal: float) -> np.ndarray[Any, Any]:
    width, height = size
    return np.array([[focal * width, 0, width / 2 - 0.5], [0, focal * width, height / 2 - 0.5], [0, 0, 1]])


def seen(matrix: np.ndarray[Any, Any], where: np.ndarray[Any, Any], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(colour (H, W, 3) in [0, 1], depth (H, W) in metres along z) of a camera."""
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    ahead = np.stack((column, row, np.ones_like(row)), -1).reshape(-1, 3) @ np.linalg.inv(matrix).T
    length = np.linalg.norm(ahead, axis=1)
    directions = torch.from_numpy(ahead / length[:, None] @ where[:3, :3].T)
    eye = torch.from_numpy((where[:3, 3] - PLACE) / METRES).expand(len(directions), 3)
    hit = cast(eye, directions)
    z = hit.distance * METRES / torch.from_numpy(length)
    return hit.color.view(*row.shape, 3), z.view(row.shape)


def view(number: int, of: int, rng: np.random.Generator) -> View:
    where, colors, depths = pose(number, of, rng), camera(COLOR_SIZE, 0.7), camera(DEPTH_SIZE, 0.65)
    color, _ = seen(colors, where, COLOR_SIZE)
    _, depth = seen(depths, where, DEPTH_SIZE)
    data = io.BytesIO()
    Image.fromarray((color.numpy() * 255).round().astype(np.uint8)).save(data, "PNG")
    return View(
        name=f"frame-{number}", image=data.getvalue(), image_format="png", width=COLOR_SIZE[0], height=COLOR_SIZE[1],
        intrinsics=colors, scene_from_camera=where,
        depth=Depth(values=(depth.numpy() * 1000).round().astype(np.uint16), scale=0.001, intrinsics=depths),
    )  # fmt: skip


def points(count: int, rng: np.random.Generator) -> Points:
    """Where rays from the middle of the room end."""
    directions = torch.from_numpy(rng.standard_normal((count, 3)))
    directions = directions / directions.norm(dim=1, keepdim=True)
    eye = torch.tensor([(a + b) / 2 for a, b in zip(LOW, HIGH, strict=True)], dtype=torch.float64) + torch.tensor(
        [-0.2, 0, 0]
    )
    hit = cast(eye.expand(count, 3), directions)
    return Points(
        xyz=((eye + hit.distance[:, None] * directions).numpy() * METRES + PLACE).astype(np.float32),
        color=(hit.color.numpy() * 255).round().astype(np.uint8),
        normal=hit.normal.numpy().astype(np.float32),
        normal_source="exact",
    )


def posed_room(
    number: int = 0, *, views: int = 6, count: int = 1200, split: str = "train", pairs: bool = False
) -> Scene:
    """A room; with `pairs`, its views have correspondences instead of depth images."""
    rng = np.random.default_rng((19, number))
    cloud, frames = points(count, rng), [view(n, views, rng) for n in range(views)]
    if pairs:
        frames = [paired(cloud, frame) for frame in frames]
    return Scene(
        identity=Identity(
            dataset="solids", version="1", split=split, sequence=str(number), scene_id=f"room-{number:03d}",
            timestamp_ns=None, domain="outdoor" if pairs else "indoor", licence="CC0-1.0",
        ),
        world_from_scene=np.eye(4),
        points=cloud,
        views=tuple(frames),
    )  # fmt: skip


def paired(cloud: Points, frame: View) -> View:
    """The view with exact correspondences instead of its depth image."""
    found = project(cloud.xyz, frame)
    with np.errstate(invalid="ignore"):
        inside = (found.depth > 0) & (np.rint(found.uv) >= 0).all(1) & (np.rint(found.uv) < COLOR_SIZE).all(1)
    point = np.flatnonzero(inside).astype(np.int32)
    assert frame.scene_from_camera is not None
    eye = torch.from_numpy((frame.scene_from_camera[:3, 3] - PLACE) / METRES)
    way = torch.from_numpy((cloud.xyz[point] - PLACE) / METRES) - eye
    first = cast(eye.expand_as(way), way / way.norm(dim=1, keepdim=True)).distance
    return replace(
        frame,
        depth=None,
        pairs=Correspondences(
            point=point,
            pixel=np.rint(found.uv[point]).astype(np.uint16),
            depth=found.depth[point].astype(np.float32),
            visible=(way.norm(dim=1) < first + 0.01).numpy(),
            provenance="exact",
        ),
    )


def corpus_of(folder: Path, scenes: list[Scene]) -> Corpus:
    """A corpus of scenes."""
    store, fingerprint = Store(folder), {"rooms": len(scenes)}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    commit_task(store, 0, build, [encode_scene(scene) for scene in scenes], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(store)
