"""Walks: along a space-filling curve the rows of a scene form a sequence, cut into patches that attend to each other.

Patches never reach across scenes. What follows from the numbers of rows alone is worked out on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brickyard.train.models.serialization import BITS, Order, encode_all
from brickyard.train.transfer import send, send_table


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One curve through a level, cut into patches; entries are rows.

    Attributes:
        full: int64 (F, patch), the patches of scenes with at least `patch` rows. Where the last one of a scene runs
            out of rows, it borrows those at the same places of the patch before, as further context.
        short: int64 (S, L), the scenes with fewer rows, a patch each, filled up with their own last row.
        real: bool (S, L), False where `short` is such filling, to which nobody may attend; None where there is none.
        rows: int64 (slots,), `full` and `short` flattened one after the other.
        slot: int64 (V,), where each row stands for itself in `rows`.
        borrowed: int64 (B,), the slots of borrowed rows; no row is borrowed twice. lent: int64 (B,), these rows.
    """

    full: Tensor
    short: Tensor
    real: Tensor | None
    rows: Tensor
    slot: Tensor
    borrowed: Tensor
    lent: Tensor


@dataclass(frozen=True, kw_only=True)
class Walking:
    """How walks are made.

    Attributes:
        orders: their curves.
        patch: rows that attend to each other.
        shared: whether all scenes count their cells from the batch's minimum and use the bits of the largest.
        shrink: whether no patch has more rows than the smallest scene.
    """

    orders: tuple[Order, ...]
    patch: int
    shared: bool = False
    shrink: bool = False


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How any walk of a level is cut, counted along it.

    Attributes:
        order: int64 (slots,), the place along the walk of what stands in each slot. slot, borrowed, real: see `Walk`.
        full, short: (patches, length) of the patches.
    """

    order: Tensor
    slot: Tensor
    borrowed: Tensor
    real: Tensor | None
    full: tuple[int, int]
    short: tuple[int, int]


def walks(
    cells: Tensor,
    scene: Tensor,
    counts: tuple[int, ...],
    extents: Tensor,
    *,
    walking: Walking,
    ties: Tensor | None = None,
) -> tuple[Walk, ...]:
    """A walk along every curve. Each scene's grid has one bit more than it must have if it is full to the last cell."""
    depth = [int(extent + 1).bit_length() for extent in extents.amax(1).tolist()]
    bits: int | Tensor = max(depth)
    if len(set(depth)) > 1 and not walking.shared:
        bits = send_table(depth, cells.device)[scene]
    layout = _layout(counts, min(walking.patch, *counts) if walking.shrink else walking.patch, scene)
    curves = encode_all(cells, walking.orders, bits, max(depth))
    _, along = sorted_rows(scene << 3 * BITS | curves, ties)
    rows = along[:, layout.order]
    slot = torch.empty_like(along).scatter_(1, along, layout.slot.expand_as(along))
    lent, split = rows[:, layout.borrowed], layout.full[0] * layout.full[1]
    return tuple(
        Walk(
            full=rows[i, :split].view(layout.full),
            short=rows[i, split:].view(layout.short),
            real=layout.real,
            rows=rows[i],
            slot=slot[i],
            borrowed=layout.borrowed,
            lent=lent[i],
        )
        for i in range(len(rows))
    )


def _layout(counts: tuple[int, ...], patch: int, scene: Tensor) -> _Layout:
    """What follows from the numbers of rows alone is worked out on the host."""
    device, rows = scene.device, np.array(counts)
    start = rows.cumsum() - rows
    slots = np.where(rows >= patch, -(-rows // patch) * patch, 0)
    few = np.flatnonzero((rows < patch) & (rows > 0))
    total, width = int(slots.sum()), int(rows[few].max(initial=0))
    begin = slots.cumsum() - slots
    begin[few] = total + np.arange(len(few)) * width
    short = start[few, None] + np.minimum(np.arange(width), rows[few, None] - 1)
    real = None if len(set(rows[few])) < 2 else send(torch.from_numpy(np.arange(width) < rows[few, None]), device)

    table = send_table([begin - start, begin + rows, slots], device)
    owner = torch.repeat_interleave(table[2], output_size=total)
    shift, end = table[:2, owner]
    place = torch.arange(max(total, len(scene)), device=device)
    full = place[:total] - shift - patch * (place[:total] >= end)
    return _Layout(
        order=torch.cat((full, send_table(short.ravel(), device))),
        slot=place[: len(scene)] + table[0][scene],
        borrowed=send_table(_ranges(begin + rows, (slots - rows) * (slots > 0)), device),
        real=real,
        full=(total // patch, patch),
        short=short.shape,
    )


def _ranges(begin: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Several ranges of numbers one after the other."""
    shift: NDArray[np.int64] = np.repeat(begin - (sizes.cumsum() - sizes), sizes)
    return shift + np.arange(len(shift))


def sorted_rows(key: Tensor, ties: Tensor | None) -> tuple[Tensor, Tensor]:
    """(sorted keys (..., N), rows by ascending key); rows with equal keys in the order of `ties`, or of their
    numbers."""
    key = key if ties is None else key[..., ties]
    if key.dim() > 1 and key.device.type == "cpu":  # there, radix sort is for single rows
        key, order = (torch.stack(part) for part in zip(*(row.sort(stable=True) for row in key), strict=True))
    else:
        key, order = key.sort(dim=-1, stable=True)
    return key, order if ties is None else ties[order]
