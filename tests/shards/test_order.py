"""The order is a permutation for every size, differs by seed and epoch, and looks shuffled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.shards.order import permute, permute_many


@given(st.integers(1, 700), st.integers(0, 2**62), st.integers(0, 2**40))
def test_it_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert sorted(permute(i, count, seed, epoch) for i in range(count)) == list(range(count))


@given(st.integers(1, 3000), st.integers(0, 2**62), st.integers(0, 2**40))
def test_many_at_once_are_the_same_ones(count: int, seed: int, epoch: int) -> None:
    positions = np.arange(count)[::-7]
    assert permute_many(positions, count, seed, epoch).tolist() == [
        permute(p, count, seed, epoch) for p in positions.tolist()
    ]


def test_the_order_never_changes_silently() -> None:
    """ORDER 2; whoever changes these numbers writes ORDER into the changelog."""
    assert [permute(i, 10, 0, 0) for i in range(10)] == [6, 3, 2, 4, 8, 7, 1, 5, 0, 9]
    assert permute(123_456_789, 10**9, 7, 3) == 994254393


def test_a_huge_epoch_needs_no_memory_and_no_time() -> None:
    assert 0 <= permute(10**12 - 1, 10**12, 1, 1) < 10**12


def test_epochs_and_seeds_differ_and_neighbours_part() -> None:
    order = np.array([[permute(i, 5000, seed, epoch) for i in range(5000)] for seed, epoch in ((0, 0), (0, 1), (1, 0))])
    assert all((order[a] == order[b]).mean() < 0.01 for a, b in ((0, 1), (0, 2), (1, 2)))
    # rank correlation of place and element, of an element and the next: those of a random permutation (sd 0.014)
    assert abs(np.corrcoef(np.arange(5000), order[0])[0, 1]) < 0.06
    assert abs(np.corrcoef(order[0][:-1], order[0][1:])[0, 1]) < 0.06


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(IndexError):
        permute(position, 10, 0, 0)
