"""Tables of rows against numpy's own slices, in and across the pieces in which they are copied."""

from __future__ import annotations

import numpy as np
import pytest

from brickyard.ingest import rows
from brickyard.ingest.rows import split, within


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("columns", [3, 4, 5])
def test_columns_are_the_tables_bit_for_bit(monkeypatch: pytest.MonkeyPatch, count: int, columns: int) -> None:
    monkeypatch.setattr(rows, "_PIECE", 8)
    bits = np.random.default_rng(count).integers(0, 1 << 32, (count, columns), np.uint32)  # with NaN and -0 among them
    table = np.frombuffer(bits.tobytes(), np.float32).reshape(count, columns)
    xyz, others = split(table)
    assert xyz.flags.c_contiguous and xyz.flags.writeable
    assert xyz.tobytes() == table[:, :3].tobytes()
    assert [column.tobytes() for column in others] == [table[:, k].tobytes() for k in range(3, columns)]


@pytest.mark.parametrize(
    ("value", "inside"), [(5.0, True), (-5.0, True), (5.001, False), (-5.001, False), (np.nan, False), (np.inf, False)]
)
def test_one_number_beyond_the_limit_is_enough(value: float, inside: bool) -> None:
    table = np.zeros((100, 4), np.float32)
    table[57, 2] = value
    assert within(table, 5.0) is inside
    assert not within(table[:0], 5.0)
