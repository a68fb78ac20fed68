"""RayZer (ICCV 2025, arXiv 2505.00702): cameras, then a scene, from images nobody knows the poses of.

Of the views of a clip some are inputs, the others targets. Cameras are predicted of all views; the scene, a set of
learned tokens, is made of the input images and their predicted rays; a target is rendered from the scene and the rays
of its predicted camera, and the only thing ever said about it is how it should look. So a target can reach its own
rendering through a pose and the one focal length, not through the scene: that takes the input images as their patches
were, before they met the other views.

    images      patches and their place -> tokens, (B, V, N, d)
    cameras     [a camera token per view, all image tokens of all views] -> SE(3) and a focal length
    scene       [scene tokens, (image tokens, ray tokens) of the inputs] -> scene tokens
    render      per target: [ray tokens, scene tokens] -> pixels

The published text leaves out a norm before the camera head and whether the canonical view's own pose is predicted: here
there is a norm, and that pose is the identity. `geometry` takes the paper's central idea away for comparison: "pose"
tells patches the numbers of the camera instead of rays, "free" a camera's whole token, which need not be a pose at all.
So does `first: scene`, whose scene is made without the cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from brickyard.train.models.cameras import CameraHead, Cameras
from brickyard.train.models.view_network import Given, Look, ViewNetwork, ViewNetworkConfig
from brickyard.train.models.view_tokens import patch_sines, patchify, sines
from brickyard.train.models.view_transformer import ViewTransformer, begin_weights, deviation_of, two_layers

Geometry = Literal["rays", "pose", "free"]
Order = Literal["pose", "scene"]


@dataclass(frozen=True)
class RayZerSize:
    """Channels of a token, number of scene tokens, blocks of the three transformers."""

    channels: int
    scene_tokens: int
    cameras: int
    scene: int
    render: int


SIZES = {
    "paper": RayZerSize(768, 3072, 8, 8, 8),
    "release": RayZerSize(768, 3072, 8, 12, 12),
    "tiny": RayZerSize(128, 32, 2, 2, 2),
}
"""Name in a recipe -> size: 170, 227 and 1.2 million weights in their blocks."""


@dataclass(frozen=True, kw_only=True)
class RayZerConfig(ViewNetworkConfig):
    """RayZer's network.

    Attributes:
        network: name in `SIZES`.
        geometry: what a camera tells patches: "rays", as published; "pose" or "free" to compare with.
        first: what is made first: "pose", as published, so that the scene is made of images with their rays; or the
            "scene", of the images alone.
    """

    kind: ClassVar[str] = "rayzer"

    network: str = "paper"
    geometry: Geometry = "rays"
    first: Order = "pose"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in SIZES:
            raise ValueError(f"network must be one of {', '.join(SIZES)}, found {self.network!r}")
        if self.geometry not in get_args(Geometry):
            raise ValueError(f"geometry must be one of {', '.join(get_args(Geometry))}, found {self.geometry!r}")
        if self.first not in get_args(Order):
            raise ValueError(f'first is "pose" or "scene", found {self.first!r}')

    @property
    def sizes(self) -> RayZerSize:
        return SIZES[self.network]

    def build(self, device: torch.device | str = "cpu") -> RayZerNetwork:
        return RayZerNetwork(self).to(device)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the network makes of the views of B scenes.

    Attributes:
        cameras: predicted, in the frame of the canonical view.
        told: (B, V, N, ...), what the cameras tell the patches of their views.
    """

    cameras: Cameras
    told: Tensor


