"""LVSM (ICLR 2025, arXiv 2410.17242): new views from posed images, by attention alone.

Tokens of the input images, each patch with the rays of its pixels, and tokens of the rays of a target. Two designs:

    decoder           one transformer over [target, inputs], per target: best, and dear with many inputs
    encoder-decoder   the inputs become scene tokens first, from which targets are rendered as in RayZer

Cameras are given. They are told in the frame of the middle input camera, and lengths are divided by 1.35 times the
largest coordinate of an input camera there, so that neither the world's origin nor its unit matters. (Published is the
factor; which camera is the origin is this program's choice.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from brickyard.train.models.cameras import Cameras, relative
from brickyard.train.models.view_network import Given, Look, ViewNetwork, ViewNetworkConfig
from brickyard.train.models.view_tokens import patchify
from brickyard.train.models.view_transformer import ViewTransformer, begin_weights, deviation_of

Design = Literal["decoder", "encoder-decoder"]
SCALE = 1.35


@dataclass(frozen=True)
class LVSMSize:
    """Channels of a token; scene tokens and blocks of encoder and decoder; blocks of a decoder alone."""

    channels: int
    scene_tokens: int
    encoder: int
    decoder: int
    alone: int


SIZES = {"paper": LVSMSize(768, 3072, 12, 12, 24), "tiny": LVSMSize(128, 32, 2, 2, 4)}
"""Name in a recipe -> size: 170 and 0.8 million weights in their blocks."""


@dataclass(frozen=True, kw_only=True)
class LVSMConfig(ViewNetworkConfig):
    """LVSM's network.

    Attributes:
        network: name in `SIZES`.
        design: see the module's text.
    """

    kind: ClassVar[str] = "lvsm"

    patch: int = 8
    network: str = "paper"
    design: Design = "decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in SIZES:
            raise ValueError(f"network must be one of {', '.join(SIZES)}, found {self.network!r}")
        if self.design not in get_args(Design):
            raise ValueError(f"design must be one of {', '.join(get_args(Design))}, found {self.design!r}")

    @property
    def sizes(self) -> LVSMSize:
        return SIZES[self.network]

    def build(self, device: torch.device | str = "cpu") -> LVSMNetwork:
        return LVSMNetwork(self).to(device)


class LVSMNetwork(ViewNetwork):
    """See the module's text. Images are float (B, V, 3, size, size), RGB in [0, 1]."""

    config: LVSMConfig
    posed = True

    def __init__(self, config: LVSMConfig) -> None:
        super().__init__()
        self.config, sizes = config, config.sizes
        d, values = sizes.channels, config.patch**2
        self.input_tokens = nn.Linear(9 * values, d, bias=False)
        self.target_rays = nn.Linear(6 * values, d, bias=False)
        self.render_norm, self.pixel_norm = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.pixels = nn.Linear(d, 3 * values)
        begin_weights(self, deviation_of(d))
        encodes = config.design == "encoder-decoder"
        self.scene_tokens = nn.Parameter(torch.empty(sizes.scene_tokens, d)) if encodes else None
        self.scene_blocks = None
        if self.scene_tokens is not None:
            nn.init.normal_(self.scene_tokens, std=0.02)
            self.scene_blocks = ViewTransformer(d, sizes.encoder, checkpointing=config.checkpointing)
        depth = sizes.decoder if encodes else sizes.alone
        self.render_blocks = ViewTransformer(d, depth, checkpointing=config.checkpointing)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the transformers, which are nearly all of the work."""
        for part in (self.scene_blocks, self.render_blocks):
            if part is not None:
                part.compile(*args, **kwargs)

    def forward(self, images: Tensor, cameras: Cameras) -> Tensor:
        """Renderings (B, T, 3, size, size) of the last T of V cameras, from images of the first V - T.

        Args:
            images: of the inputs, (B, V - T, ...).
            cameras: of all views, as they are `told`.
        """
        inputs = images.shape[1]
        return self.render(self.scene(images, cameras.views(0, inputs)), self.tell(cameras.views(inputs)))

    def look(self, images: Tensor, inputs: int, number: Tensor, given: Given | None = None) -> Look:
        del number  # of posed views there is no order
        if given is None:
            raise ValueError("LVSM predicts no cameras: give those of all views")
        cameras = told(*given, inputs)
        scene = self.scene(images[:, :inputs], cameras.views(0, inputs))
        return Look(scene=scene, cameras=cameras, told=self.tell(cameras))

    def scene(self, images: Tensor, cameras: Cameras) -> Tensor:
        """Tokens (B, S, d) of a scene: learned ones that have seen the inputs or, without encoder, the inputs'."""
        size = self.config.size
        seen = torch.cat((images * 2 - 1, cameras.rays(size, size)), 2)
        tokens: Tensor = self.input_tokens(patchify(seen, self.config.patch)).flatten(1, 2)
        if self.scene_tokens is None or self.scene_blocks is None:
            return tokens
        learned = self.scene_tokens.expand(len(tokens), -1, -1)
        found: Tensor = self.scene_blocks(torch.cat((learned, tokens), 1))[:, : len(self.scene_tokens)]
        return found

    def tell(self, cameras: Cameras) -> Tensor:
        """What cameras tell patches, (B, V, N, ...), for `render`."""
        return patchify(cameras.rays(self.config.size, self.config.size), self.config.patch)


def told(poses: Tensor, intrinsics: Tensor, inputs: int) -> Cameras:
    """Given cameras in the frame and unit that the network is told them in, see the module's text.

    Args:
        poses: float64 (B, V, 4, 4), rigid, any frame, metres; those of the inputs first.
        intrinsics: (B, V, 4), as of `Cameras`.
        inputs: how many views are inputs. They must not all be at one place.
    """
    moved = relative(poses.double(), poses[:, inputs // 2].double())
    largest = moved[:, :inputs, :3, 3].abs().flatten(1).amax(1)
    moved[..., :3, 3] /= SCALE * largest[:, None, None]
    return Cameras(poses=moved.float(), intrinsics=intrinsics.float())
