"""Augmentation of where points are: scale, turn, flip, jitter, elastic distortion; for each view by itself, in a batch.

In the order and with the numbers published for Sonata, about the middle of the view's floor. Turns and flips act on
normals too, the rest does not (published likewise; an elastic distortion of 0.4 m over 0.2 m hardly has a normal).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.clouds import Clouds
from brickyard.train.views.noise import derive, normal, uniform

_MAX_CELLS = 1 << 23


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """What happens to coordinates.

    Attributes:
        scale: (least, most) factor.
        turn: probability of a turn about z by any angle.
        tilt: largest angle of the turns about x and y, radians; each with probability `tilt_chance`.
        flip: probability of x -> -x, and of y -> -y.
        jitter: deviation of normal noise on every point, metres, cut off at four times that.
        elastic: (granularity, magnitude) in metres of each distortion; with probability `elastic_chance` all of them.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    turn: float = 0.8
    tilt: float = math.pi / 64
    tilt_chance: float = 0.8
    flip: float = 0.5
    jitter: float = 0.005
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    elastic_chance: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale must be a range of positive numbers")
        if any(granularity <= 0 or magnitude < 0 for granularity, magnitude in self.elastic):
            raise ValueError("elastic needs positive granularities and magnitudes that are not negative")


def move(clouds: Clouds, config: GeometryConfig, seeds: Tensor) -> Clouds:
    """Augmented views; `seeds` int64 (views,)."""
    clouds = clouds.centred()
    matrix, scale = turns(config, seeds), _scale(config, seeds)
    xyz = _turned(clouds.xyz * scale[clouds.scene], matrix, clouds.scene)
    values = dict(clouds.values)
    if "normal" in values:
        values["normal"] = _turned(values["normal"], matrix, clouds.scene)
    if config.jitter:
        noise = normal(derive(seeds[clouds.scene], "jitter", clouds.numbers()), 3) * config.jitter
        xyz = xyz + noise.clamp(-4 * config.jitter, 4 * config.jitter)
    clouds = replace(clouds, xyz=xyz, values=values)
    chosen = uniform(derive(seeds, "elastic"))[:, 0] < config.elastic_chance
    for number, (granularity, magnitude) in enumerate(config.elastic):
        clouds = _elastic(clouds, granularity, magnitude, derive(seeds, "elastic", number + 1), chosen)
    return clouds


def turns(config: GeometryConfig, seeds: Tensor) -> Tensor:
    """float32 (views, 3, 3): turn about z, x, y, then flips; to be applied to column vectors."""
    drawn = uniform(derive(seeds, "turn"), 8)
    angle = torch.stack(
        [
            (drawn[:, 0] * 2 - 1) * math.pi * (drawn[:, 1] < config.turn),
            (drawn[:, 2] * 2 - 1) * config.tilt * (drawn[:, 3] < config.tilt_chance),
            (drawn[:, 4] * 2 - 1) * config.tilt * (drawn[:, 5] < config.tilt_chance),
        ]
    )
    about_z, about_x, about_y = (_about(axis, a) for axis, a in zip((2, 0, 1), angle, strict=True))
    signs = torch.ones(len(seeds), 3, device=seeds.device)
    signs[:, :2] = torch.where(drawn[:, 6:] < config.flip, -1.0, 1.0)
    return signs[:, :, None] * (about_y @ about_x @ about_z)


def _scale(config: GeometryConfig, seeds: Tensor) -> Tensor:
    low, high = config.scale
    return low + (high - low) * uniform(derive(seeds, "scale"))


def _about(axis: int, angle: Tensor) -> Tensor:
    """Right-handed turns (views, 3, 3) about an axis."""
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, a, a] = matrix[:, b, b] = torch.cos(angle)
    matrix[:, b, a] = torch.sin(angle)
    matrix[:, a, b] = -torch.sin(angle)
    return matrix


def _turned(vectors: Tensor, matrix: Tensor, scene: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", matrix[scene], vectors)


def _elastic(clouds: Clouds, granularity: float, magnitude: float, seeds: Tensor, chosen: Tensor) -> Clouds:
    """Move points by smooth noise: normal numbers on a grid, averaged over 3 cells twice along each axis, interpolated.

    Each view has a grid of its own, so this is a loop over views.
    """
    low, high = clouds.extreme("amin"), clouds.extreme("amax")
    shapes = (((high - low) / granularity).floor().long() + 3).tolist()
    xyz, start = clouds.xyz.clone(), 0
    for view, (count, wanted) in enumerate(zip(clouds.counts, chosen.tolist(), strict=True)):
        own = slice(start, start + count)
        start += count
        if count == 0 or not wanted:
            continue
        if (cells := math.prod(shapes[view])) > _MAX_CELLS:
            warnings.warn(
                f"a view spans {cells:,} cells of {granularity} m, too many for an elastic distortion: such views are"
                " left as they are; where all scenes are that large, set views.geometry.elastic to []",
                stacklevel=2,
            )
            continue
        a, b, c = shapes[view]
        cell = torch.arange(a * b * c, device=xyz.device)
        noise = normal(derive(seeds[view], "grid", cell), 3).T.reshape(1, 3, a, b, c)
        for _ in range(2):
            for axis in range(3):
                kernel, padding = [1, 1, 1], [0, 0, 0]
                kernel[axis], padding[axis] = 3, 1
                noise = functional.avg_pool3d(noise, kernel, 1, padding, count_include_pad=True)
        # Vertex i of the grid is at low + (i - 1) * granularity; grid_sample counts axes from the last, in -1..1.
        place = (clouds.xyz[own] - low[view]) / granularity + 1
        size = torch.tensor([a, b, c], device=xyz.device)
        place = (2 * place / (size - 1) - 1).flip(1)
        moved = functional.grid_sample(noise, place.view(1, 1, 1, -1, 3), align_corners=True)
        xyz[own] += moved.view(3, -1).T * magnitude
    return replace(clouds, xyz=xyz)
