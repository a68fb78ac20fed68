"""Velodyne scans: float32 little-endian x, y, z (metres), reflectance (0..1); 16 bytes a point and no header.

Costs one read of the file (about 2 MB) and a copy of its columns. Without a header, only the size and the values
themselves can tell a damaged file: records that cannot be measurements are dropped and counted.
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
    records = np.frombuffer(data, "<f4").reshape(-1, 4)
    finite = np.isfinite(records).all(axis=1)
    with np.errstate(invalid="ignore"):
        possible = (np.abs(records[:, :3]) <= _MAX_COORDINATE).all(axis=1)
        possible &= (records[:, 3] >= 0) & (records[:, 3] <= 1)
    mask = finite & possible
    kept = records[mask]
    if not len(kept):
        raise files.error(path, f"none of {len(records)} points is usable (finite, within {_MAX_COORDINATE:.0f} m)")
    counts = {"non-finite points": int((~finite).sum()), "impossible points": int((finite & ~possible).sum())}
    points = Points(
        xyz=np.ascontiguousarray(kept[:, :3], np.float32),
        intensity=np.ascontiguousarray(kept[:, 3], np.float32),
        intensity_unit="unit",
    )
    return points, mask, {reason: count for reason, count in counts.items() if count}