class RayZerNetwork(ViewNetwork):
    """See the module's text. Images are float (B, V, 3, size, size), RGB in [0, 1], N patches of each."""

    config: RayZerConfig
    posed = False

    def __init__(self, config: RayZerConfig) -> None:
        super().__init__()
        self.config, sizes = config, config.sizes
        d, values = sizes.channels, config.patch**2
        self.image_tokens = nn.Linear(3 * values, d, bias=False)
        self.image_place = two_layers(d, d, d)
        self.camera_token = nn.Parameter(torch.empty(d))
        self.camera_place = two_layers(d, d, d)
        told = {"rays": 6 * values, "pose": 13 + d // 2, "free": d + d // 2}[config.geometry]
        self.input_rays, self.target_rays = nn.Linear(told, d, bias=False), nn.Linear(told, d, bias=False)
        self.fuse_norm, self.fuse = nn.LayerNorm(2 * d, bias=False), two_layers(2 * d, d, d)
        self.scene_tokens = nn.Parameter(torch.empty(sizes.scene_tokens, d))
        self.render_norm, self.pixel_norm = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.pixels = nn.Linear(d, 3 * values)
        begin_weights(self, deviation_of(d))
        for tokens in (self.camera_token, self.scene_tokens):
            nn.init.normal_(tokens, std=0.02)
        self.camera_head = CameraHead(d)
        depths = (sizes.cameras, sizes.scene, sizes.render)
        self.camera_blocks, self.scene_blocks, self.render_blocks = (
            ViewTransformer(d, depth, checkpointing=config.checkpointing) for depth in depths
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the transformers, which are nearly all of the work."""
        for part in (self.camera_blocks, self.scene_blocks, self.render_blocks):
            part.compile(*args, **kwargs)

    def forward(self, images: Tensor, inputs: int, number: Tensor) -> tuple[Tensor, Cameras]:
        """(renderings of the targets (B, V - inputs, 3, size, size), cameras of all views).

        Args:
            images: of the inputs, then of the targets.
            inputs: how many views are inputs.
            number: int64 (B, V), the number of each view in its clip's list, 0..V-1; the canonical one is V // 2.
        """
        found = self.look(images, inputs, number)
        return self.render(found.scene, found.told[:, inputs:]), found.cameras

    def look(self, images: Tensor, inputs: int, number: Tensor, given: Given | None = None) -> Look:
        del given  # cameras are predicted
        tokens = self.tokens(images, number)
        seen = self.see(tokens, number)
        scene = self.scene(tokens[:, :inputs], seen.told[:, :inputs])
        return Look(scene=scene, cameras=seen.cameras, told=seen.told)

    @property
    def tells_poses(self) -> bool:
        return self.config.geometry != "free"

    def tokens(self, images: Tensor, number: Tensor) -> Tensor:
        """(B, V, N, d) of images, each of which knows its place and the number of its view, and no other image."""
        d, n = self.config.sizes.channels, self.config.rows
        patches = self.image_tokens(patchify(images * 2 - 1, self.config.patch))
        place = patch_sines(n, n, d // 2, images.device).expand(*number.shape, -1, -1)
        view = sines(number, d // 2)[:, :, None].expand_as(place)
        placed: Tensor = patches + self.image_place(torch.cat((place, view), -1))
        return placed

    def see(self, tokens: Tensor, number: Tensor) -> Seen:
        """The cameras of all views, from all their image tokens."""
        views, d = tokens.shape[1], tokens.shape[-1]
        cameras = self.camera_token + self.camera_place(sines(number, d))
        joined = torch.cat((cameras, tokens.flatten(1, 2)), 1)
        found = self.camera_blocks(joined)[:, :views]
        canonical = (number == views // 2).int().argmax(1)
        predicted = self.camera_head(found, canonical)
        return Seen(cameras=predicted, told=self.tell(predicted, found))

    def tell(self, cameras: Cameras, tokens: Tensor | None = None) -> Tensor:
        """What cameras tell patches, (B, V, N, ...): for `scene` and `render`, also of cameras of one's own choice.

        Args:
            tokens: (B, V, d), of the cameras; needed with "free" geometry, which has no other cameras.
        """
        size, d, geometry = self.config.size, self.config.sizes.channels, self.config.geometry
        if geometry == "rays":
            return patchify(cameras.rays(size, size), self.config.patch)
        numbers = torch.cat((cameras.poses[..., :3, :].flatten(2), cameras.intrinsics[..., :1]), -1)
        if geometry == "free":
            if tokens is None:
                raise ValueError('with "free" geometry a camera is its token: give the tokens')
            numbers = tokens
        place = patch_sines(self.config.rows, self.config.rows, d // 2, numbers.device)
        place = place.expand(*numbers.shape[:2], -1, -1)
        return torch.cat((numbers[:, :, None].expand(-1, -1, place.shape[2], -1), place), -1)

    def scene(self, tokens: Tensor, told: Tensor) -> Tensor:
        """Scene tokens (B, S, d) of the input views, from their image tokens and what their cameras tell."""
        if self.config.first == "scene":
            told = torch.zeros_like(told)
        fused = self.fuse(self.fuse_norm(torch.cat((tokens, self.input_rays(told)), -1)))
        learned = self.scene_tokens.expand(len(fused), -1, -1)
        found: Tensor = self.scene_blocks(torch.cat((learned, fused.flatten(1, 2)), 1))[:, : len(self.scene_tokens)]
        return found
