"""Networks on the volume, and sizes of what is published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from brickyard.shards.errors import RecipeError
from brickyard.train.rendering.field import CONFIGS, Field
from brickyard.train.rendering.unet3d import VolumeNetworkConfig, build_volume_network


def _count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_published_networks() -> None:
    """Counted in the public code. It has the layer after the volume in its U-Net, and in each indoor decoder another
    512 parameters of a layer for coordinates, whose output it multiplies by zero."""
    indoor = Field(replace(CONFIGS["published-indoor"], features=512), 32)
    assert _count(build_volume_network("published-indoor", 96)) + _count(indoor.expand) == 2_991_520
    assert _count(indoor.sdf) == 42_049 - 512
    assert _count(indoor.color) == 18_179 - 512
    assert _count(indoor.features) == 83_456 - 512
    outdoor = Field(replace(CONFIGS["published-outdoor"], features=512), 32)
    assert _count(build_volume_network("published-outdoor", 96)) == 83_040
    assert [_count(decoder) for decoder in (outdoor.sdf, outdoor.color, outdoor.features)] == [4_881, 4_451, 12_912]


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 12, 10)])
@pytest.mark.parametrize("name", ["published-indoor", "published-outdoor", "tiny"])
def test_a_volume_keeps_its_shape_and_every_parameter_learns(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = build_volume_network(name, 6)
    found = network(torch.randn(2, 6, *shape))
    assert found.shape == (2, network.channels, *shape)
    found.square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in network.parameters())


def test_names_and_sizes_that_do_not_exist() -> None:
    with pytest.raises(RecipeError, match="tiny"):
        build_volume_network("unet", 4)
    with pytest.raises(ValueError, match="widths"):
        VolumeNetworkConfig(widths=(8, 16), unet=False)
