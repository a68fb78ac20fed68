"""The views of a batch of scenes: two global ones and some local ones each, augmented, the global ones also masked.

Views stand one after another, all first global views, then all second ones, then the local ones: view v of scene b of a
batch of B is number v * B + b. They share no noise, but the two global views of a scene share its changed colours.
Everything follows from the scenes' seeds. On one CPU core about 1 microsecond a point of a view, elastic distortion
apart (some 10 ms a view for rooms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from brickyard.train.clouds import MODALITIES, Clouds
from brickyard.train.transfer import send
from brickyard.train.views.color import ColorConfig, recolor
from brickyard.train.views.crops import CropConfig, crops, grid_sample
from brickyard.train.views.geometry import GeometryConfig, move
from brickyard.train.views.masks import mask_cubes, shaken
from brickyard.train.views.noise import derive, uniform


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How views are made.

    Attributes:
        crop, geometry, color: see their classes.
        withhold: modality -> probability that the student does not get it in a view, although the scene has it; needs
            "valid" among the inputs.
        shake: deviation of the noise on masked points' coordinates, metres. shake_limit: where it is cut off.

    All metres are those of the network, after the student's `scale`.
    """

    crop: CropConfig = field(default_factory=CropConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    withhold: dict[str, float] = field(default_factory=dict)
    shake: float = 0.01
    shake_limit: float = 0.02

    def __post_init__(self) -> None:
        for name, chance in self.withhold.items():
            if name not in MODALITIES or not 0 <= chance <= 1:
                raise ValueError(f"withhold takes probabilities of {', '.join(MODALITIES)}, not {name}: {chance}")


@dataclass(frozen=True, kw_only=True)
class Views:
    """See the module's text.

    Attributes:
        clouds: the views as the teacher sees the global ones.
        shown: the same points as the student sees them, without what is withheld from it.
        xyz: float32 (N, 3), coordinates by which the student's points are sorted into cells.
        masked: bool (N,).
        origin: float32 (N, 3), coordinates before augmentation.
        cell: int64, for every point of the joined scenes the number of the cell it was thinned into.
        chosen: int64 (N,), the cell that each point of the views stands for.
        scenes: B.
    """

    clouds: Clouds
    shown: Clouds
    xyz: Tensor
    masked: Tensor
    origin: Tensor
    cell: Tensor
    chosen: Tensor
    scenes: int


@torch.no_grad()
def make_views(
    scenes: Clouds, seeds: Tensor, config: ViewConfig, *, size: float, mask_size: float, mask_ratio: float
) -> Views:
    """The views of a batch.

    Args:
        scenes: whole scenes in the metric of the network, on the training device.
        seeds: int64 (B,), one for every scene; best on the host.
        size: edge of the cells that are thinned to one point, metres.
        mask_size, mask_ratio: edge of the cubes that are masked, metres, and share of them.
    """
    kept, cell, counts = grid_sample(scenes, size, seeds)
    thinned = scenes.take(kept, counts)
    masks = crops(thinned, config.crop, seeds)
    chosen = [torch.nonzero_static(mask, size=sum(sizes))[:, 0] for mask, sizes in masks]
    batch, views = scenes.batch, len(masks)
    numbers = torch.arange(views * batch, device=seeds.device)
    own = derive(seeds.repeat(views), "view", numbers // batch)

    shared = recolor(thinned, config.color, derive(seeds, "color of global views"))
    shown = [(points, sizes) for points, (_, sizes) in zip(chosen, masks, strict=True)]
    parts = [shared.take(*part) for part in shown[:2]]
    if views > 2:
        local = join([thinned.take(*part) for part in shown[2:]])
        parts.append(recolor(local, config.color, derive(own[2 * batch :], "color")))
    clouds = join(parts)
    every = torch.cat(chosen)
    origin = thinned.xyz[every]
    clouds = move(clouds, config.geometry, derive(own, "geometry"))

    whole, seen = clouds.first(2 * batch), derive(own[: 2 * batch], "mask")
    masked = torch.zeros(len(clouds.xyz), dtype=torch.bool, device=clouds.xyz.device)
    # where cubes are no smaller than the cells of the network, it is the network that tells of views that are too large
    masked[: len(whole.xyz)] = mask_cubes(whole, mask_size, mask_ratio, seen, known=mask_size >= size)
    return Views(
        clouds=clouds,
        shown=withheld(clouds, config.withhold, derive(own, "withhold")),
        xyz=shaken(clouds, masked, config.shake, config.shake_limit, derive(own, "shake")),
        masked=masked,
        origin=origin,
        cell=cell,
        chosen=every,
        scenes=batch,
    )


def withheld(clouds: Clouds, chances: Mapping[str, float], seeds: Tensor) -> Clouds:
    """The clouds without some of their modalities, by chance; `seeds` int64 (views,)."""
    values, valid = dict(clouds.values), dict(clouds.valid)
    for name, chance in chances.items():
        if name in values and chance > 0:
            kept = uniform(derive(seeds, name))[:, 0] >= chance
            valid[name] = valid[name] & send(kept, clouds.xyz.device)
            values[name] = torch.where(valid[name][clouds.scene][:, None], values[name], 0.0)
    return replace(clouds, values=values, valid=valid)


def join(parts: list[Clouds]) -> Clouds:
    """Several batches as one, in their order."""
    shifts = [0]
    for part in parts:
        shifts.append(shifts[-1] + part.batch)
    return Clouds(
        xyz=torch.cat([part.xyz for part in parts]),
        values={name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values},
        valid={name: torch.cat([part.valid[name] for part in parts]) for name in parts[0].valid},
        scene=torch.cat([part.scene + shift for part, shift in zip(parts, shifts, strict=False)]),
        counts=tuple(count for part in parts for count in part.counts),
        datasets=tuple(dataset for part in parts for dataset in part.datasets),
    )
