"""Raw numbers -> fields of the contract: the rules that all formats share.

Writers agree on little. Colours are 0..255, 0..65535 or 0..1, and eight-bit values stand in sixteen-bit fields; the
rule used here looks at the largest value of the file:

  integers   below 256: as they are; up to 65535: the high byte
  floats     up to 1: times 255; up to 255: rounded; up to 65535: the high byte

Interpolated floats leave their range a little at both ends: up to a tenth beyond it they are clipped, and counted.
Between the ranges (1.1 to 16, 280 to 4096) broken numbers tell of no range at all, so there the field is absent.

Fields that are zero throughout are what writers put where they have nothing, so they are absent. Values that cannot be
what their name says (negative colours, infinite intensities) make the field absent. What is lost is counted in
`dropped`, all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.scene import UNLABELLED, Float32
from brickyard.shards.taxonomy import taxonomy

WEEK_S = 604_800
SLACK = 0.1
"""Share of its range by which a float may leave it."""
RANGES = ((1.0, 0.0), (255.0, 16.0), (65535.0, 4096.0))
"""Of colours as floats: largest value, and the least largest value of a file with broken numbers."""
UNKNOWN_LABELS = "labels of no known class set"
PIECE = 8192
"""Points that are computed with at a time, so that what comes in between stays in the processor's cache."""
Number = TypeVar("Number", np.uint8, np.uint16)


def color_bytes(
    values: NDArray[Any] | None, dropped: Counter[str], top: float | None = None
) -> NDArray[np.uint8] | None:
    """Colours (N, 3) of any number type -> uint8, or None where there are none.

    Args:
        top: the largest value of the whole file, where `values` are only a part of it.
    """
    if values is None or not len(values):
        return None
    if values.dtype == np.uint8:
        return values if top or values.any() else None
    low, top = float(values.min()), float(values.max()) if top is None else top
    if low == top == 0:
        return None
    if values.dtype.kind == "f":
        return _float_colors(values, low, top, dropped)
    if not (low >= 0 and top <= 65535):
        dropped["colours out of range"] += len(values)
        return None
    return (values.astype(np.uint16, copy=False) >> 8 if top >= 256 else values).astype(np.uint8)


def _float_colors(values: NDArray[Any], low: float, top: float, dropped: Counter[str]) -> NDArray[np.uint8] | None:
    limit, least = next(((limit, least) for limit, least in RANGES if top <= limit * (1 + SLACK)), (0.0, 0.0))
    if not (limit and low >= -SLACK * limit):
        dropped["colours out of range"] += len(values)
        return None
    if top < least and not (values == np.rint(values)).all():
        dropped["colours of no known range"] += len(values)
        return None
    if low < 0 or top > limit:
        dropped["colours a little out of range: clipped"] += int(((values < 0) | (values > limit)).any(axis=1).sum())
        values = np.clip(values, 0, limit)
    if limit > 255:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    rounded: NDArray[np.uint8] = np.rint(values * (255.0 if limit == 1 else 1.0)).astype(np.uint8)
    return rounded


def splat_colors(values: NDArray[Any] | None, dropped: Counter[str]) -> NDArray[np.uint8] | None:
    """Colours of 3D Gaussians (N, 3): spherical harmonics of degree 0 (Kerbl et al., 2023), as seen from all sides."""
    if values is None or not len(values):
        return None
    if not np.isfinite(values).all():
        dropped["colours out of range"] += len(values)
        return None
    shown: NDArray[np.uint8] = np.rint(np.clip(0.5 + 0.28209479177387814 * values, 0, 1) * 255).astype(np.uint8)
    return shown


