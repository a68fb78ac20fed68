"""Augmentation of labelled scenes, as published for the supervised protocols of Sonata and Pointcept.

A fifth of the points is dropped, the others are moved (turn, tilt, scale, flip, jitter, elastic distortion:
`train.views.geometry`), coloured anew
(contrast stretched, all shifted, noise on each point), cropped to a ball of the nearest so many voxels; scenes of a
batch are laid over each other in pairs (Mix3D, Nekrasov et al., 3DV 2021). Batched functions on the training device;
every random number is a function of the scene's seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from brickyard.shards.scene import UNLABELLED
from brickyard.train.clouds import Clouds
from brickyard.train.views.color import ColorConfig, recolor
from brickyard.train.views.geometry import GeometryConfig, move, turns
from brickyard.train.views.noise import derive, normal, uniform
from brickyard.train.voxels import representatives


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training scene.

    Attributes:
        geometry: turns, scale, flips, jitter, elastic distortion.
        about: turns are about the "middle" of the scene's floor, or about the "sensor", the scene's origin, where
            cylindrical voxels have their axis; then there is no elastic distortion.
        drop, drop_chance: share of the points that is dropped, and with which probability (published: always). Where
            few points are labelled, those stay.
        contrast_chance: probability that each channel of colour is stretched to the whole range, in part.
        color: change of all points' colours together.
        color_noise, color_noise_chance: deviation of normal noise on each point's colour, of 1, and its probability.
        crop_share: first keep the nearest voxels around a random one, this share of all; None keeps all. Published for
            S3DIS: 0.6.
        crop: then keep the nearest so many voxels around another; None keeps all.
        mix: probability that the scenes of a batch are laid over each other in pairs.
    """

    geometry: GeometryConfig = field(default_factory=lambda: GeometryConfig(turn=0.5, tilt_chance=0.5))
    about: Literal["middle", "sensor"] = "middle"
    drop: float = 0.2
    drop_chance: float = 1.0
    contrast_chance: float = 0.2
    color: ColorConfig = field(default_factory=lambda: ColorConfig(chance=0.0))
    color_noise: float = 0.05
    color_noise_chance: float = 0.95
    crop_share: float | None = None
    crop: int | None = 102_400
    mix: float = 0.8

    def __post_init__(self) -> None:
        chances = (self.drop_chance, self.contrast_chance, self.color_noise_chance, self.mix)
        if not all(0 <= chance <= 1 for chance in chances) or not 0 <= self.drop < 1:
            raise ValueError("drop must be in [0, 1), chances and mix in [0, 1]")
        if self.crop is not None and self.crop < 1:
            raise ValueError("crop must be positive")
        if self.crop_share is not None and not 0 < self.crop_share <= 1:
            raise ValueError("crop_share must be in (0, 1]")
        if self.about == "sensor" and self.geometry.elastic:
            raise ValueError("about sensor has no elastic distortion: set geometry.elastic to []")


def augmented(
    clouds: Clouds, labels: Tensor, config: AugmentConfig, seeds: Tensor, size: float, *, few: bool = False
) -> tuple[Clouds, Tensor]:
    """The scenes as they are shown, and the labels of the points that are left.

    Args:
        labels: int64 (N,). seeds: int64 (batch,), on the clouds' device.
        size: edge of a voxel, metres, by which the crop counts.
        few: whether few points are labelled, so that none of those may be dropped.
    """
    kept = _kept(clouds, config, seeds)
    if few:
        kept |= labels != UNLABELLED
    clouds, labels = clouds.take(kept), labels[kept]
    clouds = (
        move(clouds, config.geometry, seeds) if config.about == "middle" else _move_about_origin(clouds, config, seeds)
    )
    clouds = recolor(
        _speckled(_stretched(clouds, config, seeds), config, seeds), config.color, derive(seeds, "recolor")
    )
    for name, limit in (("crop share", config.crop_share), ("crop", config.crop)):
        if limit is not None:
            near = _ball(clouds, limit, size, derive(seeds, name))
            clouds, labels = clouds.take(near), labels[near]
    return clouds, labels


