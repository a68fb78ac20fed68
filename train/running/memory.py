"""Where the memory of a training goes: weights, gradients, optimiser, teacher, and the rest, which grows with points.

The peak is what the CUDA allocator gave out at most, or on a CPU the largest resident size of the process, program and
libraries included. What the peak holds beyond the fixed parts, divided by the points of the largest pass, says how
large a pass may be.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def start_measuring(device: torch.device) -> int:
    """Forget earlier peaks where that can be done; the peak to begin with."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return peak_bytes(device)


def peak_bytes(device: torch.device) -> int:
    """Of this process so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_report(
    model: nn.Module, optimiser: Optimizer, device: torch.device, base: int, points: int
) -> dict[str, Any]:
    """Bytes of every part; JSON.

    Args:
        model: parameters without a gradient count as those of a teacher.
        base: from `start_measuring`, before the first step: on a CPU what the process takes anyway.
        points: of the largest pass of one rank, 0 if unknown.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    peak = peak_bytes(device)
    fixed = {
        "parameters": _bytes(trained),
        "gradients": _bytes(trained),
        "optimiser": _bytes(v for state in optimiser.state.values() for v in state.values() if isinstance(v, Tensor)),
        "teacher": _bytes(p for p in model.parameters() if not p.requires_grad),
        "buffers": _bytes(model.buffers()),
    }
    made_later = fixed["gradients"] + fixed["optimiser"]  # the weights are in the base already
    before = base + made_later if device.type == "cpu" else sum(fixed.values())
    activations = max(0, peak - before)
    return fixed | {
        "activations": activations,
        "peak": peak,
        "measured": "CUDA allocator" if device.type == "cuda" else "resident size of the process",
        "points": points,
        "bytes_per_point": round(activations / points, 1) if points else None,
    }


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
