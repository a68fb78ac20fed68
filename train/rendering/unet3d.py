"""Networks on the dense volume: they fill the space between the cells that points fell into.

`UNet3d` is the published indoor one (after Cicek et al., MICCAI 2016, arXiv 1606.06650, with sums instead of
concatenations): one convolution per level, each after its batch norm and before its ReLU; halved by the largest of
2 x 2 x 2 cells, doubled by a transposed convolution and added to what the level had on the way down. `Conv3d`, one
convolution, is the published outdoor one.

The published U-Net ends with a 1x1x1 convolution to the channels of the decoders. Interpolation and a linear layer may
change places, so here that layer is the first of the field (`Field.expand`): the volume that has to be held, looked
up and differentiated has 32 channels instead of 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class VolumeNetworkConfig:
    """Sizes.

    Attributes:
        widths: channels of each level of a U-Net, the finest first; or the one width of a single convolution.
        unet: False for the single convolution.
    """

    widths: tuple[int, ...]
    unet: bool = True

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or (not self.unet and len(self.widths) != 1):
            raise ValueError("widths must be positive, one for each level, and only one without a U-Net")


CONFIGS = {
    "published-indoor": VolumeNetworkConfig(widths=(32, 64, 128, 256)),
    "published-outdoor": VolumeNetworkConfig(widths=(32,), unet=False),
    "tiny": VolumeNetworkConfig(widths=(16, 32)),
}
"""name -> sizes; 2,987,296, 83,040 and 48,528 parameters after 96, 96 and 32 channels of input."""


def build_volume_network(config: VolumeNetworkConfig | str, inputs: int) -> UNet3d | Conv3d:
    """The network of a configuration, or of a name of `CONFIGS`; raises `RecipeError` with the known names."""
    if isinstance(config, str):
        if config not in CONFIGS:
            raise RecipeError(f"unknown volume network {config!r}; known: {', '.join(CONFIGS)}")
        config = CONFIGS[config]
    return UNet3d(config.widths, inputs) if config.unet else Conv3d(inputs, config.widths[0])


class UNet3d(nn.Module):
    """See the module's text.

    Args:
        widths: channels of each level.
        inputs: channels of the volume.
    """

    def __init__(self, widths: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        self.channels = widths[0]
        before = (inputs, *widths[:-1])
        self.down = nn.ModuleList(_Level(a, b) for a, b in zip(before, widths, strict=True))
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 3, stride=2, padding=1) for a, b in up)
        self.join = nn.ModuleList(_Level(b, b) for _, b in up)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X, Y, Z), of any size: an odd last cell is pooled alone."""
        levels: list[Tensor] = []
        for number, level in enumerate(self.down):
            volume = level(functional.max_pool3d(volume, 2, ceil_mode=True) if number else volume)
            levels.append(volume)
        levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            fine = levels.pop()
            volume = join(fine + up(volume, output_size=list(fine.shape[2:])))
        return volume.contiguous(memory_format=torch.channels_last_3d)


class Conv3d(nn.Sequential):
    """Convolution, batch norm, ReLU: (B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(nn.Conv3d(inputs, channels, 3, padding=1), nn.BatchNorm3d(channels), nn.ReLU())
        self.channels = channels


class _Level(nn.Sequential):
    """Batch norm, convolution, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        super().__init__(nn.BatchNorm3d(inputs), convolution, nn.ReLU())
