"""The .npy format without pickle: a header that numpy would write, a size that is the file's, numbers and nothing else.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. It has no checksum, so a lost block
(see `ingest.blank`) reads as zeros: `lost_rows` finds them where zeros are no values, `whole_pages` where they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE, blank_records, zero_runs
from brickyard.ingest.source import RawFiles

MAX_POINTS = 1 << 28
MAX_HEADER = 4096

_HEADER = re.compile(
    rb"\{ *'descr' *: *'([<>|=]?(?:f[248]|[iu][1248]))' *, *'fortran_order' *: *(True|False) *, "
    rb"*'shape' *: *\(([0-9, ]*)\) *,? *\} *\n?"
)


_KINDS = {"f": "floats", "iu": "whole numbers", "fiu": "numbers"}
Shape = tuple[int | None, ...]


def read_npy(files: RawFiles, role: str, shapes: Sequence[Shape], kinds: str) -> NDArray[Any]:
    """The array of a .npy file, in native byte order.

    Args:
        shapes: of which it must have one; None allows any length but 0.
        kinds: allowed kinds of dtype, of "f", "i", "u".

    Raises:
        RawDataError: another header, shape or size, or an array of objects.
    """
    path = files.ref.files[role]
    data = files.read(path)
    start = {1: 10, 2: 12, 3: 12}.get(data[6] if len(data) > 6 else 0, 0)
    if data[:6] != b"\x93NUMPY" or not start or len(data) < start:
        raise files.error(path, "is no .npy file of version 1 to 3", offset=0)
    length = int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start : start + length]) if length <= MAX_HEADER else None
    if header is None:
        raise files.error(path, "the header is not one of an array of numbers", offset=start,
                          hint="save it with numpy.save(path, array, allow_pickle=False)")  # fmt: skip
    dtype = np.dtype(header[1].decode())
    sizes = [int(text) for text in header[3].decode().split(",") if text.strip().isdigit()]
    if not any(_fits(sizes, shape) for shape in shapes) or dtype.kind not in kinds or max(sizes) > MAX_POINTS:
        wanted = " or ".join(str(tuple("N" if n is None else n for n in shape)).replace("'", "") for shape in shapes)
        raise files.error(path, f"holds {dtype} {tuple(sizes)}, expected {_KINDS[kinds]} {wanted}", offset=start)
    begin = start + length
    if len(data) - begin != math.prod(sizes) * dtype.itemsize:
        raise files.error(
            path, f"{math.prod(sizes) * dtype.itemsize} bytes must follow the header, {len(data) - begin} do",
            offset=begin, hint="the file is truncated; copy it again",
        )  # fmt: skip
    values = np.frombuffer(data, dtype, offset=begin).reshape(sizes, order="F" if header[2] == b"True" else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _fits(sizes: Sequence[int], shape: Shape) -> bool:
    return len(sizes) == len(shape) and all(n > 0 if w is None else n == w for w, n in zip(shape, sizes, strict=True))


def lost_rows(values: NDArray[Any], least_bytes: int | None = None) -> NDArray[np.bool_]:
    """Which rows of an array from `read_npy` have a part in a run of zero bytes, bool (N,).

    A column of zeros alone (a flat ground in Fortran order) is one of values.
    """
    flat = blank_records(_in_file_order(values), values.itemsize, least_bytes)
    blank = flat.reshape(values.shape) if values.flags.c_contiguous else flat.reshape(values.shape[::-1]).T
    rows: NDArray[np.bool_] = (blank & (values != 0).any(axis=0)).reshape(len(values), -1).any(axis=1)
    return rows


def whole_pages(values: NDArray[Any]) -> int:
    """How many values stand in runs of zeros that are as long as whole pages: for labels, where 0 is a class.

    A wall is a run of any length, a lost block one of 4096 bytes or a multiple (and what is left of the labels at its
    ends). One in 2048 of the long runs of int16 is that long by chance.
    """
    runs = zero_runs(_in_file_order(values), PAGE)
    lengths = runs[:, 1] - runs[:, 0]
    return int((lengths[lengths % PAGE <= 2 * values.itemsize - 2] // values.itemsize).sum())


def _in_file_order(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1) if values.flags.c_contiguous else values.T.reshape(-1)
