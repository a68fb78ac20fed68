"""The decoder of a point transformer: from the coarsest level back to the points, for probing and fine-tuning.

At every level the features of both sides go through a projection and are added, then come blocks like the encoder's,
which walk the encoder's walks. For `base` it has 16.3 million parameters; it costs about a third of the encoder's time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brickyard.train.models.point_blocks import Projection, drop_paths, initialise, run, stage
from brickyard.train.models.point_levels import Groups
from brickyard.train.models.point_transformer import Encoded, PointTransformerConfig


@dataclass(frozen=True, kw_only=True)
class PointDecoderConfig:
    """Sizes, as those of `PointTransformerConfig`, of the decoder's stages, finest first.

    There is one stage fewer than in the encoder; the default is the one published for Sonata.

    Attributes:
        channels, heads, depths: width, attention heads and blocks of each stage.
        ratio: hidden channels of an MLP over its channels.
        drop_path: largest probability that a row skips a branch in training.
    """

    channels: tuple[int, ...] = (64, 96, 192, 384)
    heads: tuple[int, ...] = (4, 6, 12, 24)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    ratio: int = 4
    drop_path: float = 0.3

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.heads) == len(self.depths) > 0:
            raise ValueError("channels, heads and depths need the same number of stages, at least one")
        if any(c < 1 or h < 1 or c % h for c, h in zip(self.channels, self.heads, strict=True)):
            raise ValueError("channels must be positive multiples of the heads")


class Joint(nn.Module):
    """Features of a level and of the next coarser one, each projected, added."""

    def __init__(self, coarse: int, fine: int, outputs: int) -> None:
        super().__init__()
        self.coarse, self.fine = Projection(coarse, outputs), Projection(fine, outputs)

    def forward(self, coarse: Tensor, fine: Tensor, children: Groups) -> Tensor:
        joined: Tensor = self.fine(fine) + children.spread(self.coarse(coarse))
        return joined


class PointDecoder(nn.Module):
    """See the module's text.

    Args:
        config: sizes.
        encoder: sizes of the encoder, with one stage more; its `checkpoint` holds for the decoder too.
        device: as the encoder's.
    """

    def __init__(
        self, config: PointDecoderConfig, encoder: PointTransformerConfig, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        if len(encoder.channels) != len(config.channels) + 1:
            raise ValueError(f"an encoder of {len(encoder.channels)} stages needs a decoder of one stage fewer")
        self.config, self.again, device = config, encoder.checkpoint, torch.device(device)
        coarse = (*config.channels[1:], encoder.channels[-1])
        rates = drop_paths(config.drop_path, config.depths)
        with device:
            self.joints = nn.ModuleList(
                Joint(*sizes) for sizes in zip(coarse, encoder.channels[:-1], config.channels, strict=True)
            )
            self.stages = nn.ModuleList(
                # The first block of a stage, the furthest from the output, drops most.
                stage(width, heads, rate[::-1], ratio=config.ratio, device=device)
                for width, heads, rate in zip(config.channels, config.heads, rates, strict=True)
            )
        self.channels = config.channels[0]
        initialise(self)

    def forward(self, encoded: Encoded) -> Tensor:
        """Features of the points, (N, channels[0])."""
        x = encoded.features[-1]
        for number in reversed(range(len(self.stages))):
            children = encoded.levels[number + 1].children
            assert children is not None
            x = self.joints[number](x, encoded.features[number], children)
            x = run(self.stages[number], x, encoded.levels[number], again=self.again and self.training)
        return x
