"""What a point transformer knows about a batch of clouds before it learns anything: levels, walks and patches.

A level is the batch at one resolution: rows (points at the finest level, voxels above it) with their cells in a grid.
Along each of the curves of `train.models.serialization` the rows of a scene form a sequence, a walk, which is cut into
patches: the groups that attend to each other. Halving the grid gives the next level, which knows its rows' children.

Everything is made for each scene by itself: the grid begins at the scene's own minimum, the curve has the bits that
this scene needs, and patches never reach across scenes. A scene therefore gives the same levels whatever its
batch-mates. The published code takes the grid's origin and the bits from the whole batch: `shared` does so too.

Rows keep the order of the points at the finest level and are sorted by scene and cell above it. Points may share a
cell: their order along a walk is decided by their coordinates, so it does not depend on the order they came in. Four
clouds of 20,000 points and four walks take 0.1 s for five levels on one CPU core.

The host must know how many rows every scene has at every level, and asks the device once: along the z-order curve cells
of all levels are runs of equal beginnings, so one sort of the points tells the rows of all levels to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brickyard.shards.errors import BrickyardError, RecipeError
from brickyard.train.models import sparse
from brickyard.train.models.serialization import BITS, z_code
from brickyard.train.models.sparse_unet import padded
from brickyard.train.models.walks import Walk, Walking, sorted_rows, walks
from brickyard.train.transfer import send, send_table

_MAX_SCENES = (1 << 15) - 1
_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A partition of rows.

    Attributes:
        inverse: int64 (V,), each row's group.
        members: int64 (V,), the rows, one group after another.
        place: int64 (V,), where each row stands in `members`.
        sizes: int64 (groups,).
        first: int64 (groups,), the first member of each.
    """

    inverse: Tensor
    members: Tensor
    place: Tensor
    sizes: Tensor
    first: Tensor

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """Maximum ("max") or mean ("mean") of each group, (V, C) -> (groups, C); the same bits in every run."""
        ordered: Tensor = _Reorder.apply(values, self.members, self.place)  # type: ignore[no-untyped-call]
        return torch.segment_reduce(ordered, how, lengths=self.sizes, axis=0, unsafe=True)

    def spread(self, values: Tensor) -> Tensor:
        """The groups' values at each of their rows, (groups, C) -> (V, C)."""
        result: Tensor = _Spread.apply(values, self)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True, kw_only=True)
class Level:
    """A batch of clouds at one resolution.

    Attributes:
        xyz: float32 (V, 3), metres: points, or the means of each row's children.
        origin: float32 (V, 3), other coordinates carried along in the same way (those before augmentation, by which
            views are matched), or None.
        cells: int64 (V, 3), from 0.
        scene: int64 (V,), ascending.
        counts: rows of every scene. ahead: those of the coarser levels, as far as they were counted.
        extents: int64 (scenes, 3) on the CPU, the last cell of every scene.
        children: rows of the next finer level grouped into those of this one; None at the finest level.
        shared: rows grouped by distinct cells, or None where every row has a cell for itself.
        walks: one for each order, in the sequence in which blocks take turns with them.
        voxels: the distinct cells as a spconv tensor without features; it keeps the table of neighbours.
    """

    xyz: Tensor
    origin: Tensor | None
    cells: Tensor
    scene: Tensor
    counts: tuple[int, ...]
    ahead: tuple[tuple[int, ...], ...]
    extents: Tensor
    children: Groups | None
    shared: Groups | None
    walks: tuple[Walk, ...]
    voxels: Any


