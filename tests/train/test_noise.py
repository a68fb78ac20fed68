"""Random numbers as a function of what they are for."""

from __future__ import annotations

import zlib

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from brickyard.train.views.noise import derive, normal, uniform

SEEDS = torch.arange(20_000)


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    drawn = uniform(SEEDS, 3)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.unbind(1):
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    correlation = torch.corrcoef(torch.cat((drawn.T, uniform(derive(SEEDS, "other")).T, uniform(SEEDS + 1).T)))
    assert (correlation - torch.eye(len(correlation))).abs().max() < 0.03


def test_normal_numbers_are_normal() -> None:
    drawn = normal(SEEDS, 3)
    assert drawn.shape == (20_000, 3)
    for column in drawn.unbind(1):
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(drawn.T) - torch.eye(3)).abs().max() < 0.03


def test_derived_seeds_depend_on_purpose_and_number() -> None:
    seed = torch.tensor([5])
    made = [int(derive(seed, purpose, number)) for purpose in ("a", "b") for number in (0, 1, 2, 1 << 40)]
    assert len(set(made)) == 8
    assert torch.equal(derive(seed, "a", 2), derive(seed, "a", torch.tensor(2)))
    assert torch.equal(derive(torch.tensor([1, 5]), "a")[1:], derive(seed, "a"))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**48))
def test_the_mixing_is_that_of_splitmix64(seed: int, number: int) -> None:
    low = (1 << 64) - 1
    golden = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & low
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & low
        return x ^ x >> 31

    inner = mix((seed + zlib.crc32(b"crop") * golden) & low)
    expected = mix((inner + number * golden) & low)
    assert int(derive(torch.tensor(seed), "crop", number)) & low == expected
