"""Matches against a k-d tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from brickyard.train.objectives import matching
from brickyard.train.objectives.matching import Task, match, nearest, nearest_of_all


def points(number: int, seed: int) -> torch.Tensor:
    return torch.rand(number, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 100


@given(st.integers(0, 200), st.integers(1, 200), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_nearest_is_that_of_a_tree(count: int, others: int, seed: int) -> None:
    a, b = points(count, seed), points(others, seed + 1)
    found, distance = nearest_of_all(a, b)
    expected, index = cKDTree(b.double().numpy()).query(a.double().numpy().reshape(-1, 3))
    np.testing.assert_allclose(distance.numpy(), expected, atol=2e-5)
    assert (found.numpy() == index).mean() > 0.98 if count else True  # float32 ties apart
    by_tree = nearest(a, b)
    assert by_tree[0].tolist() == index.reshape(-1).tolist()
    torch.testing.assert_close(by_tree[1], distance, atol=2e-5, rtol=0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = points(300, 0), points(50, 1)
    whole = nearest_of_all(a, b)
    monkeypatch.setattr(matching, "_BLOCK", 170)
    parts = nearest_of_all(a, b)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_pairs_of_views_match_within_the_radius_only() -> None:
    mine, theirs = [points(n, i) for i, n in enumerate((40, 0, 70))], [points(n, 9 + i) for i, n in enumerate((30, 60))]
    pairs = [(2, 0), (0, 1), (1, 1), (2, 1)]
    others_of_all = [
        Task(points=theirs, others=mine, pairs=[(0, 0), (1, 1)]),
        Task(points=mine, others=theirs, pairs=[]),
    ]
    before, empty, found = match([*others_of_all, Task(points=mine, others=theirs, pairs=pairs)], 0.2)
    assert len(before.rows) == int(before.sizes.sum()) > 0
    assert len(empty.rows) == 0
    rows, targets, owner = found.rows, found.others, found.owner
    assert found.sizes.tolist() == torch.bincount(owner, minlength=4).tolist()
    starts, others = [0, 40, 40], [0, 30]
    expected = []
    for number, (a, b) in enumerate(pairs):
        for row, point in enumerate(mine[a].double().numpy()):
            distance, index = cKDTree(theirs[b].double().numpy()).query(point)
            if distance < 0.2:
                expected.append((row + starts[a], index + others[b], number))
    assert 0 < len(expected) < 40 + 70 + 70
    assert list(zip(rows.tolist(), targets.tolist(), owner.tolist(), strict=True)) == expected


def test_nothing_matches_nothing() -> None:
    found, distance = nearest(points(5, 0), points(0, 1))
    assert bool(distance.isinf().all())
    assert found.shape == (5,)
