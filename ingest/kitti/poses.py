"""Trajectories as text: a line a pose, twelve numbers [R | t] row by row, with or without the frame's number in front.

Planning reads the file once (a few hundred kilobytes a sequence) to learn where each frame's line lies. Reading a scene
fetches only its own line, so that a damaged pose costs one scene and the record of its sources names the trajectory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ingest.source import RawFiles
from shards.errors import RawDataError
from shards.scene import Float64
from shards.storage import Store

_MAX_FILE_BYTES = 64 << 20
_MAX_LINE_BYTES = 4096
_MAX_COORDINATE = 1e7  # metres
_ORTHONORMAL = 3e-4  # files carry 6 digits; chains with calibrations must stay within the contract's 1e-3


def ordered_poses(store: Store, path: str, dataset: str) -> dict[int, dict[str, Any]]:
    """Frame -> place of its line, where line i is frame i; raises `RawDataError` if the file is missing or too large.

    A place is JSON-like, for `SceneRef.details`: line (from 1), offset and length in bytes, size of the whole file.
    """
    return {place["line"] - 1: place for place, _ in _lines(store, path, dataset)}


def indexed_poses(store: Store, path: str, dataset: str) -> dict[int, dict[str, Any]]:
    """Frame -> place of its line, where each line begins with the number of its frame; frames may be left out.

    Raises:
        RawDataError: missing, too large, a line without a number, or a number given twice.

    Its places also hold the frame's number as it is written, for `read_pose` to find again.
    """
    places: dict[int, dict[str, Any]] = {}
    for place, text in _lines(store, path, dataset):
        word = (text.split(maxsplit=1) or [b""])[0]
        fail = partial(RawDataError, dataset=dataset, path=path, line=place["line"])
        if not (word.isdigit() and len(word) <= 10):
            shown = word[:20].decode("ascii", errors="replace")
            raise fail(f"{shown!r} is no frame number", hint="download the poses again")
        if int(word) in places:
            raise fail(f"frame {int(word)} is given twice", hint="download the poses again")
        places[int(word)] = place | {"frame": word.decode()}
    return places


def fill_gaps(places: dict[int, dict[str, Any]], frames: Iterable[int], longest: int) -> dict[int, dict[str, Any]]:
    """The places, and one between two lines for each of the other `frames` in a gap of at most `longest` frames.

    Such a place holds the lines before and after it, and the weight 0..1 of the latter (frames are evenly spaced).
    Nothing is extrapolated: a frame before the first pose or after the last one stays without.
    """
    known, filled = sorted(places), dict(places)
    for frame in frames:
        next_one = bisect_left(known, frame)
        if frame in places or next_one in (0, len(known)):
            continue
        before, after = known[next_one - 1], known[next_one]
        if after - before - 1 <= longest:
            weight = (frame - before) / (after - before)
            filled[frame] = {"before": places[before], "after": places[after], "weight": weight}
    return filled


def read_pose(files: RawFiles, path: str, place: dict[str, Any]) -> Float64:
    """The transform (4, 4) of a place: that of its line, or between two lines (screw-free: the centre moves straight
    and evenly while the rotation turns about one axis).

    Raises:
        RawDataError: as `_read_line`.
    """
    if "before" not in place:
        return _read_line(files, path, place)
    from scipy.spatial.transform import Rotation

    before, after = (_read_line(files, path, place[side]) for side in ("before", "after"))
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    pose = np.eye(4)
    pose[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(place["weight"] * turn).as_matrix()
    pose[:3, 3] = before[:3, 3] + place["weight"] * (after[:3, 3] - before[:3, 3])
    return pose


def _read_line(files: RawFiles, path: str, place: dict[str, Any]) -> Float64:
    """The transform (4, 4) on one line.

    Raises:
        RawDataError: the file has changed since planning, or the line does not hold a rigid transform (or another
            frame's).
    """
    fail = partial(files.error, path, line=place["line"])
    if files.size(path) != place["size"] or place["length"] > _MAX_LINE_BYTES:
        raise fail("the file is not the one that was planned with", hint="plan again")
    words = files.read_range(path, place["offset"], place["length"]).split()
    if "frame" in place and (not words or words.pop(0) != place["frame"].encode()):
        raise fail(f"not the pose of frame {place['frame']}", hint="plan again")
    if len(words) != 12:
        raise fail(f"{len(words)} numbers, expected the 12 of a 3x4 matrix", hint="the file may be truncated")
    try:
        values = np.array([float(word) for word in words], np.float64).reshape(3, 4)
    except ValueError as problem:
        raise fail(f"not a pose: {problem}") from None
    rotation = values[:, :3]
    if not np.isfinite(values).all() or np.abs(values[:, 3]).max() > _MAX_COORDINATE or np.abs(rotation).max() > 2:
        raise fail("the pose has values that are not finite, or are no place on earth")
    if np.linalg.norm(rotation @ rotation.T - np.eye(3), 2) > _ORTHONORMAL or np.linalg.det(rotation) < 0:
        raise fail("the rotation of the pose is not orthonormal with determinant +1")
    pose = np.eye(4)
    pose[:3] = values
    return pose


def _lines(store: Store, path: str, dataset: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    size = store.size(path)
    if size is None:
        raise RawDataError("the poses are missing", dataset=dataset, path=path, hint="download them")
    if size > _MAX_FILE_BYTES:
        raise RawDataError(f"{size} bytes are too many for poses", dataset=dataset, path=path)
    offset = 0
    for number, text in enumerate(store.read(path).split(b"\n"), start=1):
        if text.strip():
            yield {"line": number, "offset": offset, "length": len(text), "size": size}, text
        offset += len(text) + 1
