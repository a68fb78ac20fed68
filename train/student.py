"""The student: what pretraining leaves behind. Points in, feature vectors out.

It is a network with the way its input is made (which point features, which voxel grid), because weights without that
are useless. There are two: a sparse U-Net on a cylindrical or cartesian grid here, a point transformer in
`train.point_student`. Exported as `student.safetensors` beside `student.json`; nothing else of a run is needed to use
it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shards.errors import BrickyardError
from train.clouds import Cloud, Clouds, Input, channels, fields, join_clouds, point_features, read_cloud
from train.models.sparse_unet import SparseUNet
from train.voxels import VoxelConfig, Voxels, voxelise

if TYPE_CHECKING:
    from shards.stream import Sample


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features of the occupied voxels of a batch, one scene after another.

    Attributes:
        features: float32 (V, channels).
        inverse: int64 (N,), the row of every point: `features[inverse]` are the points' features.
        representative: int64 (V,), the point that spoke for each voxel.
    """

    features: Tensor
    inverse: Tensor
    representative: Tensor


class Student(nn.Module):
    """What objectives export and evaluations load.

    Attributes:
        config: a frozen dataclass; its class has the `kind` that names it in student.json.
        inputs: features of a point, see `train.clouds`.
        channels: of the features.
    """

    config: Any
    inputs: tuple[Input, ...]
    channels: int

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
            clouds: of the scenes, at least one.
            turn: which of its points speaks for a voxel: number `turn` of them, counted round and round. Over as many
                turns as the fullest voxel has points, every point speaks.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A sparse U-Net.

    Attributes:
        network: name in `train.models.sparse_unet.CONFIGS`.
        inputs: features of a point; "intensity" is the published one (nuScenes' bytes are divided by 255, which the
            first batch norm makes equal to using them raw).
        voxels: the grid.
    """

    kind: ClassVar[str] = "sparse_unet"

    network: str = "mink34"
    inputs: tuple[Input, ...] = ("intensity",)
    voxels: VoxelConfig = field(default_factory=VoxelConfig)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("a student needs at least one input")

    @property
    def fields(self) -> tuple[str, ...]:
        """What it asks of the stream."""
        return fields(self.inputs)


class UNetStudent(Student):
    """`student(clouds)` gives the features of its voxels, float32 (V, channels), and the voxels."""

    config: StudentConfig

    def __init__(self, config: StudentConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config, self.inputs = config, config.inputs
        self.network = SparseUNet(config.network, channels(config.inputs), device)
        self.channels = self.network.channels

    def forward(self, clouds: Clouds, turn: int = 0) -> tuple[Tensor, Voxels]:
        features = point_features(clouds, self.inputs)
        voxels = voxelise(clouds.xyz, features, clouds.scene, clouds.batch, self.config.voxels, turn=turn)
        return self.network(voxels), voxels

    def encode(self, clouds: Sequence[Cloud], turn: int = 0) -> Rows:
        features, voxels = self(join_clouds(clouds, self.inputs, self.device), turn)
        return Rows(features=features, inverse=voxels.inverse, representative=voxels.representative)


def build_student(config: Any, device: torch.device | str = "cpu") -> Student:
    """A student with fresh weights (torch's random state decides)."""
    from train.point_student import PointStudent, PointStudentConfig

    if isinstance(config, PointStudentConfig):
        return PointStudent(config, device)
    return UNetStudent(config, device)


def export_student(student: Student, folder: Path) -> None:
    """Write `student.safetensors` and `student.json` into an existing folder."""
    weights = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    save_file(weights, folder / "student.safetensors")
    table = {"kind": student.config.kind, **dataclasses.asdict(student.config)}
    (folder / "student.json").write_text(json.dumps(table, indent=2) + "\n")


def load_student(folder: str | Path, device: torch.device | str = "cpu") -> Student:
    """The student exported into a folder; raises `BrickyardError` where there is none or it does not fit."""
    folder = Path(folder)
    try:
        student = build_student(_read_config(json.loads((folder / "student.json").read_text())), device)
        student.load_state_dict(load_file(folder / "student.safetensors", device=str(device)))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as problem:
        raise BrickyardError(f"{folder} holds no usable student: {problem}") from problem
    return student


def _read_config(table: dict[str, Any]) -> Any:
    from train.models.point_decoder import PointDecoderConfig
    from train.point_student import PointStudentConfig

    kind = table.pop("kind", StudentConfig.kind)  # the first exports had no kind
    table["inputs"] = tuple(table["inputs"])
    if kind == StudentConfig.kind:
        voxels = VoxelConfig(kind=table["voxels"]["kind"], size=tuple(table["voxels"]["size"]))
        return StudentConfig(network=table["network"], inputs=table["inputs"], voxels=voxels)
    if kind == PointStudentConfig.kind:
        if table.get("decoder") is not None:
            sizes: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in table["decoder"].items()}
            table["decoder"] = PointDecoderConfig(**sizes)
        return PointStudentConfig(**table)
    raise BrickyardError(f"unknown kind of student {kind!r}; was it exported by a newer version?")
