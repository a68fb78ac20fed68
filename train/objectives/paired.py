"""Scenes of points and images with pairs between them, on their way from the stream to the device.

`choose` draws the views of a scene before they are read. `prepare` runs in the stream's threads, too: it draws the same
views, drops a cuboid of points, crops and flips the images with their superpixels and pairs, and draws the rotation of
the cloud. `collate` joins scenes, moves them to the device and rotates there.
Only images with pairs are kept, and only superpixels with points get a number: the others cannot be contrasted. A scene
may end up without any; it stays in the batch and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.augment import (
    crop_image,
    crop_labels,
    drop_cuboid,
    inside,
    move_pixels,
    random_box,
    rotation_and_flips,
)
from brickyard.train.clouds import Cloud, Clouds, join_clouds, read_cloud
from brickyard.train.transfer import send, send_table

if TYPE_CHECKING:
    from brickyard.shards.encode import SceneHeader
    from brickyard.shards.stream import Sample
    from brickyard.train.objectives.distillation import Distillation


@dataclass(frozen=True, kw_only=True)
class PairedScene:
    """One scene; V images of h x w pixels, P pairs.

    Attributes:
        cloud: its points, less those dropped.
        parts: how many of its points, one sweep after another, are clouds of their own; all where sweeps are together.
        transform: float32 (3, 3), to be applied to xyz.
        images: uint8 (V, 3, h, w).
        labels: int16 (V, h, w), or int32 for many, superpixels with pairs numbered 0..superpixels-1 over all images, -1
            elsewhere; (V, 0, 0) where the objective takes none.
        labelled: how many of the pixels that the objective looks at are in one.
        pair_point, pair_image, pair_superpixel: int64 (P,). pair_pixel: int64 (P, 2), (row, column).
        seed: for what is drawn per batch.
    """

    cloud: Cloud
    parts: tuple[int, ...]
    transform: Tensor
    images: Tensor
    labels: Tensor
    labelled: int
    superpixels: int
    pair_point: Tensor
    pair_image: Tensor
    pair_pixel: Tensor
    pair_superpixel: Tensor
    seed: int


@dataclass(frozen=True, kw_only=True)
class PairedBatch:
    """As `PairedScene`, all scenes joined; indices count over the whole batch, labels are int32.

    Attributes:
        clouds: of all scenes, or of all their sweeps.
        empty: scenes without a pair.
    """

    keys: tuple[str, ...]
    clouds: Clouds
    images: Tensor
    labels: Tensor
    labelled: int
    superpixels: int
    pair_point: Tensor
    pair_image: Tensor
    pair_pixel: Tensor
    pair_superpixel: Tensor
    seed: int
    empty: float


@dataclass(frozen=True, kw_only=True)
class _View:
    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    superpixels: int
    point: NDArray[np.int64]
    pixel: NDArray[np.int64]
    superpixel: NDArray[np.int64]


def choose(sample: Sample, rng: np.random.Generator, config: Distillation) -> tuple[str, ...]:
    """The student's fields and those of the views that `prepare` will draw; not for `visible_only`, as no header tells
    how many pairs are visible."""
    numbers = _drawn(_usable(sample.header, config), rng, config)
    sweeps = ("points/sweep",) if config.sweeps == "apart" else ()
    return (*config.student.fields, *sweeps, *(f"views/{v}/{part}" for v in numbers for part in _needed(config)))


def prepare(sample: Sample, rng: np.random.Generator, config: Distillation) -> PairedScene:
    """See the module's text; raises `BrickyardError` for a scene without points or with an image nobody can decode."""
    cloud = read_cloud(sample, config.student.inputs, config.student.intensity)
    usable = _usable(sample.header, config)
    if config.visible_only:
        usable = [number for number in usable if sample[f"views/{number}/pairs"].visible.any()]
    order = _drawn(usable, rng, config)
    pairs = {number: _pairs(sample, number, visible_only=config.visible_only) for number in order}
    turn = _turn(rng, config) if config.cuboid.turned else None
    xyz = cloud.xyz.numpy() if turn is None else cloud.xyz.numpy() @ turn.T
    keep = drop_cuboid(xyz, [pairs[number][0] for number in order], config.cuboid, rng)
    kept, parts = _by_sweep(sample, np.flatnonzero(keep), config)
    renumber = np.full(len(keep), -1)
    renumber[kept] = np.arange(len(kept))
    views = []
    for number in order:
        point, pixel = pairs[number]
        stays = keep[point]
        view = _view(sample, number, (renumber[point[stays]], pixel[stays]), config, rng)
        if len(view.point):
            views.append(view)
    crop, labelled = config.crop, config.superpixels
    label_size = (crop.height, crop.width) if labelled else (0, 0)
    starts = np.cumsum([0, *(view.superpixels for view in views)])
    small = np.int16 if starts[-1] <= np.iinfo(np.int16).max else np.int32
    labels = [
        np.where(v.labels >= 0, v.labels + start, -1).astype(small) for v, start in zip(views, starts, strict=False)
    ]
    looked_at = slice(config.label_stride // 2, None, config.label_stride)
    return PairedScene(
        cloud=cloud.take(torch.from_numpy(kept)),
        parts=parts,
        transform=torch.from_numpy(_turn(rng, config) if turn is None else turn),
        images=_stack([view.image for view in views], (3, crop.height, crop.width), np.uint8),
        labels=_stack(labels, label_size, small),
        labelled=sum(int(np.count_nonzero(v.labels[looked_at, looked_at] >= 0)) for v in views) if labelled else 0,
        superpixels=int(starts[-1]),
        pair_point=_cat([view.point for view in views]),
        pair_image=_cat([np.full(len(view.point), i) for i, view in enumerate(views)]),
        pair_pixel=_cat([view.pixel for view in views], 2),
        pair_superpixel=_cat([v.superpixel + start for v, start in zip(views, starts, strict=False)]),
        seed=int(rng.integers(2**62)),
    )


def collate(items: Sequence[PairedScene], inputs: Sequence[str], device: torch.device) -> PairedBatch:
    """Join scenes on a device and transform their points there."""
    points = _starts([len(item.cloud.xyz) for item in items])
    images = _starts([len(item.images) for item in items])
    superpixels = _starts([item.superpixels for item in items])
    clouds = join_clouds([part for item in items for part in _parts(item)], inputs, device)
    transform = send(torch.stack([item.transform for item in items for _ in item.parts]), device)
    turned = torch.einsum("nij,nj->ni", transform[clouds.scene], clouds.xyz)
    clouds = replace(clouds, xyz=turned)

    def joined(parts: list[Tensor]) -> Tensor:
        return send(torch.cat(parts), device)

    labels = joined([item.labels for item in items]).int()
    first = send_table([start for item, start in zip(items, superpixels, strict=False) for _ in item.images], device)
    return PairedBatch(
        keys=tuple(item.cloud.key for item in items),
        clouds=clouds,
        images=joined([item.images for item in items]),
        labels=torch.where(labels >= 0, labels + first.int()[:, None, None], -1),
        labelled=sum(item.labelled for item in items),
        superpixels=superpixels[-1],
        pair_point=joined([item.pair_point + start for item, start in zip(items, points, strict=False)]),
        pair_image=joined([item.pair_image + start for item, start in zip(items, images, strict=False)]),
        pair_pixel=joined([item.pair_pixel for item in items]),
        pair_superpixel=joined([item.pair_superpixel + start for item, start in zip(items, superpixels, strict=False)]),
        seed=items[0].seed,
        empty=float(sum(len(item.pair_point) == 0 for item in items)),
    )


def _needed(config: Distillation) -> tuple[str, ...]:
    """Fields that a view must have."""
    return ("image", "pairs", "superpixels") if config.superpixels else ("image", "pairs")


def _usable(header: SceneHeader, config: Distillation) -> list[int]:
    """Numbers of the views with an image, pairs, and superpixels where they are needed."""
    fields = header.fields
    whole = [v for v in range(len(header.views)) if all(f"views/{v}/{part}" in fields for part in _needed(config))]
    return [v for v in whole if fields[f"views/{v}/pairs"].get("count") != 0]


def _drawn(usable: list[int], rng: np.random.Generator, config: Distillation) -> list[int]:
    """Some of the views, in an order of chance."""
    order = [usable[i] for i in rng.permutation(len(usable))][: config.views]
    if config.camera_drop == 0:
        return order
    stays = rng.random(len(order)) >= config.camera_drop
    return [number for number, here in zip(order, stays, strict=True) if here] or order[:1]


def _turn(rng: np.random.Generator, config: Distillation) -> NDArray[np.float32]:
    """float32 (3, 3): rotation, flips, and a scale if one is asked for."""
    turn = rotation_and_flips(rng)
    return turn * np.float32(1 + rng.uniform(-config.scale, config.scale)) if config.scale else turn


def _by_sweep(
    sample: Sample, kept: NDArray[np.int64], config: Distillation
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """(the points that are kept, one sweep after another; how many of each), or as they are where sweeps stay together.

    Raises:
        BrickyardError: a scene that does not say which sweep a point is of.
    """
    if config.sweeps == "together":
        return kept, (len(kept),)
    if "points/sweep" not in sample:
        raise BrickyardError(
            f"scene {sample.key} does not say which sweep its points are of, which `sweeps: apart` needs: build the"
            " corpus with several sweeps (an option of its source), or take `sweeps: together`"
        )
    sweep = np.asarray(sample["points/sweep"])[kept]
    _, counts = np.unique(sweep, return_counts=True)
    return kept[np.argsort(sweep, kind="stable")], tuple(counts.tolist()) or (0,)


def _parts(item: PairedScene) -> list[Cloud]:
    """The clouds that are encoded on their own."""
    if len(item.parts) == 1:
        return [item.cloud]
    ends = np.cumsum(item.parts)
    return [item.cloud.take(torch.arange(end - n, end)) for n, end in zip(item.parts, ends, strict=True)]


def _pairs(sample: Sample, number: int, *, visible_only: bool) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    pairs = sample[f"views/{number}/pairs"]
    if visible_only:
        return pairs.point[pairs.visible], pairs.pixel[pairs.visible]
    return pairs.point, pairs.pixel


def _view(
    sample: Sample,
    number: int,
    pairs: tuple[NDArray[Any], NDArray[np.uint16]],
    config: Distillation,
    rng: np.random.Generator,
) -> _View:
    point, pixel = pairs
    header, crop = sample.header.view(number), config.crop
    box = random_box(header.width, header.height, pixel, crop, rng)
    flip = bool(rng.random() < crop.flip)
    kept = inside(pixel, box)
    column_row = move_pixels(pixel[kept], box, crop, flip=flip)
    place = column_row[:, ::-1].astype(np.int64)
    try:
        image = crop_image(bytes(sample[f"views/{number}/image"]), (header.width, header.height), box, crop, flip=flip)
    except BrickyardError as problem:
        raise BrickyardError(f"scene {sample.key}, view {header.name}: {problem}") from problem
    labels, superpixel, count = np.empty((0, 0), np.int64), np.zeros(len(place), np.int64), 0
    if config.superpixels:
        cropped = crop_labels(sample[f"views/{number}/superpixels"], box, crop, flip=flip)
        table = np.full(int(cropped.max()) + 1, -1, np.int64)
        present = np.unique(cropped[place[:, 0], place[:, 1]])
        table[present] = np.arange(len(present))
        labels, count = table[cropped], len(present)
        superpixel = labels[place[:, 0], place[:, 1]]
    return _View(
        image=image,
        labels=labels,
        superpixels=count,
        point=point[kept].astype(np.int64),
        pixel=place,
        superpixel=superpixel,
    )


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *(int(v) for v in np.cumsum(sizes))]


def _stack(arrays: list[NDArray[Any]], shape: tuple[int, ...], dtype: type) -> Tensor:
    return torch.from_numpy(np.stack(arrays) if arrays else np.empty((0, *shape), dtype))


def _cat(arrays: list[NDArray[Any]], columns: int | None = None) -> Tensor:
    empty = np.empty((0,) if columns is None else (0, columns), np.int64)
    return torch.from_numpy(np.concatenate([empty, *arrays]))
