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
from brickyard.train.transfer import send, send_table
from brickyard.train.views.noise import derive, for_points, normal, uniform

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
    device = clouds.xyz.device
    matrix, scale = send(turns(config, seeds), device)[clouds.scene], send(_scale(config, seeds), device)
    xyz = _turned(clouds.xyz * scale[clouds.scene], matrix)
    values = dict(clouds.values)
    if "normal" in values:
        values["normal"] = _turned(values["normal"], matrix)
    if config.jitter:
        noise = normal(for_points(seeds, "jitter", clouds.scene, clouds.numbers()), 3) * config.jitter
        xyz = xyz + noise.clamp(-4 * config.jitter, 4 * config.jitter)
    clouds = replace(clouds, xyz=xyz, values=values)
    chosen = (uniform(derive(seeds, "elastic"))[:, 0] < config.elastic_chance).tolist()
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


def _turned(vectors: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", matrix, vectors)


def _elastic(clouds: Clouds, granularity: float, magnitude: float, seeds: Tensor, chosen: list[bool]) -> Clouds:
    """Move points by smooth noise: normal numbers on a grid, averaged over 3 cells twice along each axis, interpolated.

    Every view has a grid of its own, from its least corner; several are made at once, as large as the largest.
    """
    low, high = clouds.extreme("amin"), clouds.extreme("amax")
    shape = ((high - low) / granularity).floor().long() + 3
    shapes = shape.tolist()
    # Vertex i of a grid is at low + (i - 1) * granularity; grid_sample counts axes from the last, in -1..1.
    place = (clouds.xyz - low[clouds.scene]) / granularity + 1
    place = (2 * place / (shape - 1)[clouds.scene] - 1).flip(1)
    own = torch.split(place, list(clouds.counts))
    wanted = [view for view, count in enumerate(clouds.counts) if count and chosen[view]]
    if large := [math.prod(shapes[view]) for view in wanted if math.prod(shapes[view]) > _MAX_CELLS]:
        warnings.warn(
            f"a view spans {large[0]:,} cells of {granularity} m, too many for an elastic distortion: such views are"
            " left as they are; where all scenes are that large, set views.geometry.elastic to []",
            stacklevel=2,
        )
    still = torch.zeros((), device=place.device)
    moved = [still.expand(3, count) for count in clouds.counts]
    fitting = [view for view in wanted if math.prod(shapes[view]) <= _MAX_CELLS]
    for together in _packed(fitting, shapes):
        noise = _grids(seeds[together], [shapes[view] for view in together], clouds.xyz.device)
        for view, grid in zip(together, noise, strict=True):
            a, b, c = shapes[view]
            sampled = functional.grid_sample(
                grid[None, :, :a, :b, :c], own[view].view(1, 1, 1, -1, 3), align_corners=True
            )
            moved[view] = sampled.view(3, -1)
    return replace(clouds, xyz=clouds.xyz + torch.cat(moved, dim=1).T * magnitude)


def _packed(views: list[int], shapes: list[list[int]]) -> list[list[int]]:
    """Views, in their order, in groups whose grids are no larger together than one may be, all padded to one shape."""
    groups: list[list[int]] = []
    for view in views:
        joined = [*groups[-1], view] if groups else []
        edges = [max(shapes[v][axis] for v in joined) for axis in range(3)] if joined else []
        if joined and len(joined) * math.prod(edges) <= _MAX_CELLS:
            groups[-1] = joined
        else:
            groups.append([view])
    return groups


def _grids(seeds: Tensor, shapes: list[list[int]], device: torch.device) -> Tensor:
    """Smooth noise float32 (views, 3, a, b, c) in the shape of the largest; each view's is in the first cells."""
    a, b, c = (max(shape[axis] for shape in shapes) for axis in range(3))
    size = send_table(shapes, device)[:, :, None, None, None]
    x, y, z = (torch.arange(edge, device=device).view(-1, *[1] * (2 - axis)) for axis, edge in enumerate((a, b, c)))
    number = (x * size[:, 1] + y) * size[:, 2] + z  # of the cell within its view's grid
    own = ((x < size[:, 0]) & (y < size[:, 1]) & (z < size[:, 2]))[:, None]
    view = torch.arange(len(shapes), device=device).repeat_interleave(a * b * c, output_size=number.numel())
    noise = normal(for_points(seeds, "grid", view, number.flatten()), 3).view(-1, a, b, c, 3).permute(0, 4, 1, 2, 3)
    noise = noise * own
    for _ in range(2):
        for axis in range(3):
            kernel, padding = [1, 1, 1], [0, 0, 0]
            kernel[axis], padding[axis] = 3, 1
            noise = functional.avg_pool3d(noise, kernel, 1, padding, count_include_pad=True) * own
    return noise
