"""How alike a rendered image and a real one are: PSNR, SSIM, errors of depth, angles between normals.

Colours are in [0, 1]. Depths are metres, compared where the real one is known. SSIM is that of Wang et al. (IEEE TIP
2004) with its 11 x 11 Gaussian window (sigma 1.5), population moments, averaged over channels and over all pixels whose
window lies in the image, as scikit-image computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(image: Tensor, real: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio in dB, 10 log10(1 / mean square error); infinite for equal images.

    Args:
        image, real: (..., C) in [0, 1].
        mask: bool (...), the pixels that count; NaN if none does.
    """
    square = (image - real).square()
    return -10 * torch.log10((square if mask is None else square[mask]).mean())


def ssim(image: Tensor, real: Tensor) -> Tensor:
    """Structural similarity of images (H, W, C) in [0, 1], scalar at most 1.

    Raises:
        ValueError: shapes differ, or an edge is shorter than the window of 11 pixels.
    """
    if image.shape != real.shape or image.dim() != 3 or min(image.shape[:2]) <= 2 * _RADIUS:
        raise ValueError(f"images must have one shape (H, W, C), 11 x 11 or more: {image.shape} and {real.shape}")
    x, y = (values.permute(2, 0, 1)[:, None].double() for values in (image, real))
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x * mean_x, _blurred(y * y) - mean_y * mean_y
    together = _blurred(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * together + _C2)
    return (top / ((mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2))).mean()


def _blurred(values: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 1, H - 10, W - 10), each pixel the mean of its window."""
    place = torch.arange(-_RADIUS, _RADIUS + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(place**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    return functional.conv2d(functional.conv2d(values, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def depth_errors(depth: Tensor, real: Tensor) -> dict[str, float]:
    """Errors over the pixels whose real depth is known (finite and positive); NaN where there are none.

    Returns:
        "mae" and "rmse" in metres; "abs_rel", mean of |error| / real; "delta_1", share of pixels where the larger of
        the two depths is less than 1.25 times the smaller; "known", share of pixels that count.
    """
    known = torch.isfinite(real) & (real > 0)
    d, r = depth[known].double(), real[known].double()
    error = (d - r).abs()
    return {
        "mae": float(error.mean()),
        "rmse": float(error.square().mean().sqrt()),
        "abs_rel": float((error / r).mean()),
        "delta_1": float((torch.maximum(d, r) < 1.25 * torch.minimum(d, r)).double().mean()),
        "known": float(known.double().mean()),
    }


def normal_angle(normal: Tensor, real: Tensor) -> Tensor:
    """Mean angle in degrees between directions (..., 3) of any length; where either has length 0 it does not count."""
    known = (normal.norm(dim=-1) > 0) & (real.norm(dim=-1) > 0)
    a, b = (functional.normalize(values[known].double(), dim=-1) for values in (normal, real))
    # By sine and cosine: the arc cosine loses small angles.
    angle = torch.atan2(torch.linalg.cross(a, b, dim=-1).norm(dim=-1), (a * b).sum(-1))
    return torch.rad2deg(angle).mean()