def mixed(clouds: Clouds, config: AugmentConfig, seed: Tensor) -> Clouds:
    """The batch with its scenes laid over each other in pairs (the last of an odd number stays alone), or as it was.

    Args:
        seed: int64 (1,), of the batch.
    """
    if clouds.batch < 2 or float(uniform(derive(seed, "mix"))) >= config.mix:
        return clouds
    # A pair has what both have: a modality that one of them lacks is withheld from the other.
    counts = tuple(sum(clouds.counts[i : i + 2]) for i in range(0, clouds.batch, 2))
    valid = {
        name: torch.stack([flags[i : i + 2].all() for i in range(0, clouds.batch, 2)])
        for name, flags in clouds.valid.items()
    }
    scene = clouds.scene // 2
    values = {name: torch.where(valid[name][scene][:, None], v, 0.0) for name, v in clouds.values.items()}
    return replace(clouds, values=values, valid=valid, scene=scene, counts=counts)


def _kept(clouds: Clouds, config: AugmentConfig, seeds: Tensor) -> Tensor:
    drawn = uniform(derive(seeds[clouds.scene], "drop", clouds.numbers()))[:, 0]
    happens = uniform(derive(seeds, "drop"))[:, 0] < config.drop_chance
    return ~happens[clouds.scene] | (drawn >= config.drop)


def _move_about_origin(clouds: Clouds, config: AugmentConfig, seeds: Tensor) -> Clouds:
    geometry = config.geometry
    low, high = geometry.scale
    matrix, scale = turns(geometry, seeds), low + (high - low) * uniform(derive(seeds, "scale"))
    xyz = torch.einsum("nij,nj->ni", matrix[clouds.scene], clouds.xyz * scale[clouds.scene])
    noise = normal(derive(seeds[clouds.scene], "jitter", clouds.numbers()), 3) * geometry.jitter
    values = dict(clouds.values)
    if "normal" in values:
        values["normal"] = torch.einsum("nij,nj->ni", matrix[clouds.scene], values["normal"])
    return replace(clouds, xyz=xyz + noise.clamp(-4 * geometry.jitter, 4 * geometry.jitter), values=values)


def _stretched(clouds: Clouds, config: AugmentConfig, seeds: Tensor) -> Clouds:
    if "color" not in clouds.values:
        return clouds
    color, scene = clouds.values["color"], clouds.scene
    drawn = uniform(derive(seeds, "contrast"), 2)
    share = (drawn[:, :1] * (drawn[:, 1:] < config.contrast_chance))[scene]
    index = scene[:, None].expand_as(color)
    nothing = color.new_zeros(clouds.batch, 3)
    low = nothing.scatter_reduce(0, index, color, "amin", include_self=False)[scene]
    high = nothing.scatter_reduce(0, index, color, "amax", include_self=False)[scene]
    full = (color - low) / (high - low).clamp(min=1 / 255)
    return replace(clouds, values={**clouds.values, "color": color + share * (full - color)})


def _speckled(clouds: Clouds, config: AugmentConfig, seeds: Tensor) -> Clouds:
    if "color" not in clouds.values:
        return clouds
    happens = uniform(derive(seeds, "speckle"))[:, 0] < config.color_noise_chance
    happens &= clouds.valid["color"]
    noise = normal(derive(seeds[clouds.scene], "speckle", clouds.numbers() + 1), 3) * config.color_noise
    color = (clouds.values["color"] + noise * happens[clouds.scene][:, None]).clamp(0, 1)
    return replace(clouds, values={**clouds.values, "color": color})


def _ball(clouds: Clouds, limit: int | float, size: float, seeds: Tensor) -> Tensor:
    """bool (N,): the points as near to a random voxel of their scene as its nearest `limit` voxels, or, where that is
    no whole number, as its nearest share of all voxels."""
    codes = clouds.cell_codes(clouds.cells(size))
    chosen = representatives(codes)[1]
    scenes = torch.bincount(clouds.scene[chosen], minlength=clouds.batch).tolist()
    keep, start, begin = torch.ones(len(clouds.xyz), dtype=torch.bool, device=clouds.xyz.device), 0, 0
    drawn = uniform(seeds)[:, 0]
    for number, (points, voxels) in enumerate(zip(clouds.counts, scenes, strict=True)):
        most = limit if isinstance(limit, int) else max(1, int(limit * voxels))
        if voxels > most:
            own = chosen[begin : begin + voxels]
            centre = clouds.xyz[own[int(float(drawn[number]) * voxels)]]
            reach = (clouds.xyz[own] - centre).square().sum(1).kthvalue(most).values
            here = clouds.xyz[start : start + points]
            keep[start : start + points] = (here - centre).square().sum(1) <= reach
        start, begin = start + points, begin + voxels
    return keep
