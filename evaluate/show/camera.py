"""One camera's pictures: the image, its superpixels, its points by depth.

The pictures exist to be doubted: a wrong calibration, pose or visibility test shows as dots beside the objects they
should lie on. So pixels are drawn from the stored correspondences, never projected again, and hidden points stay in
the picture, as rings. About 0.1 s a view.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brickyard.evaluate.show.colour import RGB, depth_colours
from brickyard.evaluate.show.raster import SCALE, draw, resized, shrink
from brickyard.shards.images import rgb
from brickyard.shards.scene import Correspondences, Superpixels, View

NARROW, WIDE = 640, 1240
"""Largest width of a picture: of an ordinary image, and of one more than twice as wide as high."""
HIDDEN = (196, 198, 204)
_BOUNDARY = np.array((255, 226, 64))
_MAX_PIXELS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class CameraPictures:
    """Pictures uint8 (H, W, 3); None where the view has not got it."""

    image: RGB
    superpixels: RGB | None
    points: RGB | None


class UndecodableImageError(Exception):
    """Says why an image has no picture."""


def camera_pictures(view: View, near: float, far: float) -> CameraPictures:
    """The pictures of a view; depth colours run from `near` to `far`; raises `UndecodableImageError`."""
    image = decode(view)
    superpixels = None if view.superpixels is None else outline(image, view.superpixels)
    points = None if view.pairs is None else overlay(image, view, view.pairs, near, far)
    return CameraPictures(image=image, superpixels=superpixels, points=points)


def shown_size(view: View) -> tuple[int, int]:
    """(width, height) a view is shown at."""
    width = min(view.width, WIDE if is_wide(view) else NARROW)
    return width, max(1, round(view.height * width / view.width))


def is_wide(view: View) -> bool:
    return view.width > 2 * view.height


def decode(view: View) -> RGB:
    """The image at its shown size; raises `UndecodableImageError` with the reason."""
    try:
        with Image.open(io.BytesIO(view.image), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UndecodableImageError(f"{image.width}x{image.height} pixels are more than a page shows")
            if image.size != (view.width, view.height):
                found, promised = f"{image.width}x{image.height}", f"{view.width}x{view.height}"
                raise UndecodableImageError(f"the file holds {found} pixels, the scene promises {promised}")
            width, height = shown_size(view)
            image.draft("RGB", (2 * width, 2 * height))
            return resized(rgb(image), width, height)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        start = view.image[:8].hex(" ") or "nothing"
        reason = str(error) if not isinstance(error, UnidentifiedImageError) else "it is neither JPEG nor PNG"
        raise UndecodableImageError(f"{reason} ({len(view.image)} bytes, beginning with {start})") from error


def outline(image: RGB, superpixels: Superpixels) -> RGB:
    """The image with the boundaries between superpixels."""
    height, width = image.shape[:2]
    full_height, full_width = superpixels.labels.shape
    rows = (np.arange(height) * 2 + 1) * full_height // (2 * height)
    columns = (np.arange(width) * 2 + 1) * full_width // (2 * width)
    labels = superpixels.labels[rows[:, None], columns]
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    picture = image.copy()
    picture[edge] = np.asarray(image[edge] * 0.15 + _BOUNDARY * 0.85, np.uint8)
    return picture


def overlay(image: RGB, view: View, pairs: Correspondences, near: float, far: float) -> RGB:
    """The dimmed image with its points: dots by depth where visible, pale rings where hidden; the nearest on top."""
    height, width = image.shape[:2]
    dim = image * 0.42 + image.mean(axis=2, keepdims=True) * 0.2
    canvas = np.asarray(dim, np.uint8).repeat(SCALE, 0).repeat(SCALE, 1)
    scale = np.array((width / view.width, height / view.height)) * SCALE
    centres = (pairs.pixel.astype(np.float64) + 0.5) * scale - 0.5
    far_to_near = np.argsort(-pairs.depth, kind="stable")
    hidden = far_to_near[~pairs.visible[far_to_near]]
    seen = far_to_near[pairs.visible[far_to_near]]
    radius = dot_radius(width * height, len(pairs))
    draw(canvas, centres[hidden], _repeat(HIDDEN, len(hidden)), radius + 1.0, hole=radius)
    draw(canvas, centres[seen], depth_colours(pairs.depth[seen], near, far), radius)
    return shrink(canvas)


def dot_radius(area: float, dots: int) -> float:
    """Radius in drawn pixels (SCALE to a shown one): large where points are few, never hiding the image."""
    return float(np.clip(0.26 * SCALE * np.sqrt(area / max(dots, 1)), 1.5, 4.0))


def _repeat(colour: tuple[int, int, int], times: int) -> NDArray[np.uint8]:
    return np.tile(np.array(colour, np.uint8), (times, 1))
