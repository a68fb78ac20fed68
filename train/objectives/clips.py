"""Frames of clips on their way from the stream to the device: some views of a window, inputs and targets.

`choose` draws by the header alone: a window of L consecutive frames, its first and last frame and others between them,
and which of them are inputs. L is uniform in a range that widens with the training step, as published with RayZer: a
frame far from its neighbours is harder. As the step comes with each sample, nothing is restarted for it, and a run that
is resumed goes on alike. Only those frames are read. `prepare` decodes them at the smallest size that will do and cuts
out the middle square; `collate` sends bytes to the device, and resizes there (bicubic with area support).

A scene without a window of L frames is unfit: the stream takes another one, by the same draws, and counts it. So are
scenes that are no clips, clips with frames of several sizes and, where cameras are given, those without enough poses or
with lenses that bend rays. (Published: frames are resized to 256 pixels of height and a width that is a multiple of
16, then cropped to the middle square: the same but for at most 3 % of stretch.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from brickyard.shards.errors import ImageError, UnfitSceneError
from brickyard.shards.images import decode_reduced
from brickyard.shards.lenses import LENSES
from brickyard.train.schedules import linear
from brickyard.train.transfer import send

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample

Range = tuple[int, int]
Order = Literal["drawn", "sorted"]
Split = Literal["random", "ends"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which frames of a clip.

    Attributes:
        inputs, targets: views that the scene is made of, and views that are rendered.
        window: frames from the first view to the last, least and most, at the first step; `window_end`: from step
            `ramp` on, linear between.
        order: what numbers the views between the ends have: "drawn" at random, as published, or "sorted" by time. A
            network that knows the numbers can learn from sorted ones to mix neighbours.
        split: which views are inputs: "random" ones, as of RayZer, or the "ends" of the window first, then random ones.
    """

    inputs: int = 16
    targets: int = 8
    window: Range = (48, 64)
    window_end: Range = (64, 96)
    ramp: int = 30_000
    order: Order = "drawn"
    split: Split = "random"

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.targets < 1 or self.ramp < 0 or self.views < 2:
            raise ValueError("inputs and targets must be positive, ramp not negative")
        for low, high in (self.window, self.window_end):
            if not self.views <= low <= high:
                raise ValueError(f"a window must hold {self.views} views and be a range, found {low}..{high} frames")
        if self.order not in get_args(Order) or self.split not in get_args(Split):
            raise ValueError('order is "drawn" or "sorted", split "random" or "ends"')

    @property
    def views(self) -> int:
        return self.inputs + self.targets

    def range(self, step: int) -> Range:
        """Least and most frames of a window at a training step."""
        progress = 1.0 if self.ramp == 0 else step / self.ramp
        low, high = (round(linear(a, b, progress)) for a, b in zip(self.window, self.window_end, strict=True))
        return low, high


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Views of a clip, those of the inputs first.

    Attributes:
        frames: of each view, its place among the scene's.
        number: int64 (V,), of each view in the list that the network sees, 0..V-1.
        inputs: how many are inputs.
    """

    frames: tuple[int, ...]
    number: NDArray[np.int64]
    inputs: int

    @property
    def fields(self) -> tuple[str, ...]:
        """What is read of them."""
        return tuple(f"views/{frame}/image" for frame in self.frames)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Views of one clip.

    Attributes:
        frames: as in `Draw`. number: int64 (V,).
        pixels: uint8 (V, m, m, 3), the middle squares, as decoded.
        poses: float64 (V, 4, 4), scene from camera; intrinsics: float64 (V, 4), fx, fy, cx, cy in units of the square;
            None where cameras were not asked for.
    """

    key: str
    frames: tuple[int, ...]
    number: Tensor
    pixels: Tensor
    poses: Tensor | None = None
    intrinsics: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """As `Clip`, B clips together on the device; images float32 (B, V, 3, size, size), RGB in [0, 1]."""

    keys: tuple[str, ...]
    images: Tensor
    number: Tensor
    poses: Tensor | None = None
    intrinsics: Tensor | None = None


def draw(header: SceneHeader, rng: np.random.Generator, config: ClipConfig, step: int, *, posed: bool) -> Draw:
    """Views of a window at a training step; raises `UnfitSceneError` for a scene that has none.

    Args:
        posed: take frames with known cameras only.
    """
    usable = usable_frames(header, posed=posed)
    low, high = config.range(step)
    length = int(rng.integers(low, high + 1))
    if len(usable) < length:
        what = "frames with a known pose" if posed else "frames"
        raise UnfitSceneError(f"the clip has {len(usable)} {what}, the window {length}")
    start = int(rng.integers(len(usable) - length + 1))
    between = rng.choice(length - 2, config.views - 2, replace=False) + 1
    if config.order == "sorted":
        between = np.sort(between)
    places = np.array([0, *between.tolist(), length - 1])
    inputs = _inputs(rng, config)
    number = np.concatenate((np.flatnonzero(inputs), np.flatnonzero(~inputs)))
    frames = tuple(usable[start + place] for place in places[number].tolist())
    if posed:
        _refuse_still([header.views[frame]["scene_from_camera"] for frame in frames[: config.inputs]])
    return Draw(frames=frames, number=number, inputs=config.inputs)


def _inputs(rng: np.random.Generator, config: ClipConfig) -> NDArray[np.bool_]:
    """bool (V,): which views are inputs."""
    order = rng.permutation(config.views)
    if config.split == "ends":
        ends = [0, config.views - 1]
        order = np.array([*ends, *(one for one in order.tolist() if one not in ends)])
    found = np.zeros(config.views, bool)
    found[order[: config.inputs]] = True
    return found


