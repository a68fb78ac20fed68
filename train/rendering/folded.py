"""The field evaluated at many points: distance, its gradient, colour and features.

The gradient of the signed distance is in the losses, so it has to be differentiated once more. It is not taken by
autograd, whose second backward pass would hold every intermediate several times, but written out: from the last layer
back to the features (a row vector times matrices, times the slopes of the activations), then through the interpolation
(`volume.products`).

Decoders of colour and features see affine maps of five things: the looked-up features (`raw`), the last hidden values
of the SDF decoder (`hidden`), gradient, point and direction. Their layers work on these, so the linear layer after the
volume and the description of the geometry are never computed at a sample; and a feature decoder without hidden layers
is applied to a ray's weighted sums instead of to each of its samples (`Folded.rendered_features`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.rendering.decoders import BETA, Affine, affine, softplus_and_slope
from brickyard.train.rendering.neus import composite
from brickyard.train.rendering.volume import Corners, Grid, corners, products, weighted_sum


class Samples(NamedTuple):
    """The field at N points.

    Attributes:
        sdf: (N,), box units.
        gradient: (N, 3) of the sdf, per box unit.
        raw: (N, C), features looked up in the volume.
        hidden: (N, H), last hidden values of the SDF decoder.
    """

    sdf: Tensor
    gradient: Tensor
    raw: Tensor
    hidden: Tensor


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A layer of a colour or feature decoder: matrices (outputs, width) for each of its inputs, and a bias."""

    gradient: Tensor
    raw: Tensor
    hidden: Tensor
    direction: Tensor | None
    previous: Tensor | None
    coordinates: Tensor | None
    bias: Tensor

    def __call__(self, at: Samples, points: Tensor, previous: Tensor | None, total: Tensor | None = None) -> Tensor:
        """Of N points or sums over points, the direction's part left out: (N, outputs).

        Args:
            total: (N, 1), what the weights of a sum add up to, by which the bias counts; None for 1.
        """
        if total is None:
            y = torch.addmm(self.bias, at.raw, self.raw.T)
        else:
            y = torch.addmm(total * self.bias, at.raw, self.raw.T)
        y = torch.addmm(y, at.hidden, self.hidden.T)
        y = torch.addmm(y, at.gradient, self.gradient.T)
        if self.coordinates is not None:
            y = torch.addmm(y, points, self.coordinates.T)
        if self.previous is not None:
            assert previous is not None
            y = torch.addmm(y, previous, self.previous.T)
        return y


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A field ready to be evaluated: sharpness of surfaces, and the layers of its decoders."""

    inv_s: Tensor
    sdf: list[Affine]
    color: list[Seen] | None
    features: list[Seen] | None

    def distances(self, rows: Tensor, grid: Grid, points: Tensor) -> Tensor:
        """The signed distance alone, (N,), at points (N, 3) of the box; `rows` (cells, C) as in `volume`."""
        around = _around(grid, points)
        x, raw = None, weighted_sum(rows, around.index, around.weights)
        for layer in self.sdf[:-1]:
            x = functional.softplus(affine(layer, x, raw, points), beta=BETA)
        return affine(self.sdf[-1].first(), x, raw, points)[:, 0]

    def samples(self, rows: Tensor, grid: Grid, points: Tensor) -> Samples:
        """Distance, gradient, and what the other decoders see, at points (N, 3) of the box."""
        around = _around(grid, points, slopes=True)
        raw = weighted_sum(rows, around.index, around.weights)
        x, slopes = None, []
        for layer in self.sdf[:-1]:
            x, slope = softplus_and_slope(affine(layer, x, raw, points))
            slopes.append(slope)
        last = self.sdf[-1].first()
        assert x is not None and last.previous is not None and around.slopes is not None
        sdf = affine(last, x, raw, points)[:, 0]
        back, by_raw = last.previous, last.taps
        for layer, slope in zip(self.sdf[-2::-1], slopes[::-1], strict=True):
            back = back * slope
            by_raw = torch.addmm(by_raw, back, layer.taps)
            if layer.previous is not None:
                back = back @ layer.previous
        steps = products(rows, around.index, by_raw)
        gradient = torch.bmm(steps[:, None], around.slopes)[:, 0] * grid.per_unit(points)
        if self.sdf[0].coordinates is not None:
            gradient = torch.addmm(gradient, back, self.sdf[0].coordinates)
        return Samples(sdf, gradient, raw, x)

    def colors(self, at: Samples, points: Tensor, directions: Tensor) -> Tensor:
        """(R, S, 3) in [0, 1] of S samples on each of R rays with directions (R, 3); `points` (R x S, 3)."""
        assert self.color is not None
        return torch.sigmoid(_decoded(self.color, at, points, directions).view(len(directions), -1, 3))

    def rendered_features(self, weight: Tensor, at: Samples, points: Tensor) -> Tensor:
        """Features of rays, (R, outputs): the sum of their samples' by weight (R, S)."""
        assert self.features is not None
        if len(self.features) > 1:
            return composite(weight, _decoded(self.features, at, points, None).view(*weight.shape, -1))
        sums = Samples(at.sdf, *(composite(weight, values.view(*weight.shape, -1)) for values in at[1:]))
        where = composite(weight, points.view(*weight.shape, -1))
        return self.features[0](sums, where, None, weight.sum(1, keepdim=True))


def _decoded(layers: list[Seen], at: Samples, points: Tensor, directions: Tensor | None) -> Tensor:
    """Outputs (N, outputs) of a decoder at every sample, without an activation at the end."""
    x: Tensor | None = None
    for number, layer in enumerate(layers):
        x = layer(at, points, x)
        if directions is not None and layer.direction is not None:
            turned = directions @ layer.direction.T
            x = (x.view(len(directions), -1, x.shape[1]) + turned[:, None]).flatten(0, 1)
        if number + 1 < len(layers):
            x = torch.relu(x)
    assert x is not None
    return x


def _around(grid: Grid, points: Tensor, *, slopes: bool = False) -> Corners:
    return corners(grid.coordinates(points), grid.shape, "border", slopes=slopes)
