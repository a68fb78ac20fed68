"""Velodyne scans: float32 little-endian x, y, z (metres), reflectance (0..1); 16 bytes a point and no header.

Costs one read of the file (about 2 MB) and half a millisecond for its columns: numpy is quick on long runs, not on rows
of four. Without a header, only the size and the values themselves can tell a damaged file: records that cannot be
measurements are dropped and counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ingest.source import RawFiles
from shards.scene import Points

POINT_BYTES = 16
MAX_SCAN_BYTES = 64 << 20  # 4 M points; a 64-beam turn has about 130 k
_MAX_COORDINATE = 1000.0  # metres; the HDL-64E reaches 120


def read_scan(files: RawFiles, path: str) -> tuple[Points, dict[str, int]]:
    """Points of a scan in file order, in the velodyne frame, and what was dropped (reason -> count).

    Raises:
        RawDataError: as `read_scan_and_mask`.
    """
    points, _, dropped = read_scan_and_mask(files, path)
    return points, dropped


def read_scan_and_mask(files: RawFiles, path: str) -> tuple[Points, NDArray[np.bool_], dict[str, int]]:
    """The same, with a mask over the file's records that is True where a point was kept: for labels, one a record.

    Raises:
        RawDataError: missing, empty or truncated file, or no usable point in it.
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
    columns = np.frombuffer(data, "<f4").reshape(-1, 4).T
    mask, counts = _usable(columns)
    if counts:
        columns = columns[:, mask]
    if not columns.size:
        raise files.error(path, f"none of {len(mask)} points is usable (finite, within {_MAX_COORDINATE:.0f} m)")
    xyz = np.empty((columns.shape[1], 3), np.float32)
    for axis in range(3):  # as one transposed copy this takes seven times as long
        xyz[:, axis] = columns[axis]
    return Points(xyz=xyz, intensity=columns[3].copy(), intensity_unit="unit"), mask, counts


def _usable(columns: NDArray[np.float32]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which of the records, float32 (4, N), can be measurements, bool (N,); and reason -> count for the others."""
    far, strength = columns[:3], columns[3]
    near = all(axis.max() <= _MAX_COORDINATE and axis.min() >= -_MAX_COORDINATE for axis in far)  # False for NaN
    if near and strength.min() >= 0 and strength.max() <= 1:
        return np.ones(columns.shape[1], np.bool_), {}
    finite = np.isfinite(columns).all(axis=0)
    with np.errstate(invalid="ignore"):
        possible = (np.abs(far) <= _MAX_COORDINATE).all(axis=0) & (strength >= 0) & (strength <= 1)
    mask = finite & possible
    counts = {"non-finite points": int((~finite).sum()), "impossible points": int((finite & ~possible).sum())}
    return mask, {reason: count for reason, count in counts.items() if count}
