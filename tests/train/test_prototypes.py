"""Prototype heads and balanced assignments, on one process and on four."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from brickyard.train.objectives.prototypes import PrototypeHead, cross_entropy, sinkhorn
from tests.train.spy import ranks


def similarities(points: int, prototypes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(points, prototypes, generator=generator) * 2 - 1


def plain(similarity: Tensor, temperature: float, iterations: int = 3) -> np.ndarray:
    """As the published description goes, in float64, on one process."""
    q = np.exp(similarity.double().numpy() / temperature).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True)
        q /= q.shape[0]
        q /= q.sum(0, keepdims=True)
        q /= q.shape[1]
    return (q * q.shape[1]).T


def test_a_head_of_the_published_size_has_6557952_parameters() -> None:
    with torch.device("meta"):
        head = PrototypeHead(1088, hidden=4096, dimensions=256, prototypes=4096)
    assert sum(p.numel() for p in head.parameters()) == 6_557_952


def test_a_head_gives_cosines() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(5, hidden=8, dimensions=4, prototypes=7)
    features = torch.randn(11, 5)
    expected = functional.cosine_similarity(head.mlp(features)[:, None], head.prototypes[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    assert float(head(features).detach().abs().max()) <= 1 + 1e-6


@given(st.integers(1, 60), st.integers(2, 20), st.floats(0.03, 1.0), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_assignments_equal_the_plain_iteration(points: int, prototypes: int, temperature: float, seed: int) -> None:
    similarity = similarities(points, prototypes, seed)
    assigned = sinkhorn(similarity, temperature)
    torch.testing.assert_close(assigned.sum(1), torch.ones(points))
    np.testing.assert_allclose(assigned.numpy(), plain(similarity, temperature), rtol=2e-3, atol=1e-5)


def test_assignments_are_balanced() -> None:
    crowded = similarities(4096, 16) * 0.2
    crowded[:, 3] += 0.8  # everything would go there
    assert int((crowded.argmax(1) == 3).sum()) > 4000
    shares = sinkhorn(crowded, 0.07).sum(0) / (4096 / 16)
    assert float((shares - 1).abs().max()) < 0.1


def test_no_temperature_gives_numbers_that_are_none() -> None:
    assigned = sinkhorn(similarities(30, 8), 0.001)
    torch.testing.assert_close(assigned.sum(1), torch.ones(30))


def test_no_points_give_no_assignments() -> None:
    assert sinkhorn(similarities(0, 8), 0.05).shape == (0, 8)


def _rank(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    part = similarities(90, 12).split([40, 0, 30, 20])[rank]
    np.save(Path(folder) / f"{rank}.npy", sinkhorn(part, 0.05).numpy())
    dist.destroy_process_group()


def test_four_processes_agree_with_one(tmp_path: Path) -> None:
    assert ranks(4, _rank, str(tmp_path)) == [0, 0, 0, 0]
    together = np.concatenate([np.load(tmp_path / f"{rank}.npy") for rank in range(4)])
    np.testing.assert_allclose(together, sinkhorn(similarities(90, 12), 0.05).numpy(), rtol=1e-5, atol=1e-8)


def test_cross_entropy_equals_torchs() -> None:
    similarity = similarities(20, 6).requires_grad_()
    target = sinkhorn(similarities(20, 6, 1), 0.1)
    expected = functional.cross_entropy(similarity / 0.1, target, reduction="none")
    torch.testing.assert_close(cross_entropy(similarity, target, 0.1), expected)
