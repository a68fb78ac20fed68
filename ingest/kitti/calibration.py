"""KITTI calibration: `key: numbers` text -> float64 matrices, and from those the pinhole camera of a rectified image.

The official chain from a lidar point X to a pixel y is  y = P_xx R_rect_00 Tr_velo_to_cam X  (KITTI devkit readme),
with the rectifying rotation of camera 0 whatever the camera. P carries the stereo baseline in its fourth column, so
with K = P[:, :3] the camera stands at an offset t = K^-1 P[:, 3] from camera 0, and

    camera_from_velo = [I | t] [R_rect_00 | 0] Tr_velo_to_cam        y = K camera_from_velo X

A copy of these files with lost or changed minus signs is in circulation, hence every rotation is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np

from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Float64
from brickyard.shards.storage import Store

MAX_TEXT_BYTES = 1 << 20
CUT = "download it again, or end its last line if it is whole"
_ORTHONORMAL = 1e-4  # files carry 7 digits (errors near 1e-7); one lost minus sign makes 1e-3 and more
_MAX_OFFSET = 100.0  # metres between two sensors of one car

Fail: TypeAlias = Callable[..., RawDataError]
"""(problem, *, line, hint) -> the error to raise; it already knows the dataset, file and scene."""


@dataclass(frozen=True)
class Entry:
    """What a calibration key must hold: its shape, and a check that returns what is wrong, or None."""

    shape: tuple[int, ...]
    check: Callable[[Float64], str | None]


def _rotation_problem(matrix: Float64) -> str | None:
    rotation = matrix[:, :3]
    good = (
        np.abs(rotation).max() < 1 + _ORTHONORMAL
        and np.abs(rotation @ rotation.T - np.eye(3)).max() < _ORTHONORMAL
        and np.linalg.det(rotation) > 0
    )
    if not good:
        return "the rotation is not orthonormal with determinant +1 (a lost minus sign?)"
    return _offset_problem(matrix[:, 3:])


def _offset_problem(offset: Float64) -> str | None:
    if offset.size and np.abs(offset).max() > _MAX_OFFSET:
        return f"an offset of more than {_MAX_OFFSET:.0f} m between two sensors of one car"
    return None


def _projection_problem(matrix: Float64) -> str | None:
    k = matrix[:, :3]
    zeros = (k[0, 1], k[1, 0], k[2, 0], k[2, 1])
    if any(zeros) or k[2, 2] != 1 or min(k[0, 0], k[1, 1]) < 1 or np.abs(k).max() > 1e5:
        return "the left 3x3 part is no pinhole camera [fx 0 cx; 0 fy cy; 0 0 1]"
    if np.abs(matrix[:, 3]).max() > 1e5:
        return "the fourth column is no stereo baseline"
    return _offset_problem(np.linalg.solve(k, matrix[:, 3]))


def _size_problem(size: Float64) -> str | None:
    good = (size >= 1).all() and (size < 65536).all() and (size == np.round(size)).all()
    return None if good else "no image size in pixels"


ROTATION = Entry((3, 3), _rotation_problem)
TRANSLATION = Entry((3,), _offset_problem)
TRANSFORM = Entry((3, 4), _rotation_problem)
PROJECTION = Entry((3, 4), _projection_problem)
SIZE = Entry((2,), _size_problem)


def read_text(store: Store, path: str, dataset: str) -> bytes:
    """A calibration file's bytes; raises `RawDataError` if it is missing or too large for what it is."""
    fail = partial(RawDataError, dataset=dataset, path=path)
    size = store.size(path)
    if size is None:
        raise fail("the calibration is missing", hint="download the dataset's calibration archive")
    if size > MAX_TEXT_BYTES:
        raise fail(f"{size} bytes are too many for a calibration file")
    return store.read(path)


def read_calibration(store: Store, path: str, wanted: Mapping[str, Entry], dataset: str) -> dict[str, Float64]:
    """`parse_calibration` of a file; raises `RawDataError` also if it is missing or too large."""
    return parse_calibration(read_text(store, path, dataset), wanted, partial(RawDataError, dataset=dataset, path=path))


