"""Random numbers that are a function of what they are for: (seed, counter) -> number, on any device.

A generator hands out numbers in the order they are asked for, so what one scene gets depends on its batch-mates and on
the device. Here every number is computed from the scene's seed, the purpose and the point's number by the mixing
function of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). A scene
therefore gets the same views in any batch, on any rank, before and after a restart. Uniform numbers are equal on CPU
and GPU bit for bit, normal ones up to the last bits of log and cos. A million numbers take 30 ms on one CPU core.

What is drawn for a scene or a view is drawn where the seeds are, best on the host: `for_points` asks of the device only
what depends on the points.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from brickyard.train.transfer import send, send_table

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def derive(seed: Tensor, purpose: str, number: int | Tensor = 0) -> Tensor:
    """Seeds for a purpose and a number, int64, from seeds; unrelated to those for other purposes or numbers."""
    step = _wrapped(number * _GOLDEN) if isinstance(number, int) else number * _GOLDEN
    return _mix(_mix(seed + _wrapped(zlib.crc32(purpose.encode()) * _GOLDEN)) + step)


def for_points(seeds: Tensor, purpose: str, scene: Tensor, number: Tensor) -> Tensor:
    """`derive(seeds[..., scene], purpose, number)`, mixing the seeds themselves where they are.

    Args:
        seeds: int64 (..., scenes), on the host or the device.
        purpose: see `derive`.
        scene, number: int64 (N,) on the device.
    """
    start = _mix(seeds + _wrapped(zlib.crc32(purpose.encode()) * _GOLDEN))
    return _mix(send(start, scene.device)[..., scene] + number * _GOLDEN)


def uniform(seed: Tensor, columns: int = 1) -> Tensor:
    """float32 (..., columns) in [0, 1) from int64 seeds (...,), 24 bits each."""
    column = send_table([_wrapped(number * _GOLDEN) for number in range(1, columns + 1)], seed.device)
    bits = _mix(seed[..., None] + column)
    return (bits >> 40 & 0xFFFFFF).float() / (1 << 24)


def normal(seed: Tensor, columns: int = 1) -> Tensor:
    """float32 (N, columns), standard normal (Box and Muller's transform)."""
    pairs = (columns + 1) // 2
    u, v = uniform(seed, 2 * pairs).view(len(seed), 2, pairs).unbind(1)
    radius = torch.sqrt(-2 * torch.log(1 - u))
    angle = 2 * math.pi * v
    return torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)[:, :columns]


def _wrapped(number: int) -> int:
    """A Python integer as int64 arithmetic would have it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers that leaves no pattern; int64 arithmetic wraps around."""
    x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * _MIX[0]
    x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * _MIX[1]
    return x ^ (x >> 31 & 0x1FFFFFFFF)
