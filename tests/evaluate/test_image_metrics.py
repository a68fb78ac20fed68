"""PSNR and SSIM against scikit-image; errors of depth and angles by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from brickyard.evaluate.images import depth_errors, normal_angle, psnr, ssim


def _images(seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 6, 40), torch.linspace(0, 9, 57), indexing="ij")
    real = torch.stack((torch.sin(x) / 2 + 0.5, torch.cos(x + y) / 2 + 0.5, (x * y) / 54), -1)
    return (real + noise * torch.randn(real.shape, generator=generator)).clamp(0, 1), real


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.5])
def test_as_scikit_image_says(noise: float) -> None:
    image, real = _images(1, noise)
    expected = structural_similarity(
        image.double().numpy(), real.double().numpy(), channel_axis=2, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert float(ssim(image, real)) == pytest.approx(expected, abs=1e-9)
    if noise:
        expected = peak_signal_noise_ratio(real.numpy(), image.numpy(), data_range=1.0)
        assert float(psnr(image, real)) == pytest.approx(expected, abs=1e-4)
    else:
        assert float(psnr(image, real)) == math.inf and float(ssim(image, real)) == pytest.approx(1)


def test_only_pixels_of_the_mask_count() -> None:
    image, real = _images(2, 0.1)
    mask = torch.zeros(40, 57, dtype=torch.bool)
    mask[3:9, 4:20] = True
    assert float(psnr(image, real, mask)) == pytest.approx(float(psnr(image[3:9, 4:20], real[3:9, 4:20])), abs=1e-5)
    assert math.isnan(float(psnr(image, real, mask & ~mask)))


@pytest.mark.parametrize("shape", [(10, 40, 3), (40, 40), (40, 30, 3)])
def test_images_that_cannot_be_compared(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.zeros(shape), torch.zeros((40, 40, 3) if shape[0] == 40 else shape))


def test_depth_errors_by_hand() -> None:
    real = torch.tensor([1.0, 2.0, 4.0, 0.0, torch.nan])
    found = depth_errors(torch.tensor([1.1, 2.0, 3.0, 9.0, 9.0]), real)
    assert found["mae"] == pytest.approx(1.1 / 3, abs=1e-6)
    assert found["rmse"] == pytest.approx(math.sqrt((0.01 + 1) / 3), abs=1e-6)
    assert found["abs_rel"] == pytest.approx((0.1 + 0.25) / 3, abs=1e-6)
    assert found["delta_1"] == pytest.approx(2 / 3) and found["known"] == pytest.approx(0.6)
    assert math.isnan(depth_errors(torch.ones(2), torch.zeros(2))["mae"])


def test_angles_between_normals() -> None:
    tilt = 1e-3
    normal = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 0], [math.cos(tilt), math.sin(tilt), 0]])
    real = torch.tensor([[0, 3.0, 0], [0, -1, 0], [1, 0, 0], [1, 0, 0]])
    assert float(normal_angle(normal, real)) == pytest.approx((90 + 180 + math.degrees(tilt)) / 3, abs=1e-5)
    assert float(normal_angle(normal[3:], real[3:])) == pytest.approx(math.degrees(tilt), rel=1e-4)
    assert np.isnan(float(normal_angle(normal[2:3], real[2:3])))
