"""Networks of images that can be trained: maps at a quarter, an eighth, ... of the resolution, one a stage.

  tiny, resnet18, resnet50        residual networks (`train.teachers.resnet`), afresh or from a file of weights
  convnext_atto, _tiny, _small    ConvNeXt (Liu et al., CVPR 2022, arXiv 2201.03545) as transformers builds it, afresh
                                  or from a folder with config.json and .safetensors. Atto has the sizes of Woo et al.,
                                  "ConvNeXt V2", CVPR 2023, arXiv 2301.00808

A ConvNeXt adds up what its blocks say and never normalises the sum, so each map passes a layer norm of its own, new
ones, before it is used: as its authors do for detection.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError
from brickyard.train.teachers.huggingface import read_folder
from brickyard.train.teachers.layouts import read_layout
from brickyard.train.teachers.resnet import ResNet
from brickyard.train.weights_files import load_fitting

RESNETS: dict[str, tuple[bool, int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (False, 16, (16, 32, 64, 96), (1, 1, 1, 1)),
    "resnet18": (False, 64, (64, 128, 256, 512), (2, 2, 2, 2)),
    "resnet50": (True, 64, (64, 128, 256, 512), (3, 4, 6, 3)),
}
"""Name -> arguments of `ResNet`."""
CONVNEXTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "convnext_atto": ((40, 80, 160, 320), (2, 2, 6, 2)),
    "convnext_tiny": ((96, 192, 384, 768), (3, 3, 9, 3)),
    "convnext_small": ((96, 192, 384, 768), (3, 3, 27, 3)),
}
"""Name -> (channels, blocks) of the stages."""
NAMES = (*RESNETS, *CONVNEXTS)


class ImageNetwork(nn.Module):
    """What encodes images.

    Attributes:
        widths: channels of its maps.
    """

    widths: tuple[int, ...]

    def levels(self, images: Tensor) -> list[Tensor]:
        """Maps (V, width, h / 4, w / 4), (V, width, h / 8, w / 8), ... of normalised images (V, 3, h, w)."""
        raise NotImplementedError


def image_network(name: str, weights: Path | None) -> ImageNetwork:
    """A network of `NAMES`; raises `BrickyardError` where the weights are not those of this network."""
    return ResidualNetwork(name, weights) if name in RESNETS else ConvNeXt(name, weights)


class ResidualNetwork(ResNet, ImageNetwork):
    """A ResNet whose stages are all looked at."""

    def __init__(self, name: str, weights: Path | None) -> None:
        bottleneck, stem, widths, depths = RESNETS[name]
        super().__init__(bottleneck, stem, widths, depths)
        self.widths = tuple(width * (4 if bottleneck else 1) for width in widths)
        if weights is not None:
            layout, table = read_layout(weights)
            load_fitting(self, table, f"{weights}, read as {layout.name}")

    def levels(self, images: Tensor) -> list[Tensor]:
        x, found = self.pool(torch.relu(self.bn1(self.conv1(images)))), []
        for stage in self.stages():
            x = stage(x)
            found.append(x)
        return found


class ConvNeXt(ImageNetwork):
    """See the module's text; transformers' parts under their names there."""

    def __init__(self, name: str, weights: Path | None) -> None:
        from transformers import ConvNextConfig, ConvNextModel

        super().__init__()
        self.widths, depths = CONVNEXTS[name]
        model = ConvNextModel(ConvNextConfig(hidden_sizes=list(self.widths), depths=list(depths)))
        if weights is not None:
            if not weights.is_dir():
                raise RecipeError(f"weights {weights}: {name} begins from a folder with config.json and .safetensors")
            saved = read_folder(f"weights {weights}", weights)
            if saved.config.model_type != "convnext" or saved.config.hidden_act != model.config.hidden_act:
                raise RecipeError(f"weights {weights}: {saved.config.model_type!r} in config.json is no ConvNeXt")
            load_fitting(model, saved.state_dict(), f"{weights}, read as {name}")
        self.embeddings, self.encoder = model.embeddings, model.encoder
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in self.widths)

    def levels(self, images: Tensor) -> list[Tensor]:
        x, found = self.embeddings(images), []
        for stage, norm in zip(self.encoder.stages, self.norms, strict=True):
            x = stage(x)
            found.append(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return found