@torch.no_grad()
def finest(
    xyz: Tensor,
    counts: Sequence[int],
    walking: Walking,
    *,
    size: float,
    cells: Tensor | None = None,
    origin: Tensor | None = None,
    levels: int = _LEVELS,
) -> Level:
    """The level of the points themselves.

    Args:
        xyz: float (N, 3) metres, all scenes one after another.
        counts: points of every scene.
        walking: curves and patches.
        size: edge of a cell, metres.
        cells: integers (N, 3), the cells if they are already known, from 0; instead of those that `xyz` gives.
        origin: see `Level`.
        levels: how many there will be, with this one; the device is asked once for the rows of all of them.

    Raises:
        BrickyardError: without points, where counts and points disagree, or coordinates are not finite.
        RecipeError: where a scene spans more than 65,535 cells, or the grid is too large for spconv on a CPU.
    """
    if sum(counts) != len(xyz) or len(xyz) == 0 or min(counts) < 0 or len(counts) > _MAX_SCENES:
        raise BrickyardError(
            f"{len(counts)} scenes with {sum(counts)} points, but {len(xyz)} coordinates: the numbers must agree, with"
            f" at least one point and at most {_MAX_SCENES} scenes"
        )
    scene = torch.repeat_interleave(send_table(counts, xyz.device), output_size=len(xyz))
    if cells is None:
        cells, span = _cells(xyz, scene, len(counts), size, walking.shared)
        span, ahead = _ask(span, _distinct(cells, scene, counts, levels), counts)
        extents = _checked(span, size)
    else:
        cells = cells.long()
        reach = torch.stack([_extreme(cells, scene, len(counts), how) for how in ("amin", "amax")])
        reach, ahead = _ask(reach, _distinct(cells, scene, counts, levels), counts)
        extents = reach[1].long()
        if int(reach.min()) < 0 or int(reach.max()) + 1 >= 1 << BITS:
            raise RecipeError(f"cells must be in 0..{(1 << BITS) - 2}, not {int(reach.min())}..{int(reach.max())}")
    shared, ties = None, None
    distinct = torch.cat((scene[:, None], cells), dim=1)
    if sum(ahead[0]) < len(xyz):
        ties = _lexicographic(xyz)
        shared = _group(scene, cells, sum(ahead[0]), ties)
        distinct = distinct[shared.first]
    return Level(
        xyz=xyz.float(),
        origin=None if origin is None else origin.float(),
        cells=cells,
        scene=scene,
        counts=tuple(counts),
        ahead=ahead[1:],
        extents=extents,
        children=None,
        shared=shared,
        walks=walks(cells, scene, tuple(counts), extents, walking=walking, ties=ties),
        voxels=_voxels(distinct, extents),
    )


@torch.no_grad()
def coarser(level: Level, walking: Walking) -> Level:
    """The level with cells twice as large; its rows are the occupied cells, sorted by scene, x, y, z."""
    cells = level.cells >> 1
    ahead = level.ahead
    if not ahead:
        nothing = level.xyz.new_zeros(len(level.counts), 3)
        _, ahead = _ask(nothing, _distinct(cells, level.scene, level.counts, _LEVELS), level.counts)
    children = _group(level.scene, cells, sum(ahead[0]))
    scene, cells = level.scene[children.first], cells[children.first]
    extents = level.extents >> 1
    return Level(
        xyz=children.reduce(level.xyz, "mean"),
        origin=None if level.origin is None else children.reduce(level.origin, "mean"),
        cells=cells,
        scene=scene,
        counts=ahead[0],
        ahead=ahead[1:],
        extents=extents,
        children=children,
        shared=None,
        walks=walks(cells, scene, ahead[0], extents, walking=walking),
        voxels=_voxels(torch.cat((scene[:, None], cells), dim=1), extents),
    )


# Cells and groups


def _cells(xyz: Tensor, scene: Tensor, scenes: int, size: float, shared: bool) -> tuple[Tensor, Tensor]:
    """Cells (N, 3) counted from each scene's minimum, and what every scene spans, float64 (scenes, 3) metres.

    In float64, so that GPU and CPU agree.
    """
    exact = xyz.double()
    lowest = _extreme(exact, scene, scenes, "amin")
    if shared:
        lowest = exact.amin(0).expand_as(lowest)
    span = _extreme(exact, scene, scenes, "amax") - lowest
    return ((exact - lowest[scene]) / size).floor().long(), span


def _checked(span: Tensor, size: float) -> Tensor:
    """The last cell of every scene, int64 (scenes, 3), from what it spans, both on the CPU."""
    if not bool(span.isfinite().all()):
        raise BrickyardError("a coordinate is not a finite number")
    extents = (span / size).floor()
    if float(extents.max()) + 1 >= 1 << BITS:
        worst = int(span.amax(1).argmax())
        raise RecipeError(
            f"scene {worst} of the batch spans {float(span.max()):.1f} m, {float(extents.max()) + 1:.0f} cells of"
            f" {size} m; at most {(1 << BITS) - 1} are possible: crop the scene or use a larger grid size"
        )
    return extents.long()


