"""Principal components against numpy's SVD; equal features give equal colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brickyard.evaluate.pca import principal


def features(seed: int = 0, rows: int = 300, channels: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, generator=generator) * torch.linspace(3, 0.2, channels) + 5


def test_axes_are_numpys() -> None:
    x = features()
    found = principal([x[:100], x[100:]])
    centred = x.double().numpy() - x.double().numpy().mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    for i in range(3):
        sign = np.sign(axes[i][np.abs(axes[i]).argmax()])
        np.testing.assert_allclose(found.axes[:, i].numpy(), axes[i] * sign, atol=1e-9)
    np.testing.assert_allclose(found.share.numpy(), (singular**2 / (singular**2).sum())[:3], rtol=1e-9)


def test_colours_do_not_depend_on_the_order_of_rows_and_are_shared_by_scenes() -> None:
    x, y = features(0), features(1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    first, second = principal([x, y]), principal([y, x[order]])
    np.testing.assert_allclose(first.colours(x).astype(int), second.colours(x).astype(int), atol=1)
    colours = first.colours(x)
    assert colours.dtype == np.uint8 and colours.min() == 0 and colours.max() == 255
    assert (principal([x]).colours(x) != colours).any()  # alone, a scene is coloured by its own components


def test_few_channels_or_no_variance_are_grey() -> None:
    assert (principal([torch.ones(5, 4)]).colours(torch.ones(2, 4)) == 128).all()
    two = principal([features(channels=2)])
    assert (two.colours(features(channels=2))[:, 2] == 128).all() and two.axes.shape == (2, 3)
    with pytest.raises(ValueError, match="no features"):
        principal([torch.ones(0, 4)])
