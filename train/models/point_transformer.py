"""Point transformer: attention along space-filling curves (Point Transformer V3, Wu et al., CVPR 2024, arXiv
2312.10035, in the encoder-only form of Sonata, CVPR 2025, arXiv 2503.16429).

A stem, then stages of blocks with a halving of the grid between them. A block adds a position encoding (a submanifold
convolution over neighbouring cells), attention within patches of a walk (`train.models.point_levels`), and an MLP;
LayerNorm before each, no batch statistics anywhere. What comes out is one feature vector per row at every level;
`upcast` joins levels without a parameter, `train.models.point_decoder` with some.

`base` is Sonata's encoder (108 million parameters), `small` the stock V3 shape (39 million). Forward and backward of
`tiny` on 4 clouds of 2,000 points: 0.3 s on one CPU core.

With `published` "off" or "grid" a scene's features in evaluation do not depend on its batch-mates, nor on the order of
its points. The released code differs in ways that do: see `PointTransformerConfig.published`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError
from brickyard.train.models.casting import cast_at_once
from brickyard.train.models.point_blocks import Pool, Projection, drop_paths, initialise, run, stage
from brickyard.train.models.point_levels import Level, coarser, finest
from brickyard.train.models.serialization import ORDERS, Order
from brickyard.train.models.walks import Walking

Published = Literal["off", "grid", "flash", "plain"]


@dataclass(frozen=True, kw_only=True)
class PointTransformerConfig:
    """Sizes of a point transformer.

    Attributes:
        channels: of each stage; between two stages the grid is halved.
        heads: of the attention of each stage.
        depths: blocks of each stage.
        patch: rows that attend to each other.
        ratio: hidden channels of an MLP over its channels.
        drop_path: probability that a row skips a branch of the last block in training, rising linearly from 0 at the
            first. Rows are dropped one by one, not by scene, as in the released code.
        orders: curves; block i of a stage walks along the (i mod number)-th.
        shuffle: draw the sequence of `orders` anew at every level in training (torch's CPU generator).
        size: edge of the finest cells, metres.
        mask_token: whether there is a learned vector that stands for masked points.
        checkpoint: compute each block a second time in the backward pass instead of keeping what it computed: about a
            third more time for the memory of all blocks but one.
        published: "off"; "grid" for the cells that the released code makes of a scene, see `PointStudent`, and no
            other difference here; "flash" for these and what that code does with flash attention, "plain" without.
            Both count the cells of all scenes from the minimum of the batch where no cells are given, and give all
            curves the bits of the largest scene, so batch-mates move a scene's grid and turn its curves, and both
            shuffle the orders in evaluation too; "plain" also shrinks all patches to the smallest scene of the batch,
            at every level. (Its patches never reach across scenes either.) A single scene with given cells, without
            shuffling, is the same in all four.
            Where points share a cell, the released code gives the convolution several rows for it, with a result left
            to chance; here it sees their mean in every mode.
    """

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int = 1024
    ratio: int = 4
    drop_path: float = 0.3
    orders: tuple[Order, ...] = ORDERS
    shuffle: bool = True
    size: float = 0.02
    mask_token: bool = True
    checkpoint: bool = False
    published: Published = "off"

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.heads) == len(self.depths) > 0:
            raise ValueError("channels, heads and depths need the same number of stages, at least one")
        if any(c < 1 or h < 1 or c % h for c, h in zip(self.channels, self.heads, strict=True)):
            raise ValueError("channels must be positive multiples of the heads")
        if min(self.depths) < 0 or self.patch < 1 or self.ratio < 1 or not self.orders or self.size <= 0:
            raise ValueError("depths must not be negative; patch, ratio and size positive; and there must be an order")
        if not 0 <= self.drop_path < 1:
            raise ValueError("drop_path must be in [0, 1)")

    def width(self, steps: int) -> int:
        """Channels after `upcast` by some steps."""
        return sum(self.channels[len(self.channels) - 1 - steps :])


CONFIGS = {
    "large": PointTransformerConfig(
        channels=(64, 128, 256, 512, 768), heads=(4, 8, 16, 32, 48), depths=(3, 3, 3, 12, 3)
    ),
    "base": PointTransformerConfig(channels=(48, 96, 192, 384, 512), heads=(3, 6, 12, 24, 32), depths=(3, 3, 3, 12, 3)),
    "small": PointTransformerConfig(channels=(32, 64, 128, 256, 512), heads=(2, 4, 8, 16, 32), depths=(2, 2, 2, 6, 2)),
    "tiny": PointTransformerConfig(
        channels=(16, 32, 48, 64, 64), heads=(1, 2, 3, 4, 4), depths=(1, 1, 1, 2, 1), patch=128, drop_path=0.1
    ),
}
"""name -> sizes; with 9 inputs 208, 108, 39 and 0.6 million parameters."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoder gives, finest level first.

    Attributes:
        levels: see `train.models.point_levels.Level`; rows of level 0 are the points, in their order.
        features: (V, channels) of every level.
    """

    levels: tuple[Level, ...]
    features: tuple[Tensor, ...]

    def upcast(self, steps: int) -> Tensor:
        """Features of the level `steps` below the coarsest, each joined with those of the rows it became part of.

        (V, sum of the channels), the finer level's channels first.
        """
        if not 0 <= steps < len(self.levels):
            raise RecipeError(
                f"{len(self.levels)} levels can be up-cast by 0..{len(self.levels) - 1} steps, not {steps}"
            )
        features = self.features[-1]
        for level in range(len(self.levels) - 1, len(self.levels) - 1 - steps, -1):
            children = self.levels[level].children
            assert children is not None
            features = torch.cat((self.features[level - 1], children.spread(features)), dim=1)
        return features


class PointTransformer(nn.Module):
    """See the module's text.

    Args:
        config: sizes, or a name of `CONFIGS`.
        inputs: channels of the points' features; Sonata's 9 are coordinates, colour in 0..1 and normal.
        device: where it will run; spconv has different layers for CPU and CUDA. On "meta" it costs nothing.
    """

    def __init__(self, config: PointTransformerConfig | str, inputs: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config = config = find_config(config) if isinstance(config, str) else config
        device = torch.device(device)
        widths, rates = config.channels, drop_paths(config.drop_path, config.depths)
        with device:
            self.stem = Projection(inputs, widths[0])
            self.mask_token = nn.Parameter(torch.zeros(widths[0])) if config.mask_token else None
            self.stages = nn.ModuleList(
                stage(width, heads, rate, ratio=config.ratio, device=device)
                for width, heads, rate in zip(widths, config.heads, rates, strict=True)
            )
            self.pools = nn.ModuleList(Pool(a, b) for a, b in itertools.pairwise(widths))
        self.channels = widths[-1]
        initialise(self)

    def forward(
        self,
        features: Tensor,
        xyz: Tensor,
        counts: Sequence[int],
        *,
        masked: Tensor | None = None,
        origin: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> Encoded:
        """Features of every level.

        Args:
            features: float32 (N, inputs), all scenes one after another.
            xyz: float32 (N, 3) metres, by which points are sorted into cells.
            counts: points of every scene.
            masked: bool (N,), the points whose features the mask token replaces (their `xyz` still counts).
            origin: float32 (N, 3), coordinates to be carried along to every level.
            cells: integers (N, 3), the points' cells from 0, instead of those found from `xyz`.

        Raises:
            BrickyardError: where numbers of rows disagree or coordinates are not finite.
            RecipeError: where a scene has too many cells, or points are masked without a mask token.
        """
        size, levels = self.config.size, len(self.stages)
        level = finest(xyz, counts, self._walking(), size=size, cells=cells, origin=origin, levels=levels)
        again = self.config.checkpoint and self.training
        with contextlib.nullcontext() if again else cast_at_once(self, xyz.device):
            return self._encode(features, level, masked, again=again)

    def _encode(self, features: Tensor, level: Level, masked: Tensor | None, *, again: bool) -> Encoded:
        x = self.stem(features)
        if masked is not None:
            if self.mask_token is None:
                raise RecipeError("this point transformer has no mask token; set mask_token=True in its config")
            x = torch.where(masked[:, None], self.mask_token.to(x.dtype), x)
        levels: list[Level] = []
        outputs: list[Tensor] = []
        for number, blocks in enumerate(self.stages):
            if number:
                level = coarser(level, self._walking())
                x = self.pools[number - 1](x, level)
            x = run(blocks, x, level, again=again)
            levels.append(level)
            outputs.append(x)
        return Encoded(levels=tuple(levels), features=tuple(outputs))

    def _walking(self) -> Walking:
        config, orders = self.config, self.config.orders
        shared = config.published in ("flash", "plain")
        if config.shuffle and (self.training or shared):
            orders = tuple(orders[i] for i in torch.randperm(len(orders)).tolist())
        return Walking(orders=orders, patch=config.patch, shared=shared, shrink=config.published == "plain")


def find_config(name: str) -> PointTransformerConfig:
    """The sizes of a name; raises `RecipeError` with the known names."""
    if name not in CONFIGS:
        raise RecipeError(f"unknown point transformer {name!r}; known: {', '.join(CONFIGS)}")
    return CONFIGS[name]


def block_of(parameter: str, config: PointTransformerConfig) -> int | None:
    """The number of the block a parameter of `PointTransformer` belongs to, counted from the stem through all stages,
    or None for stem, pools and mask token: what a learning rate that decays with depth asks for."""
    match = re.match(r"stages\.(\d+)\.(\d+)\.", parameter)
    return sum(config.depths[: int(match[1])]) + int(match[2]) if match else None
