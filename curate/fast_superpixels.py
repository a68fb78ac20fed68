"""SLIC at a quarter of the size, its borders found anew at half and at full size: a fifth of the cost or less.

    image / 4 --SLIC--> clusters --small pieces joined--> segments --x 2, borders--> --x 2, borders--> connected

A segment of SLIC is some 100 pixels wide, so where it lies shows in a small picture; only its border needs the large
one. There each pixel beside a border goes to the segment, its own or one next to it, whose mean is nearest in colour
and place: SLIC's own distance. Pieces that SLIC leaves behind are joined to the neighbour of the most similar colour;
scikit-image's SLIC joins them to any neighbour, which costs it more than the small picture costs us.

Everything but SLIC itself is in integers and in sums and products of floats in a fixed order: no power, root or
exponential whose last bit depends on the processor. docs/superpixels.md has the costs and what it finds beside SLIC.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from brickyard.curate.images import decode_rgb
from brickyard.curate.lab import STEPS, lab_of
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Scene, Superpixels

MOST = 255
"""Superpixels of an image: ids fit one byte, with a value to spare."""
_REVISION = 1
"""Counts up where this file gives other superpixels; a part of their provenance."""
Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FastConfig:
    """Parameters with SLIC's meaning, for the whole image; found at a quarter of its size.

    Attributes:
        segments: approximate number of superpixels; there are never more than 255.
        compactness: weight of closeness against colour (Lab).
        sigma: width in full pixels of the smoothing before clustering.
        least: pieces smaller than this part of an average superpixel are joined to a neighbour.
    """

    kind: ClassVar[str] = "fast"

    segments: int = 150
    compactness: float = 6.0
    sigma: float = 3.0
    least: float = 0.5

    def __post_init__(self) -> None:
        if not (1 <= self.segments <= MOST and self.compactness > 0 and self.sigma >= 0 and 0 < self.least <= 1):
            raise RecipeError(
                f"fast superpixels need segments in 1..{MOST}, compactness above 0, sigma at least 0 and least in 0..1,"
                f" found {self}"
            )

    @property
    def provenance(self) -> str:
        """Method, versions of what decides the result, and parameters."""
        return (
            f"brickyard-fast-{_REVISION} skimage-{version('scikit-image')} slic n_segments={self.segments} "
            f"compactness={self.compactness:g} sigma={self.sigma:g} least={self.least:g}"
        )


def add_fast_superpixels(scene: Scene, config: FastConfig) -> Scene:
    """The scene with superpixels in every view (existing ones are replaced); deterministic.

    Raises `SceneError` for an image that cannot be decoded.
    """

    def found(labels: Labels) -> Superpixels:
        return Superpixels(labels=labels.astype(np.uint16), provenance=config.provenance)

    views = (replace(view, superpixels=found(partition(decode_rgb(scene, view), config))) for view in scene.views)
    return replace(scene, views=tuple(views)).validate()


def partition(image: NDArray[np.uint8], config: FastConfig) -> Labels:
    """Superpixels of an image.

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        uint8 (H, W): ids 0..n-1, each in use and connected (by edges), n at most 255.
    """
    height, width = image.shape[:2]
    factor = _reduction(height * width / config.segments)
    whole = Image.fromarray(image)
    small = _reduced(whole, factor)
    low, high = int(small.min()), int(small.max())
    lab = _smoothed(lab_of(small, low, high), config.sigma, factor)
    labels = _joined(_clusters(lab, config), lab, config.least * lab[0].size / config.segments)
    means = _means(labels, lab)
    means[:2] *= factor
    near = _Distance(means, config.compactness * STEPS, (height * width / means.shape[1]) ** 0.5)
    while factor > 1:
        factor //= 2
        pixels = _reduced(whole, factor, blur=1)
        labels = np.repeat(np.repeat(labels, 2, 0), 2, 1)[: pixels.shape[0], : pixels.shape[1]]
        labels = _borders(labels, pixels, (low, high), near, factor)
    return _connected(labels)


def _reduction(area: float) -> int:
    """By how much the image is made smaller: a superpixel is at least 8 pixels wide there."""
    return 4 if area >= 32 * 32 else 2 if area >= 16 * 16 else 1


def _reduced(image: Image.Image, factor: int, blur: int = 0) -> NDArray[np.uint8]:
    """Means over squares of `factor` pixels, in integers; what is left at the right and lower edge is a mean, too. Then
    means over squares that reach `blur` pixels in all directions: borders follow edges, not noise."""
    small = image.reduce(factor) if factor > 1 else image
    return np.asarray(small.filter(ImageFilter.BoxBlur(blur)) if blur else small)


def _smoothed(lab: NDArray[np.int32], sigma: float, factor: int) -> NDArray[np.float64]:
    """float64 (3, h, w): what smoothing by `sigma` full pixels leaves to do after means over squares of `factor`.

    By repeated (a, 1 - 2a, a), whose variances add up, in place of a Gaussian's exponentials.
    """
    from scipy import ndimage

    smooth = lab.astype(np.float64)
    variance = max(0.0, sigma * sigma - (factor * factor - 1) / 12) / factor**2
    times = -int(-variance // 0.5)
    for _ in range(times):
        a = variance / times / 2
        for axis in (1, 2):
            smooth = ndimage.correlate1d(smooth, [a, 1 - 2 * a, a], axis, mode="reflect")
    return smooth


def _clusters(lab: NDArray[np.float64], config: FastConfig) -> NDArray[np.intp]:
    """SLIC's clusters, not yet connected; int (h, w)."""
    from skimage.segmentation import slic

    span = float(lab.max() - lab.min())  # to which scikit-image stretches whatever it is given
    clusters: NDArray[np.intp] = slic(
        np.ascontiguousarray(np.moveaxis(lab, 0, 2)),
        n_segments=config.segments,
        compactness=config.compactness * STEPS / (span or 1.0),
        sigma=0,
        convert2lab=False,
        enforce_connectivity=False,
        start_label=0,
    )
    return clusters


