"""Scenes with posed views, on their way from the stream to the device as points and rays (see `objectives.view_rays`).

`choose` draws the views of a scene before they are read, by what its header says of them; `prepare` draws the same
ones, moves the scene, and leaves out most of its points. Images are not read where no colour is asked for. A scene
without a view that will do is unfit: the stream takes another and counts it, with what its views lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from brickyard.shards.errors import UnfitSceneError
from brickyard.train.clouds import Cloud, Clouds, join_clouds
from brickyard.train.objectives.moves import Float64, about, draw_move, moved_cloud, moved_places
from brickyard.train.objectives.view_rays import (
    ViewRays,
    depth_rays,
    evenly,
    labels_at,
    pair_rays,
    read_depth,
    read_image,
    usable_views,
)
from brickyard.train.transfer import send

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample
    from brickyard.train.objectives.ponder import Ponder


@dataclass(frozen=True, kw_only=True)
class PosedScene:
    """One scene, moved; R rays of V views.

    Attributes:
        cloud: its points, less those left out.
        eyes, seen: float32 (R, 3), metres. color: float32 (R, 3), or (R, 0). label: int64 (R,), -1 unknown.
        images: uint8 (V, 3, h, w) as the teacher sees them, or (0, 3, 0, 0) without one.
        image: int64 (R,). place: int64 (R, 2), (row, column) in these images.
        seed: for what is drawn on the device.
        views: V. left_out: views that were drawn besides, and show too little.
        move: float64 (4, 4), how the scene was moved: metres before -> after.
    """

    cloud: Cloud
    eyes: Tensor
    seen: Tensor
    color: Tensor
    label: Tensor
    images: Tensor
    image: Tensor
    place: Tensor
    seed: int
    views: int
    left_out: int
    move: Float64


@dataclass(frozen=True, kw_only=True)
class PosedBatch:
    """As `PosedScene`, all scenes joined; `image` counts over the whole batch.

    Attributes:
        counts: rays of each scene. seeds: int64 (B,), on the host.
    """

    keys: tuple[str, ...]
    domains: tuple[str, ...]
    clouds: Clouds
    eyes: Tensor
    seen: Tensor
    color: Tensor
    label: Tensor
    counts: tuple[int, ...]
    images: Tensor
    image: Tensor
    place: Tensor
    seeds: Tensor
    views: int
    left_out: int


def choose(sample: Sample, rng: np.random.Generator, config: Ponder) -> tuple[str, ...]:
    """The student's fields and those of the views that `prepare` will draw; raises `UnfitSceneError`."""
    numbers = _drawn(sample.header, rng, config)
    return (*config.student.fields, *(f"views/{v}/{part}" for v in numbers for part in config.read_fields))


def _drawn(header: SceneHeader, rng: np.random.Generator, config: Ponder) -> list[int]:
    usable = usable_views(header, config.rays.source)
    return [usable[number] for number in rng.permutation(len(usable))[: config.rays.views]]


def prepare(sample: Sample, cloud: Cloud, rng: np.random.Generator, config: Ponder) -> PosedScene:
    """See the module's text.

    Args:
        cloud: all points, as the student reads them.

    Raises:
        UnfitSceneError: no view has enough depth, or nothing is seen that can be rendered.
        ImageError: an image is damaged.
    """
    return prepare_views(sample, cloud, _drawn(sample.header, rng, config), rng, config)


def prepare_views(
    sample: Sample, cloud: Cloud, numbers: Sequence[int], rng: np.random.Generator, config: Ponder
) -> PosedScene:
    """`prepare` of views that were drawn before.

    Args:
        cloud: all points, as the student reads them.
        numbers: of the views.

    Raises:
        UnfitSceneError: no view has enough depth, or nothing is seen that can be rendered.
        ImageError: an image is damaged.
    """
    move = draw_move(rng, config.moves)
    if config.renderer.range is None:
        low, high = (np.array(corner, np.float64) for corner in (cloud.xyz.amin(0), cloud.xyz.amax(0)))
        move = about(move, np.array([*(low + high)[:2] / 2, low[2]]))
    kept = np.sort(rng.permutation(len(cloud.xyz))[: max(1, round(len(cloud.xyz) * (1 - config.dropout)))])
    moved = moved_cloud(cloud.take(torch.from_numpy(kept)), move)
    moved = moved.take(torch.from_numpy(_inside(moved.xyz.numpy(), config)))
    found = [_view(sample, number, cloud, config, rng) for number in numbers]
    known = [(_moved(rays, move, config), picture) for one in found if one is not None for rays, picture in (one,)]
    shown = [(rays, picture) for rays, picture in known if len(rays.eyes)]
    if not shown or not len(moved.xyz):
        raise UnfitSceneError(
            f"of the {len(numbers)} views that were drawn {len(numbers) - len(known)} have too little depth, and the"
            " others show nothing within the range that is rendered"
        )
    pictures = [picture for _, picture in shown if picture is not None]
    sizes = torch.tensor([len(rays.eyes) for rays, _ in shown])
    return PosedScene(
        cloud=moved,
        eyes=_joined([rays.eyes for rays, _ in shown]).float(),
        seen=_joined([rays.seen for rays, _ in shown]).float(),
        color=_joined([rays.color for rays, _ in shown]),
        label=_joined([rays.label for rays, _ in shown]),
        images=torch.from_numpy(np.stack(pictures) if pictures else np.empty((0, 3, 0, 0), np.uint8)),
        image=torch.arange(len(shown)).repeat_interleave(sizes),
        place=_joined([rays.place[:, ::-1] for rays, _ in shown]).long(),
        seed=int(rng.integers(2**62)),
        views=len(shown),
        left_out=len(numbers) - len(shown),
        move=move,
    )


