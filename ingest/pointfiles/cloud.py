"""What the formats have in common: columns of numbers -> a cloud of points with the fields of the contract.

Writers agree on little. Colours are 0..255, 0..65535 or 0..1, and eight-bit values stand in sixteen-bit fields; the
rule used here looks at the largest value of the file:

  integers   below 256: as they are; up to 65535: the high byte
  floats     up to 1: times 255; up to 255: rounded; up to 65535: the high byte

Fields that are zero throughout are what writers put where they have nothing, so they are absent. Values that cannot be
what their name says (negative colours, infinite intensities) make the field absent and are counted in `dropped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from shards.scene import UNLABELLED, Float32, Float64
from shards.taxonomy import taxonomy

MAX_POINTS = 100_000_000
"""One scene: 2.4 GB of coordinates while it is read."""
TAXONOMY = "asprs"
WEEK_S = 604_800
Number = TypeVar("Number", np.uint8, np.uint16)
Columns: TypeAlias = Mapping[str, NDArray[Any]]
ALIASES = {
    "red": ("red", "r", "diffuse_red"),
    "green": ("green", "g", "diffuse_green"),
    "blue": ("blue", "b", "diffuse_blue"),
    "intensity": ("intensity", "reflectance", "reflectivity"),
    "nx": ("nx", "normal_x"),
    "ny": ("ny", "normal_y"),
    "nz": ("nz", "normal_z"),
    "classification": ("classification",),
    "return_number": ("returnnumber", "return_number"),
    "return_count": ("numberofreturns", "number_of_returns"),
    "time": ("gpstime", "gps_time"),
    "ring": ("ring",),
}


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """N points as a file gives them.

    Attributes:
        xyz: float64 (N, 3), the file's coordinates in metres, finite.
        color: uint8 (N, 3) or None.
        normal: float32 (N, 3), unit length or zero, or None.
        intensity: float32 (N,), finite, or None; its unit is "unit" (0..1) or "raw".
        classes: int16 (N,) ASPRS class ids, or None.
        ring: uint16 (N,), laser beam, or None.
        return_number, return_count: uint8 (N,), from 1 (0 unknown), or None.
        time_offset: float32 (N,), seconds after the earliest point, or None.
        timestamp_ns: time of the earliest point, nanoseconds of GPS time since 1980-01-06, or None.
        world_crs: name of the coordinate system, as text.
        metres_per_unit: what `xyz` was multiplied with.
        dropped: what was left out and how often.
    """

    xyz: Float64
    color: NDArray[np.uint8] | None = None
    normal: Float32 | None = None
    intensity: Float32 | None = None
    intensity_unit: str = "raw"
    classes: NDArray[np.int16] | None = None
    ring: NDArray[np.uint16] | None = None
    return_number: NDArray[np.uint8] | None = None
    return_count: NDArray[np.uint8] | None = None
    time_offset: Float32 | None = None
    timestamp_ns: int | None = None
    world_crs: str | None = None
    metres_per_unit: float = 1.0
    dropped: Mapping[str, int]

    def take(self, chosen: NDArray[np.bool_]) -> Cloud:
        """The chosen ones of the points; `dropped` stays that of the whole."""
        arrays: dict[str, Any] = {k: v[chosen] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **arrays)


def from_columns(table: Columns, metres_per_unit: float) -> Cloud:
    """The cloud of a table whose columns x, y, z exist; case and CloudCompare's prefix `scalar_` do not matter.

    Args:
        table: name -> (N,) numbers.
    """
    named = {name.lower().removeprefix("scalar_"): column for name, column in table.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        xyz = np.stack([named[axis].astype(np.float64) for axis in "xyz"], axis=1) * metres_per_unit
    good = np.logical_and.reduce([np.isfinite(xyz[:, axis]) for axis in range(3)])
    dropped: Counter[str] = Counter()
    if not good.all():
        dropped["non-finite points"] = int((~good).sum())
        xyz, named = xyz[good], {name: column[good] for name, column in named.items()}
    intensity, unit = intensity_floats(_pick(named, "intensity"), dropped)
    classes = _pick(named, "classification")
    if any(name in named for name in ("label", "class", "semantic")):
        dropped["labels of no known class set"] = 1
    return Cloud(
        xyz=xyz,
        color=color_bytes(_stack(named, "red", "green", "blue"), dropped),
        normal=_normals(_stack(named, "nx", "ny", "nz"), dropped),
        intensity=intensity,
        intensity_unit=unit,
        classes=None if classes is None else asprs_classes(classes),
        ring=_whole_numbers(_pick(named, "ring"), np.uint16),
        return_number=_whole_numbers(_pick(named, "return_number"), np.uint8),
        return_count=_whole_numbers(_pick(named, "return_count"), np.uint8),
        time_offset=time_floats(_pick(named, "time"), dropped)[0],
        metres_per_unit=metres_per_unit,
        dropped=dropped,
    )


def color_bytes(
    values: NDArray[Any] | None, dropped: Counter[str], top: float | None = None
) -> NDArray[np.uint8] | None:
    """Colours (N, 3) of any number type -> uint8, or None where there are none.

    Args:
        top: the largest value of the whole file, where `values` are only a part of it.
    """
    if values is None or not len(values):
        return None
    low, top = float(values.min()), float(values.max()) if top is None else top
    if low == top == 0:
        return None
    if not (low >= 0 and top <= 65535):
        dropped["colours out of range"] = len(values)
        return None
    if top >= 256:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    scale = 255.0 if values.dtype.kind == "f" and top <= 1 else 1.0
    rounded: NDArray[np.uint8] = np.minimum(np.rint(values * scale), 255).astype(np.uint8)
    return rounded


def asprs_classes(raw: NDArray[Any]) -> NDArray[np.int16] | None:
    """Class ids (N,) of LAS -> label set "asprs", UNLABELLED beyond it; None where no point is of a class beyond 1.

    0 and 1 say "never classified" and "unclassified": a file with only these has no labels.
    """
    with np.errstate(invalid="ignore"):
        known = (raw >= 0) & (raw < len(taxonomy(TAXONOMY).classes)) & (raw == np.rint(raw))
    classes = np.where(known, raw, UNLABELLED).astype(np.int16)
    return classes if classes.max(initial=0) > 1 else None


def _pick(named: Columns, field: str) -> NDArray[Any] | None:
    return next((named[alias] for alias in ALIASES[field] if alias in named), None)


def _stack(named: Columns, *fields: str) -> NDArray[Any] | None:
    columns = [column for field in fields if (column := _pick(named, field)) is not None]
    return np.stack(columns, axis=1) if len(columns) == len(fields) else None


def _whole_numbers(raw: NDArray[Any] | None, dtype: type[Number]) -> NDArray[Number] | None:
    """A column as unsigned integers; None where it is absent, zero throughout, or holds anything else."""
    if raw is None or not raw.any() or not ((raw >= 0) & (raw <= np.iinfo(dtype).max) & (raw == np.rint(raw))).all():
        return None
    return raw.astype(dtype)


def intensity_floats(raw: NDArray[Any] | None, dropped: Counter[str]) -> tuple[Float32 | None, str]:
    """Intensities (N,) as float32 and their unit: "unit" for floats within 0..1, else "raw" (the vendor's own)."""
    if raw is None or not raw.any():
        return None, "raw"
    with np.errstate(over="ignore"):
        values: Float32 = raw.astype(np.float32)
    if not np.isfinite(values).all():
        dropped["intensities that are not finite"] = int((~np.isfinite(values)).sum())
        return None, "raw"
    normalised = raw.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    return values, "unit" if normalised else "raw"


def time_floats(raw: NDArray[Any] | None, dropped: Counter[str]) -> tuple[Float32 | None, float | None]:
    """Times (N,) in seconds -> float32 seconds after the earliest one, and that one; None where there are none.

    float32 is good to 0.03 s within a week and to 0.2 ms within an hour; times that span more than a week are left out.
    """
    if raw is None or not raw.any():
        return None, None
    if not np.isfinite(raw).all():
        dropped["times that are not finite"] = int((~np.isfinite(raw)).sum())
        return None, None
    first = float(raw.min())
    with np.errstate(over="ignore"):
        span = float(raw.max()) - first
        offsets: Float32 = (raw - first).astype(np.float32)
    if not span <= WEEK_S:
        dropped["times that span more than a week"] = len(raw)
        return None, None
    return offsets, first


def gps_ns(adjusted_s: float) -> int | None:
    """Adjusted standard GPS time (seconds since 1980-01-06 minus 1e9) -> nanoseconds since 1980-01-06; None beyond."""
    return round(adjusted_s * 1e9) + 10**18 if abs(adjusted_s) < 8e9 else None


def _normals(raw: NDArray[Any] | None, dropped: Counter[str]) -> Float32 | None:
    """Unit length; (0, 0, 0) for vectors that have no direction, which are counted."""
    if raw is None or not raw.any():
        return None
    vectors = raw.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    usable = np.isfinite(length) & (length > 1e-6)
    if not usable.all():
        dropped["normals without direction"] = int((~usable).sum())
    normals = np.divide(vectors, length, out=np.zeros_like(vectors), where=usable)
    return normals.astype(np.float32) if usable.any() else None
