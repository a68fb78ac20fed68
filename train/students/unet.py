"""A sparse U-Net as student, on a cylindrical or cartesian grid: features of its voxels, from a decoder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError
from brickyard.train.clouds import Cloud, Clouds, Input, IntensityScale, channels, point_features, read_cloud
from brickyard.train.models.mink_weights import load_mink, read_mink
from brickyard.train.models.point_decoder import PointDecoderConfig
from brickyard.train.models.sparse_unet import SparseUNet, find_config
from brickyard.train.students.base import Cells, Rows, Student, StudentConfig
from brickyard.train.voxels import VoxelConfig, Voxels, voxelise

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class UNetConfig(StudentConfig):
    """A sparse U-Net.

    Attributes:
        network: name in `train.models.sparse_unet.CONFIGS`.
        inputs: features of a point; SLidR's and ST-SLidR's is intensity alone.
        voxels: the grid.
        intensity: "published" for nuScenes' bytes as they are and SemanticKITTI's 0..1 plus 1, as those systems feed
            them, or "unit" for 0..1 whatever the dataset, see `train.clouds.IntensityScale`. Beside further inputs in
            metres, "unit": 0..255 would drown them.
        norms: dataset -> name of the batch norms that its scenes go through, "*" for all other datasets; without it
            there is one of each. Scenes of a dataset without norms are refused.
        weights: a checkpoint of SLidR, ST-SLidR or PPKT to begin with, instead of random weights; see
            `train.models.mink_weights`.
    """

    kind: ClassVar[str] = "sparse_unet"

    network: str = "mink34"
    inputs: tuple[Input, ...] = ("intensity",)
    voxels: VoxelConfig = field(default_factory=VoxelConfig)
    intensity: IntensityScale = field(default="published", metadata={"before": "unit"})
    norms: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.norms and self.weights is not None:
            raise ValueError("weights: the published networks have one norm, not several (norms)")
        if not self.inputs:
            raise ValueError("a student needs at least one input")
        if self.intensity not in get_args(IntensityScale):
            raise ValueError(f"intensity must be one of {', '.join(get_args(IntensityScale))}, not {self.intensity!r}")

    def build(self, device: torch.device | str = "cpu") -> UNetStudent:
        return UNetStudent(self, device)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        voxels = VoxelConfig(kind=table["voxels"]["kind"], size=tuple(table["voxels"]["size"]))
        return cls(
            network=table["network"],
            inputs=tuple(table["inputs"]),
            voxels=voxels,
            intensity=table.get("intensity", "unit"),  # the only scale there was when the setting was not
            norms=dict(table.get("norms", {})),
        )

    def voxel_size(self, domain: str) -> float:
        return float(self.voxels.size[0])


class UNetStudent(Student):
    """`student(clouds)` gives the features of its voxels, float32 (V, channels), and the voxels."""

    config: UNetConfig
    has_decoder: ClassVar[bool] = True

    def __init__(self, config: UNetConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        # What is exported needs the file of its first weights no more.
        self.config = replace(config, weights=None)
        self.norm_names = tuple(dict.fromkeys(config.norms.values()))
        sizes = replace(find_config(config.network), norms=max(1, len(self.norm_names)))
        self.network = SparseUNet(sizes, channels(config.inputs), device)
        if config.weights is not None:
            load_mink(self.network, read_mink(config.weights), str(config.weights))
        self.channels = self.network.channels

    def read(self, sample: Sample) -> Cloud:
        return read_cloud(sample, self.inputs, self.config.intensity)

    def forward(self, clouds: Clouds, turn: int = 0) -> tuple[Tensor, Voxels]:
        features = point_features(clouds, self.inputs)
        voxels = voxelise(clouds.xyz, features, clouds.scene, clouds.batch, self.config.voxels, turn=turn)
        return self.network(voxels, self._norm_of(clouds)), voxels

    def _norm_of(self, clouds: Clouds) -> Tensor | None:
        """The number of each scene's norms; raises `RecipeError` for a dataset that has none."""
        norms = self.config.norms
        if len(self.norm_names) < 2:
            return None
        for dataset in clouds.datasets:
            if dataset not in norms and "*" not in norms:
                raise RecipeError(
                    f"the student has norms of {', '.join(norms)} and none of {dataset}: which should its scenes take?"
                    ' Train with `norms: {"*": NAME}` beside the others to say so'
                )
        names = [norms.get(dataset, norms.get("*", "")) for dataset in clouds.datasets]
        return torch.tensor([self.norm_names.index(name) for name in names], device=clouds.xyz.device)

    def encode_joined(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> tuple[Tensor, Cells]:
        features, voxels = self(clouds, turn)
        return features, Cells(inverse=voxels.inverse, representative=voxels.representative)

    def read_out(self, encoded: Tensor, cells: Cells) -> Rows:
        return Rows(features=encoded, inverse=cells.inverse, representative=cells.representative)

    def cells(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Cells:
        nothing = clouds.xyz.new_zeros(len(clouds.xyz), 0)
        voxels = voxelise(clouds.xyz, nothing, clouds.scene, clouds.batch, self.config.voxels, turn=turn)
        return Cells(inverse=voxels.inverse, representative=voxels.representative)

    def new_decoder(self, config: PointDecoderConfig) -> nn.Module:
        raise RecipeError("a sparse U-Net was pretrained together with a decoder of its own")
