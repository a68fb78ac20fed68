"""The losses against golden numbers and against dense references written out element by element."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from brickyard.train.objectives import SLidR, STSLidR
from brickyard.train.objectives import contrastive as c
from brickyard.train.objectives.image_to_lidar import ImageToLidar, Rows, contrast


def unit(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, columns, generator=generator, dtype=torch.float64), dim=1)


def reference(keys: Tensor, queries: Tensor, weights: Tensor, *, masked: bool, anchors: list[float]) -> float:
    losses, tau = [], 0.07
    for i in range(len(keys)):
        denominator = 0.0
        for j in range(len(keys)):
            if masked and weights[i, j] == 0:
                continue
            denominator += math.exp(float(keys[i] @ queries[j]) / tau * float(weights[i, j]))
        losses.append(math.log(denominator) - float(keys[i] @ queries[i]) / tau)
    return sum(w * loss for w, loss in zip(anchors, losses, strict=True)) / sum(anchors)


def info_nce(
    keys: Tensor,
    queries: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    exclusion: c.Exclusion = "masked",
    anchor_weights: Tensor | None = None,
) -> Tensor:
    """The mean of the rows' losses, weighted."""
    own = torch.arange(len(keys))
    losses = c.row_losses(keys, queries, own, temperature, weights=weights, exclusion=exclusion)
    anchors = torch.ones_like(losses) if anchor_weights is None else anchor_weights
    return (losses * anchors).sum() / anchors.sum()


def test_loss_tends_to_log_m_at_high_temperature() -> None:
    rows = unit(500, 64)
    assert float(info_nce(rows, rows, 1e4)) == pytest.approx(math.log(500), abs=1e-3)


def test_loss_is_zero_when_only_the_own_query_matches() -> None:
    rows = torch.eye(20, dtype=torch.float64)
    assert float(info_nce(rows, rows, 0.01)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("exclusion", ["masked", "code-compatible"])
@pytest.mark.parametrize("setting", ["none", "similarity", "neighbours"])
@pytest.mark.parametrize("balance", [False, True])
def test_loss_equals_the_dense_reference(exclusion: c.Exclusion, setting: str, balance: bool) -> None:
    keys, queries, descriptors = unit(40, 8, 1), unit(40, 8, 2), unit(40, 3, 3).abs()
    similar = c.similarity(descriptors).double()
    weights = {
        "none": torch.ones(40, 40, dtype=torch.float64),
        "similarity": c.similarity_weights(similar),
        "neighbours": c.neighbour_weights(similar, 0.1),
    }[setting]
    anchors = c.balance_by_votes(c.votes(similar)) if balance else None
    got = info_nce(keys, queries, 0.07, weights=weights, exclusion=exclusion, anchor_weights=anchors)
    expected = [1.0] * 40 if anchors is None else anchors.tolist()
    assert float(got) == pytest.approx(
        reference(keys, queries, weights, masked=exclusion == "masked", anchors=expected)
    )


def test_exclusion_modes_differ_by_one_per_excluded_negative() -> None:
    """The published code keeps exp(0) = 1 in the denominator for each."""
    keys, queries = unit(30, 8, 1), unit(30, 8, 2)
    weights = torch.ones(30, 30, dtype=torch.float64)
    weights[:, 5:9] = 0
    weights.fill_diagonal_(1)
    excluded = (weights == 0).sum(1)
    logits = keys @ queries.T / 0.5
    kept = torch.where(weights == 0, 0, logits.exp()).sum(1)
    for exclusion, extra in (("masked", 0 * excluded), ("code-compatible", excluded)):
        expected = ((kept + extra).log() - logits.diagonal()).mean()
        got = info_nce(keys, queries, 0.5, weights=weights, exclusion=exclusion)  # type: ignore[arg-type]
        torch.testing.assert_close(got, expected)


def test_an_excluded_negative_gets_no_gradient() -> None:
    keys, queries = unit(10, 4, 1), unit(10, 4, 2).requires_grad_()
    weights = torch.ones(10, 10, dtype=torch.float64)
    weights[:, 3] = 0
    weights.fill_diagonal_(1)
    for exclusion in ("masked", "code-compatible"):
        others = torch.ones(10, dtype=torch.float64)
        others[3] = 0  # row 3 has query 3 as its target; leave that row out
        loss = info_nce(keys, queries, 0.1, weights=weights, exclusion=exclusion, anchor_weights=others)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, queries)
        assert gradient[3].abs().max() == 0
        assert (gradient[torch.arange(10) != 3].norm(dim=1) > 0).all()