def parse_calibration(data: bytes, wanted: Mapping[str, Entry], fail: Fail) -> dict[str, Float64]:
    """Read the wanted keys of a calibration file; other keys (dates, unrectified cameras) are passed over.

    Returns:
        Every wanted key -> finite float64 array of its entry's shape (row-major in the file).

    Raises:
        RawDataError: a key is missing, doubled, of another length, not finite or fails its check; names the line.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise fail("calibration is not plain text", line=line, hint="download the calibration again") from None
    found: dict[str, Float64] = {}
    lines = text.split("\n")
    for line, content in enumerate(lines, start=1):
        key, colon, rest = content.partition(":")
        key = key.strip()
        if not colon or key not in wanted:
            continue
        if key in found:
            raise fail(f"{key} is given twice", line=line)
        entry = wanted[key]
        if line == len(lines) and _ends_inside_a_number(rest):
            raise fail(f"{key}: the file ends here, perhaps inside of its last number", line=line, hint=CUT)
        value = _numbers(key, rest, entry, line, fail)
        problem_text = entry.check(value)
        if problem_text:
            raise fail(f"{key}: {problem_text}", line=line, hint="download the calibration again")
        found[key] = value
    missing = [key for key in wanted if key not in found]
    if missing:
        raise fail(f"no line for {', '.join(missing)}", hint="download the calibration again")
    return found


def _ends_inside_a_number(text: str) -> bool:
    """Whether the last number of a line without an end has fewer digits than all others, as half a number has."""
    *others, last = [len(word.lstrip("-")) for word in text.split()] or [0]
    return bool(others) and last < min(others)


def _numbers(key: str, text: str, entry: Entry, line: int, fail: Fail) -> Float64:
    words = text.split()
    expected = int(np.prod(entry.shape))
    if len(words) != expected:
        raise fail(f"{key} has {len(words)} values, expected {expected}", line=line)
    try:
        values = np.array([float(word) for word in words], np.float64)
    except ValueError as problem:
        raise fail(f"{key}: {problem}", line=line) from None
    if not np.isfinite(values).all():
        raise fail(f"{key} has values that are not finite", line=line)
    return values.reshape(entry.shape)


def rigid(rotation: Float64, translation: Float64 | None = None) -> Float64:
    """(3, 3) and (3,) -> (4, 4)."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    if translation is not None:
        transform[:3, 3] = translation
    return transform


def rectified_camera(projection: Float64, rectify: Float64, cam0_from_velo: Float64) -> tuple[Float64, Float64]:
    """The pinhole camera of a rectified image.

    Args:
        projection: P_xx (3, 4).
        rectify: R_rect_00 (3, 3).
        cam0_from_velo: Tr_velo_to_cam (4, 4).

    Returns:
        Intrinsics (3, 3) and scene_from_camera (4, 4): the numerical inverse of the chain above, because the transpose
        of a rotation printed with 7 digits is not its inverse.
    """
    intrinsics = projection[:, :3].copy()
    offset = np.linalg.solve(intrinsics, projection[:, 3])
    camera_from_velo = rigid(np.eye(3), offset) @ rigid(rectify) @ cam0_from_velo
    return intrinsics, inverse(camera_from_velo)


def inverse(transform: Float64) -> Float64:
    """Numerical inverse of a (4, 4) affine transform; the last row stays exactly (0, 0, 0, 1)."""
    return np.frombuffer(_inverse(transform.tobytes())).reshape(4, 4).copy()


@lru_cache(maxsize=256)
def _inverse(transform: bytes) -> bytes:
    """Remembered: all frames of a drive ask for the same, and LAPACK's threads take longer to start than a scan."""
    result = np.linalg.inv(np.frombuffer(transform).reshape(4, 4))
    result[3] = (0, 0, 0, 1)
    return result.tobytes()