def unpacked_colors(raw: NDArray[Any], dropped: Counter[str], *, text: bool) -> NDArray[np.uint8]:
    """Colours (N, 3) from packed ones (N,): 0x00RRGGBB as an integer, or as the bits of a float32.

    A NaN is where a writer had no colour; it becomes black and is counted. As text any NaN is one. In binary only the
    usual NaN is: an opaque colour (alpha 255) may have the bits of the others.
    """
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            bits = raw.astype(np.float32).view(np.uint32)
        absent = np.isnan(raw) if text else bits == 0x7FC00000
        if absent.any():
            dropped["packed colours that are no numbers: black"] += int(absent.sum())
            bits = np.where(absent, np.uint32(0), bits)
    else:
        bits = (raw.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
    return np.stack([(bits >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=1)


def class_ids(raw: NDArray[Any], name: str, dropped: Counter[str]) -> NDArray[np.int16] | None:
    """Raw ids (N,) -> ids of the label set `name`; None where it knows none of them.

    Ids beyond the label set (user classes of LAS) become UNLABELLED and are counted. 0 and 1 of "asprs" say "never
    classified" and "unclassified": a file with only these has no labels.
    """
    from_raw = taxonomy(name).from_raw
    keys = np.array(sorted(from_raw))
    values = np.array([from_raw[key] for key in keys.tolist()], np.int16)
    if raw.dtype == np.uint8:
        table = np.full(256, UNLABELLED, np.int16)
        table[keys[keys < 256]] = values[keys < 256]
        classes = table.take(raw)
    else:
        place = np.searchsorted(keys, raw).clip(max=len(keys) - 1)
        classes = np.where(keys[place] == raw, values[place], UNLABELLED).astype(np.int16)
    if (unknown := int(np.count_nonzero(classes == UNLABELLED))) > 0:
        dropped[UNKNOWN_LABELS] += unknown
    return classes if classes.max(initial=UNLABELLED) > (1 if name == "asprs" else UNLABELLED) else None


def whole_numbers(
    raw: NDArray[Any] | None, dtype: type[Number], dropped: Counter[str], what: str
) -> NDArray[Number] | None:
    """A column as unsigned integers; None where it is absent, zero throughout, or holds anything else (counted)."""
    if raw is None or not raw.any():
        return None
    with np.errstate(invalid="ignore"):
        good = (raw >= 0) & (raw <= np.iinfo(dtype).max) & (raw == np.rint(raw))
    if not good.all():
        dropped[f"{what} out of range"] += int((~good).sum())
        return None
    return raw.astype(dtype)


def intensity_floats(raw: NDArray[Any] | None, dropped: Counter[str]) -> tuple[Float32 | None, str]:
    """Intensities (N,) as float32 and their unit: "unit" for floats within 0..1, else "raw" (the vendor's own)."""
    if raw is None or not raw.any():
        return None, "raw"
    with np.errstate(over="ignore"):
        values: Float32 = raw.astype(np.float32)
    if raw.dtype.kind == "f" and not np.isfinite(values).all():
        dropped["intensities that are not finite"] += int((~np.isfinite(values)).sum())
        return None, "raw"
    normalised = raw.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    return values, "unit" if normalised else "raw"


def time_floats(raw: NDArray[Any] | None, dropped: Counter[str]) -> tuple[Float32 | None, float | None]:
    """Times (N,) in seconds -> float32 seconds after the earliest one, and that one; None where there are none.

    float32 is good to 0.03 s within a week and to 0.2 ms within an hour; times that span more than a week are left out.
    """
    if raw is None or not len(raw):
        return None, None
    first, last = float(raw.min()), float(raw.max())
    if first == last == 0:
        return None, None
    if not (isfinite(first) and isfinite(last)):
        dropped["times that are not finite"] += int((~np.isfinite(raw)).sum())
        return None, None
    with np.errstate(over="ignore"):
        span = last - first
        offsets: Float32 = (raw - first).astype(np.float32)
    if not span <= WEEK_S:
        dropped["times that span more than a week"] += len(raw)
        return None, None
    return offsets, first


def gps_ns(adjusted_s: float) -> int | None:
    """Adjusted standard GPS time (seconds since 1980-01-06 minus 1e9) -> nanoseconds since 1980-01-06; None beyond."""
    return round(adjusted_s * 1e9) + 10**18 if abs(adjusted_s) < 8e9 else None


def unit_normals(raw: Sequence[NDArray[Any]], dropped: Counter[str]) -> Float32 | None:
    """Three columns (N,), or none -> (N, 3) of unit length; (0, 0, 0) for what has no direction, which is counted."""
    if not any(column.any() for column in raw):
        return None
    normals = np.zeros((len(raw[0]), 3), np.float32)
    unusable = 0
    for start in range(0, len(normals), PIECE):
        piece = slice(start, start + PIECE)
        with np.errstate(over="ignore", invalid="ignore"):
            x, y, z = (column[piece].astype(np.float64) for column in raw)
            length = np.sqrt(x * x + z * z + y * y)
        usable: Any = True
        if not (length.min() > 1e-6 and length.max() < np.inf):
            usable = np.isfinite(length) & (length > 1e-6)
            unusable += int(np.count_nonzero(~usable))
        for axis, column in enumerate((x, y, z)):
            normals[piece, axis] = np.divide(column, length, out=np.zeros_like(length), where=usable)
    if unusable:
        dropped["normals without direction"] += unusable
    return normals if unusable < len(normals) else None