def _joined(clusters: NDArray[np.intp], lab: NDArray[np.float64], least: float) -> Labels:
    """uint8 (h, w): the connected pieces of clusters, the smallest first joined to the neighbour of the most similar
    mean colour until all have `least` pixels and there are at most 255."""
    pieces, count = _pieces(clusters)
    size = np.bincount(pieces.ravel(), minlength=count).tolist()
    sums = np.stack([np.bincount(pieces.ravel(), plane.ravel(), count) for plane in lab], 1).tolist()
    beside: list[set[int]] = [set() for _ in range(count)]
    for one, other in _neighbours(pieces, count):
        beside[one].add(other)
        beside[other].add(one)
    into, left = list(range(count)), count
    queue = [(size[piece], piece) for piece in range(count)]
    heapq.heapify(queue)
    while queue and (queue[0][0] < least or left > MOST):
        pixels, piece = heapq.heappop(queue)
        if into[piece] != piece or size[piece] != pixels or not beside[piece]:
            continue  # joined or grown since
        target = min(beside[piece], key=lambda other: (_unlike(sums, size, piece, other), other))
        into[piece], left = target, left - 1
        size[target] += pixels
        sums[target] = [a + b for a, b in zip(sums[target], sums[piece], strict=True)]
        for other in beside[piece]:
            beside[other].discard(piece)
            if other != target:
                beside[other].add(target)
                beside[target].add(other)
        heapq.heappush(queue, (size[target], target))
    for piece in range(count):  # to the end of the chain
        while into[into[piece]] != into[piece]:
            into[piece] = into[into[piece]]
    numbers: Labels = np.unique(np.array(into), return_inverse=True)[1].astype(np.uint8)
    return np.take(numbers, pieces)


def _unlike(sums: list[list[float]], size: list[int], one: int, other: int) -> float:
    """Squared distance of the mean colours of two pieces."""
    a, b, (m, n) = sums[one], sums[other], (size[one], size[other])
    return (a[0] / m - b[0] / n) ** 2 + (a[1] / m - b[1] / n) ** 2 + (a[2] / m - b[2] / n) ** 2


