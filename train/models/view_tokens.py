"""Images and maps of rays as tokens, and where tokens are: place in the image, number of the view.

A token is a square patch: its values in the order row, column, channel. Places and numbers are told by sines and
cosines of geometrically spaced wavelengths (Vaswani et al., "Attention Is All You Need", 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from brickyard.train.precision import float32_island


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (..., C, H, W) -> patches (..., H / patch * W / patch, patch * patch * C), row by row."""
    *front, channels, height, width = images.shape
    grid = images.reshape(*front, channels, height // patch, patch, width // patch, patch)
    n = len(front)
    order = (*range(n), n + 1, n + 3, n + 2, n + 4, n)
    return grid.permute(order).reshape(*front, (height // patch) * (width // patch), patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`; `size` is (height, width) of the images."""
    *front, _, values = patches.shape
    rows, columns, n = size[0] // patch, size[1] // patch, len(front)
    grid = patches.reshape(*front, rows, columns, patch, patch, values // patch**2)
    order = (*range(n), n + 4, n, n + 2, n + 1, n + 3)
    return grid.permute(order).reshape(*front, -1, *size)


def sines(positions: Tensor, channels: int) -> Tensor:
    """float32 (..., channels): sines, then cosines, of positions (...) over 10000^(2 k / channels).

    Args:
        channels: even.
    """
    with float32_island(positions.device):
        wave = torch.arange(channels // 2, device=positions.device, dtype=torch.float64) / (channels // 2)
        angle = positions.double()[..., None] / 10000**wave
        return torch.cat((angle.sin(), angle.cos()), -1).float()


def patch_sines(rows: int, columns: int, channels: int, device: torch.device) -> Tensor:
    """float32 (rows * columns, channels): of every patch those of its row, then those of its column.

    Args:
        channels: a multiple of 4.
    """
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.cat((sines(row.flatten(), channels // 2), sines(column.flatten(), channels // 2)), -1)
