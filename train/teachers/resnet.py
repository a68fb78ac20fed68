"""Residual networks for images (He et al., CVPR 2016, arXiv 1512.03385) as teachers, with torchvision's names.

The stride of a stage's first 3 x 3 convolution halves the map four times beyond the stem; `dilate` takes strides away,
as SLidR does: its teacher has an output stride of 4, PPKT's the 32 it was trained with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.shards.errors import BrickyardError
from brickyard.train.teachers.teacher import Teacher
from brickyard.train.weights_files import load_fitting

_DEPTHS = {False: ((2, 2, 2, 2), (3, 4, 6, 3)), True: ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))}
"""Whether its blocks have three convolutions -> blocks of each stage: ResNet-18 and -34; -50, -101 and -152."""


class ResNetTeacher(Teacher):
    """A ResNet of the sizes its weights have.

    Args:
        weights: under torchvision's names, without a classifier.
        output_stride: 32, or 16, 8, 4 by dilation.
        what: the weights are, for messages.

    Raises:
        BrickyardError: where they make no ResNet.
    """

    def __init__(self, weights: Mapping[str, Tensor], output_stride: int, what: str) -> None:
        network = ResNet(*_sizes(weights, what))
        load_fitting(network, weights, what)
        dilate(network.stages(), output_stride)
        super().__init__(channels=network.channels, stride=output_stride, multiple=32)
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(images)
        return out


class ResNet(nn.Module):
    """The last map, (B, channels, H / 32, W / 32), after its ReLU.

    Args:
        bottleneck: whether a block has three convolutions, the outer two 1 x 1, or two of 3 x 3.
        stem: channels of the first layer.
        widths: inner channels of each stage.
        depths: blocks of each stage.
    """

    def __init__(self, bottleneck: bool, stem: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False), nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        block: Any = _Bottleneck if bottleneck else _Basic
        channels = stem
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            blocks = []
            for place in range(depth):
                blocks.append(block(channels, width, 2 if number > 1 and place == 0 else 1))
                channels = width * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.channels = channels

    def stages(self) -> list[nn.Module]:
        return [getattr(self, f"layer{number}") for number in range(1, 5)]

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.pool(torch.relu(self.bn1(self.conv1(images))))
        for stage in self.stages():
            x = stage(x)
        return x


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _sizes(weights: Mapping[str, Tensor], what: str) -> tuple[bool, int, tuple[int, ...], tuple[int, ...]]:
    """The arguments of `ResNet`, read off the weights."""
    blocks = {(int(m[1]), int(m[2])) for name in weights if (m := re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name))}
    bottleneck = "layer1.0.conv3.weight" in weights
    depths = tuple(sum(stage == number for stage, _ in blocks) for number in range(1, 5))
    whole = {(number, place) for number, depth in enumerate(depths, 1) for place in range(depth)}
    if depths not in _DEPTHS[bottleneck] or blocks != whole:
        known = " or ".join("-".join(map(str, d)) for d in _DEPTHS[bottleneck])
        raise BrickyardError(
            f"{what}: its stages have {'-'.join(map(str, depths))} blocks, a ResNet with"
            f" {'three' if bottleneck else 'two'} convolutions in a block has {known}; is the file cut short?"
        )
    widths = tuple(len(weights[f"layer{number}.0.conv1.weight"]) for number in range(1, 5))
    return bottleneck, len(weights["conv1.weight"]), widths, depths


def dilate(stages: Iterable[nn.Module], output_stride: int) -> None:
    """Change the four stages of a ResNet of stride 32 in place to a smaller stride by dilation (as DeepLab, and SLidR).

    Each stride removed doubles the dilation of every 3 x 3 convolution behind it, so the new map, read at every
    (32 / output_stride)-th place, is the old map.
    """
    stride, dilation = 4, 1
    for stage in list(stages)[1:]:
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
