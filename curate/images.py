"""Encoded images of views -> pixels, for the curation steps that need them (a 1600x900 JPEG: about 15 ms)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.errors import ImageError, SceneError
from brickyard.shards.images import decode, inspect
from brickyard.shards.scene import Scene, View

MAX_PIXELS = 1 << 26


def decode_rgb(scene: Scene, view: View) -> NDArray[np.uint8]:
    """Decode a view's image to uint8 (H, W, 3) RGB: 16 bits of grey scaled to 8, alpha left out.

    Raises `SceneError` naming scene and view if the bytes are no whole image of the declared format and size.
    """
    subject = f"scene {scene.identity.key}, view {view.name}"
    if view.width * view.height > MAX_PIXELS:
        raise SceneError(f"{subject}: {view.width}x{view.height} pixels are more than {MAX_PIXELS}")
    try:
        header = inspect(view.image)
        if (header.format, *header.size) != (view.image_format, view.width, view.height):
            found, expected = (f"{f} image of {w}x{h}" for f, w, h in (
                (header.format, *header.size), (view.image_format, view.width, view.height)
            ))  # fmt: skip
            raise SceneError(f"{subject}: a {found}, a {expected} expected")
        return decode(view.image)
    except ImageError as problem:
        raise SceneError(f"{subject}: the {view.image_format} image cannot be decoded: {problem}") from problem