def collate(items: Sequence[PosedScene], inputs: Sequence[str], device: torch.device) -> PosedBatch:
    """Join scenes on a device."""
    first = np.cumsum([0, *(len(item.images) for item in items)])

    def joined(parts: list[Tensor]) -> Tensor:
        return send(torch.cat(parts), device)

    pictures = [item.images for item in items if len(item.images)]
    return PosedBatch(
        keys=tuple(item.cloud.key for item in items),
        domains=tuple(item.cloud.domain for item in items),
        clouds=join_clouds([item.cloud for item in items], inputs, device),
        eyes=joined([item.eyes for item in items]),
        seen=joined([item.seen for item in items]),
        color=joined([item.color for item in items]),
        label=joined([item.label for item in items]),
        counts=tuple(len(item.eyes) for item in items),
        images=joined(pictures) if pictures else items[0].images.to(device),
        image=joined([item.image + int(start) for item, start in zip(items, first, strict=False)]),
        place=joined([item.place for item in items]),
        seeds=torch.tensor([item.seed for item in items]),
        views=sum(item.views for item in items),
        left_out=sum(item.left_out for item in items),
    )


def _view(
    sample: Sample, number: int, cloud: Cloud, config: Ponder, rng: np.random.Generator
) -> tuple[ViewRays, NDArray[np.uint8] | None] | None:
    """(rays of a view, its image as the teacher sees it, if one does); None where it has too little depth.

    Rays' `place` is in pixels of that image.
    """
    header, rays, seed = sample.header, config.rays, int(rng.integers(2**62))
    view, depth, image = header.view(number), None, None
    if rays.source == "depth":
        depth = read_depth(sample, number)
        depth[depth <= rays.nearest] = 0
        if (depth > 0).mean() < rays.least_depth:
            return None
    if "image" in config.view_fields:
        least = min(view.width, view.height) if depth is None else min(depth.shape)
        image = read_image(sample, number, max(least, config.teacher_size[0] if config.teaches else 0))
    if depth is not None:
        found = depth_rays(header, number, depth, image, evenly(rays.per_view, seed))
    else:
        found = pair_rays(sample, number, cloud.xyz.numpy(), image, rays.nearest)
        drawn = np.random.default_rng(seed).permutation(len(found.eyes))[: rays.per_view]
        found = found.take(np.sort(drawn))
    if config.label_field is not None and (name := f"views/{number}/{config.label_field}") in sample:
        found = replace(found, label=labels_at(sample[name], found.place))
    if not config.teaches:
        return found, None
    assert image is not None
    height, width = config.teacher_size
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    place = np.floor((found.place + 0.5) * (width / view.width, height / view.height))
    found = replace(found, place=place.clip(0, (width - 1, height - 1)))
    return found, np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def _moved(rays: ViewRays, move: Float64, config: Ponder) -> ViewRays:
    """The rays moved, those that end within the range."""
    eyes, seen = moved_places(rays.eyes, move), moved_places(rays.seen, move)
    return replace(rays, eyes=eyes, seen=seen).take(_inside(seen, config))


def _inside(xyz: NDArray[Any], config: Ponder) -> NDArray[np.bool_]:
    if config.renderer.range is None:
        return np.ones(len(xyz), bool)
    low, high = config.renderer.range
    inside: NDArray[np.bool_] = ((xyz >= low) & (xyz <= high)).all(1)
    return inside


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))
