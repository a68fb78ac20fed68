"""SemanticKITTI's labels: a uint32 (little-endian) for each record of a scan, in its order.

The low half is the raw class id, the high half the instance: 0 for none, the same through a whole sequence, and
unique within its class only. Costs a look-up in a table of 65536 entries.

Zero is an ordinary label: nobody gave the point a class. Annotators leave some dozen points in a row without one (44 at
most in a real scan); a page of zeros in a row, 1024 labels, is counted as what may be a lost block. Labels of another
scan with as many points cannot be told.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE, blank_records
from brickyard.ingest.kitti.velodyne import MAX_SCAN_BYTES, POINT_BYTES
from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED, Points
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "semantickitti19"
_LABEL_BYTES = 4
_IGNORED = (0, 1, 52, 99)  # unlabeled, outlier, other-structure, other-object: annotated, but no class of the benchmark
_UNKNOWN = -2


def read_labels(files: RawFiles, path: str, points: Points, kept: NDArray[np.bool_]) -> tuple[Points, dict[str, int]]:
    """Points with class and instance.

    Args:
        kept: bool (records,), which of the scan's records became points.

    Returns:
        The points with semantic["semantickitti19"] and instance, and what was dropped: raw ids no annotator used, and
        labels in what may be a lost block.

    Raises:
        RawDataError: missing, or not one label a record.
    """
    data = files.read(path, limit=MAX_SCAN_BYTES // POINT_BYTES * _LABEL_BYTES)
    if len(data) != _LABEL_BYTES * len(kept):
        raise files.error(
            path, f"{len(data)} bytes are {len(data) / _LABEL_BYTES:g} labels, the scan has {len(kept)} points",
            hint="scan and labels belong to different downloads, or one of them is truncated",
        )  # fmt: skip
    values = np.frombuffer(data, "<u4")
    blank = blank_records(values, _LABEL_BYTES, PAGE)
    if blank.any():
        values = np.where(blank, np.uint32(0), values)  # of the labels at both ends, a part is left
    if len(points) < len(kept):
        values, blank = values[kept], blank[kept]
    classes = _class_table().take(values & np.uint32(0xFFFF))
    unknown = 0
    if len(classes) and classes.min() == _UNKNOWN:
        unknown = int(np.count_nonzero(classes == _UNKNOWN))
        classes[classes == _UNKNOWN] = UNLABELLED
    labelled = replace(points, semantic={TAXONOMY: classes}, instance=(values >> np.uint32(16)).view(np.int32))
    counts = {"unknown raw labels": unknown, "labels of zero in a long run (a lost block?)": int(blank.sum())}
    return labelled, {reason: count for reason, count in counts.items() if count}


@cache
def _class_table() -> NDArray[np.int16]:
    """Class id of each raw id (65536); _UNKNOWN for what the annotators do not use."""
    classes = np.full(1 << 16, _UNKNOWN, np.int16)
    classes[list(_IGNORED)] = UNLABELLED
    from_raw = taxonomy(TAXONOMY).from_raw
    classes[list(from_raw)] = list(from_raw.values())
    return classes
