"""The parameters of the field: what is at a point of the box, decoded from the volume.

The SDF decoder says the signed distance to the nearest surface (positive in front of it, box units) and describes the
geometry there. From that description, the volume's features and the distance's gradient the colour decoder, which also
sees the direction of view, says the colour, and the feature decoder the features of an image network.

`Field.folded` multiplies out everything linear between the volume and these outputs: see `decoders` and `folded`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brickyard.shards.errors import RecipeError
from brickyard.train.rendering.decoders import Affine, Decoder
from brickyard.train.rendering.folded import Folded, Seen


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """Sizes of the decoders.

    Attributes:
        expand: outputs of the linear layer after the volume, of which the SDF decoder sees the first half and the
            others the second; 0 without it, where all see the volume itself.
        hidden: width of all decoders.
        sdf_blocks: hidden layers of the SDF decoder, 1 or more.
        geometry: outputs of the SDF decoder beside the distance, for the other decoders.
        color_blocks: hidden layers of the colour decoder; None without colour.
        feature_blocks: hidden layers of the feature decoder.
        features: its outputs; 0 without it.
        coordinates: whether decoders see a point's coordinates, box units.
        inv_s: sharpness of surfaces at the beginning, as v in exp(10 v), which is learned.
    """

    expand: int = 0
    hidden: int
    sdf_blocks: int
    geometry: int
    color_blocks: int | None = None
    feature_blocks: int = 0
    features: int = 0
    coordinates: bool = False
    inv_s: float = 0.3

    def __post_init__(self) -> None:
        if self.expand % 2 or min(self.expand, self.feature_blocks, self.features, self.color_blocks or 0) < 0:
            raise ValueError("expand must be even, and no size negative")
        if min(self.hidden, self.sdf_blocks, self.geometry) < 1:
            raise ValueError("hidden, sdf_blocks and geometry must be positive")


CONFIGS = {
    "published-indoor": FieldConfig(expand=128, hidden=128, sdf_blocks=1, geometry=64, color_blocks=0),
    "published-outdoor": FieldConfig(hidden=16, sdf_blocks=5, geometry=16, color_blocks=3, feature_blocks=3,
                                     coordinates=True),
    "tiny": FieldConfig(hidden=32, sdf_blocks=1, geometry=16, color_blocks=1),
}  # fmt: skip
"""name -> sizes. Published outdoors, distance alone is rendered (`color_blocks: null`), or colour, or features."""


def find_config(name: str) -> FieldConfig:
    """The sizes of a name; raises `RecipeError` with the known names."""
    if name not in CONFIGS:
        raise RecipeError(f"unknown field {name!r}; known: {', '.join(CONFIGS)}")
    return CONFIGS[name]


class Field(nn.Module):
    """The parameters; `folded` gives what is computed with.

    Args:
        config: sizes, or a name of `CONFIGS`.
        channels: of the volume.
    """

    def __init__(self, config: FieldConfig | str, channels: int) -> None:
        super().__init__()
        self.config = config = find_config(config) if isinstance(config, str) else config
        self.expand = nn.Linear(channels, config.expand) if config.expand else None
        seen = config.expand // 2 or channels
        hidden, points = config.hidden, config.coordinates
        self.sdf = Decoder(seen, hidden, 1 + config.geometry, config.sdf_blocks, coordinates=points)
        known = 3 + seen + config.geometry  # gradient, volume, geometry
        self.color: Decoder | None = None
        if config.color_blocks is not None:
            self.color = Decoder(known + 3, hidden, 3, config.color_blocks, coordinates=points)
        self.features: Decoder | None = None
        if config.features:
            self.features = Decoder(known, hidden, config.features, config.feature_blocks, coordinates=points)
        self.variance = nn.Parameter(torch.tensor(config.inv_s))

    def inv_s(self) -> Tensor:
        """Sharpness of surfaces, scalar."""
        return torch.exp(10 * self.variance).clamp(1e-6, 1e6)

    def folded(self) -> Folded:
        """The decoders multiplied out, differentiable by the parameters."""
        sdf = self.sdf.folded()
        volume = None
        if self.expand is not None:
            half = self.config.expand // 2
            weight, bias = self.expand.weight, self.expand.bias
            sdf = [layer.on(weight[:half], bias[:half]) for layer in sdf]
            volume = (weight[half:], bias[half:])
        return Folded(
            inv_s=self.inv_s(),
            sdf=sdf,
            color=None if self.color is None else [_seen(x, sdf[-1], volume) for x in self.color.folded()],
            features=None if self.features is None else [_seen(x, sdf[-1], volume) for x in self.features.folded()],
        )


def _seen(layer: Affine, last: Affine, volume: tuple[Tensor, Tensor] | None) -> Seen:
    """A layer on (gradient, volume, geometry, direction) as one on what these are made of.

    Args:
        last: last layer of the SDF decoder, whose outputs but the first are the geometry.
        volume: (weight, bias) of the linear map from `raw` to the volume's features, or None where they are the same.
    """
    assert last.previous is not None
    geometry = len(last.taps) - 1
    width = last.taps.shape[1] if volume is None else len(volume[0])
    sizes = [3, width, geometry, layer.taps.shape[1] - 3 - width - geometry]
    of_gradient, of_volume, of_geometry, of_direction = torch.split(layer.taps, sizes, 1)
    bias = layer.bias + of_geometry @ last.bias[1:]
    raw = of_volume
    if volume is not None:
        raw, bias = of_volume @ volume[0], bias + of_volume @ volume[1]
    return Seen(
        gradient=of_gradient,
        raw=raw + of_geometry @ last.taps[1:],
        hidden=of_geometry @ last.previous[1:],
        direction=of_direction if of_direction.shape[1] else None,
        previous=layer.previous,
        coordinates=layer.coordinates,
        bias=bias,
    )
