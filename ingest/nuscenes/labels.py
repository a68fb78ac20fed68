"""Point labels of a keyframe: lidarseg (a byte a point) and panoptic (class * 1000 + instance in an `.npz`).

Both are in the file order of the sweep. Panoptic leaves points in two boxes unlabelled, so the classes of lidarseg are
the more complete ones; the instances are only there. An `.npz` is a zip of one numpy array: its member is inflated no
further than the points need, and its header is matched as text.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE, zero_runs
from brickyard.ingest.nuscenes.categories import class_table
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE

MAX_LABEL_BYTES = 64 << 20
_MEMBER = "data.npy"
_HEADER_BYTES = 4096
"""More than numpy ever writes before the values of an array with one axis; 128 as a rule."""
_header = re.compile(rb"{'descr': '[<|]u2', 'fortran_order': (?:False|True), 'shape': \((\d{1,10}),\), } *\n").fullmatch
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, *NONSENSE)
_NO_LABEL = np.int16(-9)
_AGAIN = "download it again"


def read_lidarseg(files: RawFiles, path: str, count: int, dropped: Counter[str]) -> NDArray[np.int16]:
    """Classes of "nuscenes16", int16 (count,); raises `RawDataError`.

    Label 0 is noise: single points, of which thousands in a row are more likely a block that was lost. They stay
    without a class either way, and are counted in `dropped`.
    """
    raw = np.frombuffer(files.read(path, limit=MAX_LABEL_BYTES), np.uint8)
    if len(raw) != count:
        problem = f"{len(raw)} labels for {count} points"
        raise files.error(path, problem, hint="sweep and labels are of different releases or truncated")
    runs = zero_runs(raw, min(PAGE, max(1, count)))
    if len(runs):
        dropped["labels 0 in an unbroken run: perhaps a lost block"] += int((runs[:, 1] - runs[:, 0]).sum())
    return _classes(files, path, raw)


def read_panoptic(files: RawFiles, path: str, count: int) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """(classes of "nuscenes16" int16 (count,), instances int32 (count,): class * 1000 + number, 0 for stuff)."""
    raw = _unpack(files, path, files.read(path, limit=MAX_LABEL_BYTES), count)
    ids = raw // np.uint16(1000)
    classes = _classes(files, path, ids)
    return classes, np.where(raw == ids * np.uint16(1000), 0, raw).astype(np.int32)


def _classes(files: RawFiles, path: str, ids: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int16]:
    classes, exists = class_table(list(files.ref.details["label_ids"]))
    labels: NDArray[np.int16] = np.where(exists, classes, _NO_LABEL).take(ids)
    if len(labels) and labels.min() == _NO_LABEL:
        first = int(np.argmin(labels))
        offset = first if ids.itemsize == 1 else None  # of a compressed file, no byte can be named
        raise files.error(path, f"label {ids[first]} of point {first} is no index in category.json", offset=offset)
    return labels


def _unpack(files: RawFiles, path: str, data: bytes, count: int) -> NDArray[np.uint16]:
    """The array of the `.npz`, which must be uint16 (count,)."""
    limit = _HEADER_BYTES + 2 * count
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = archive.getinfo(_MEMBER).file_size
            if declared > limit:
                problem = f"{_MEMBER} has {declared} bytes, too many for {count} points"
                raise files.error(path, problem, hint="sweep and labels are of different releases")
            with archive.open(_MEMBER) as member:
                array = member.read(limit)
    except _UNREADABLE as cause:
        reason = f"no .npz with {_MEMBER}: {type(cause).__name__}: {cause}"
        raise files.error(path, reason, hint=_AGAIN) from cause
    start = 10 + int.from_bytes(array[8:10], "little")
    shape = _header(array[10:start])
    if not array.startswith(b"\x93NUMPY\x01\x00") or shape is None or len(array) != start + 2 * int(shape[1]):
        raise files.error(path, f"{_MEMBER} is no array of unsigned 16-bit integers with one axis", hint=_AGAIN)
    if int(shape[1]) != count:
        problem = f"{int(shape[1])} panoptic labels for {count} points"
        raise files.error(path, problem, hint="sweep and labels are of different releases")
    return np.frombuffer(array, "<u2", count, start)
