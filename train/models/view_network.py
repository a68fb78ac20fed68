"""What networks that render new views of a few have in common: a look at a clip, then pictures from any camera.

Some views of a clip are inputs; of them the scene is made, as tokens. Others are targets: what their cameras tell is
rendered beside the scene's tokens. Where cameras come from, from the images or given, is the network's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from brickyard.train.models.cameras import Cameras
from brickyard.train.models.view_tokens import unpatchify
from brickyard.train.students.base import Exported, ExportedConfig

Given: TypeAlias = "tuple[Tensor, Tensor]"
"""Cameras from elsewhere: float64 poses (B, V, 4, 4), rigid, in any frame, and intrinsics (B, V, 4) as of `Cameras`."""


@dataclass(frozen=True, kw_only=True)
class ViewNetworkConfig(ExportedConfig):
    """What networks of views have in common.

    Attributes:
        size: of images, which are square, pixels. patch: edge of a patch, which must divide it.
        checkpointing: see `train.models.view_transformer`; changes memory and time, not results.
    """

    size: int = 256
    patch: int = 16
    checkpointing: bool = True

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise ValueError(f"patch must divide size, found {self.patch} and {self.size}")

    @property
    def rows(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        return cls(**table)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a network makes of B clips of V views.

    Attributes:
        scene: (B, S, d), tokens of the input views.
        cameras: of all views, in the frame and unit of the network.
        told: (B, V, N, ...), what they tell the patches of their views, for `render`.
    """

    scene: Tensor
    cameras: Cameras
    told: Tensor


class ViewNetwork(Exported):
    """See the module's text. Images are float (B, V, 3, size, size), RGB in [0, 1].

    Attributes:
        posed: whether cameras must be given.
    """

    config: Any
    posed: ClassVar[bool]
    target_rays: nn.Module
    render_norm: nn.Module
    render_blocks: nn.Module
    pixel_norm: nn.Module
    pixels: nn.Module

    def look(self, images: Tensor, inputs: int, number: Tensor, given: Given | None = None) -> Look:
        """Look at clips.

        Args:
            images: of the inputs, then of the targets, of which at most the cameras are taken.
            inputs: how many views are inputs.
            number: int64 (B, V), the number of each view in its clip's list, 0..V-1.
            given: the cameras, where they are not predicted.
        """
        raise NotImplementedError

    def tell(self, cameras: Cameras) -> Tensor:
        """What cameras of one's own choice tell patches, (B, V, N, ...), for `render`."""
        raise NotImplementedError

    @property
    def tells_poses(self) -> bool:
        """Whether all that a target is told is a camera, which others can be put in place of."""
        return True

    def render(self, scene: Tensor, told: Tensor) -> Tensor:
        """(B, T, 3, size, size) in [0, 1]: what T cameras see of a scene, each on its own beside all its tokens."""
        scenes, views = told.shape[:2]
        pixels = self.pixels(self.pixel_norm(self.patch_tokens(scene, told))).float().sigmoid()
        size = self.config.size
        return unpatchify(pixels, self.config.patch, (size, size)).view(scenes, views, 3, size, size)

    def patch_tokens(self, scene: Tensor, told: Tensor) -> Tensor:
        """(B T, N, d): of the patches of T views, what their pixels are painted from."""
        targets = self.target_rays(told)
        _, views, patches, _ = targets.shape
        repeated = scene[:, None].expand(-1, views, -1, -1).flatten(0, 1)
        tokens = torch.cat((targets.flatten(0, 1), repeated), 1)
        found: Tensor = self.render_blocks(self.render_norm(tokens))[:, :patches]
        return found