def usable_frames(header: SceneHeader, *, posed: bool) -> list[int]:
    """Numbers of the frames of a clip that have an image and, if `posed`, a camera that is known.

    Raises:
        UnfitSceneError: a scene that is no clip, or whose frames differ in size or, if `posed`, have a lens that bends
            rays.
    """
    if header.points is not None:
        raise UnfitSceneError("the scene is no clip: it has points; build with the option `clips`")
    frames = [number for number in range(len(header.views)) if f"views/{number}/image" in header.fields]
    views = [header.views[number] for number in frames]
    if len(sizes := {(view["width"], view["height"]) for view in views}) > 1:
        shown = " and ".join(f"{width}x{height}" for width, height in sorted(sizes)[:2])
        raise UnfitSceneError(f"the clip has frames of {len(sizes)} sizes, such as {shown}: one camera has one")
    if not posed:
        return frames
    if bent := [view for view in views if LENSES[view["camera_model"]].wide or any(view["distortion"])]:
        raise UnfitSceneError(f"the lens of {bent[0]['name']} ({bent[0]['camera_model']}) bends rays")
    return [number for number, view in zip(frames, views, strict=True) if _known(view["scene_from_camera"])]


def _known(pose: list[list[float]] | None) -> bool:
    return pose is not None and bool(np.isfinite(pose).all())


def _refuse_still(poses: Sequence[list[list[float]]]) -> None:
    places = np.array(poses)[:, :3, 3]
    if len(places) > 1 and not np.ptp(places, axis=0).max() > 1e-6:
        raise UnfitSceneError("the input cameras are all at one place, which gives a scene no scale")


def read_clip(sample: Sample, drawn: Draw, size: int, *, posed: bool) -> Clip:
    """Decode the views of a draw for images of `size` pixels.

    Raises:
        ImageError: naming the view, for an image that is damaged or not as large as its scene says.
        UnfitSceneError: kinds of images are mixed, so that they decode to several sizes.
    """
    squares, boxes = zip(*(_square(sample, frame, size) for frame in drawn.frames), strict=True)
    if len(set(boxes)) > 1:
        raise UnfitSceneError("the clip mixes kinds of images that decode to different sizes")
    poses = intrinsics = None
    if posed:
        views = [sample.header.view(frame) for frame in drawn.frames]
        poses = torch.from_numpy(np.stack([np.asarray(view.scene_from_camera, np.float64) for view in views]))
        told = [boxed_intrinsics(view.intrinsics, box) for view, box in zip(views, boxes, strict=True)]
        intrinsics = torch.tensor(told, dtype=torch.float64)
    return Clip(
        key=sample.key,
        frames=drawn.frames,
        number=torch.from_numpy(drawn.number),
        pixels=torch.from_numpy(np.stack(squares)),
        poses=poses,
        intrinsics=intrinsics,
    )


def _square(sample: Sample, frame: int, size: int) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """(uint8 (m, m, 3), the middle square of a frame, at least `size` pixels where the image has so many; its left and
    top edge and its size in pixels of the whole image)."""
    view = sample.header.views[frame]
    try:
        image = decode_reduced(bytes(sample[f"views/{frame}/image"]), size, (view["width"], view["height"]))
    except ImageError as problem:
        raise ImageError(f"views/{frame} ({view['name']}): {problem}", problem.offset) from problem
    height, width = image.shape[:2]
    factor = round(view["height"] / height)
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return image[top : top + edge, left : left + edge], (factor * left, factor * top, factor * edge)


def boxed_intrinsics(matrix: NDArray[np.float64], box: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in units of a square of an image, from (3, 3) in its pixels, whose centres are whole numbers."""
    left, top, edge = box
    centre = (matrix[0, 2] + 0.5 - left) / edge, (matrix[1, 2] + 0.5 - top) / edge
    return float(matrix[0, 0] / edge), float(matrix[1, 1] / edge), float(centre[0]), float(centre[1])


def join_clips(clips: Sequence[Clip], size: int, device: torch.device) -> ClipBatch:
    """Clips on a device, their images resized there."""
    images = torch.stack([resized(send(clip.pixels, device), size) for clip in clips])
    poses = [send(clip.poses, device) for clip in clips if clip.poses is not None]
    intrinsics = [send(clip.intrinsics, device) for clip in clips if clip.intrinsics is not None]
    return ClipBatch(
        keys=tuple(clip.key for clip in clips),
        images=images,
        number=send(torch.stack([clip.number for clip in clips]), device),
        poses=torch.stack(poses) if poses else None,
        intrinsics=torch.stack(intrinsics) if intrinsics else None,
    )


def resized(pixels: Tensor, size: int) -> Tensor:
    """uint8 (V, m, m, 3) -> float32 (V, 3, size, size) in [0, 1], in 256 steps."""
    images = pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] != size:
        images = shrunk(images if pixels.device.type == "cpu" else images.float(), size)
    return images.float().contiguous() / 255


def shrunk(images: Tensor, size: int) -> Tensor:
    """Images (V, 3, m, m) of 0..255 resized, in whole numbers. Torch resizes bytes on the CPU alone, there 15 times as
    fast as floats, which are one step of 256 off at most."""
    found = functional.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return found.round().clamp(0, 255) if found.is_floating_point() else found


def psnr(squared_error: Tensor) -> Tensor:
    """Decibels of a mean squared error of images in [0, 1]."""
    return -10 / math.log(10) * squared_error.clamp(min=1e-10).log()
