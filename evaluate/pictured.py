"""Pictures that protocols leave in a run's folder, and the list of them: `pictures/<protocol>.json` and PNG files,
WebP for what moves.

A protocol that is run again writes its own anew; those of others stay.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.shards.atomic import write_whole
from brickyard.shards.documents import read_file, write_document
from brickyard.shards.errors import BrickyardError

PICTURES = "pictures"
_SHAPE = {"scenes": [{"scene": str, "title": str, "pictures": [{"file": str, "caption": str}]}]}


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """Pictures of a scene for the page: uint8 (H, W, 3), or (frames, H, W, 3) of what moves, each with its caption."""

    scene: str
    title: str
    pictures: tuple[tuple[str, NDArray[np.uint8]], ...]


def write_pictured(folder: Path, protocol: str, scenes: Sequence[Pictured]) -> None:
    """Write the pictures of a protocol, then their list.

    Args:
        protocol: its name, of characters that a file's name can have.
    """
    entries: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        files = []
        for place, (caption, picture) in enumerate(scene.pictures):
            what = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")
            moves = picture.ndim == 4
            name = f"{protocol}-{number}-{place}-{what}.{'webp' if moves else 'png'}"
            write_whole(folder / name, animation(picture) if moves else _png(picture))
            files.append({"file": name, "caption": caption})
        entries.append({"scene": scene.scene, "title": scene.title, "pictures": files})
    write_document(folder / f"{protocol}.json", {"scenes": entries}, indent=1)


def animation(frames: NDArray[np.uint8], milliseconds: int = 66) -> bytes:
    """A WebP that goes there and back again for ever, of uint8 (T, H, W, 3).

    Args:
        milliseconds: of each frame.
    """
    first, *others = [Image.fromarray(frame) for frame in np.concatenate((frames, frames[-2:0:-1]))]
    data = io.BytesIO()
    settings = {"duration": milliseconds, "loop": 0, "quality": 80, "method": 4}
    first.save(data, "WEBP", save_all=True, append_images=others, **settings)
    return data.getvalue()


def _png(picture: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(data, "PNG")
    return data.getvalue()


def read_pictured_protocols(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Protocol -> its scenes, as they stand in the lists; raises `BrickyardError` where one is damaged."""
    hint = "`brickyard evaluate` writes it again"
    return {
        path.stem: read_file(path, _SHAPE, error=BrickyardError, hint=hint)["scenes"]
        for path in sorted(folder.glob("*.json"))
    }
