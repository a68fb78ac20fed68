"""Rays of a posed view, each as two places: where the camera is, and what its pixel shows.

Whatever moves points moves both places, so points, cameras and depths cannot come apart, and no depth along a camera's
z is ever taken for a distance along a ray. Where rays come from:

  depth   pixels of a depth image (rooms). Their colours are looked up in the colour image by its own calibration and
          lens.
  pairs   correspondences of points and pixels (driving scans): of the visible points of a pixel the nearest. The camera
          is where it was when it exposed that line, where the scene knows; its lens does not matter any more.

Frames are those of `shards.scene`; metres, float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from brickyard.shards.cameras import depth_places, line_times, project_to
from brickyard.shards.errors import ImageError, UnfitSceneError
from brickyard.shards.images import decode_reduced
from brickyard.shards.scene import UNLABELLED
from brickyard.train.rendering.rays import choose_pixels

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.scene import View
    from brickyard.shards.stream import Sample

Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]
RaySource = Literal["depth", "pairs"]
Choose = Callable[[NDArray[np.bool_]], NDArray[np.int64]]
"""Which pixels of those that will do: bool (H, W) -> int64 (R, 2), (column, row)."""

_NEEDS = {"depth": "a depth image", "pairs": "pairs of points and pixels"}


@dataclass(frozen=True, kw_only=True)
class RaysConfig:
    """Which rays of a scene.

    Attributes:
        source: where they come from, see above.
        views: images of a scene, drawn each time; only these are read.
        per_view: rays of each, at most.
        least_depth: a view with depth at a smaller share of its pixels is left out ("depth" only).
        nearest: metres; what is nearer to the camera teaches nothing.
    """

    source: RaySource = "depth"
    views: int = 5
    per_view: int = 256
    least_depth: float = 0.25
    nearest: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in get_args(RaySource):
            raise ValueError(f"source must be one of {', '.join(get_args(RaySource))}, not {self.source!r}")
        if min(self.views, self.per_view) < 1 or not 0 <= self.least_depth <= 1 or self.nearest < 0:
            raise ValueError("views and per_view must be positive, least_depth a share, nearest not negative")


@dataclass(frozen=True, kw_only=True)
class ViewRays:
    """R rays of a view.

    Attributes:
        eyes, seen: float64 (R, 3).
        place: float64 (R, 2), (column, row) in the colour image at its full size.
        color: float32 (R, 3) in [0, 1], or (R, 0) where the image was not read.
        label: int64 (R,), class ids, UNLABELLED where none is known.
    """

    eyes: Float64
    seen: Float64
    place: Float64
    color: NDArray[np.float32]
    label: NDArray[np.int64]

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> ViewRays:
        """Some of them."""
        return replace(self, **{spec.name: getattr(self, spec.name)[which] for spec in fields(self)})


def usable_views(header: SceneHeader, source: RaySource) -> list[int]:
    """Numbers of the views that rays can come from, by the header; `UnfitSceneError` with what they lack if none."""
    lacks = [_lack(header, number, source) for number in range(len(header.views))]
    usable = [number for number, lack in enumerate(lacks) if lack is None]
    if not usable:
        found = ", ".join(f"{count} {lack}" for lack, count in Counter(lacks).items())
        raise UnfitSceneError(f"no view of it can be rendered: of {len(lacks)} views {found or 'there is none'}")
    return usable


def _lack(header: SceneHeader, number: int, source: RaySource) -> str | None:
    entry = header.views[number]
    if any(f"views/{number}/{part}" not in header.fields for part in ("image", source)):
        return f"lack an image or {_NEEDS[source]}"
    if entry["scene_from_camera"] is None or not np.isfinite(entry["scene_from_camera"]).all():
        return "lack a finite pose"
    if source == "depth":
        matrix = np.asarray(entry["depth"]["intrinsics"], np.float64)
        if not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
            return "have impossible intrinsics of depth"
        if entry.get("rolling_shutter") is not None:
            return "have a rolling shutter, which depth images do not account for"
    return None


def read_image(sample: Sample, number: int, least: int) -> Image:
    """The image of a view, reduced as long as its shorter side has `least` pixels; raises `ImageError`."""
    view = sample.header.view(number)
    try:
        return decode_reduced(bytes(sample[f"views/{number}/image"]), least, (view.width, view.height))
    except ImageError as problem:
        raise ImageError(f"views/{number} ({view.name}): {problem}", problem.offset) from problem


def read_depth(sample: Sample, number: int) -> Float64:
    """The depth image (H, W) of a view, metres, see `shards.scene.Depth.along`; 0 where it is unknown."""
    depth: Float64 = np.asarray(sample[f"views/{number}/depth"]) * float(sample.header.views[number]["depth"]["scale"])
    return depth


def depth_rays(header: SceneHeader, number: int, depth: Float64, image: Image | None, choose: Choose) -> ViewRays:
    """Rays through pixels of a depth image that have a depth and lie in the colour image, too.

    Args:
        depth: as `read_depth` gives it. image: uint8 (h, w, 3), of any size, or None.
        choose: which of them.
    """
    view = header.view(number)
    assert view.scene_from_camera is not None
    image_of = header.depth(number, np.empty(depth.shape, np.uint16))

    def places(column: NDArray[np.int64], row: NDArray[np.int64]) -> Float64:
        return depth_places(np.stack((column, row), 1).astype(np.float64), depth[row, column], view, image_of)

    row, column = np.nonzero(depth > 0)
    place = _in_image(view, places(column, row))
    inside = (place > -0.5).all(1) & (place < (view.width - 0.5, view.height - 0.5)).all(1)  # NaN compares false
    good = np.zeros(depth.shape, bool)
    good[row[inside], column[inside]] = True
    column, row = choose(good).T
    local = places(column, row)
    place = _in_image(view, local)
    pose = view.scene_from_camera
    return ViewRays(
        eyes=np.broadcast_to(pose[:3, 3], local.shape),
        seen=local @ pose[:3, :3].T + pose[:3, 3],
        place=place,
        color=colors_at(image, view, place),
        label=labels_at(None, place),
    )


def pair_rays(sample: Sample, number: int, xyz: NDArray[np.float32], image: Image | None, nearest: float) -> ViewRays:
    """Rays to the visible points of a view, the nearest of each pixel, none nearer than `nearest` metres.

    Args:
        xyz: all points of the scene, which the pairs count. image: uint8 (h, w, 3), of any size, or None.
    """
    pairs, view = sample[f"views/{number}/pairs"], sample.header.view(number)
    assert view.scene_from_camera is not None
    seen, place = xyz[pairs.point[pairs.visible]].astype(np.float64), pairs.pixel[pairs.visible].astype(np.float64)
    eyes = np.broadcast_to(view.scene_from_camera[:3, 3], seen.shape)
    if view.rolling_shutter is not None:
        eyes = eyes + line_times(place, view)[:, None] * view.rolling_shutter.velocity
    distance = np.linalg.norm(seen - eyes, axis=1)
    order = np.lexsort((distance, place[:, 0], place[:, 1]))
    order = order[distance[order] >= max(nearest, 1e-3)]
    first = np.ones(len(order), bool)
    first[1:] = (place[order[1:]] != place[order[:-1]]).any(1)
    rays = ViewRays(
        eyes=eyes, seen=seen, place=place, color=colors_at(image, view, place), label=labels_at(None, place)
    )
    return rays.take(order[first])


def evenly(count: int, seed: int) -> Choose:
    """Up to `count` pixels, spread over the image, by chance; see `train.rendering.rays.choose_pixels`."""

    def chosen(good: NDArray[np.bool_]) -> NDArray[np.int64]:
        pixels, _ = choose_pixels(torch.from_numpy(good)[None], count, torch.tensor([seed]))
        return pixels.long().numpy()

    return chosen


def colors_at(image: Image | None, view: View, place: Float64) -> NDArray[np.float32]:
    """float32 (R, 3) in [0, 1]: the image at places (R, 2) of the full one, between its pixels, clamped to its edge.

    (R, 0) without an image.
    """
    if image is None:
        return np.empty((len(place), 0), np.float32)
    height, width = image.shape[:2]
    scale = (width / view.width, height / view.height)
    exact = ((place + 0.5) * scale - 0.5).clip(0, (width - 1, height - 1))
    before = np.minimum(exact.astype(np.int64), (max(width - 2, 0), max(height - 2, 0)))
    share = (exact - before)[:, :, None].astype(np.float32)
    left, top = before.T
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = share[:, 0], share[:, 1]
    above = image[top, left] * (1 - across) + image[top, right] * across
    below = image[bottom, left] * (1 - across) + image[bottom, right] * across
    colors: NDArray[np.float32] = ((above * (1 - down) + below * down) / 255).astype(np.float32)
    return colors


def labels_at(labels: NDArray[np.int16] | None, place: Float64) -> NDArray[np.int64]:
    """int64 (R,): class ids of a label image (H, W) at the pixels nearest to places (R, 2); UNLABELLED without one."""
    if labels is None:
        return np.full(len(place), UNLABELLED, np.int64)
    height, width = labels.shape
    column, row = np.rint(place).astype(np.int64).clip(0, (width - 1, height - 1)).T
    found: NDArray[np.int64] = labels[row, column].astype(np.int64)
    return found


def _in_image(view: View, local: Float64) -> Float64:
    """Places in the camera's frame -> pixels (R, 2) of the colour image; NaN where its lens does not see them."""
    uv: Float64 = project_to(local, np.eye(4), view.intrinsics, model=view.camera_model, distortion=view.distortion).uv
    return uv
