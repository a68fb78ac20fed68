"""Which teacher: from its name in a recipe to the frozen network.

efficientnet_lite0          comes with its ImageNet weights in a Python package, so it works where nothing can be
                            downloaded
a file                      in the layout of its authors, recognised by its names: see `train.teachers.layouts`
a folder                    with config.json and .safetensors, as Hugging Face's transformers saves them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.teachers.efficientnet import EfficientNetLite0
from brickyard.train.teachers.huggingface import HuggingFace
from brickyard.train.teachers.layouts import read_layout
from brickyard.train.teachers.resnet import ResNetTeacher
from brickyard.train.teachers.teacher import Teacher
from brickyard.train.teachers.vit import ViTTeacher


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Which teacher.

    Attributes:
        name: "efficientnet_lite0"; a file as the authors of MoCo, SwAV, DeepCluster-v2, OBoW, PixPro, DINO, DINOv2 or
            DINOv3 publish it (or a torchvision ResNet's); or a folder with config.json and model.safetensors.
        output_stride: of a ResNet: 32 as trained, or 16, 8, 4 by dilation. Other teachers have a stride of their own.
    """

    name: str = "efficientnet_lite0"
    output_stride: Literal[4, 8, 16, 32] = 4


def load_teacher(
    config: TeacherConfig, device: torch.device | str = "cpu", *, size: tuple[int, int] | None = None
) -> Teacher:
    """The teacher of a config, frozen, on a device.

    Args:
        config: which.
        device: where it will run.
        size: (height, width) of the images that it will see.

    Raises:
        RecipeError: where it cannot be loaded, weights do not fit, or it cannot take images of this size.
    """
    path = Path(config.name)
    if config.name == "efficientnet_lite0":
        teacher: Teacher = EfficientNetLite0()
    elif path.is_dir():
        teacher = HuggingFace(path, config.output_stride)
    elif path.is_file():
        teacher = _from_file(path, config.output_stride)
    else:
        raise RecipeError(
            f"teacher {config.name!r} is neither 'efficientnet_lite0' nor a file of weights nor a folder with a"
            " checkpoint"
        )
    if size is not None:
        try:
            teacher.check_size(*size)
        except RecipeError as problem:
            raise RecipeError(f"teacher {config.name!r}: {problem}") from problem
    return teacher.requires_grad_(False).train(False).to(device)


def _from_file(path: Path, output_stride: int) -> Teacher:
    try:
        layout, weights = read_layout(path)
        what = f"{path}, read as {layout.name}"
        return ResNetTeacher(weights, output_stride, what) if layout.kind == "resnet" else ViTTeacher(weights, what)
    except BrickyardError as problem:
        raise RecipeError(f"teacher {problem}") from problem
