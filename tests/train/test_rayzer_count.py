"""The table of what RayZer costs is made by counting; two of its numbers are known by hand."""

from __future__ import annotations

import pytest

from brickyard.train.models.rayzer import RayZerConfig
from tests.benchmarks.rayzer_count import counted, kept_of_a_block


def test_blocks_are_counted_as_the_formula_says() -> None:
    """24 d^2 + 4 n d a token and block (see `train.models.view_transformer`), which is nearly all of it."""
    row = counted(RayZerConfig(network="paper", checkpointing=False), 16, 8)
    d, blocks = 768, 8
    cameras, scene, render = 24 * 257, 3072 + 16 * 256, 3072 + 256
    work = sum(views * n * blocks * (24 * d * d + 4 * n * d) for views, n in ((1, cameras), (1, scene), (8, render)))
    assert row["forward"] == pytest.approx(work / 1e12, rel=0.03)
    assert 160 < row["weights"] < 190 and row["state"] == pytest.approx(row["weights"] * 16e6 / 2**30)


def test_what_a_block_keeps_is_proportional_to_tokens() -> None:
    assert kept_of_a_block(128, 256) == pytest.approx(kept_of_a_block(128, 1024), rel=0.1)
