"""Augmentations of the image-to-lidar objectives, as published with SLidR; every number comes from the given generator.

Pairs (point, pixel) survive what is done to either side: a dropped point takes its pairs along, a crop moves the pixels
and drops those outside. Rejection is bounded: a published trap is an image without pairs, for which "retry until enough
pairs survive" never ends; here, after `CropConfig.tries` crops, the largest centred one is taken.

Pixels: (column, row), the centre of the top left pixel is (0, 0). A crop to the same width keeps integers exactly.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brickyard.shards.errors import BrickyardError
from brickyard.shards.images import rgb

MAX_PIXELS = 1 << 26
"""Of an image that is decoded: 8192 x 8192."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Random resized crop of an image.

    Attributes:
        height, width: of the result, pixels.
        area: (least, most) share of the image's area.
        aspect: (least, most) width / height.
        min_pairs: accept a crop that keeps more pairs than this ...
        min_share: ... or more than this share of them.
        tries: then the largest centred crop of a valid aspect is taken.
        flip: probability of a horizontal flip.
    """

    height: int = 224
    width: int = 416
    area: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (14 / 9, 17 / 9)
    min_pairs: int = 1024
    min_share: float = 0.75
    tries: int = 10
    flip: float = 0.5

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.tries < 0:
            raise ValueError("height and width must be positive, tries not negative")
        if not 0 < self.area[0] <= self.area[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("area must be a range within (0, 1], aspect a range of positive numbers")


@dataclass(frozen=True, kw_only=True)
class CuboidConfig:
    """Removal of the points in a random cuboid.

    Attributes:
        extent: edges are up to this share of the cloud's extent; 0 turns it off.
        shares: "each": drawn for every axis; "one": one share for all axes, as SLidR's code does.
        turned: remove it from the cloud as it is after rotation and flips, as SLidR's code does.
        min_pairs: accepted if every image keeps at least this many pairs, or lost none (there SLidR's code gives up).
        tries: then nothing is removed; SLidR's code tries once.
    """

    extent: float = 0.2
    shares: Literal["each", "one"] = "each"
    turned: bool = False
    min_pairs: int = 1024
    tries: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.extent <= 1 or self.tries < 0:
            raise ValueError("extent must lie in [0, 1], tries must not be negative")


@dataclass(frozen=True, kw_only=True)
class Box:
    """A crop: top left pixel and size, integers, within the image."""

    left: int
    top: int
    width: int
    height: int


def rotation_and_flips(rng: np.random.Generator) -> NDArray[np.float32]:
    """float32 (3, 3): rotation about z by U(0, 2 pi), then x -> -x and y -> -y with probability 1/2 each.

    Apply as `xyz @ matrix.T`.
    """
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    signs = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    turned: NDArray[np.float32] = (np.array([*signs, 1.0])[:, None] * matrix).astype(np.float32)
    return turned


def drop_cuboid(
    xyz: NDArray[np.float32], pairs: list[NDArray[np.int32]], config: CuboidConfig, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """bool (N,): the points to keep. The cuboid's centre is a point of the cloud.

    Args:
        xyz: (N, 3), turned already where the config says so.
        pairs: the point index of every pair, per image.
    """
    everything = np.ones(len(xyz), bool)
    if not len(xyz) or config.extent == 0:
        return everything
    extent = np.ptp(xyz, axis=0)
    for _ in range(config.tries):
        half = rng.uniform(0, config.extent, 3 if config.shares == "each" else 1) * extent / 2
        centre = xyz[rng.integers(len(xyz))]
        keep = (np.abs(xyz - centre) > half).any(axis=1)
        left = [int(keep[point].sum()) for point in pairs]
        if all(n >= config.min_pairs or n == len(point) for n, point in zip(left, pairs, strict=True)):
            kept: NDArray[np.bool_] = keep
            return kept
    return everything


def random_box(
    width: int, height: int, pixels: NDArray[np.uint16], config: CropConfig, rng: np.random.Generator
) -> Box:
    """A crop that keeps enough pairs, within a bounded number of tries.

    Args:
        width, height: of the image.
        pixels: (P, 2) (column, row) of its pairs.
    """
    for _ in range(config.tries):
        area = rng.uniform(*config.area) * width * height
        aspect = rng.uniform(*config.aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < w <= width and 0 < h <= height):
            continue
        box = Box(left=int(rng.integers(width - w + 1)), top=int(rng.integers(height - h + 1)), width=w, height=h)
        kept = int(inside(pixels, box).sum())
        if kept > config.min_pairs or kept > config.min_share * len(pixels):
            return box
    return centre_box(width, height, config)


def centre_box(width: int, height: int, config: CropConfig) -> Box:
    """The largest centred crop whose aspect lies in `config.aspect`."""
    low, high = config.aspect
    w = min(width, max(1, math.floor(height * high)))
    h = min(height, max(1, math.floor(width / low)))
    return Box(left=(width - w) // 2, top=(height - h) // 2, width=w, height=h)


def inside(pixels: NDArray[np.uint16], box: Box) -> NDArray[np.bool_]:
    """bool (P,): which pixels lie in the crop."""
    local = pixels.astype(np.int32) - (box.left, box.top)
    kept: NDArray[np.bool_] = ((local >= 0) & (local < (box.width, box.height))).all(axis=1)
    return kept


def move_pixels(pixels: NDArray[np.uint16], box: Box, config: CropConfig, *, flip: bool) -> NDArray[np.int32]:
    """int32 (P, 2): where pixels inside the crop are after resizing (and flipping).

    A pixel's centre at c + 1/2 from the crop's edge moves to (c + 1/2) * scale; the pixel it falls in is the floor.
    """
    scale = (config.width / box.width, config.height / box.height)
    local = (pixels.astype(np.float64) - (box.left, box.top) + 0.5) * scale
    moved: NDArray[np.int32] = np.minimum(local.astype(np.int32), (config.width - 1, config.height - 1))
    if flip:
        moved[:, 0] = config.width - 1 - moved[:, 0]
    return moved.astype(np.int32)


def crop_labels(labels: NDArray[np.uint16], box: Box, config: CropConfig, *, flip: bool) -> NDArray[np.uint16]:
    """Nearest-neighbour crop of a label image (H, W) to (height, width): the inverse of `move_pixels`."""
    rows = box.top + ((np.arange(config.height) + 0.5) * box.height / config.height).astype(np.int64)
    columns = box.left + ((np.arange(config.width) + 0.5) * box.width / config.width).astype(np.int64)
    cropped: NDArray[np.uint16] = labels[rows[:, None], (columns[::-1] if flip else columns)[None, :]]
    return cropped


def crop_image(
    data: bytes, size: tuple[int, int], box: Box, config: CropConfig, *, flip: bool, reduced: bool = True
) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG and resize a crop of it: uint8 (3, height, width), RGB, bilinear with area support.

    Args:
        size: (width, height) the scene says the image has.
        reduced: let the JPEG decoder work at 1/2, 1/4 or 1/8 where the crop still has more pixels than the result;
            faster on large images, with slightly different low-pass filtering.

    Raises:
        BrickyardError: bytes that are no image, or one of another size (checked before decoding).
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.size != size or size[0] * size[1] > MAX_PIXELS:
                raise BrickyardError(
                    f"the image has {image.size} pixels, its scene says {size}, of {MAX_PIXELS} at most"
                )
            if reduced and (divisor := _divisor(box, config)) > 1:
                image.draft("RGB", (-(-size[0] // divisor), -(-size[1] // divisor)))
            x, y = image.size[0] / size[0], image.size[1] / size[1]
            region = (box.left * x, box.top * y, (box.left + box.width) * x, (box.top + box.height) * y)
            resized = rgb(image).resize((config.width, config.height), Image.Resampling.BILINEAR, region)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as problem:
        raise BrickyardError(f"the image cannot be decoded: {problem}") from problem
    pixels = np.asarray(resized).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[:, :, ::-1] if flip else pixels)


def _divisor(box: Box, config: CropConfig) -> int:
    fits = [d for d in (8, 4, 2) if box.width >= d * config.width and box.height >= d * config.height]
    return fits[0] if fits else 1