@pytest.mark.parametrize("settings", [SLidR(), STSLidR(), STSLidR(weighting="adaptive", balance="clusters")])
def test_no_rows_give_zero_with_zero_gradient(settings: ImageToLidar) -> None:
    keys, described = torch.zeros(0, 8, requires_grad=True), torch.zeros(0, 5)
    loss, units = contrast(Rows(keys=keys, queries=torch.zeros(0, 8), target=None, descriptors=described), settings)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == units == 0
    assert c.described(described).shape == (0,)


def test_pool_is_sum_over_count_plus_epsilon() -> None:
    features = unit(50, 6)
    group = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(1))
    group[group == 3] = 4
    means, counts = c.pool(features, group, 8)
    for g in range(8):
        members = features[group == g]
        torch.testing.assert_close(means[g], members.sum(0) / (len(members) + 1e-6))
        assert counts[g] == len(members)
    assert means[3].abs().sum() == 0


@pytest.mark.parametrize("rows", [1000, 301, 2, 1])
def test_neighbour_weights_exclude_the_most_similar_percent(rows: int) -> None:
    similar = c.similarity(unit(rows, 16).abs())
    weights = c.neighbour_weights(similar)
    assert (weights.diagonal() == 1).all()
    distance = 1 - similar
    expected = (distance >= torch.quantile(distance, 0.01, dim=1, keepdim=True)).float().fill_diagonal_(1)
    assert torch.equal(weights, expected)
    if rows == 1000:
        below = (weights == 0).sum(1) + 1  # the row itself counts among its most similar
        assert (below == rows // 100).all()


def test_row_quantile_in_chunks_equals_torch() -> None:
    values = torch.rand(37, 123, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.01, 0.5, 1.0):
        expected = torch.quantile(values, share, dim=1)
        torch.testing.assert_close(c.row_quantile(values, share, chunk=500), expected, rtol=0, atol=1e-7)


def test_similarity_weights_have_a_diagonal_of_one() -> None:
    weights = c.similarity_weights(c.similarity(unit(50, 5)))
    assert (weights.diagonal() == 1).all()
    assert 0 <= weights.min() <= weights.max() <= 1


def test_balance_weights_lie_in_0_1_with_a_zero_for_the_most_common() -> None:
    common, rare = torch.tensor([[1.0, 0.0]]).repeat(30, 1), torch.tensor([[0.0, 1.0]]).repeat(3, 1)
    weights = c.balance_by_votes(c.votes(c.similarity(torch.cat((common, rare)))))
    assert weights[:30].tolist() == [0.0] * 30
    assert weights[30:].tolist() == [1.0] * 3
    drawn = c.balance_by_votes(c.votes(c.similarity(unit(200, 4))))
    assert float(drawn.min()) == 0
    assert 0 < float(drawn.max()) <= 1
    assert c.balance_by_votes(c.votes(torch.ones(5, 5))).tolist() == [1.0] * 5
    assert c.balance_by_votes(c.votes(torch.ones(0, 0))).shape == (0,)


def test_similarities_below_half_give_no_votes() -> None:
    similar = torch.tensor([[1.0, 0.6, 0.4], [0.6, 1.0, 0.4], [0.4, 0.4, 1.0]])
    torch.testing.assert_close(c.balance_by_votes(c.votes(similar)), torch.tensor([0.0, 0.0, 1.0]))
    assert c.balance_by_votes(c.votes(similar, threshold=0.3)).tolist()[2] == pytest.approx(1.0)
