"""Small networks that take the same input into every layer, and the shortest way to compute them.

As published with PonderV2, layer l maps its hidden values x to linear_l(x + tap_l(inputs)), with an activation after
every layer but the last; the coordinates of a point, if used, are a tap of the first layer. Neither a tap nor a linear
layer has an activation in between, so both together are one affine map (`Decoder.folded`), whose matrices are
multiplied out once a step instead of applied at every sample. With what `field` adds to this, the published indoor SDF
decoder needs 4,300 multiplications a sample instead of 41,000, and the colour decoder, which has no activation but its
last, 500 instead of 17,500. The parameters, and so what they are trained to, remain those of the two layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

BETA = 100.0
"""Of the SDF's softplus: log(1 + exp(beta x)) / beta."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """One layer of a folded decoder: hidden @ previous.T + inputs @ taps.T + points @ coordinates.T + bias.

    Attributes:
        previous: (outputs, hidden), None in the first layer.
        taps: (outputs, inputs).
        coordinates: (outputs, 3) or None.
        bias: (outputs,).
    """

    previous: Tensor | None
    taps: Tensor
    coordinates: Tensor | None
    bias: Tensor

    def first(self) -> Affine:
        """The layer with its first output only."""
        part = [None if x is None else x[:1] for x in (self.previous, self.taps, self.coordinates, self.bias)]
        assert part[1] is not None and part[3] is not None
        return Affine(previous=part[0], taps=part[1], coordinates=part[2], bias=part[3])

    def on(self, matrix: Tensor, bias: Tensor) -> Affine:
        """The same layer with inputs that are themselves `matrix` @ (other inputs) + `bias`."""
        return replace(self, taps=self.taps @ matrix, bias=self.bias + self.taps @ bias)


class Decoder(nn.Module):
    """See the module's text.

    Args:
        inputs, hidden, outputs: widths.
        blocks: hidden layers; with 0 the decoder is linear.
        coordinates: whether the first layer sees a point's coordinates, too.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, blocks: int, *, coordinates: bool) -> None:
        super().__init__()
        self.taps = nn.ModuleList(nn.Linear(inputs, hidden) for _ in range(blocks + 1))
        self.layers = nn.ModuleList(nn.Linear(hidden, outputs if i == blocks else hidden) for i in range(blocks + 1))
        self.point = nn.Linear(3, hidden) if coordinates else None

    def folded(self) -> list[Affine]:
        """The layers, differentiable by the parameters."""
        result = []
        for number, (tap, layer) in enumerate(zip(self.taps, self.layers, strict=True)):
            assert isinstance(tap, nn.Linear) and isinstance(layer, nn.Linear)
            shift: Tensor = tap.bias
            coordinates = None
            if number == 0 and self.point is not None:
                shift, coordinates = shift + self.point.bias, layer.weight @ self.point.weight
            result.append(
                Affine(
                    previous=layer.weight if number else None,
                    taps=layer.weight @ tap.weight,
                    coordinates=coordinates,
                    bias=layer.weight @ shift + layer.bias,
                )
            )
        return result


def affine(layer: Affine, hidden: Tensor | None, inputs: Tensor, points: Tensor) -> Tensor:
    """A layer applied to N rows: (N, outputs)."""
    y = torch.addmm(layer.bias, inputs, layer.taps.T)
    if layer.previous is not None:
        assert hidden is not None
        y = torch.addmm(y, hidden, layer.previous.T)
    return y if layer.coordinates is None else torch.addmm(y, points, layer.coordinates.T)


def softplus_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """(softplus(x), its derivative), both differentiable; only the derivative is kept for the backward pass."""
    value, slope = _SoftplusAndSlope.apply(x)  # type: ignore[no-untyped-call]
    return value, slope


class _SoftplusAndSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.sigmoid(x * BETA)
        ctx.save_for_backward(slope)
        return nn.functional.softplus(x, beta=BETA), slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        of_value, of_slope = grads
        return torch.addcmul(of_value, of_slope, 1 - slope, value=BETA).mul_(slope)
