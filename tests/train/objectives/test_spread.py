"""How far features spread: rank, what two views agree on, and the term that pushes rows apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brickyard.train.objectives.spread import agreement, feature_rank, koleo


def test_rank_counts_directions_and_noise_is_directions_too() -> None:
    """What one place is said of varies in 1 direction; with noise of all 32 the rank is high and the agreement low."""
    torch.manual_seed(0)
    told = torch.randn(4000, 1) * torch.randn(1, 32)
    first, second = (told + 3 * torch.randn(4000, 32) for _ in range(2))
    assert float(feature_rank(told)) == pytest.approx(1)
    assert 20 < float(feature_rank(first)) <= 32
    expected = float(told.var(0).sum() / first.var(0).sum())
    assert float(agreement(first, second)) == pytest.approx(expected, abs=0.03)
    assert expected < 0.2


def test_agreement_of_all_and_of_nothing() -> None:
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    assert float(agreement(features, 2 * features + 1)) == pytest.approx(1, abs=1e-5)
    assert float(agreement(features, -features)) == pytest.approx(-1, abs=1e-5)
    assert abs(float(agreement(features, features.flip(0)))) < 0.1
    assert float(agreement(features[:1], features[:1])) == 0
    assert float(agreement(features[:0], features[:0])) == 0


def test_koleo_is_the_published_formula() -> None:
    features = np.random.default_rng(2).normal(size=(40, 6))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=2) + 10 * np.eye(40)
    expected = -np.log(apart.min(1)).mean()
    assert float(koleo(torch.from_numpy(features))) == pytest.approx(expected, abs=1e-5)
    few = features[[0, 13, 26]]  # three rows at equal distances
    assert float(koleo(torch.from_numpy(features), most=3)) == float(koleo(torch.from_numpy(few)))


@pytest.mark.parametrize("rows", [0, 1, 2, 50])
def test_koleo_is_finite_where_rows_are_equal_or_missing(rows: int) -> None:
    features = torch.ones(rows, 4, requires_grad=True)
    loss = koleo(features)
    loss.backward()
    assert torch.isfinite(loss) and features.grad is not None and torch.isfinite(features.grad).all()


def test_koleo_spreads_what_has_nearly_collapsed() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.ones(64, 16) + 0.3 * torch.randn(64, 1, generator=generator) * torch.randn(16, generator=generator)
    features = (features + 0.01 * torch.randn(64, 16, generator=generator)).requires_grad_()
    before = float(feature_rank(features))
    optimiser = torch.optim.Adam([features], lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        koleo(features).backward()
        optimiser.step()
    assert before < 1.5
    assert float(feature_rank(features)) > 8