def _distinct(cells: Tensor, scene: Tensor, counts: Sequence[int], levels: int) -> Tensor:
    """int64 (levels, scenes): distinct cells of every scene, at this level and at coarser ones; anything for a scene
    without rows, or where a cell is not within 0..65535."""
    low = (1 << BITS) - 1
    code = (scene << 3 * BITS | z_code(cells & low)).sort().values
    digits = send(3 * torch.arange(levels), cells.device)
    begins = (code[1:] ^ code[:-1]) >> digits[:, None] != 0  # a row begins another cell than the one before
    before = functional.pad(begins.cumsum(1), (1, 0))
    ends = np.cumsum(counts)
    first = np.minimum(ends - np.array(counts), len(cells) - 1)
    place = send_table([first, np.maximum(ends - 1, 0)], cells.device)
    found = before[:, place]
    return found[:, 1] - found[:, 0] + 1


def _ask(values: Tensor, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """(values as float64 on the CPU, 0 for scenes without rows; rows of every scene at every level), in one go."""
    fetched = torch.cat((values.double().flatten(), rows.double().flatten())).cpu()
    there = torch.tensor(counts) > 0
    number = torch.where(there, fetched[values.numel() :].view(rows.shape), 0).long()
    values = fetched[: values.numel()].view(values.shape)
    return torch.where(there[:, None], values, 0), tuple(tuple(level) for level in number.tolist())


def _extreme(values: Tensor, scene: Tensor, scenes: int, how: str) -> Tensor:
    """Least or greatest values (N, 3) of every scene, 0 for a scene without rows."""
    index = scene[:, None].expand_as(values)
    return values.new_zeros(scenes, 3).scatter_reduce_(0, index, values, how, include_self=False)


def _group(scene: Tensor, cells: Tensor, groups: int, ties: Tensor | None = None) -> Groups:
    """Rows grouped by scene and cell, of which there are `groups`, in this order; members in the order of `ties`, or of
    their numbers."""
    code = scene
    for axis in range(3):
        code = code << BITS | cells[:, axis]
    code, members = sorted_rows(code, ties)
    group = functional.pad((code[1:] != code[:-1]).cumsum(0), (1, 0))
    number = torch.arange(len(code) + 1, device=code.device)
    begin = torch.searchsorted(group, number[: groups + 1])
    inverse, place = torch.empty_like(members), torch.empty_like(members)
    inverse[members], place[members] = group, number[:-1]
    return Groups(inverse=inverse, members=members, place=place, sizes=begin.diff(), first=members[begin[:-1]])


def _lexicographic(xyz: Tensor) -> Tensor:
    """The order of points by x, then y, then z."""
    order = xyz[:, 2].argsort(stable=True)
    for axis in (1, 0):
        order = sorted_rows(xyz[:, axis], order)[1]
    return order


def _voxels(distinct: Tensor, extents: Tensor) -> Any:
    a, b, c = (int(v) + 1 for v in extents.amax(0))
    if distinct.device.type == "cpu":  # CUDA counts such cells in 64 bits where it must
        padded((a, b, c), 1, len(extents))
    nothing = torch.zeros(len(distinct), 1, device=distinct.device)
    return sparse.sparse_tensor(nothing, distinct.int(), (a, b, c), len(extents))


# Moving rows


class _Reorder(torch.autograd.Function):
    """Rows in another order. Back they come by a gather as well: torch's own would sort, or add atomically."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Spread(torch.autograd.Function):
    """Groups -> rows; back, the sum over a group's rows, always in the same order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Groups) -> Tensor:
        ctx.save_for_backward(groups.members, groups.sizes)
        return x.index_select(0, groups.inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        members, sizes = ctx.saved_tensors
        rows = grad.index_select(0, members)
        return torch.segment_reduce(rows, "sum", lengths=sizes, axis=0, unsafe=True), None
