"""The student: what pretraining leaves behind. Points in, feature vectors out.

It is a network with the way its input is made (which point features, which voxel grid), because weights without that
are useless. There are two: a sparse U-Net on a cylindrical or cartesian grid here, a point transformer in
`train.point_student`. Exported as `student.safetensors` beside `student.json`, with the digests of both (see
`train.files`); nothing else of a run is needed to use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from brickyard.shards.atomic import write_whole
from brickyard.shards.documents import read_file, write_document
from brickyard.shards.errors import NONSENSE, BrickyardError
from brickyard.train.clouds import Cloud, Clouds, Input, channels, fields, join_clouds, point_features, read_cloud
from brickyard.train.files import DIGESTS, check_digests, write_digests
from brickyard.train.models.sparse_unet import SparseUNet
from brickyard.train.voxels import VoxelConfig, Voxels, voxelise

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample


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
    from brickyard.train.point_student import PointStudent, PointStudentConfig

    if isinstance(config, PointStudentConfig):
        return PointStudent(config, device)
    return UNetStudent(config, device)


WEIGHTS, SETTINGS = "student.safetensors", "student.json"


def export_student(student: Student, folder: Path) -> None:
    """Write `student.safetensors` and `student.json` into an existing folder, then their digests."""
    (folder / DIGESTS).unlink(missing_ok=True)  # of a student that was here before
    weights = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_whole(folder / WEIGHTS, save(weights))
    write_document(folder / SETTINGS, {"kind": student.config.kind, **dataclasses.asdict(student.config)})
    write_digests(folder, (WEIGHTS, SETTINGS))


def load_student(folder: str | Path, device: torch.device | str = "cpu") -> Student:
    """The student exported into a folder; raises `BrickyardError` where there is none, it is damaged or does not fit.

    One without digests (older versions wrote none) is taken as it is, with a warning.
    """
    folder = Path(folder)
    hint = f"get the student again, or, in the folder of a run, delete {folder} and `brickyard train` exports it anew"
    table = read_file(folder / SETTINGS, error=_no_student(folder), hint=hint)
    check_digests(folder, (WEIGHTS, SETTINGS), hint=hint)
    try:
        student = build_student(_read_config(table), device)
        student.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))
    except (OSError, RuntimeError, SafetensorError, *NONSENSE) as problem:
        raise BrickyardError(f"{folder} holds no usable student: {problem}: {hint}") from problem
    return student


def _no_student(folder: Path) -> Callable[[str], BrickyardError]:
    return lambda problem: BrickyardError(f"{folder} holds no usable student: {problem}")


def _read_config(table: dict[str, Any]) -> Any:
    from brickyard.train.models.point_decoder import PointDecoderConfig
    from brickyard.train.point_student import PointStudentConfig

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
