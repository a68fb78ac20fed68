"""The student: what pretraining leaves behind. Points in, one feature vector per voxel out.

It is a sparse U-Net with the way its input is made (which point features, which voxel grid), because weights without
that are useless. Exported as `student.safetensors` beside `student.json`; nothing else of a run is needed to use it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shards.errors import BrickyardError
from train.models.sparse_unet import SparseUNet
from train.voxels import VoxelConfig, Voxels, voxelise

if TYPE_CHECKING:
    from shards.stream import Sample

Input = Literal["intensity", "height", "range"]
_FULL_SCALE = {"unit": 1.0, "byte": 255.0}


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Which student.

    Attributes:
        network: name in `train.models.sparse_unet.CONFIGS`.
        inputs: features of a point: "intensity" (0..1, the published input; nuScenes' bytes are divided by 255, which
            the first batch norm makes equal to using them raw), "height" (z, metres), "range" (hypot(x, y), metres).
        voxels: the grid.
    """

    network: str = "mink34"
    inputs: tuple[Input, ...] = ("intensity",)
    voxels: VoxelConfig = field(default_factory=VoxelConfig)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("a student needs at least one input")

    @property
    def fields(self) -> tuple[str, ...]:
        """What it asks of the stream."""
        return ("points/xyz", "points/intensity") if "intensity" in self.inputs else ("points/xyz",)


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """The points of a batch, one scene after another.

    Attributes:
        xyz: float32 (N, 3), metres.
        intensity: float32 (N,), 0..1 (zeros, and unused, where the student does not take it).
        scene: int64 (N,), number of each point's scene.
        batch: number of scenes.
    """

    xyz: Tensor
    intensity: Tensor
    scene: Tensor
    batch: int


class Student(nn.Module):
    """`student(clouds)` gives the features of its voxels, float32 (V, channels), and the voxels."""

    def __init__(self, config: StudentConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config = config
        self.network = SparseUNet(config.network, len(config.inputs), device)
        self.channels = self.network.channels

    def forward(self, clouds: Clouds) -> tuple[Tensor, Voxels]:
        columns = {
            "intensity": lambda: clouds.intensity,
            "height": lambda: clouds.xyz[:, 2],
            "range": lambda: torch.hypot(clouds.xyz[:, 0], clouds.xyz[:, 1]),
        }
        features = torch.stack([columns[name]() for name in self.config.inputs], dim=1)
        voxels = voxelise(clouds.xyz, features, clouds.scene, clouds.batch, self.config.voxels)
        return self.network(voxels), voxels


def read_cloud(sample: Sample, config: StudentConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """xyz float32 (N, 3) and intensity float32 (N,) in 0..1, in new memory; inside a stream's `prepare`.

    Raises:
        BrickyardError: where the scene has no points, or not the intensity the student takes, or in an unknown unit.
    """
    if "points/xyz" not in sample:
        raise BrickyardError(f"scene {sample.key} has no points, which this student needs; leave it out by selection")
    xyz = sample["points/xyz"].dequantise()
    if "intensity" not in config.inputs:
        return xyz, np.zeros(len(xyz), np.float32)
    unit = (sample.header.points or {}).get("intensity_unit")
    if "points/intensity" not in sample or unit not in _FULL_SCALE:
        raise BrickyardError(
            f"scene {sample.key} has {'no intensity' if unit is None else f'intensity in unit {unit!r}'}, this student"
            f" needs one of {sorted(_FULL_SCALE)}; select other scenes or take 'intensity' out of the student's inputs"
        )
    stored = sample["points/intensity"]
    values = stored.dequantise() if hasattr(stored, "dequantise") else np.asarray(stored)
    scaled: NDArray[np.float32] = values.astype(np.float32) / np.float32(_FULL_SCALE[unit])
    return xyz, scaled


def join_clouds(clouds: list[tuple[Tensor, Tensor]], device: torch.device) -> Clouds:
    """One `Clouds` of the (xyz, intensity) of several scenes, on a device."""
    sizes = torch.tensor([len(xyz) for xyz, _ in clouds])
    return Clouds(
        xyz=torch.cat([xyz for xyz, _ in clouds]).to(device, non_blocking=True),
        intensity=torch.cat([intensity for _, intensity in clouds]).to(device, non_blocking=True),
        scene=torch.arange(len(clouds)).repeat_interleave(sizes).to(device, non_blocking=True),
        batch=len(clouds),
    )


def export_student(student: Student, folder: Path) -> None:
    """Write `student.safetensors` and `student.json` into an existing folder."""
    weights = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    save_file(weights, folder / "student.safetensors")
    (folder / "student.json").write_text(json.dumps(dataclasses.asdict(student.config), indent=2) + "\n")


def load_student(folder: str | Path, device: torch.device | str = "cpu") -> Student:
    """The student exported into a folder; raises `BrickyardError` where there is none or it does not fit."""
    folder = Path(folder)
    try:
        table: dict[str, Any] = json.loads((folder / "student.json").read_text())
        voxels = VoxelConfig(kind=table["voxels"]["kind"], size=tuple(table["voxels"]["size"]))
        config = StudentConfig(network=table["network"], inputs=tuple(table["inputs"]), voxels=voxels)
        student = Student(config, device)
        student.load_state_dict(load_file(folder / "student.safetensors", device=str(device)))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as problem:
        raise BrickyardError(f"{folder} holds no usable student: {problem}") from problem
    return student
