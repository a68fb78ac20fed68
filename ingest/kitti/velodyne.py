"""Velodyne scans: float32 little-endian x, y, z (metres), reflectance (0..1); 16 bytes a point and no header.

Costs one read of the file (about 2 MB) and as long again for its columns. Without a header, only the size and the
values themselves can tell a damaged file: records that cannot be measurements are dropped and counted, and where they
are not a few among many, the scan is refused.

KITTI's reflectance is 0..1. Scans that others wrote in this layout may hold 0..255 or anything else: they are refused
until `intensity_unit` says what it is, since a dark scan alone would look like reflectance.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import blank_records
from brickyard.ingest.rows import split, within
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import Float32, Points

POINT_BYTES = 16
MAX_SCAN_BYTES = 64 << 20  # 4 M points; a 64-beam turn has about 130 k
_MAX_COORDINATE = 1000.0  # metres; the HDL-64E reaches 120
_MAX_STRANGE = 0.05
"""Share of intensities beyond their unit from which on the unit is wrong, not the points."""

IntensityUnit: TypeAlias = Literal["unit", "byte", "raw"]
_TOP = {"unit": 1.0, "byte": 255.0}


def check_unit(unit: str) -> None:
    """Raise `RecipeError` unless it is "unit", "byte" or "raw"."""
    if unit not in get_args(IntensityUnit):
        raise RecipeError(f"intensity_unit must be {', '.join(get_args(IntensityUnit))}, found {unit!r}")


def read_scan(files: RawFiles, path: str) -> tuple[Points, dict[str, int]]:
    """Points of a scan in file order, in the velodyne frame, and what was dropped (reason -> count).

    Raises:
        RawDataError: as `read_scan_and_mask`.
    """
    points, _, dropped = read_scan_and_mask(files, path)
    return points, dropped


def read_scan_and_mask(files: RawFiles, path: str) -> tuple[Points, NDArray[np.bool_], dict[str, int]]:
    """The same, with a mask over the file's records that is True where a point was kept: for labels, one a record.

    The unit of the intensities is `SceneRef.details["intensity_unit"]`.

    Raises:
        RawDataError: missing, empty or truncated file, intensities of another unit, or hardly a usable point.
    """
    data = files.read(path, limit=MAX_SCAN_BYTES)
    if not data:
        raise files.error(path, "the scan is empty", hint="download it again")
    if len(data) % POINT_BYTES:
        whole = len(data) - len(data) % POINT_BYTES
        raise files.error(
            path, f"{len(data)} bytes are no multiple of {POINT_BYTES}: the last point is cut off", offset=whole,
            hint="the file is truncated; download it again",
        )  # fmt: skip
    unit = files.ref.details["intensity_unit"]
    records = np.frombuffer(data, "<f4").reshape(-1, 4)
    blank = blank_records(data, POINT_BYTES)
    xyz, (strength,) = split(records)
    if not blank.any() and within(records, _MAX_COORDINATE) and _usual(strength, unit):
        return Points(xyz=xyz, intensity=strength, intensity_unit=unit), np.ones(len(records), np.bool_), {}
    mask, counts = _usable(files, path, records.T, blank, unit)
    if counts:
        xyz, (strength,) = split(records[mask])
    if 2 * len(xyz) < len(mask):
        kept = f"only {len(xyz)}" if len(xyz) else "none"
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise files.error(path, f"{kept} of {len(mask)} points is usable: {reasons}", hint="download it again")
    return Points(xyz=xyz, intensity=strength, intensity_unit=unit), mask, counts


def _usual(strength: Float32, unit: IntensityUnit) -> bool:
    """Whether finite intensities are certainly of their unit: what `_usable` would find, by two numbers."""
    low, high = strength.min(), strength.max()
    return unit == "raw" or bool(low >= 0 and high <= _TOP[unit] and (unit == "unit" or high > 1))


def _usable(
    files: RawFiles, path: str, columns: NDArray[np.float32], blank: NDArray[np.bool_], unit: IntensityUnit
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which of the records, float32 (4, N), can be measurements, bool (N,); and reason -> count for the others."""
    place, strength = columns[:3], columns[3]
    top = _TOP.get(unit, np.inf)
    finite = np.isfinite(columns).all(axis=0)
    with np.errstate(invalid="ignore"):
        near = (np.abs(place) <= _MAX_COORDINATE).all(axis=0)
        strange = (strength < (0 if unit in _TOP else -np.inf)) | (strength > top)
    left = finite & ~blank & near
    _check_strength(files, path, strength[left], unit, strange[left])
    counts = {
        "points in a lost block (zeros)": int(blank.sum()),
        "non-finite points": int((~blank & ~finite).sum()),
        f"points beyond {_MAX_COORDINATE:.0f} m": int((~blank & finite & ~near).sum()),
        f"intensities beyond 0..{top:.0f}": int((left & strange).sum()),
    }
    return left & ~strange, {reason: count for reason, count in counts.items() if count}


def _check_strength(
    files: RawFiles, path: str, strength: NDArray[np.float32], unit: IntensityUnit, strange: NDArray[np.bool_]
) -> None:
    """Raise `RawDataError` where the intensities as a whole are of another unit."""
    if strange.sum() > _MAX_STRANGE * len(strange):
        raise files.error(
            path, f"{strange.mean():.0%} of the intensities lie beyond 0..{_TOP[unit]:.0f} "
            f"({strength.min():g} to {strength.max():g})",
            hint="say what they are: the option intensity_unit is unit (0..1), byte (0..255) or raw",
        )  # fmt: skip
    if unit == "byte" and len(strength) and 0 < strength.max() <= 1 and (strength % 1).any():
        raise files.error(path, f"the intensities are 0..{strength.max():g}, intensity_unit says byte (0..255)",
                          hint="leave the option out for these scans")  # fmt: skip
