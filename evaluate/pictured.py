"""Pictures that protocols leave in a run's folder, and the list of them: `pictures/<protocol>.json` and PNG files.

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
    """Pictures of a scene for the page: uint8 (H, W, 3), each with its caption."""

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
            name = f"{protocol}-{number}-{place}-{what}.png"
            data = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture)).save(data, "PNG")
            write_whole(folder / name, data.getvalue())
            files.append({"file": name, "caption": caption})
        entries.append({"scene": scene.scene, "title": scene.title, "pictures": files})
    write_document(folder / f"{protocol}.json", {"scenes": entries}, indent=1)


def read_pictured_protocols(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Protocol -> its scenes, as they stand in the lists; raises `BrickyardError` where one is damaged."""
    hint = "`brickyard evaluate` writes it again"
    return {
        path.stem: read_file(path, _SHAPE, error=BrickyardError, hint=hint)["scenes"]
        for path in sorted(folder.glob("*.json"))
    }
