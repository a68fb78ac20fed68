"""Trajectories as text: a line a pose, twelve numbers [R | t] row by row, with or without the frame's number in front.

Planning reads the file once (a few hundred kilobytes a sequence) to learn where each frame's line lies. Reading a scene
fetches only its own line, so that a damaged pose costs one scene and the record of its sources names the trajectory.
Where a block of the file is lost or its end is cut off, the frames are known whose pose may have stood there.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from brickyard.ingest.kitti.calibration import Fail
from brickyard.ingest.kitti.tables import Line, ends_inside, read_table
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Float64
from brickyard.shards.storage import Store

_MAX_FILE_BYTES = 64 << 20
_MAX_LINE_BYTES = 4096
_MAX_COORDINATE = 1e7  # metres
_ORTHONORMAL = 3e-4  # files carry 6 digits; chains with calibrations must stay within the contract's 1e-3


@dataclass(frozen=True)
class Trajectory:
    """Where the poses of a sequence stand.

    Attributes:
        places: frame -> JSON-like place of its line, for `SceneRef.details`: line (from 1), offset and length in bytes,
            size of the whole file; and the frame's number as it is written, where lines have one.
        gaps: (a, b) for each damaged part of the file: frames a < f < b without a place may have had their pose there.
        problem: what is wrong with the file, for people; None if nothing is.
    """

    places: dict[int, dict[str, Any]] = field(default_factory=dict)
    gaps: tuple[tuple[float, float], ...] = ()
    problem: str | None = None

    def lost(self, frame: int) -> bool:
        """Whether the frame has no place and may have lost it."""
        return frame not in self.places and any(a < frame < b for a, b in self.gaps)


def ordered_poses(store: Store, path: str, dataset: str) -> Trajectory:
    """The trajectory whose line i is frame i; raises `RawDataError` if the file is missing or too large."""
    data = _read(store, path, dataset)
    table = read_table(data)
    places = {line.number - 1: _place(line, len(data)) for line in table.lines}
    gaps = ((max(places, default=-1), math.inf),) if table.problem else ()
    return Trajectory(places, gaps, table.problem)


def indexed_poses(store: Store, path: str, dataset: str) -> Trajectory:
    """The trajectory whose lines begin with the number of their frame; frames may be left out.

    Raises:
        RawDataError: missing, too large, a line without a number, or a number given twice.
    """
    data = _read(store, path, dataset)
    texts = data.split(b"\n")
    places: dict[int, dict[str, Any]] = {}
    gaps: list[tuple[float, float]] = []
    problem, last, damaged, offset = None, -1, False, 0
    for number, text in enumerate(texts, start=1):
        fail = partial(RawDataError, dataset=dataset, path=path, line=number)
        if b"\0" in text:
            damaged, problem = True, problem or f"line {number} holds zero bytes (a lost block)"
        elif number == len(texts) and ends_inside(data):
            damaged, problem = True, problem or f"it ends inside of line {number} (cut off)"
        elif text.strip():
            word = _frame_word(text, fail)
            frame = int(word)
            if frame in places:
                raise fail(f"frame {frame} is given twice", hint="download the poses again")
            places[frame] = _place(Line(number, offset, text), len(data)) | {"frame": word}
            if damaged:  # rising numbers tell which frames are gone
                gaps.append((last, frame) if last < frame else (-1, math.inf))
            last, damaged = frame, False
        offset += len(text) + 1
    if damaged:
        gaps.append((last, math.inf))
    return Trajectory(places, tuple(gaps), problem)


def _frame_word(text: bytes, fail: Fail) -> str:
    word = (text.split(maxsplit=1) or [b""])[0]
    if not (word.isdigit() and len(word) <= 10):
        shown = word[:20].decode("ascii", errors="replace")
        raise fail(f"{shown!r} is no frame number", hint="download the poses again")
    return word.decode()


def fill_gaps(trajectory: Trajectory, frames: Iterable[int], longest: int) -> Trajectory:
    """With a place between two lines for each of the other `frames` in a gap of at most `longest` frames.

    Such a place holds the lines before and after it, and the weight 0..1 of the latter (frames are evenly spaced).
    Nothing is extrapolated: a frame before the first pose or after the last one stays without.
    """
    places = trajectory.places
    known, filled = sorted(places), dict(places)
    for frame in frames:
        next_one = bisect_left(known, frame)
        if frame in places or next_one in (0, len(known)):
            continue
        before, after = known[next_one - 1], known[next_one]
        if after - before - 1 <= longest:
            weight = (frame - before) / (after - before)
            filled[frame] = {"before": places[before], "after": places[after], "weight": weight}
    return replace(trajectory, places=filled)


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


def _read(store: Store, path: str, dataset: str) -> bytes:
    size = store.size(path)
    if size is None:
        raise RawDataError("the poses are missing", dataset=dataset, path=path, hint="download them")
    if size > _MAX_FILE_BYTES:
        raise RawDataError(f"{size} bytes are too many for poses", dataset=dataset, path=path)
    return store.read(path)


def _place(line: Line, size: int) -> dict[str, Any]:
    return {"line": line.number, "offset": line.offset, "length": len(line.text), "size": size}
