"""The points of a keyframe: its LIDAR_TOP sweep with labels, and the sweeps before it, moved into its frame.

A sweep that was taken earlier is carried over by the poses of the car at both times, in float64, the way of the
devkit's `from_file_multisweep`; moving things leave a trail, which is why every point says how much older it is. The
keyframe's points come first and in file order, so they stay aligned with the labels of others.

    scene_from_sweep = world_from_lidar(keyframe)^-1 world_from_lidar(sweep)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import blank_records
from brickyard.ingest.nuscenes.categories import TAXONOMY
from brickyard.ingest.nuscenes.labels import read_lidarseg, read_panoptic
from brickyard.ingest.nuscenes.sensors import world_from_sensor
from brickyard.ingest.rows import split, within
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED, Float32, Float64, Points

POINT_BYTES = 20
MAX_SWEEP_BYTES = 64 << 20
_MAX_COORDINATE = 1000.0  # metres; the HDL-32E reaches 100
_HINT = "the file is truncated; download it again"

Records = NDArray[np.float32]


class _Columns(NamedTuple):
    """Usable points of one sweep: float32 (N, 3), float32 (N,), uint8 (N,)."""

    xyz: Float32
    intensity: Float32
    ring: NDArray[np.uint8]


def read_points(files: RawFiles, scene_from_world: Float64) -> tuple[Points, dict[str, int]]:
    """Points in the keyframe's lidar frame, and what was left out.

    Labels are joined in file order, then the records are dropped that cannot be used. An earlier sweep whose file is
    not there or cut off is left out and counted; the keyframe's must be whole.

    Raises:
        RawDataError: the keyframe's sweep or labels are damaged, or a pose is none.
    """
    dropped: Counter[str] = Counter()
    path = files.ref.files["points"]
    records = _records(files, path)
    semantic, instance = _labels(files, len(records), dropped)
    keep, columns = _usable(files, records, dropped)
    if not len(columns.xyz):
        raise files.error(path, f"none of {len(records)} points is usable (finite, possible, beyond min_range)")
    parts = [columns]
    ages, numbers = [0.0], [0]
    for sweep in files.ref.details["sweeps"]:
        earlier = _read_sweep(files, sweep, dropped)
        if earlier is not None:
            way = scene_from_world @ world_from_sensor(files, sweep["role"], sweep)
            parts.append(earlier._replace(xyz=_moved(earlier.xyz, way)))
            ages.append((sweep["timestamp_ns"] - files.ref.details["lidar"]["timestamp_ns"]) * 1e-9)
            numbers.append(sweep["number"])
    counts = [len(part.xyz) for part in parts]
    if len(parts) > 1:
        columns = _Columns(*map(np.concatenate, zip(*parts, strict=True)))
    several = bool(files.ref.details["several"])
    points = Points(
        xyz=columns.xyz,
        intensity=columns.intensity,
        intensity_unit="byte",
        ring=columns.ring,
        time_offset=np.repeat(np.array(ages, np.float32), counts) if several else None,
        sweep=np.repeat(np.array(numbers, np.uint8), counts) if several else None,
        semantic={} if semantic is None else {TAXONOMY: _padded(semantic, keep, sum(counts), UNLABELLED)},
        instance=None if instance is None else _padded(instance, keep, sum(counts), 0),
    )
    return points, dict(dropped)


def _moved(xyz: Float32, way: Float64) -> Float32:
    """Where points (N, 3) of another sweep are in the scene: computed in float64, rounded once."""
    moved = way[:3, :3] @ np.array(xyz.T, np.float64, order="C") + way[:3, 3:]
    out = np.empty_like(xyz)
    for axis in range(3):
        out[:, axis] = moved[axis]
    return out


def _records(files: RawFiles, path: str) -> Records:
    """All records of a sweep, float32 (n, 5): x, y, z, intensity, ring."""
    data = files.read(path, limit=MAX_SWEEP_BYTES)
    if not data:
        raise files.error(path, "the sweep is empty", hint="download it again")
    if len(data) % POINT_BYTES:
        problem = f"{len(data)} bytes are no multiple of {POINT_BYTES}: the last point is cut off"
        raise files.error(path, problem, offset=len(data) - len(data) % POINT_BYTES, hint=_HINT)
    return np.frombuffer(data, "<f4").reshape(-1, 5)


def _read_sweep(files: RawFiles, sweep: Mapping[str, Any], dropped: Counter[str]) -> _Columns | None:
    """The usable records of an earlier sweep, or None (counted) where its file is missing, empty or cut off."""
    path = files.ref.files[sweep["role"]]
    size = files.store.size(path)
    if size is None:
        dropped["missing sweeps"] += 1
        return None
    if size == 0 or size % POINT_BYTES:
        dropped["truncated sweeps"] += 1
        return None
    return _usable(files, _records(files, path), dropped)[1]


def _usable(files: RawFiles, records: Records, dropped: Counter[str]) -> tuple[NDArray[np.bool_] | None, _Columns]:
    """Which records to keep (None for all, the usual case) and their columns; the others are counted by reason."""
    radius = files.ref.details["min_range"]
    lost = blank_records(records, POINT_BYTES)
    if not lost.any() and (columns := _all_possible(records)) is not None and not _any_within(columns.xyz, radius):
        return None, columns
    finite = np.isfinite(records).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        reachable = (np.abs(records[:, :3]) <= _MAX_COORDINATE).all(axis=1)
        in_bytes = ((records[:, 3:] >= 0) & (records[:, 3:] <= 255)).all(axis=1)
        possible = finite & reachable & in_bytes & (records[:, 4] == np.floor(records[:, 4])) & ~lost
    square = np.square(np.where(possible[:, None], records[:, :3], 0), dtype=np.float64)
    far: NDArray[np.bool_] = square.sum(axis=1) >= radius * radius
    counts = {
        "points in a block of zeros": int(lost.sum()),
        "non-finite points": int((~finite & ~lost).sum()),
        "impossible points": int((finite & ~possible & ~lost).sum()),
        "points within min_range": int((possible & ~far).sum()),
    }
    dropped.update({reason: count for reason, count in counts.items() if count})
    keep: NDArray[np.bool_] = possible & far
    xyz, (intensity, ring) = split(records[keep])
    return keep, _Columns(xyz, intensity, ring.astype(np.uint8))


def _all_possible(records: Records) -> _Columns | None:
    """The columns where all are measurements: within reach, intensity 0..255, ring a whole number 0..255; else None."""
    if not within(records, _MAX_COORDINATE):
        return None
    xyz, (intensity, ring) = split(records)
    if min(intensity.min(), ring.min()) < 0 or max(intensity.max(), ring.max()) > 255:
        return None
    beams = ring.astype(np.uint8)
    return _Columns(xyz, intensity, beams) if (beams == ring).all() else None


def _any_within(xyz: Float32, radius: float) -> bool:
    """Whether a point (N, 3) is closer to the sensor than a radius."""
    if radius == 0:
        return False
    x, y, z = (xyz[:, axis].astype(np.float64) for axis in range(3))
    return bool((x * x + y * y + z * z).min() < radius * radius)


def _labels(
    files: RawFiles, count: int, dropped: Counter[str]
) -> tuple[NDArray[np.int16] | None, NDArray[np.int32] | None]:
    """(classes, instances) in file order: classes of the kind that is preferred, or of the other if only that is."""
    roles = files.ref.files
    semantic = instance = None
    if "panoptic" in roles:
        semantic, instance = read_panoptic(files, roles["panoptic"], count)
    if "lidarseg" in roles and (semantic is None or files.ref.details["semantic"] == "lidarseg"):
        semantic = read_lidarseg(files, roles["lidarseg"], count, dropped)
    return semantic, instance


def _padded(values: NDArray[Any], keep: NDArray[np.bool_] | None, count: int, rest: int) -> NDArray[Any]:
    """Labels of the keyframe's points that are kept, then `rest` for the sweeps', which nobody labelled."""
    kept = values if keep is None else values[keep]
    if len(kept) == count:
        return kept
    return np.concatenate([kept, np.full(count - len(kept), rest, values.dtype)])
