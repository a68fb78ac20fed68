"""The points of a keyframe: its LIDAR_TOP sweep with labels, and the sweeps before it, moved into its frame.

A sweep that was taken earlier is carried over by the poses of the car at both times, in float64, the way of the
devkit's `from_file_multisweep`; moving things leave a trail, which is why every point says how much older it is. The
keyframe's points come first and in file order, so they stay aligned with the labels of others.

    scene_from_sweep = world_from_lidar(keyframe)^-1 world_from_lidar(sweep)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import blank_records
from brickyard.ingest.nuscenes.categories import TAXONOMY
from brickyard.ingest.nuscenes.labels import read_lidarseg, read_panoptic
from brickyard.ingest.nuscenes.sensors import world_from_sensor
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED, Float32, Float64, Points

POINT_BYTES = 20
MAX_SWEEP_BYTES = 64 << 20
_MAX_COORDINATE = 1000.0  # metres; the HDL-32E reaches 100
_HINT = "the file is truncated; download it again"

Records = NDArray[np.float32]


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
    keep = _usable(files, records, dropped)
    if keep is not None and not keep.any():
        raise files.error(path, f"none of {len(records)} points is usable (finite, possible, beyond min_range)")
    parts = [records if keep is None else records[keep]]
    ways: list[Float64 | None] = [None]
    ages, numbers = [0.0], [0]
    for sweep in files.ref.details["sweeps"]:
        earlier = _read_sweep(files, sweep, dropped)
        if earlier is not None:
            parts.append(earlier)
            ways.append(scene_from_world @ world_from_sensor(files, sweep["role"], sweep))
            ages.append((sweep["timestamp_ns"] - files.ref.details["lidar"]["timestamp_ns"]) * 1e-9)
            numbers.append(sweep["number"])
    counts = [len(part) for part in parts]
    intensity, ring = (np.concatenate([part[:, column] for part in parts]) for column in (3, 4))
    several = bool(files.ref.details["several"])
    points = Points(
        xyz=_places(parts, ways),
        intensity=intensity,
        intensity_unit="byte",
        ring=ring.astype(np.uint8),
        time_offset=np.repeat(np.array(ages, np.float32), counts) if several else None,
        sweep=np.repeat(np.array(numbers, np.uint8), counts) if several else None,
        semantic={} if semantic is None else {TAXONOMY: _padded(semantic, keep, sum(counts), UNLABELLED)},
        instance=None if instance is None else _padded(instance, keep, sum(counts), 0),
    )
    return points, dict(dropped)


def _places(parts: Sequence[Records], ways: Sequence[Float64 | None]) -> Float32:
    """Where the points of all sweeps are in the scene: computed in float64, rounded once. Columns copy fastest."""
    xyz = np.empty((sum(map(len, parts)), 3), np.float32)
    start = 0
    for records, way in zip(parts, ways, strict=True):
        out = xyz[start : start + len(records)]
        columns = records[:, 0], records[:, 1], records[:, 2]
        if way is not None:
            moved = way[:3, :3] @ np.array(columns, np.float64) + way[:3, 3:]
            columns = moved[0], moved[1], moved[2]
        for axis in range(3):
            out[:, axis] = columns[axis]
        start += len(records)
    return xyz


def _records(files: RawFiles, path: str) -> Records:
    """All records of a sweep, float32 (n, 5): x, y, z, intensity, ring."""
    data = files.read(path, limit=MAX_SWEEP_BYTES)
    if not data:
        raise files.error(path, "the sweep is empty", hint="download it again")
    if len(data) % POINT_BYTES:
        problem = f"{len(data)} bytes are no multiple of {POINT_BYTES}: the last point is cut off"
        raise files.error(path, problem, offset=len(data) - len(data) % POINT_BYTES, hint=_HINT)
    return np.frombuffer(data, "<f4").reshape(-1, 5)


def _read_sweep(files: RawFiles, sweep: Mapping[str, Any], dropped: Counter[str]) -> Records | None:
    """The usable records of an earlier sweep, or None (counted) where its file is missing, empty or cut off."""
    path = files.ref.files[sweep["role"]]
    size = files.store.size(path)
    if size is None:
        dropped["missing sweeps"] += 1
        return None
    if size == 0 or size % POINT_BYTES:
        dropped["truncated sweeps"] += 1
        return None
    records = _records(files, path)
    keep = _usable(files, records, dropped)
    return records if keep is None else records[keep]


def _usable(files: RawFiles, records: Records, dropped: Counter[str]) -> NDArray[np.bool_] | None:
    """Which records to keep, the others counted by reason; None for all, the usual case, which costs four passes."""
    radius = files.ref.details["min_range"]
    lost = blank_records(records, POINT_BYTES)
    if radius == 0 and _all_possible(records) and not lost.any():
        return None
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
    return keep


def _all_possible(records: Records) -> bool:
    """Whether all are measurements: within reach, intensity 0..255, ring a whole number 0..255 (NaN fails each)."""
    columns = np.ascontiguousarray(records.T)  # reducing contiguous columns is ten times faster
    ring = columns[4]
    return bool(
        columns[:3].min() >= -_MAX_COORDINATE
        and columns[:3].max() <= _MAX_COORDINATE
        and columns[3:].min() >= 0
        and columns[3:].max() <= 255
        and (ring == ring.astype(np.uint8)).all()
    )


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
    return np.concatenate([kept, np.full(count - len(kept), rest, values.dtype)])
