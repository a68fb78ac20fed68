"""LPIPS, the learned perceptual distance of Zhang et al. (CVPR 2018), version 0.1 on VGG-16, from a file of weights.

No weights come with this program, and none are fetched. The file is the whole state of the authors' own class:

    torch.save(lpips.LPIPS(net="vgg").state_dict(), "lpips-vgg.pth")

Maps behind the last ReLU of VGG-16's five stages are brought to length 1 at every place; squared differences are
weighted by channel (the learned part), averaged over places and added up.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.precision import float32_island
from brickyard.train.weights_files import read_file

STAGES = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("24", "26", "28"))
"""Names of the convolutions of each stage: their places in torchvision's `vgg16.features`."""
WIDTHS = (64, 128, 256, 512, 512)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LEAST = 16


class LPIPS(nn.Module):
    """Images (B, 3, H, W) in [0, 1], 16 pixels or more -> the distances (B,) to others.

    Args:
        path: of the weights, see the module's text; raises `RecipeError` for a file that is not one of those.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            table, _ = read_file(path)
        except BrickyardError as problem:
            raise RecipeError(f"LPIPS: {problem}") from problem
        into = 3
        names: list[tuple[str, tuple[int, ...]]] = []
        for stage, (places, width) in enumerate(zip(STAGES, WIDTHS, strict=True)):
            for place in places:
                names.append((f"net.slice{stage + 1}.{place}.weight", (width, into, 3, 3)))
                names.append((f"net.slice{stage + 1}.{place}.bias", (width,)))
                into = width
            names.append((f"lin{stage}.model.1.weight", (1, width, 1, 1)))
        for name, shape in names:
            found = table.get(name)
            if not isinstance(found, Tensor) or tuple(found.shape) != shape or not bool(found.isfinite().all()):
                raise RecipeError(
                    f"LPIPS: {path} has no {name} of shape {shape} and finite numbers: expected is the state of"
                    ' lpips.LPIPS(net="vgg")'
                )
        for name, _ in names:
            self.register_buffer(name.replace(".", "_"), table[name].float())
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        if images.shape != others.shape or min(images.shape[-2:]) < _LEAST:
            raise ValueError(f"images must have one shape, {_LEAST} pixels or more: {images.shape}, {others.shape}")
        with float32_island(images.device):
            total = images.new_zeros(len(images), dtype=torch.float32)
            maps = zip(self._maps(images.float()), self._maps(others.float()), strict=True)
            for stage, (one, other) in enumerate(maps):
                weights = self.get_buffer(f"lin{stage}_model_1_weight")
                total = total + functional.conv2d((one - other).square(), weights).mean((1, 2, 3))
        return total

    def _maps(self, images: Tensor) -> list[Tensor]:
        x = (2 * images - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        maps: list[Tensor] = []
        for stage, places in enumerate(STAGES, start=1):
            x = functional.max_pool2d(x, 2) if maps else x
            for place in places:
                weight, bias = (self.get_buffer(f"net_slice{stage}_{place}_{part}") for part in ("weight", "bias"))
                x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
            maps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return maps
