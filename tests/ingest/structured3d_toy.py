"""Small Structured3D worlds for tests, and a plain second reading of their files: `zipfile`, Pillow, a formula each."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import Missing, SceneRef
from brickyard.ingest.structured3d import SOURCE
from brickyard.ingest.structured3d.plan import Structured3DOptions
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

CONFIG = SimulationConfig(
    structured3d_houses=3, structured3d_rooms=1, structured3d_views=2, structured3d_panorama_size=(256, 128),
    structured3d_image_size=(128, 72),
)  # fmt: skip


TINY = {"structured3d_panorama_size": (128, 64), "structured3d_image_size": (64, 36)}


def world(out: Path, *, packed: bool = True, houses: int = 3, seed: int = 4, tiny: bool = False) -> Path:
    """Simulated houses; returns the root of the dataset, beside `truth`."""
    settings = {**vars(CONFIG), "structured3d_packed": packed, "structured3d_houses": houses, **(TINY if tiny else {})}
    simulate(out, datasets=("structured3d",), seed=seed, config=SimulationConfig(**settings))
    return out / "structured3d"


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to)
    return to


def plan(root: Path, **options: Any) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), Structured3DOptions(**options)))


def refs(root: Path, **options: Any) -> list[SceneRef]:
    return [item for item in plan(root, **options) if isinstance(item, SceneRef)]


def read(root: Path, number: int = 0, **options: Any) -> Scene:
    return SOURCE.read(refs(root, **options)[number])


def told(root: Path, **options: Any) -> dict[str, str]:
    """What the plan tells besides the rooms."""
    return {item.scene_id: item.reason for item in plan(root, **options) if isinstance(item, Missing)}


def room_folder(root: Path) -> Path:
    """The folder of the first room of an unpacked world."""
    return next(iter(sorted(root.glob("Structured3D/scene_*/2D_rendering/*"))))


def repaint(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the pixels of an image; a palette stays."""
    with Image.open(path) as image:
        pixels, palette = np.asarray(image), image.getpalette()
    changed = Image.fromarray(np.ascontiguousarray(change(pixels)))
    if palette is not None and changed.mode == "L":
        changed.putpalette(palette)
    changed.save(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write a zip anew with changed members; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)


class Plain:
    """A room's files from the zips of a world, found by the ends of their names and decoded without a check."""

    def __init__(self, root: Path, scene_id: str) -> None:
        house, room = scene_id.split("/")
        self._prefix = f"Structured3D/{house}/2D_rendering/{room.removeprefix('room_')}/"
        self._zips = [zipfile.ZipFile(path) for path in sorted(root.glob("*.zip"))]

    def bytes(self, name: str) -> bytes:
        for archive in self._zips:
            if self._prefix + name in archive.namelist():
                return archive.read(self._prefix + name)
        raise KeyError(name)

    def image(self, name: str) -> Any:
        return np.asarray(Image.open(io.BytesIO(self.bytes(name))))

    def panorama(self, state: str = "full") -> Any:
        """(H, W, 3), world coordinates in metres of each pixel, pixel by pixel."""
        depth = self.image(f"panorama/{state}/depth.png")
        x, y, z = (float(word) / 1000 for word in self.bytes("panorama/camera_xyz.txt").split())
        height, width = depth.shape
        places = np.empty((height, width, 3))
        for row in range(height):
            elevation = np.pi / 2 - np.pi * (row + 0.5) / height
            azimuth = 2 * np.pi * (np.arange(width) + 0.5) / width - np.pi
            metres = depth[row] / 1000
            places[row, :, 0] = x + metres * np.cos(elevation) * np.sin(azimuth)
            places[row, :, 1] = y + metres * np.cos(elevation) * np.cos(azimuth)
            places[row, :, 2] = z + metres * np.sin(elevation)
        return places

    def perspective(self, position: int, state: str = "full") -> Any:
        """(H, W, 3), world coordinates in metres of each pixel."""
        depth = self.image(f"perspective/{state}/{position}/depth.png") / 1000
        words = [float(word) for word in self.bytes(f"perspective/{state}/{position}/camera_pose.txt").split()]
        eye, ahead, up = (np.array(words[k : k + 3]) for k in (0, 3, 6))
        right = np.cross(ahead, up)
        height, width = depth.shape
        column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        across = (2 * column / width - 1) * np.tan(words[9])
        down = (2 * row / height - 1) * np.tan(words[10])
        rays = ahead + across[..., None] * right - down[..., None] * up
        return eye / 1000 + depth[..., None] * rays
