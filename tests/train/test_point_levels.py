"""Levels, walks and patches against loops over scenes, cells and patches written from the description."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.models.point_levels import Level, coarser, finest
from brickyard.train.models.serialization import BITS, ORDERS, Order, encode
from brickyard.train.models.walks import Walk, Walking

SIZE = 0.125  # a power of two, so that coordinates on its grid are exact
counts_of_scenes = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any)


def cloud(points: int, seed: int, extent: int = 12) -> Tensor:
    """Points in the middle of cells of a small grid, some cells twice; distinct coordinates."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(extent, (points, 3), generator=generator)
    return (cells + 0.25 + 0.5 * torch.rand(points, 3, generator=generator)) * SIZE


def batch(counts: Sequence[int], seed: int = 0) -> Tensor:
    return torch.cat([cloud(count, seed + i) for i, count in enumerate(counts)])


def patches_by_hand(sequence: list[int], patch: int) -> list[list[int]]:
    """A scene's rows along its curve in patches; the last is filled with the same places of the one before."""
    if len(sequence) <= patch:
        return [sequence] if sequence else []
    parts = [sequence[i : i + patch] for i in range(0, len(sequence), patch)]
    parts[-1] = parts[-1] + parts[-2][len(parts[-1]) :]
    return parts


def patches(walk: Walk) -> list[list[int]]:
    short = walk.short.tolist()
    if walk.real is not None:
        short = [
            [r for r, real in zip(rows, flags, strict=True) if real]
            for rows, flags in zip(short, walk.real, strict=True)
        ]
    return walk.full.tolist() + short


def sequence_of(level: Level, scene: int, order: Order) -> list[int]:
    """A scene's rows along a curve, by the least number of bits that its cells (and one more) need."""
    rows = (level.scene == scene).nonzero()[:, 0]
    if not len(rows):
        return []
    bits = int(level.cells[rows].max() + 1).bit_length()
    codes = encode(level.cells[rows], order, bits).tolist()
    keys = [(code, *level.xyz[row].tolist()) for code, row in zip(codes, rows.tolist(), strict=True)]
    return [row for _, row in sorted(zip(keys, rows.tolist(), strict=True))]


@settings(deadline=None, max_examples=40)
@given(counts_of_scenes, st.integers(1, 20), st.integers(0, 10**6))
def test_walks_and_patches_are_those_of_the_description(counts: list[int], patch: int, seed: int) -> None:
    walking = Walking(orders=ORDERS, patch=patch)
    level = finest(batch(counts, seed), counts, walking, size=SIZE)
    for _ in range(2):
        for order, walk in zip(ORDERS, level.walks, strict=True):
            expected = [patches_by_hand(sequence_of(level, s, order), patch) for s in range(len(counts))]
            assert sorted(patches(walk)) == sorted(p for scene in expected for p in scene)
            rows = torch.cat((walk.full.flatten(), walk.short.flatten()))
            assert rows[walk.slot].tolist() == list(range(len(level.xyz)))
            lent = rows[walk.borrowed].tolist()
            assert len(set(lent)) == len(lent)
            filling = 0 if walk.real is None else int((~walk.real).sum())
            assert len(walk.slot) + len(lent) + filling == len(rows)
        level = coarser(level, walking)


