"""Augmentation of colours, 0..1, for each view by itself, in a batch.

As published for Sonata: brightness, contrast, saturation and hue, each changed with a probability; then a shift of all
points' red, green and blue. (The order of the first four, drawn at random there, is fixed here.) Scenes without colour
stay without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from brickyard.train.clouds import Clouds
from brickyard.train.transfer import send, send_table
from brickyard.train.views.noise import derive, uniform

_GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class ColorConfig:
    """What happens to colours.

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 +- these.
        hue: largest turn of the hue, of 1.
        chance: probability of each of the four.
        shift: largest shift of a channel, of 1; with probability `shift_chance`.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.02
    chance: float = 0.8
    shift: float = 0.05
    shift_chance: float = 0.95


def recolor(clouds: Clouds, config: ColorConfig, seeds: Tensor) -> Clouds:
    """Views with changed colours; `seeds` int64 (views,)."""
    if "color" not in clouds.values:
        return clouds
    color, scene = clouds.values["color"], clouds.scene
    drawn = uniform(derive(seeds, "color"), 8)
    happens = drawn[:, 4:] < config.chance
    widths = torch.tensor([config.brightness, config.contrast, config.saturation], device=seeds.device)
    factor = torch.where(happens[:, :3], 1 + (drawn[:, :3] * 2 - 1) * widths, 1.0)
    turn = torch.where(happens[:, 3], (drawn[:, 3] * 2 - 1) * config.hue, 0.0)
    shift = uniform(derive(seeds, "shift"), 4)
    moved = (shift[:, :3] * 2 - 1) * config.shift * (shift[:, 3:] < config.shift_chance)
    table = send(torch.cat((factor, turn[:, None], moved), dim=1), color.device)[scene]
    color = (color * table[:, :1]).clamp(0, 1)
    color = _blend(color, _mean(_grey(color), clouds)[scene], table[:, 1:2])
    color = _blend(color, _grey(color), table[:, 2:3])
    color = _turn_hue(color, table[:, 3])
    color = (color + table[:, 4:]).clamp(0, 1)
    color = torch.where(clouds.valid["color"][scene][:, None], color, 0.0)
    return replace(clouds, values={**clouds.values, "color": color})


def _blend(color: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + (color - other) * factor).clamp(0, 1)


def _grey(color: Tensor) -> Tensor:
    return (color @ send(torch.tensor(_GREY), color.device))[:, None]


def _mean(values: Tensor, clouds: Clouds) -> Tensor:
    sums = values.new_zeros(clouds.batch, 1).index_add_(0, clouds.scene, values)
    return sums / send_table(clouds.counts, values.device).clamp(min=1)[:, None]


def _turn_hue(color: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV by a share of the circle; saturation and value stay."""
    value, which = color.max(1)
    least = color.min(1).values
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = color.unbind(1)
    sixth = torch.stack(((green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4), dim=1)
    hue = (sixth.gather(1, which[:, None])[:, 0] / 6 + turn) % 1.0
    offset = send(torch.tensor([5.0, 3.0, 1.0]), color.device)
    k = (offset + hue[:, None] * 6) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)
