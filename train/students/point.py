"""A point transformer as student: one row for every occupied cell, all levels side by side.

The cloud is scaled to the metric of the network (an outdoor scan is shrunk, so that a cell means as much there as
indoors), and one point speaks for each cell. Features of the coarser levels are handed down to their children and
joined (`Encoded.upcast`), which needs no parameter: the classifier of a probe sees every scale.

Where the grid begins decides which points share a cell. Ours begins at the scene's least coordinates; the released code
centres the scene and rounds coordinates over the cell's size down, so that its cells end at multiples of the size from
the middle (`published`). Released weights want the cells they were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, Clouds, Input, channels, point_features
from brickyard.train.models.point_decoder import PointDecoder, PointDecoderConfig
from brickyard.train.models.point_transformer import (
    CONFIGS,
    Encoded,
    PointTransformer,
    PointTransformerConfig,
    Published,
    block_of,
)
from brickyard.train.models.sonata_weights import load_sonata, read_checkpoint
from brickyard.train.students.base import Cells, Rows, Student, StudentConfig
from brickyard.train.voxels import representatives


@dataclass(frozen=True, kw_only=True)
class PointStudentConfig(StudentConfig):
    """A point transformer.

    Attributes:
        network: name in `train.models.point_transformer.CONFIGS`.
        inputs: features of a point; the published nine are coordinates, colour and normal.
        size: edge of a cell, metres after scaling.
        scale: domain -> factor on the coordinates; 1 where it is not named. The joint recipe has outdoor: 0.4, which
            makes a cell of 0.02 one of 0.05 m there.
        upcast: levels joined to the finest of them; 4 reaches the cells themselves, None all.
        patch, drop_path: instead of the network's own.
        checkpoint: compute each block a second time in the backward pass instead of keeping what it computed.
        published: cells as in the released code ("grid"), and further differences ("flash", "plain"), see
            `PointTransformerConfig.published`.
        decoder: a decoder behind the encoder, whose output at the cells then is the student's instead of joined levels:
            the U-Net that Sonata does without, for comparison.
        weights: a checkpoint in the public Sonata layout to begin with, instead of random weights; see
            `train.models.sonata_weights.read_checkpoint`.
    """

    kind: ClassVar[str] = "point_transformer"

    network: str = "base"
    inputs: tuple[Input, ...] = ("xyz", "color", "normal")
    size: float = 0.02
    scale: dict[str, float] = field(default_factory=dict)
    upcast: int | None = None
    patch: int | None = None
    drop_path: float | None = None
    checkpoint: bool = False
    published: Published = "off"
    decoder: PointDecoderConfig | None = None
    weights: Path | None = None

    def __post_init__(self) -> None:
        if "xyz" not in self.inputs:
            raise ValueError('a point transformer needs "xyz" among its inputs')
        if self.network not in CONFIGS:
            raise ValueError(f"unknown point transformer {self.network!r}; known: {', '.join(CONFIGS)}")
        if self.size <= 0 or any(factor <= 0 for factor in self.scale.values()):
            raise ValueError("size and scale must be positive")

    def build(self, device: torch.device | str = "cpu") -> PointStudent:
        return PointStudent(self, device)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        values = table | {"inputs": tuple(table["inputs"])}
        if values.get("decoder") is not None:
            sizes: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in values["decoder"].items()
            }
            values["decoder"] = PointDecoderConfig(**sizes)
        return cls(**values)

    def adapted(self, *, grid: float | None, domain: str) -> Self:
        return replace(self, upcast=None, size=self.size if grid is None else grid * self.scale.get(domain, 1.0))

    def voxel_size(self, domain: str) -> float:
        return float(self.size / self.scale.get(domain, 1.0))

    @property
    def sizes(self) -> PointTransformerConfig:
        """The network's sizes with what is set here instead."""
        changed: dict[str, Any] = {"size": self.size, "published": self.published, "checkpoint": self.checkpoint}
        changed |= {name: v for name in ("patch", "drop_path") if (v := getattr(self, name)) is not None}
        return replace(CONFIGS[self.network], **changed)


