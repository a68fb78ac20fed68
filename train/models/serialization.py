"""Space-filling curves: cells of a grid <-> their positions along a curve, in batched integer arithmetic.

A curve turns a cloud into a sequence whose neighbours are mostly neighbours in space, which is what serialised
attention cuts into patches. Two curves, each also with x and y exchanged ("-trans"):

* z-order (Morton): the bits of x, y, z interleaved, x first.
* Hilbert, after J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707, 381 (2004): consecutive cells
  always share a face.

A z-order position does not depend on how many bits the grid has; a Hilbert position does: with one bit more, the same
cells are walked through with their axes exchanged. The number of bits is therefore an argument and may differ from
point to point, so that every scene of a batch can have its own.

Both are read from tables. Bits of an axis are spread by one look-up. A Hilbert position follows from the z-order one:
going down the octants, the turn of the curve within the octant is a state, of which there are few, so a table tells for
a state and four octants at a time (12 bits) the four digits of the position and the next state. All curves together
take 30 operations. 100,000 cells of 8 bits on one CPU core: z 2 ms, all four 16 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from brickyard.train.transfer import send

Order = Literal["z", "z-trans", "hilbert", "hilbert-trans"]
ORDERS: tuple[Order, ...] = ("z", "z-trans", "hilbert", "hilbert-trans")
BITS = 16
"""The most bits an axis can have: three times as many leave 15 for the number of the scene in an int64."""

_SHIFTS = (32, 16, 8, 4, 2)
_MASKS = (0xFFFF, 0xFFFF, 0xFF0000FF, 0xF00F00F00F, 0xC30C30C30C3, 0x249249249249)


def encode(cells: Tensor, order: Order, bits: int | Tensor = BITS, most: int = BITS) -> Tensor:
    """Positions along a curve, int64 (N,) below 2**(3 * bits).

    Args:
        cells: integers (N, 3), each axis in 0..2**bits - 1 (not checked here).
        order: the curve.
        bits: of the grid, 1..16; one number, or int64 (N,), one for every cell.
        most: no cell's `bits` are more; it saves time to say so.
    """
    return encode_all(cells, (order,), bits, most)[0]


def encode_all(cells: Tensor, orders: Sequence[Order], bits: int | Tensor = BITS, most: int = BITS) -> Tensor:
    """Positions along several curves, int64 (curves, N); arguments as in `encode`."""
    x, y, z = _spread(cells)
    codes: dict[Order, Tensor] = {}
    if {"z", "hilbert"} & set(orders):
        codes["z"] = x << 2 | y << 1 | z
    if {"z-trans", "hilbert-trans"} & set(orders):
        codes["z-trans"] = y << 2 | x << 1 | z
    hilbert: tuple[tuple[Order, Order], ...] = (("hilbert", "z"), ("hilbert-trans", "z-trans"))
    asked = [(curve, base) for curve, base in hilbert if curve in orders]
    if asked:
        found = _walk(torch.stack([codes[base] for _, base in asked]), bits, most, back=False)
        codes |= dict(zip([curve for curve, _ in asked], found, strict=True))
    return torch.stack([codes[order] for order in orders])


def z_code(cells: Tensor) -> Tensor:
    """Morton position of cells (N, 3), int64 (N,): bit k of x, y, z becomes bit 3k + 2, 3k + 1, 3k."""
    x, y, z = _spread(cells)
    return x << 2 | y << 1 | z


def z_cells(codes: Tensor) -> Tensor:
    """The inverse of `z_code`: int64 (N,) -> int64 (N, 3)."""
    return torch.stack([_gather(codes >> shift) for shift in (2, 1, 0)], dim=1)


def hilbert_code(cells: Tensor, bits: int | Tensor = BITS, most: int = BITS) -> Tensor:
    """Hilbert position of cells (N, 3), int64 (N,); `bits` and `most` as in `encode`."""
    return encode(cells, "hilbert", bits, most)


def hilbert_cells(codes: Tensor, bits: int | Tensor = BITS) -> Tensor:
    """The inverse of `hilbert_code`: int64 (N,) -> int64 (N, 3)."""
    return z_cells(_walk(codes, bits, BITS, back=True))


def _walk(codes: Tensor, bits: int | Tensor, most: int, *, back: bool) -> Tensor:
    """Positions along the z-order curve -> along the Hilbert curve, or back; int64 of any shape.

    A curve of fewer bits is the beginning of every position along one of more, so all are taken as of as many bits as
    whole look-ups make.
    """
    steps = -(-(most if isinstance(bits, Tensor) else bits) // _STEP)
    lift = 3 * (_STEP * steps - bits)
    codes, table = codes << lift, _steps(codes.device, back)
    seen = table[codes >> _DIGITS * (steps - 1)]
    found = seen & _LOW
    for step in reversed(range(steps - 1)):
        seen = table[(seen & ~_LOW) | (codes >> _DIGITS * step & _LOW)]
        found = found << _DIGITS | (seen & _LOW)
    return found >> lift


def _spread(cells: Tensor) -> tuple[Tensor, ...]:
    """Bit k of x, y and z, numbers below 2**16, as bit 3k: three int64 (N,)."""
    return _spread_bits(cells.device)[cells.T.long()].unbind(0)


@cache
def _spread_bits(device: torch.device) -> Tensor:
    """int64 (65536,)."""
    x = torch.arange(1 << BITS)
    for shift, mask in zip(_SHIFTS, _MASKS[1:], strict=True):
        x = (x | x << shift) & mask
    return send(x, device)


_STEP = 4
"""Levels in a look-up."""
_DIGITS = 3 * _STEP
_LOW = (1 << _DIGITS) - 1

Turn = tuple[tuple[int, int, int], tuple[int, int, int], int]


@cache
def _steps(device: torch.device, back: bool) -> Tensor:
    """For a state and `_STEP` octants (or, `back`, digits), at place state * 4096 + octants: the digits (or octants) in
    the low 12 bits, the next state above them. int64 (states * 4096,)."""
    states: dict[Turn, int] = {((0, 1, 2), (0, 0, 0), 0): 0}
    digits, following = [], []
    for turn in (queue := list(states)):
        row = [_descend(turn, octant) for octant in range(8)]
        for _, within in row:
            if within not in states:
                states[within] = len(states)
                queue.append(within)
        digits.append([number for number, _ in row])
        following.append([states[within] for _, within in row])
    digit, after = torch.tensor(digits), torch.tensor(following)
    if back:
        place = digit.argsort(1)
        digit, after = place, after.gather(1, place)
    state = torch.arange(len(states))[:, None].expand(-1, 1 << _DIGITS)
    octants, found = torch.arange(1 << _DIGITS).expand_as(state), torch.zeros_like(state)
    for level in reversed(range(_STEP)):
        octant = octants >> 3 * level & 7
        found, state = found << 3 | digit[state, octant], after[state, octant]
    return send((state << _DIGITS | found).flatten(), device)


def _descend(turn: Turn, octant: int) -> tuple[int, Turn]:
    """(digit of the position, turn within the octant) of an octant, x first, of a cube that the curve enters turned.

    A turn says for every axis of Skilling's algorithm which axis of the cube it is by now, whether it is inverted, and
    whether an odd number of its last bits was set further up, which inverts the digit.
    """
    axis, inverted, odd = turn
    bit = [(octant >> 2 - a & 1) ^ i for a, i in zip(axis, inverted, strict=True)]
    places, flips = list(axis), list(inverted)
    for a in range(3):  # where the bit is set, invert x below; else exchange x and this axis below
        if bit[a]:
            flips[0] ^= 1
        else:
            places[0], places[a], flips[0], flips[a] = places[a], places[0], flips[a], flips[0]
    x, y, z = bit[0], bit[0] ^ bit[1], bit[0] ^ bit[1] ^ bit[2]  # Gray code
    digit = (x ^ odd) << 2 | (y ^ odd) << 1 | (z ^ odd)
    return digit, ((places[0], places[1], places[2]), (flips[0], flips[1], flips[2]), odd ^ z)


def _gather(x: Tensor) -> Tensor:
    """Bit 3k -> bit k, k < 16; the other bits are dropped."""
    x = x & _MASKS[-1]
    for shift, mask in zip(reversed(_SHIFTS), reversed(_MASKS[:-1]), strict=True):
        x = (x | x >> shift) & mask
    return x
