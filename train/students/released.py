"""Released networks without a run: a file of others -> a student that evaluates like any other, and back.

    Sonata                      a point transformer: see `train.students.published`
    SLidR, ST-SLidR, PPKT       a sparse U-Net: see `train.models.mink_weights`

Which of them a file holds shows in its names, the sizes of the network in its weights, and the U-Net's grid in the
table "config" that such files have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brickyard.shards.errors import BrickyardError
from brickyard.train.clouds import Input
from brickyard.train.models.mink_weights import load_mink, mink_in, to_mink
from brickyard.train.models.sonata_weights import holds_sonata
from brickyard.train.models.sparse_unet import CONFIGS, SparseUNet
from brickyard.train.students.base import Student
from brickyard.train.students.point import PointStudent
from brickyard.train.students.published import load_published, save_published
from brickyard.train.students.unet import UNetConfig, UNetStudent
from brickyard.train.voxels import VoxelConfig
from brickyard.train.weights_files import read_file

_INPUTS: dict[int, tuple[Input, ...]] = {1: ("intensity",)}
_DEGREES = 1.0  # along the angle of a cylindrical voxel, whatever the size of the others


def load_released(path: str | Path, device: torch.device | str = "cpu") -> Student:
    """The student of a released file; of a Sonata file with a decoder, the encoder.

    A sparse U-Net takes intensities in the published scale, which the statistics stored in its batch norms are of.

    Args:
        path: as `train.weights_files.read_file` takes it.
        device: where it will run.

    Raises:
        BrickyardError: where the file cannot be read, holds neither kind of network, or its weights do not fit.
    """
    table, _ = read_file(path)
    weights = mink_in(table)
    if weights is not None:
        return _unet(weights, table.get("config", {}), path, device)
    if holds_sonata(table):
        return load_published(path, device=device)[0]
    raise BrickyardError(
        f"{path} holds weights neither of a Sonata encoder nor of the MinkUNet of SLidR, ST-SLidR or PPKT"
    )


def save_released(path: str | Path, student: Student) -> None:
    """Write what the public code of this kind of student loads.

    A sparse U-Net's file is a table of "model_points", the weights, and "config", the grid; a point transformer's see
    `save_published`.

    Raises:
        BrickyardError: for a student that the public code has no counterpart of.
    """
    if isinstance(student, PointStudent):
        save_published(path, student, student.decoder)
        return
    if not isinstance(student, UNetStudent) or student.inputs != ("intensity",) or not _minkowski(student):
        raise BrickyardError(f"{path}: a {student.config.kind!r} of {student.inputs} has no public counterpart")
    size = student.config.voxels.size
    cylindrical = student.config.voxels.kind == "cylindrical"
    if size != _grid(cylindrical, size[0]).size:
        raise BrickyardError(f"{path}: the public code has no voxels of {size}, only of one size (and 1 degree)")
    if student.config.intensity != "published":
        raise BrickyardError(
            f"{path}: this student was trained with intensity: {student.config.intensity}, the public code feeds the"
            " published scale"
        )
    weights = {name: value.detach().cpu().contiguous() for name, value in to_mink(student.network).items()}
    config = {"cylindrical_coordinates": cylindrical, "voxel_size": size[0], "kernel_size": 3}
    torch.save({"model_points": weights, "config": config}, path)


def _minkowski(student: UNetStudent) -> bool:
    return student.network.config.widen == "block"


def _unet(weights: Mapping[str, Tensor], settings: Any, path: str | Path, device: torch.device | str) -> UNetStudent:
    network = next((name for name in CONFIGS if _shapes(name, weights) == _shapes_of(weights)), None)
    if network is None:
        raise BrickyardError(
            f"{path}: no known network ({', '.join(CONFIGS)}) has {len(weights)} weights of these names and shapes;"
            " is the file cut short?"
        )
    inputs = _INPUTS.get(weights["conv0p1s1.kernel"].shape[1])
    if inputs is None:
        raise BrickyardError(f"{path}: the first layer takes {weights['conv0p1s1.kernel'].shape[1]} features, not 1")
    student = UNetStudent(UNetConfig(network=network, inputs=inputs, voxels=_voxels(settings, path)), device)
    load_mink(student.network, weights, str(path))
    return student


def _shapes(name: str, weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Of the network of this name, with as many inputs as the weights have."""
    first = weights["conv0p1s1.kernel"]
    with torch.device("meta"):
        return _shapes_of(to_mink(SparseUNet(name, first.shape[1] if first.ndim == 3 else 1, "meta")))


def _shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items() if "num_batches_tracked" not in name}


def _voxels(settings: Any, path: str | Path) -> VoxelConfig:
    """The grid; cylindrical voxels of 0.1 m, the published ones, where a file says nothing."""
    given = settings if isinstance(settings, Mapping) else {}
    cylindrical, size = given.get("cylindrical_coordinates", True), given.get("voxel_size", 0.1)
    if not isinstance(cylindrical, bool) or not isinstance(size, int | float) or not 0 < size < float("inf"):
        raise BrickyardError(
            f"{path}: cylindrical_coordinates {cylindrical!r} and voxel_size {size!r} of its config make no grid"
        )
    return _grid(cylindrical, float(size))


def _grid(cylindrical: bool, size: float) -> VoxelConfig:
    if cylindrical:
        return VoxelConfig(kind="cylindrical", size=(size, _DEGREES, size))
    return VoxelConfig(kind="cartesian", size=(size,) * 3)