class PointStudent(Student):
    """`student(clouds)` gives features of all levels; clouds are scaled and centred already, one point a cell."""

    config: PointStudentConfig

    def __init__(self, config: PointStudentConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        # What is exported needs the file of its first weights no more.
        self.config = replace(config, weights=None)
        self.network = PointTransformer(config.sizes, channels(config.inputs), device)
        if config.weights is not None:
            load_sonata(self.network, read_checkpoint(config.weights)[0])
        sizes = self.network.config
        self.decoder = None if config.decoder is None else PointDecoder(config.decoder, sizes, device)
        self.levels = len(sizes.channels) - 1 if config.upcast is None or self.decoder else config.upcast
        self.channels = self.decoder.channels if self.decoder else sizes.width(self.levels)

    def forward(
        self,
        clouds: Clouds,
        *,
        xyz: Tensor | None = None,
        masked: Tensor | None = None,
        origin: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> Encoded:
        """See `PointTransformer.forward`; `xyz` are other coordinates to sort the points by than those they show."""
        encoded: Encoded = self.network(
            point_features(clouds, self.inputs),
            clouds.xyz if xyz is None else xyz,
            clouds.counts,
            masked=masked,
            origin=origin,
            cells=cells,
        )
        return encoded

    def rows(self, encoded: Encoded, upcast: int) -> Tensor:
        """Features that the student is judged by: levels joined down to one, or the decoder's of the cells."""
        features: Tensor = encoded.upcast(upcast) if self.decoder is None else self.decoder(encoded)
        return features

    def scaled(self, cloud: Cloud) -> Cloud:
        """The cloud in the metric of the network."""
        return replace(cloud, xyz=cloud.xyz * self.config.scale.get(cloud.domain, 1.0))

    def encode_joined(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> tuple[Encoded, Cells]:
        clouds, coordinates, found = self._divide(clouds, domains, turn)
        chosen = found.representative
        return self(clouds.take(chosen), cells=coordinates[chosen]), found

    def read_out(self, encoded: Encoded, cells: Cells) -> Rows:
        inverse, chosen = cells.inverse, cells.representative
        for level in encoded.levels[1 : len(encoded.levels) - self.levels]:
            assert level.children is not None
            inverse = level.children.inverse[inverse]
        if self.levels < len(encoded.levels) - 1:  # rows are coarser than the cells
            inverse, chosen = representatives(inverse, cells.turn)
        return Rows(features=self.rows(encoded, self.levels).float(), inverse=inverse, representative=chosen)

    def cells(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Cells:
        return self._divide(clouds, domains, turn)[2]

    def _divide(self, clouds: Clouds, domains: Sequence[str], turn: int) -> tuple[Clouds, Tensor, Cells]:
        """The clouds in the metric of the network, the cell of every point, and those that are occupied."""
        factors = torch.tensor([self.config.scale.get(domain, 1.0) for domain in domains], device=clouds.xyz.device)
        clouds = replace(clouds, xyz=clouds.xyz * factors[clouds.scene][:, None]).centred()
        coordinates = clouds.cells(self.config.size, multiples=self.config.published != "off")
        inverse, chosen = representatives(clouds.cell_codes(coordinates), turn)
        return clouds, coordinates, Cells(inverse=inverse, representative=chosen, turn=turn)

    def new_decoder(self, config: PointDecoderConfig) -> PointDecoder:
        stages = len(self.network.config.channels)
        if len(config.channels) != stages - 1:
            raise RecipeError(
                f"the decoder has {len(config.channels)} stages, but one for an encoder of {stages} has {stages - 1}:"
                " set `decoder` in the protocol's settings"
            )
        return PointDecoder(config, self.network.config, self.device)

    def in_block(self, parameter: str) -> bool:
        return block_of(parameter.removeprefix("network."), self.network.config) is not None
