"""The measures of the benchmark of superpixels, on partitions whose values are known; and its run at its smallest."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.superpixels import MEASURES, measure, run

HALVES = np.kron([[0, 1]], np.ones((20, 20), int))


def test_a_partition_that_is_the_regions_has_no_faults() -> None:
    assert measure(HALVES, HALVES) == {"recall": 100, "error": 0, "accuracy": 100}


@pytest.mark.parametrize(("shift", "recall"), [(1, 100), (2, 100), (3, 50), (4, 0), (5, 0)])
def test_a_border_counts_within_two_pixels(shift: int, recall: float) -> None:
    """Borders have a pixel on either side: of one that lies three pixels off, one side is still near."""
    moved = np.repeat((np.arange(40) >= 20 + shift).astype(int)[None], 20, 0)
    expected = {"recall": recall, "error": 100 * 2 * shift / 40, "accuracy": 100 - 100 * shift / 40}
    assert measure(moved, HALVES) == pytest.approx(expected)


def test_pixels_without_a_label_count_nowhere() -> None:
    regions = HALVES.copy()
    regions[:, 19:23] = -1
    found = measure(np.repeat((np.arange(40) >= 22).astype(int)[None], 20, 0), regions)
    assert found == {"recall": 100, "error": 0, "accuracy": 100}  # no border of two known regions is left


def test_one_superpixel_finds_nothing() -> None:
    assert measure(np.zeros_like(HALVES), HALVES) == {"recall": 0, "error": 100, "accuracy": 50}


def test_the_benchmark_runs() -> None:
    rows = run(images=1, width=96, real=0, dry=True)
    assert {row["method"] for row in rows} >= {"SLIC", "fast"} and len({row["material"] for row in rows}) == 3
    assert all(0 <= row[key] <= 100 for row in rows for key in MEASURES)
    fast, slic = ([row for row in rows if row["method"] == name] for name in ("fast", "SLIC"))
    assert np.mean([row["accuracy"] for row in fast]) > np.mean([row["accuracy"] for row in slic]) - 1
