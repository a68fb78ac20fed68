"""What every teacher is: a frozen network from images in [0, 1] to a map of features, with the normalisation it learned
with and the image sizes it can take.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's RGB, with which all networks here but one were trained."""


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
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET,
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
        self.check_size(height, width)
        with torch.no_grad():
            return self.features((images - self.mean) / self.deviation)

    def features(self, images: Tensor) -> Tensor:
        """Features of normalised images."""
        raise NotImplementedError

    def check_size(self, height: int, width: int) -> None:
        """Raise `RecipeError`, with sizes that would do, for images that it cannot take."""
        if height % self.multiple or width % self.multiple:
            near = zip(self._near(height), self._near(width), strict=True)
            do = " or ".join(dict.fromkeys(f"{h} x {w}" for h, w in near))
            raise RecipeError(
                f"images of {height} x {width} pixels: this teacher needs multiples of {self.multiple}, such as {do};"
                " change the height and width of the crop"
            )

    def _near(self, size: int) -> tuple[int, int]:
        """The multiples below (at least one) and above a size."""
        low = max(size // self.multiple, 1) * self.multiple
        return low, -(-size // self.multiple) * self.multiple

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: batch statistics of a frozen network must not drift."""
        del mode
        return super().train(False)
