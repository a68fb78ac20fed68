"""Single pixels of an enlarged map are those of the map enlarged."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from brickyard.train.objectives.pixels import interpolate_at


@pytest.mark.parametrize("cells", [(4, 7), (1, 1), (32, 64)])
def test_pixels_are_those_of_the_enlarged_map(cells: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, *cells, generator=generator)
    image = torch.randint(0, 3, (500,), generator=generator)
    row, column = (torch.randint(0, side, (500,), generator=generator) for side in (32, 64))
    row[:2], column[:2] = torch.tensor([31, 0]), torch.tensor([63, 0])
    large = functional.interpolate(maps, size=(32, 64), mode="bilinear", align_corners=True)
    got = interpolate_at(maps, (32, 64), image, row, column)
    torch.testing.assert_close(got, large[image, :, row, column], rtol=1e-4, atol=1e-5)
