"""Encoded images of views -> pixels, for the curation steps that need them (a 1600x900 JPEG: about 15 ms)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from shards.errors import SceneError
from shards.scene import Scene, View

MAX_PIXELS = 1 << 26


def decode_rgb(scene: Scene, view: View) -> NDArray[np.uint8]:
    """Decode a view's image to uint8 (H, W, 3) RGB.

    Raises `SceneError` naming scene and view if the bytes are no whole image of the declared format and size.
    """
    from PIL import Image

    subject = f"scene {scene.identity.key}, view {view.name}"
    if view.width * view.height > MAX_PIXELS:
        raise SceneError(f"{subject}: {view.width}x{view.height} pixels are more than {MAX_PIXELS}")
    try:
        with Image.open(io.BytesIO(view.image), formats=[view.image_format]) as image:
            if image.size != (view.width, view.height):
                found = f"{image.size[0]}x{image.size[1]}"
                raise SceneError(f"{subject}: image of {found}, {view.width}x{view.height} expected")
            return np.asarray(image.convert("RGB"))
    except SceneError:
        raise
    except Exception as problem:  # Pillow raises many types for damaged images
        raise SceneError(f"{subject}: the {view.image_format} image cannot be decoded: {problem}") from problem