@settings(deadline=None, max_examples=40)
@given(counts_of_scenes, st.integers(0, 10**6))
def test_cells_begin_at_the_scenes_own_corner_and_halve(counts: list[int], seed: int) -> None:
    xyz, walking = batch(counts, seed), Walking(orders=("z",), patch=8)
    origin = torch.rand(len(xyz), 3)
    level = finest(xyz, counts, walking, size=SIZE, origin=origin)
    begin = 0
    for count in counts:
        own = xyz[begin : begin + count].double()
        if count:
            cells = ((own - own.amin(0)) / SIZE).floor().long()
            assert torch.equal(level.cells[begin : begin + count], cells)
        begin += count

    coarse = coarser(level, walking)
    assert coarse.children is not None
    inverse = coarse.children.inverse.tolist()
    keys = [(s, *cell) for s, cell in zip(level.scene.tolist(), (level.cells // 2).tolist(), strict=True)]
    assert [keys.index(key) for key in sorted(set(keys))] == [inverse.index(i) for i in range(len(set(keys)))]
    for row, key in enumerate(sorted(set(keys))):
        mine = [i for i, k in enumerate(keys) if k == key]
        assert [i for i, parent in enumerate(inverse) if parent == row] == mine
        assert coarse.cells[row].tolist() == list(key[1:])
        assert coarse.scene[row] == key[0]
        torch.testing.assert_close(coarse.xyz[row], xyz[mine].mean(0))
        assert coarse.origin is not None
        torch.testing.assert_close(coarse.origin[row], origin[mine].mean(0))
    assert coarse.counts == tuple(sum(1 for key in set(keys) if key[0] == s) for s in range(len(counts)))


@settings(deadline=None, max_examples=25)
@given(counts_of_scenes, st.integers(0, 10**6), st.booleans())
def test_groups_reduce_like_a_loop(counts: list[int], seed: int, maximum: bool) -> None:
    walking = Walking(orders=("z",), patch=8)
    groups = coarser(finest(batch(counts, seed), counts, walking, size=SIZE), walking).children
    assert groups is not None
    values = torch.randn(len(groups.inverse), 3, dtype=torch.float64, requires_grad=True)
    result = groups.reduce(values, "max" if maximum else "mean")
    weights = torch.randn_like(result)
    (gradient,) = torch.autograd.grad((result * weights).sum(), values)
    expected = []
    for row in range(len(groups.sizes)):
        mine = values[groups.inverse == row]
        expected.append(mine.amax(0) if maximum else mine.mean(0))
    torch.testing.assert_close(result, torch.stack(expected))
    (loop,) = torch.autograd.grad((torch.stack(expected) * weights).sum(), values)
    torch.testing.assert_close(gradient, loop)


@settings(deadline=None, max_examples=15)
@given(counts_of_scenes, st.integers(0, 10**6))
def test_groups_spread_like_indexing(counts: list[int], seed: int) -> None:
    walking = Walking(orders=("z",), patch=8)
    groups = coarser(finest(batch(counts, seed), counts, walking, size=SIZE), walking).children
    assert groups is not None
    values = torch.randn(len(groups.sizes), 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(groups.inverse), 3, dtype=torch.float64)
    spread, indexed = groups.spread(values), values[groups.inverse]
    assert torch.equal(spread, indexed)
    (ours,) = torch.autograd.grad((spread * weights).sum(), values)
    (torchs,) = torch.autograd.grad((indexed * weights).sum(), values)
    torch.testing.assert_close(ours, torchs)
    assert torch.equal(groups.members[groups.place], torch.arange(len(groups.place)))


def test_points_that_share_a_cell_are_grouped() -> None:
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.05, 0, 0], [0, 0, 0], [1, 0, 0.01]])
    walking = Walking(orders=("z",), patch=8)
    level = finest(xyz, [3, 2], walking, size=SIZE)
    assert level.shared is not None
    assert level.shared.inverse.tolist() == [0, 1, 0, 2, 3]
    assert level.voxels.indices.tolist() == [[0, 0, 0, 0], [0, 8, 0, 0], [1, 0, 0, 0], [1, 8, 0, 0]]
    assert finest(xyz[:2], [2], walking, size=SIZE).shared is None


def test_far_apart_points_and_single_points() -> None:
    walking = Walking(orders=ORDERS, patch=4)
    level = finest(torch.tensor([[0.0, 0, 0], [1000, 0, 0], [5, 5, 5]]), [2, 1], walking, size=0.02)
    for _ in range(BITS):
        level = coarser(level, walking)
    assert level.counts == (1, 1)
    assert level.cells.tolist() == [[0, 0, 0]] * 2


def test_published_way_takes_origin_bits_and_patches_from_the_batch() -> None:
    small, large = cloud(9, 1) + 0.3 * SIZE, cloud(30, 2, extent=200)
    alone = finest(small, [9], Walking(orders=ORDERS, patch=16), size=SIZE)
    published = Walking(orders=ORDERS, patch=16, shared=True, shrink=True)
    joined = finest(torch.cat((small, large)), [9, 30], published, size=SIZE)
    lowest = torch.cat((small, large)).double().amin(0)
    assert torch.equal(joined.cells[:9], ((small.double() - lowest) / SIZE).floor().long())
    assert not torch.equal(joined.cells[:9], alone.cells)
    assert joined.walks[0].full.shape == (1 + 4, 9)  # patches of the smallest scene's nine rows
    bits = int(joined.cells.max() + 1).bit_length()
    first = encode(joined.cells[:9], "hilbert", bits).argsort(stable=True)
    assert sorted(map(tuple, joined.cells[patches(joined.walks[2])[0]].tolist())) == sorted(
        map(tuple, joined.cells[first].tolist())
    )
    single = finest(small, [9], published, size=SIZE)
    assert [patches(w) for w in single.walks] == [patches(w) for w in alone.walks]


@pytest.mark.parametrize(
    ("xyz", "counts", "message"),
    [
        (torch.zeros(0, 3), [], "at least one point"),
        (torch.zeros(3, 3), [2], "must agree"),
        (torch.tensor([[0.0, 0, float("nan")]]), [1], "not a finite number"),
        (torch.tensor([[0.0, 0, 0], [float("inf"), 0, 0]]), [2], "not a finite number"),
        (torch.tensor([[0.0, 0, 0], [1e5, 0, 0]]), [2], "crop the scene"),
    ],
)
def test_what_cannot_be_levelled_is_refused(xyz: Tensor, counts: list[int], message: str) -> None:
    with pytest.raises((BrickyardError, RecipeError), match=message):
        finest(xyz, counts, Walking(orders=("z",), patch=4), size=SIZE)


def test_the_largest_grid_is_the_one_promised() -> None:
    most = (1 << BITS) - 2
    walking = Walking(orders=ORDERS, patch=4)
    cells = torch.tensor([[0, 0, 0], [most, 0, 0]])
    assert finest(torch.zeros(2, 3), [2], walking, size=1.0, cells=cells).cells[1, 0] == most
    for wrong in (cells + torch.tensor([1, 0, 0]), cells - torch.tensor([1, 0, 0])):
        with pytest.raises(RecipeError, match=r"cells must be in 0\.\.65534"):
            finest(torch.zeros(2, 3), [2], walking, size=1.0, cells=wrong)
