"""The memory report: every part counted, and a peak that is there."""

from __future__ import annotations

import copy

import torch
from torch import nn

from brickyard.train.running.memory import memory_report, peak_bytes


def test_the_parts_are_counted_in_bytes() -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.trained = nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50))
    model.teacher = copy.deepcopy(model.trained).requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model.trained(torch.randn(4, 100)).sum().backward()
    optimiser.step()
    device = torch.device("cpu")
    base = peak_bytes(device)
    kept = torch.ones(64 << 20, dtype=torch.uint8)  # 64 MiB that were not there before
    report = memory_report(model, optimiser, device, base, 1000)
    weights = 4 * (100 * 50 + 50 + 50 + 50)
    assert report["parameters"] == report["gradients"] == report["teacher"] == weights
    assert report["optimiser"] == 2 * weights + 4 * 4  # two moments, and a step counter for each of four
    assert report["buffers"] == 2 * (2 * 50 * 4 + 8)
    assert report["peak"] >= base > 0 and kept.numel() == 64 << 20
    assert report["activations"] == max(0, report["peak"] - base - 3 * weights - 16)
    assert report["bytes_per_point"] == round(report["activations"] / 1000, 1)
    assert memory_report(model, optimiser, device, base, 0)["bytes_per_point"] is None
