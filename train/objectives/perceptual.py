"""How unlike two images look to a network, beside how unlike their pixels are.

    a file              VGG-19 (see `train.models.vgg`), as published with RayZer and LVSM: the sum of the mean absolute
                        difference of pixels and of the maps at relu1_2 ... relu5_2, each by a factor, over 255
    efficientnet_lite0  the network that comes in a Python package, where nothing can be downloaded: at strides 2 to 16,
                        the squared distance of feature vectors of length 1, mean over places and strides. Not the
                        published measure, and not on its scale
    none                nothing

The networks are frozen and run in float32, as the differences of good renderings are small.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import RecipeError
from brickyard.train.models.vgg import MEAN, VGG19
from brickyard.train.precision import float32_island
from brickyard.train.teachers.efficientnet import EfficientNetLite0

NONE, EMBEDDED = "none", "efficientnet_lite0"
_FACTORS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
_STRIDES = (0, 2, 4, 10)
"""The last blocks of EfficientNet-Lite0 at strides 2, 4, 8 and 16."""


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """Settings.

    Attributes:
        network: "efficientnet_lite0", "none", or a file with VGG-19's weights.
        weight: of the term beside the mean squared error; published are 0.2 (RayZer) and 0.5 (LVSM).
    """

    network: str = EMBEDDED
    weight: float = 0.2

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError("weight must not be negative")


class Perceptual(nn.Module):
    """The difference of images (B, 3, H, W) in [0, 1] to others, a number; its gradient reaches the first alone.

    Attributes:
        name: of the measure: "perceptual_vgg19", "perceptual_vgg19_torchvision" or "perceptual_efficientnet_lite0".
    """

    name: str

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        with float32_island(images.device):
            return self.compare(images.float(), others.detach().float())

    def compare(self, images: Tensor, others: Tensor) -> Tensor:
        raise NotImplementedError


class _VGG(Perceptual):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = VGG19(path)
        self.name = "perceptual_vgg19" + ("" if self.network.layout == "MatConvNet" else "_torchvision")
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def compare(self, images: Tensor, others: Tensor) -> Tensor:
        images, others = 255 * images - self.mean, 255 * others - self.mean
        with torch.no_grad():
            wanted = self.network(others)
        total = (images - others).abs().mean()
        for found, other, factor in zip(self.network(images), wanted, _FACTORS, strict=True):
            total = total + factor * (found - other).abs().mean()
        return total / 255


class _EfficientNet(Perceptual):
    name = f"perceptual_{EMBEDDED}"

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0().requires_grad_(False)

    def compare(self, images: Tensor, others: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._vectors(others)
        pairs = zip(self._vectors(images), wanted, strict=True)
        return torch.stack([(found - other).square().sum(1).mean() for found, other in pairs]).mean()

    def _vectors(self, images: Tensor) -> list[Tensor]:
        teacher, maps = self.network, []
        network = teacher.network
        x = network._swish(network._bn0(network._conv_stem((images - teacher.mean) / teacher.deviation)))
        for number, block in enumerate(network._blocks[: _STRIDES[-1] + 1]):
            x = block(x)
            if number in _STRIDES:
                maps.append(functional.normalize(x, dim=1, eps=1e-3))
        return maps


def load_perceptual(config: PerceptualConfig, device: torch.device | str = "cpu") -> Perceptual | None:
    """The measure of a config, frozen, on a device; None for "none". Says on stderr which file was read.

    Raises:
        RecipeError: for a file that is not there or holds something else.
    """
    if config.network == NONE:
        return None
    if config.network == EMBEDDED:
        return _EfficientNet().eval().to(device)
    path = Path(config.network)
    if not path.is_file():
        raise RecipeError(
            f"perceptual network {config.network!r} is neither {EMBEDDED!r} nor {NONE!r} nor a file of VGG-19's weights"
        )
    measure = _VGG(path)
    print(f"{path}: VGG-19 of {measure.network.layout}, xxh3-128 {measure.network.digest}", file=sys.stderr, flush=True)
    return measure.eval().to(device)
