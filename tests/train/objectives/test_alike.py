"""A threshold for each anchor: kinds of every size are found, where a fixed share fits none of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from brickyard.train.objectives import contrastive as c
from brickyard.train.objectives.alike import find_alike, find_thresholds

SIZES = (150, 60, 20, 6, *(1,) * 200)


def crowd(seed: int = 0) -> tuple[Tensor, Tensor]:
    """(descriptors, kinds): four kinds, whose sizes differ twenty-fivefold, and two hundred that are alone of their
    kind; not negative, as behind a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    centre = torch.rand(len(SIZES), 256, generator=generator) * (torch.rand(len(SIZES), 256, generator=generator) < 0.5)
    noise = torch.randn(len(kind), 256, generator=generator)
    return functional.relu(centre[kind] + 0.1 * noise), kind


def alike_of(similar: Tensor, deviations: float = 4.0) -> Tensor:
    """With a wide margin: these kinds stand well apart."""
    return find_alike(similar, find_thresholds(similar, deviations), torch.arange(len(similar)))


def test_a_fixed_share_fits_no_kind_and_each_anchors_own_threshold_fits_all() -> None:
    descriptors, kind = crowd()
    similar = c.similarity(descriptors)
    same = kind[:, None] == kind
    fixed, adaptive = c.neighbour_weights(similar) == 0, c.adaptive_weights(alike_of(similar)) == 0
    for number, size in enumerate(SIZES[:6]):
        rows = kind == number
        left_out, right = fixed[rows].sum(1).float().mean(), (fixed & same)[rows].sum(1).float().mean()
        if size >= 60:
            assert right < 0.1 * size  # too few of the frequent
        if size == 1:
            assert left_out - right >= 3  # too many of the rare
        found, wrong = (adaptive & same)[rows].sum(1).float().mean(), (adaptive & ~same)[rows].sum(1).float().mean()
        assert found >= 0.97 * (size - 1)
        assert wrong <= 1
    sizes = alike_of(similar).sum(1)
    assert [int(sizes[kind == number].median()) for number in range(4)] == pytest.approx(list(SIZES[:4]), rel=0.05)
    assert float(sizes[kind >= 4].float().mean()) < 2.5


def test_a_mean_and_a_deviation_would_miss_the_frequent() -> None:
    """Why the threshold is read from the lower half."""
    descriptors, kind = crowd()
    rows = c.similarity(descriptors)[kind == 0]
    assert not bool((rows[:, kind == 0] > (rows.mean(1) + 1.5 * rows.std(1))[:, None]).all())
    assert bool((rows[:, kind == 0] > find_thresholds(rows, 1.5)[:, None]).all())


def test_thresholds_are_the_median_and_the_lower_deviation() -> None:
    normal = 0.5 + 0.1 * torch.randn(3, 100_001, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(find_thresholds(normal, 2.0), torch.full((3,), 0.7), atol=3e-3, rtol=0)


def test_both_must_find_each_other_alike() -> None:
    similar = c.similarity(crowd()[0])
    thresholds = torch.full((len(similar),), 0.5)
    thresholds[::2] = 2.0
    own = torch.arange(len(similar))
    alike = find_alike(similar, thresholds, own)
    assert torch.equal(alike, alike.T)
    assert alike[::2].sum(1).tolist() == [1] * len(alike[::2])
    rows = slice(100, 300)  # as on a rank that has some of the anchors
    assert torch.equal(find_alike(similar[rows], thresholds[rows], own[rows], thresholds), alike[rows])


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows(rows: int) -> None:
    assert torch.equal(alike_of(torch.eye(rows)).diagonal(), torch.ones(rows).bool())


def test_sizes_balance_anchors() -> None:
    """Clusters weigh the same whatever their size; the effective number lies between that and no balance."""
    descriptors, kind = crowd()
    sizes = alike_of(c.similarity(descriptors)).sum(1)
    total = len(sizes)
    clusters, effective = c.balance_by_size(sizes, total, "clusters"), c.balance_by_size(sizes, total, "effective")
    sums = torch.stack([clusters[kind == number].sum() for number in range(4)])
    torch.testing.assert_close(sums, torch.ones(4), rtol=0.1, atol=0)
    assert 0 < effective.min() < effective.max() <= 1
    ratio = [float(weights[kind == 3].mean() / weights[kind == 0].mean()) for weights in (clusters, effective)]
    assert 20 < ratio[1] < ratio[0] < 30
    n, b = 7, 1 - 1 / 460
    assert float(c.balance_by_size(torch.tensor([n]), 460, "effective")) == pytest.approx(
        (1 - b) / (1 - b**n), rel=1e-5
    )
    assert c.balance_by_size(torch.tensor([1]), 1, "effective").tolist() == [1.0]
