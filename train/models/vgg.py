"""VGG-19 (Simonyan & Zisserman, ICLR 2015) as a measure of images: its maps at five depths, from a file of weights.

Two files do, told from each other by their names; no other layout does:

    .mat            `imagenet-vgg-verydeep-19.mat`, as MatConvNet publishes it: the published weights. A list `layers`
                    of structures; convolutions have the type "conv" and `weights`, a filter (height, width, in, out)
                    and its biases
    any other name  torchvision's `vgg19`, `features.0.weight` (out, in, 3, 3), `features.0.bias` and so on, as
                    `torch.save` or safetensors keep it: another training of the same network

Pixels are 255 * RGB less their mean. Torchvision's network expects them divided by about 58; here its biases are
multiplied by that number instead and its first filters see the deviations of the channels, which makes its maps larger
by the same number, as they are with MatConvNet's weights. Maps are pooled by means, as for transfer of style, where the
networks were trained with maxima.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import NONSENSE, RecipeError
from brickyard.train.weights_files import read_file

WIDTHS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512))
"""Channels of the convolutions between poolings, as far as they are used."""
MEAN = (123.68, 116.779, 103.939)
_DEVIATIONS = (0.229, 0.224, 0.225)
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30)


class VGG19(nn.Module):
    """The maps behind the second ReLU of every stage, of images (B, 3, H, W) of 255 * RGB less the mean.

    Args:
        path: of the weights, see the module's text; raises `RecipeError` for a file that is not one of those.

    Attributes:
        layout: which it was. digest: xxh3-128 of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self.digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
        except OSError as problem:
            raise RecipeError(f"VGG-19: {path} cannot be read: {problem.strerror or problem}") from problem
        matlab = path.suffix == ".mat"
        self.layout = "MatConvNet" if matlab else "torchvision"
        pairs = _matconvnet(path) if matlab else _torchvision(path)
        widths = [width for stage in WIDTHS for width in stage]
        shapes = list(zip(widths, (3, *widths), strict=False))
        for number, ((weight, bias), (out, into)) in enumerate(zip(pairs, shapes, strict=True), start=1):
            if weight.shape != (out, into, 3, 3) or bias.shape != (out,):
                raise RecipeError(
                    f"VGG-19: convolution {number} of {path} has {tuple(weight.shape)} weights, {tuple(bias.shape)}"
                    f" biases; expected are {(out, into, 3, 3)} and {(out,)}"
                )
            if not bool(weight.isfinite().all() and bias.isfinite().all()):
                raise RecipeError(f"VGG-19: convolution {number} of {path} has weights that are not finite")
        self.weights = nn.ParameterList(weight.float().contiguous() for weight, _ in pairs)
        self.biases = nn.ParameterList(bias.float().contiguous() for _, bias in pairs)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, number, x = list[Tensor](), 0, images
        for widths in WIDTHS:
            x = functional.avg_pool2d(x, 2) if maps else x
            for layer in range(len(widths)):
                x = functional.relu(functional.conv2d(x, self.weights[number], self.biases[number], padding=1))
                number += 1
                if layer == 1:
                    maps.append(x)
        return maps


def _torchvision(path: Path) -> list[tuple[Tensor, Tensor]]:
    table, _ = read_file(path)
    names = [f"features.{number}" for number in _TORCHVISION]
    if missing := [name for name in names if not all(f"{name}.{part}" in table for part in ("weight", "bias"))]:
        raise RecipeError(
            f"VGG-19: {path} has no {missing[0]}.weight and .bias: expected is torchvision's vgg19, or MatConvNet's"
            " file, whose name ends in .mat"
        )
    scale = 255 * sum(_DEVIATIONS) / 3
    found = [(table[f"{name}.weight"], table[f"{name}.bias"] * scale) for name in names]
    if found[0][0].ndim == 4 and found[0][0].shape[1] == 3:
        factors = torch.tensor([scale / (255 * deviation) for deviation in _DEVIATIONS])
        found[0] = (found[0][0] * factors[:, None, None], found[0][1])
    return found


def _matconvnet(path: Path) -> list[tuple[Tensor, Tensor]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        layers = np.atleast_1d(loadmat(path, squeeze_me=True, struct_as_record=False)["layers"])
        filters = [layer.weights for layer in layers if layer.type == "conv"][: len(_TORCHVISION)]
        found = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in filters]
        if len(found) < len(_TORCHVISION):
            raise ValueError(f"{len(found)} convolutions, expected {len(_TORCHVISION)}")
        return [(torch.from_numpy(w.transpose(3, 2, 0, 1).copy()), torch.from_numpy(b.copy())) for w, b in found]
    except (OSError, MatReadError, NotImplementedError, *NONSENSE) as problem:
        raise RecipeError(f"VGG-19: {path} is not MatConvNet's imagenet-vgg-verydeep-19.mat: {problem}") from problem
