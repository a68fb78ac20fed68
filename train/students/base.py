"""What pretraining leaves behind: an `Exported` network, and, of those, the `Student`: points in, feature vectors out.

A student is a network with the way its input is made (which point features, which voxel grid), because weights without
that are useless. Whatever an evaluation must know of a kind of student is a method here, so nobody asks which kind it
has. An objective that learns from images alone exports an `Exported` that is no student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from brickyard.train.clouds import Cloud, Clouds, Input, fields, join_clouds, read_cloud

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample
    from brickyard.train.models.point_decoder import PointDecoderConfig


@dataclass(frozen=True, kw_only=True)
class ExportedConfig:
    """Settings of a network that can be exported; its `kind` names it in student.json and in the registry."""

    kind: ClassVar[str]

    def build(self, device: torch.device | str = "cpu") -> Exported:
        """The network with fresh weights (torch's random state decides)."""
        raise NotImplementedError

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Self:
        """The settings in a student.json, of this version or an older one; raises what nonsense raises."""
        raise NotImplementedError


class Exported(nn.Module):
    """A network that objectives export and evaluations load.

    Attributes:
        config: an `ExportedConfig`.
    """

    config: Any

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The occupied voxels of a batch of scenes.

    Attributes:
        inverse: int64 (N,), the row of every point.
        representative: int64 (V,), the point that spoke for each voxel.
        turn: which of its points that is, see `Student.encode`.
    """

    inverse: Tensor
    representative: Tensor
    turn: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows(Cells):
    """Features of the occupied voxels of a batch, one scene after another.

    Attributes:
        features: float32 (V, channels); `features[inverse]` are the points' features.
    """

    features: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class StudentConfig(ExportedConfig):
    """Settings of a student.

    Attributes:
        inputs: features of a point, see `train.clouds`.
    """

    inputs: tuple[Input, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """What it asks of the stream."""
        return fields(self.inputs)

    def build(self, device: torch.device | str = "cpu") -> Student:
        raise NotImplementedError

    def adapted(self, *, grid: float | None, domain: str) -> Self:
        """The settings for a supervised protocol: features of every level there is, and voxels with an edge of `grid`
        metres in scenes of this domain, where that is given and the weights allow another grid."""
        del grid, domain
        return self

    def voxel_size(self, domain: str) -> float:
        """Edge of a voxel in metres of the scene; of a cylindrical one, along the distance."""
        raise NotImplementedError


class Student(Exported):
    """What encodes clouds.

    Attributes:
        config: a `StudentConfig`.
        channels: of the features.
        has_decoder: whether a decoder was pretrained with it, so that none is put on top.
    """

    config: Any
    channels: int
    has_decoder: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Features of a point, see `train.clouds`."""
        inputs: tuple[Input, ...] = self.config.inputs
        return inputs

    @property
    def fields(self) -> tuple[str, ...]:
        """What it asks of the stream."""
        return fields(self.inputs)

    def read(self, sample: Sample) -> Cloud:
        """The cloud of a sample; in a stream's `prepare`. Raises `BrickyardError` where the scene does not do."""
        return read_cloud(sample, self.inputs)

    def encode(self, clouds: Sequence[Cloud], turn: int = 0) -> Rows:
        """Features of scenes, on this network's device.

        Args:
            clouds: of the scenes, at least one, in metres as they were read.
            turn: which of its points speaks for a voxel: number `turn` of them, counted round and round. Over as many
                turns as the fullest voxel has points, every point speaks.
        """
        joined = join_clouds(clouds, self.inputs, self.device)
        return self.read_out(*self.encode_joined(joined, [cloud.domain for cloud in clouds], turn))

    def encode_joined(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> tuple[Any, Cells]:
        """(what the network computed, the finest voxels it did so for).

        Args:
            clouds: in metres, on the network's device. domains: of its scenes.
        """
        raise NotImplementedError

    def read_out(self, encoded: Any, cells: Cells) -> Rows:
        """The features of what `encode_joined` computed."""
        raise NotImplementedError

    def cells(self, clouds: Clouds, domains: Sequence[str], turn: int = 0) -> Cells:
        """The finest voxels alone, without running the network."""
        raise NotImplementedError

    def new_decoder(self, config: PointDecoderConfig) -> nn.Module:
        """A decoder with fresh weights: what `encode_joined` computed -> features of the finest voxels; its width is
        its `channels`. Raises `RecipeError` where it does not fit; of a student that `has_decoder`, always."""
        raise NotImplementedError

    def in_block(self, parameter: str) -> bool:
        """Whether a parameter lies in a block, which fine-tuning moves slowly (and not, say, in the stem)."""
        del parameter
        return True
