"""The renderer as one writes it from its description: what ours is held against, in results and in cost.

All channels of the volume are made before they are looked up by torch's `grid_sample`, decoders are run layer by layer
at every sample, and the gradient of the distance is taken by autograd, which is then differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.rendering.decoders import Decoder
from brickyard.train.rendering.field import Field
from brickyard.train.rendering.rays import Rays, intersect
from brickyard.train.rendering.render import RenderConfig
from brickyard.train.rendering.sampling import guess, merge, resample, stratified
from brickyard.train.rendering.volume import Grid
from brickyard.train.views.noise import derive


def lookup(volume: Tensor, grid: Grid, points: Tensor) -> Tensor:
    """Trilinear interpolation of (1, C, X, Y, Z) at points (R, S, 3): (R, S, C)."""
    unit = 2 * grid.coordinates(points) / (points.new_tensor(grid.shape) - 1) - 1
    found = functional.grid_sample(
        volume.permute(0, 1, 4, 3, 2), unit[None, None], align_corners=True, padding_mode="border"
    )
    return found[0, :, 0].permute(1, 2, 0)


def decoded(decoder: Decoder, inputs: Tensor, points: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """A decoder layer by layer: (..., inputs) -> (..., outputs)."""
    x = decoder.taps[0](inputs) + (0 if decoder.point is None else decoder.point(points))
    for tap, layer in zip(decoder.taps[1:], decoder.layers[:-1], strict=True):
        x = activation(layer(x)) + tap(inputs)
    result: Tensor = decoder.layers[-1](x)
    return result


def render_plainly(
    field: Field, volume: Tensor, grid: Grid, rays: Rays, *, config: RenderConfig, seeds: Tensor | None = None
) -> dict[str, Tensor]:
    """What `render.render` gives, of one scene whose rays all hit the box: depth, color, features, normal, sdf, ..."""
    assert config.rounds <= 1 and volume.shape[0] == 1
    if field.expand is not None:
        weight = field.expand.weight[:, :, None, None, None]
        volume = functional.conv3d(volume, weight, field.expand.bias)
    entry, leave, hit = intersect(rays, grid.low, grid.high, near=config.near)
    assert hit.all()

    def decode(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = lookup(volume, grid, points)
        half = found.shape[-1] // 2 if field.expand is not None else 0
        out = decoded(
            field.sdf, found[..., :half] if half else found, points, lambda x: functional.softplus(x, beta=100)
        )
        return out[..., 0], out[..., 1:], found[..., half:]

    ends = stratified(entry, leave, config.even, seeds)
    origins, directions = rays.origins[:, None], rays.directions[:, None]
    if config.rounds:
        with torch.no_grad():
            sdf = decode(origins + directions * ends[:, :-1, None])[0]
        drawn = None if seeds is None else derive(seeds, "round", 0)
        ends, _ = merge(ends, resample(ends, guess(ends, sdf, config.inv_s), config.extra, drawn))
    distance, lengths = ends[:, :-1], ends[:, 1:] - ends[:, :-1]
    with torch.enable_grad():
        points = (origins + directions * distance[..., None]).requires_grad_()
        sdf, geometry, found = decode(points)
        (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=True)
    seen = torch.cat((gradient, found, geometry), -1)
    falling = torch.relu(-(gradient * directions).sum(-1))
    before = torch.sigmoid((sdf + falling * lengths / 2) * field.inv_s())
    after = torch.sigmoid((sdf - falling * lengths / 2) * field.inv_s())
    alpha = ((before - after + 1e-5) / (before + 1e-5)).clamp(0, 1)
    passed = torch.cumprod(torch.cat((torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-7), 1), 1)[:, :-1]
    weight = (alpha * passed)[..., None]
    result = {"distance": distance, "sdf": sdf, "gradient": gradient, "weight": weight[..., 0]}
    result["depth"] = (weight[..., 0] * distance).sum(1) / weight[..., 0].sum(1)
    result["normal"] = (weight * functional.normalize(gradient, dim=-1)).sum(1)
    if field.color is not None:
        looking = directions.expand_as(gradient)
        color = torch.sigmoid(decoded(field.color, torch.cat((seen, looking), -1), points, torch.relu))
        result["color"] = (weight * color).sum(1)
    if field.features is not None:
        result["features"] = (weight * decoded(field.features, seen, points, torch.relu)).sum(1)
    return result
