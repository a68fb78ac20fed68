"""Curves against a slow implementation of Skilling's algorithm, and against what makes a curve a curve."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brickyard.train.models.serialization import (
    BITS,
    ORDERS,
    Order,
    encode,
    hilbert_cells,
    hilbert_code,
    z_cells,
    z_code,
)

Cell = tuple[int, int, int]
coordinate = st.integers(0, 2**BITS - 1)


def cube(bits: int) -> Tensor:
    """All cells of a grid, (8**bits, 3)."""
    return torch.tensor(list(itertools.product(range(1 << bits), repeat=3)))


def skilling(cell: Cell, bits: int) -> int:
    """Skilling's AxesToTranspose, one bit after the other, then the bits of the "transpose" read off in turn."""
    x, n = list(cell), 3
    q = 1 << (bits - 1)
    while q > 1:  # inverse undo
        p = q - 1
        for i in range(n):
            if x[i] & q:
                x[0] ^= p
            else:
                t = (x[0] ^ x[i]) & p
                x[0] ^= t
                x[i] ^= t
        q >>= 1
    for i in range(1, n):  # Gray encode
        x[i] ^= x[i - 1]
    t, q = 0, 1 << (bits - 1)
    while q > 1:
        if x[n - 1] & q:
            t ^= q - 1
        q >>= 1
    x = [v ^ t for v in x]
    position = 0
    for bit in reversed(range(bits)):
        for axis in range(n):
            position = position << 1 | (x[axis] >> bit & 1)
    return position


@settings(deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate), st.integers(1, BITS))
def test_hilbert_is_skillings(cell: Cell, bits: int) -> None:
    x, y, z = (v & ((1 << bits) - 1) for v in cell)
    small = (x, y, z)
    cells = torch.tensor([small])
    code = hilbert_code(cells, bits)
    assert code.tolist() == [skilling(small, bits)]
    assert torch.equal(hilbert_code(cells, torch.tensor([bits])), code)
    assert torch.equal(hilbert_cells(code, bits), cells)
    assert torch.equal(hilbert_cells(code, torch.tensor([bits])), cells)


@settings(deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate))
def test_z_interleaves_the_bits(cell: Cell) -> None:
    bits = "".join("".join(triple) for triple in zip(*(f"{v:016b}" for v in cell), strict=True))
    code = z_code(torch.tensor([cell]))
    assert code.tolist() == [int(bits, 2)]
    assert z_cells(code).tolist() == [list(cell)]


def test_the_first_cells_are_walked_in_the_published_order() -> None:
    path = [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0]]
    assert hilbert_cells(torch.arange(8), 1).tolist() == path
    assert z_cells(torch.arange(8)).tolist() == cube(1).tolist()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_hilbert_visits_every_cell_once_and_never_jumps(bits: int) -> None:
    codes = hilbert_code(cube(bits), bits)
    path = cube(bits)[codes.argsort()]
    assert torch.equal(codes.sort().values, torch.arange(8**bits))
    assert bool((path.diff(dim=0).abs().sum(1) == 1).all())


def test_every_cell_can_have_its_own_number_of_bits() -> None:
    cells = torch.randint(0, 16, (300, 3), generator=torch.Generator().manual_seed(0))
    bits = torch.arange(300) % 13 + 4
    mixed = hilbert_code(cells, bits)
    for depth in range(4, 17):
        own = bits == depth
        assert torch.equal(mixed[own], hilbert_code(cells[own], depth))
    assert not torch.equal(hilbert_code(cells, 4), hilbert_code(cells, 5))  # why a scene must not see its batch-mates
    assert torch.equal(hilbert_cells(mixed, bits), cells)


@pytest.mark.parametrize("order", ORDERS)
def test_trans_exchanges_x_and_y(order: Order) -> None:
    cells = torch.randint(0, 2**BITS, (50, 3), generator=torch.Generator().manual_seed(1))
    other: dict[Order, Order] = {
        "z": "z-trans", "z-trans": "z", "hilbert": "hilbert-trans", "hilbert-trans": "hilbert",
    }  # fmt: skip
    assert torch.equal(encode(cells, order), encode(cells[:, [1, 0, 2]], other[order]))
    assert not torch.equal(encode(cells, order), encode(cells, other[order]))
    assert encode(cells.int(), order).dtype == torch.int64
