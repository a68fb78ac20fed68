"""Figures of the images of scenes with points: light, contrast, colour, sharpness; clips have theirs at build time.

Up to eight views, evenly taken, are decoded at a reduced scale, once, for figures, hashes and embedding. Names and
meanings that clips have, too (`curate.clip_figures`), are the same numbers here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.curate.clip_figures import BRIGHT, DARK, GREY, LEAST_SHARP, sharpness
from brickyard.shards.errors import ImageError
from brickyard.shards.images import decode_reduced
from brickyard.shards.scene import Depth, Scene, View

T = TypeVar("T")
Pixels = NDArray[np.uint8]
FIGURES: Mapping[str, tuple[str, str, int]] = {
    "undecodable_share": ("share", "views whose pictures nothing can decode; the other figures leave them out", 1),
    "contrast": ("share", "deviation of the grey pixels over 255 (median over views)", 1),
    "colourfulness": ("share", "Hasler and Suesstrunk (2003), over 255 (median over views)", 1),
    "least_sharpness": ("1", "sharpness of the least sharp view", 1),
    "blank_share": ("share", "views whose pixels deviate by less than two grey levels", 1),
    "depth_share": ("share", "pixels of depth images with a measurement (median over views)", 1),
}
MOST_VIEWS = 8
BLANK = 2.0


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of them, evenly taken over their order."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[k] for k in places.tolist()]


def chosen_views(scene: Scene) -> list[View]:
    """Up to eight views of a scene."""
    return evenly(scene.views, MOST_VIEWS)


def decode_views(views: Sequence[View]) -> list[tuple[View, Pixels]]:
    """Those that can be decoded, each with its pixels, uint8 (h, w, 3), at 256 pixels or more."""
    found = []
    for view in views:
        with suppress(ImageError):
            found.append((view, decode_reduced(view.image, LEAST_SHARP, (view.width, view.height))))
    return found


def describe_images(pictures: Sequence[Pixels]) -> dict[str, float]:
    """The figures of decoded pictures; none without pictures."""
    if not pictures:
        return {}
    grey = [np.asarray(Image.fromarray(one).convert("L").resize(GREY, Image.Resampling.BOX)) for one in pictures]
    small, sharp = np.stack(grey).astype(np.float32), [sharpness(one) for one in pictures]
    deviation = small.std(axis=(1, 2))
    return {
        "brightness": float(np.median(small.mean(axis=(1, 2))) / 255),
        "dark_share": float((small < DARK).mean()),
        "bright_share": float((small > BRIGHT).mean()),
        "sharpness": float(np.median(sharp)),
        "least_sharpness": float(min(sharp)),
        "contrast": float(np.median(deviation) / 255),
        "colourfulness": float(np.median([_colourfulness(one) for one in pictures])),
        "blank_share": float((deviation < BLANK).mean()),
    }


def describe_depth(scene: Scene) -> dict[str, float]:
    """How much of the depth images was measured."""
    shares = [_measured(view.depth) for view in scene.views if view.depth is not None]
    return {"depth_share": float(np.median(shares))} if shares else {}


def _measured(depth: Depth) -> float:
    return float(np.count_nonzero(depth.values) / depth.values.size)


def _colourfulness(pixels: Pixels) -> float:
    red, green, blue = np.moveaxis(pixels[::4, ::4].astype(np.float32), 2, 0)
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std(), second.std())
    return float((spread + 0.3 * np.hypot(first.mean(), second.mean())) / 255)