def _pieces(labels: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    """Connected pieces (by edges) of equal labels, numbered from 0 in the order of their first pixels."""
    from skimage.measure import label

    found: NDArray[np.intp] = label(labels, background=-1, connectivity=1) - 1
    return found, int(found.max()) + 1


def _neighbours(pieces: NDArray[np.intp], count: int) -> list[tuple[int, int]]:
    """Pairs of pieces that share an edge of a pixel, each once."""
    keys = []
    for one, other in ((pieces[:, :-1], pieces[:, 1:]), (pieces[:-1], pieces[1:])):
        differ = one != other
        low, high = np.minimum(one[differ], other[differ]), np.maximum(one[differ], other[differ])
        keys.append(np.unique(low.astype(np.int64) * count + high))
    return [divmod(key, count) for key in np.unique(np.concatenate(keys)).tolist()]


def _means(labels: Labels, lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (5, n): row, column (of pixels' centres, counted from the corner), L, a, b."""
    height, width = labels.shape
    flat = labels.ravel()
    rows, columns = np.repeat(np.arange(height) + 0.5, width), np.tile(np.arange(width) + 0.5, height)
    sums = [np.bincount(flat, values) for values in (rows, columns, *lab.reshape(3, -1))]
    return np.stack(sums) / np.bincount(flat)


class _Distance:
    """SLIC's distance of pixels to segments, squared: of colour over compactness, of place over a segment's width."""

    def __init__(self, means: NDArray[np.float64], compactness: float, width: float) -> None:
        scale = np.array([1 / width] * 2 + [1 / compactness] * 3)
        self.scale, self.means = scale.astype(np.float32), (means * scale[:, None]).astype(np.float32)

    def features(self, rows: NDArray[Any], columns: NDArray[Any], lab: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        """What is compared: five times float32 (K,), from places in full pixels and colours (3, K)."""
        return [part.astype(np.float32) * scale for part, scale in zip((rows, columns, *lab), self.scale, strict=True)]

    def __call__(self, features: list[NDArray[np.float32]], segment: Labels) -> NDArray[np.float32]:
        total = np.zeros(len(segment), np.float32)
        for feature, mean in zip(features, self.means, strict=True):
            apart = feature - mean[segment]
            apart *= apart
            total += apart
        return total


def _borders(
    labels: Labels, pixels: NDArray[np.uint8], contrast: tuple[int, int], near: _Distance, factor: int
) -> Labels:
    """Labels (h, w) with each pixel beside a border given to the nearest of its own and the segments next to it. A pass
    moves a border by up to a pixel; the second one, at half the size, looks only where the first one moved it."""
    width = labels.shape[1]
    padded = np.pad(labels, 1, mode="edge")
    flat, wide = padded.reshape(-1), width + 2
    todo = _beside_border(labels)
    for _ in range(factor):
        rows, columns = np.nonzero(todo)
        place = (rows + 1) * wide + columns + 1
        colour = lab_of(pixels[rows, columns], *contrast)
        features = near.features((rows + 0.5) * factor, (columns + 0.5) * factor, colour)
        before = flat[place]
        best, least = before, near(features, before)
        for step in (-wide, -1, 1, wide):
            other = flat[place + step]
            distance = near(features, other)
            closer = distance < least
            best, least = np.where(closer, other, best), np.where(closer, distance, least)
        flat[place] = best
        padded[0], padded[-1], padded[:, 0], padded[:, -1] = padded[1], padded[-2], padded[:, 1], padded[:, -2]
        moved = np.zeros_like(todo)
        moved[rows, columns] = best != before
        todo = _grown(moved)
    return np.ascontiguousarray(padded[1:-1, 1:-1])


def _beside_border(labels: Labels) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another label."""
    found = np.zeros(labels.shape, np.bool_)
    for one, other in (((slice(None), slice(1, None)), (slice(None), slice(-1))), ((slice(1, None),), (slice(-1),))):
        differ = labels[one] != labels[other]
        found[one] |= differ
        found[other] |= differ
    return found


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the pixels next to it."""
    found = mask.copy()
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found


def _connected(labels: Labels) -> Labels:
    """Of each label the largest piece; other pieces are filled from their edges by what lies beside them. Ids become
    dense."""
    pieces, count = _pieces(labels)
    size, owner = np.bincount(pieces.ravel(), minlength=count), np.zeros(count, np.uint8)
    owner[pieces.ravel()] = labels.ravel()
    order = np.lexsort((np.arange(count), -size))
    used, first = np.unique(owner[order], return_index=True)
    lost = np.ones(count, np.bool_)
    lost[order[first]] = False
    number = np.zeros(256, np.uint8)
    number[used] = np.arange(len(used))
    wide = labels.shape[1] + 2
    free = np.pad(lost[pieces], 1, constant_values=True).reshape(-1)  # whose label is not known; what lies outside
    flat = np.pad(number[labels], 1).reshape(-1)
    rows, columns = np.nonzero(lost[pieces])
    place = (rows + 1) * wide + columns + 1
    while len(place):
        fill, found = flat[place], np.zeros(len(place), np.bool_)
        for step in (-wide, -1, 1, wide):
            beside = ~free[place + step] & ~found
            fill[beside] = flat[place + step][beside]
            found |= beside
        flat[place[found]] = fill[found]
        free[place[found]] = False
        place = place[~found]
    return np.ascontiguousarray(flat.reshape(-1, wide)[1:-1, 1:-1])
