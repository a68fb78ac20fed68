"""From features of points to images: the volume over a scene, the network that fills it, and the field in it.

What a scene is rendered from is its `Filled` volume: a dense grid of features in a box, with the frame that leads from
metres into the box. `box_rays` says how rays get there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from brickyard.train.rendering.field import Field, find_config
from brickyard.train.rendering.rays import Frame, Rays, Vector, range_frame, unit_frame
from brickyard.train.rendering.render import RenderConfig, Rendered, render
from brickyard.train.rendering.unet3d import build_volume_network
from brickyard.train.rendering.volume import Grid, densify


@dataclass(frozen=True, kw_only=True)
class RendererConfig:
    """Settings.

    Attributes:
        network: name in `train.rendering.unet3d.CONFIGS`, of what fills the volume.
        decoders: name in `train.rendering.field.CONFIGS`.
        cells: of the volume along x, y, z.
        range: (low, high) corners of what is rendered, metres; None for the room itself, whatever its size.
        padding: share of a room's longest side by which the box is larger; of no meaning with a range.
        color: whether colours are rendered.
        features: width of the features of images that are rendered; 0 for none.
        sampling: of the rays.
    """

    network: str = "published-indoor"
    decoders: str = "published-indoor"
    cells: tuple[int, int, int] = (128, 128, 32)
    range: tuple[Vector, Vector] | None = None
    padding: float = 0.1
    color: bool = True
    features: int = 0
    sampling: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        if min(self.cells) < 2 or self.padding < 0 or self.features < 0:
            raise ValueError("cells must be 2 or more along each axis, padding and features not negative")
        if self.range is not None and any(a >= b for a, b in zip(*self.range, strict=True)):
            raise ValueError("range must be (low corner, high corner)")

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        """The settings from their JSON."""
        sampling: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table["sampling"].items()}
        corners: Any = table["range"] and tuple(tuple(corner) for corner in table["range"])
        read: Any = {"cells": tuple(table["cells"]), "range": corners, "sampling": RenderConfig(**sampling)}
        return cls(**{**table, **read})


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Scenes that can be rendered: a volume (B, C, X, Y, Z) and the frame of its box."""

    volume: Tensor
    frame: Frame


class Renderer(nn.Module):
    """See the module's text.

    Args:
        config: settings.
        channels: of the points' features.
    """

    def __init__(self, config: RendererConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.network = build_volume_network(config.network, channels)
        sizes = replace(find_config(config.decoders), features=config.features)
        self.field = Field(sizes if config.color else replace(sizes, color_blocks=None), self.network.channels)
        edge = 0.5 + config.padding / 2
        low, high = ((-edge,) * 3, (edge,) * 3) if config.range is None else ((0.0,) * 3, (1.0,) * 3)
        self.grid = Grid(low=low, high=high, shape=config.cells)

    def frame(self, xyz: Tensor, scene: Tensor, batch: int) -> Frame:
        """The frame of scenes with these points (N, 3), metres; raises `BrickyardError` as `unit_frame` does."""
        if self.config.range is None:
            return unit_frame(xyz, scene, batch)
        return range_frame(*self.config.range, batch, xyz.device)

    def fill(self, features: Tensor, xyz: Tensor, scene: Tensor, frame: Frame) -> Filled:
        """Scenes from the features (N, C) of their points (N, 3), metres."""
        sparse = densify(features, frame.to_box(xyz, scene), scene, len(frame.scale), self.grid)
        return Filled(volume=self.network(sparse), frame=frame)

    def render(self, filled: Filled, rays: Rays, seeds: Tensor | None = None) -> Rendered:
        """What rays in the box show; see `train.rendering.render.render`."""
        return render(self.field, filled.volume, self.grid, rays, config=self.config.sampling, seeds=seeds)


def box_rays(eyes: Tensor, seen: Tensor, frame: Frame, counts: tuple[int, ...]) -> tuple[Rays, Tensor]:
    """Rays of the box from two places each, metres: where the camera is, and what its pixel shows.

    Args:
        eyes, seen: (R, 3), of one scene after another, never equal.
        counts: rays of each scene.

    Returns:
        (rays, distance (R,) from one place to the other in box units).
    """
    scene = torch.arange(len(counts), device=eyes.device)
    scene = scene.repeat_interleave(torch.tensor(counts, device=eyes.device), output_size=len(eyes))
    start = frame.to_box(eyes, scene)
    way = frame.to_box(seen, scene) - start
    distance = torch.linalg.vector_norm(way, dim=1)
    unit = distance / torch.linalg.vector_norm(seen - eyes, dim=1)
    return Rays(origins=start, directions=way / distance[:, None], unit=unit, counts=counts), distance
