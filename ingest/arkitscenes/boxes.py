"""3D boxes of an annotation: kept as they are, and as labels of the points inside of them.

    {"data": [{"uid", "label", "segments": {"obbAligned": {"centroid", "axesLengths", "normalizedAxes"}}}, ...]}

Whole lengths in metres, axes as rows, in the frame of the mesh. A box holds more than its object: what stands on a
table, and the floor below a chair. `segments.obb` is in centimetres and another frame: it is not looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.arkitscenes.files import REPORT
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import UNLABELLED, Float32, Float64
from brickyard.shards.taxonomy import taxonomy

TAXONOMY = "arkitscenes17"
MAX_JSON = 64 << 20
_SEPARATOR = re.compile("[ /-]")
"""In a label, as the dataset's own loader takes it: "tv monitor" is the class tv_monitor."""
MAX_BOXES = 10_000
SKIPPED = "annotation that its makers skipped"
UNKNOWN = "box of a class that is not among the 17"
EMPTY = "box without any point"
SEVERAL = "point in several boxes: it belongs to the smallest"


class Box(NamedTuple):
    """centre float64 (3,), lengths float64 (3,), axes float64 (3, 3) as rows; class id, and what the file says."""

    centre: Float64
    lengths: Float64
    axes: Float64
    label: int
    name: str


class Labels(NamedTuple):
    """semantic int16 (N,), UNLABELLED outside of all boxes; instance int32 (N,), place in the file + 1, or 0."""

    semantic: NDArray[np.int16]
    instance: NDArray[np.int32]


def read_boxes(files: RawFiles, path: str, dropped: Counter[str]) -> list[Box] | None:
    """The boxes of a capture, in the order of the file; None where the annotation was skipped.

    Raises:
        RawDataError: the file is not as documented.
    """
    try:
        table = json.loads(files.read(path, MAX_JSON))
        entries = list(table["data"])
        if len(entries) > MAX_BOXES:
            raise ValueError(f"{len(entries)} boxes")
        boxes = [_box(entry) for entry in entries]
    except NONSENSE as problem:
        what = f"expected data: [label, segments.obbAligned, ...]: {problem}"
        raise files.error(path, what[:200], hint=f"download it again; {REPORT}") from problem
    if table.get("skipped"):
        dropped[SKIPPED] += 1
        return None
    return boxes


def _box(entry: Any) -> Box:
    label, box = entry["label"], entry["segments"]["obbAligned"]
    values = [np.array(box[name], np.float64).ravel() for name in ("centroid", "axesLengths", "normalizedAxes")]
    if [len(v) for v in values] != [3, 3, 9] or not all(np.isfinite(v).all() for v in values):
        raise ValueError(f"the box of {str(label)[:40]!r} has not 3, 3 and 9 numbers")
    centre, lengths, axes = values[0], values[1], values[2].reshape(3, 3)
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-2) or lengths.min() < 0 or np.abs(values[:2]).max() > 1000:
        raise ValueError(f"the box of {str(label)[:40]!r} is none in metres with axes at right angles")
    classes, name = taxonomy(TAXONOMY).classes, _SEPARATOR.sub("_", str(label))
    return Box(centre, lengths, axes, classes.index(name) if name in classes else UNLABELLED, str(label))


def annotation(boxes: list[Box]) -> list[dict[str, Any]]:
    """As in `shards.annotations`; `instance` is the place in the file + 1."""
    return [
        {
            "label": box.name,
            "instance": number + 1,
            "center": box.centre.tolist(),
            "size": box.lengths.tolist(),
            "rotation": box.axes.T.tolist(),
        }
        for number, box in enumerate(boxes)
    ]


def inside(boxes: list[Box], xyz: Float32, dropped: Counter[str]) -> Labels:
    """Class and number of the smallest box that holds each point (N, 3); what is strange is counted."""
    semantic, instance = np.full(len(xyz), UNLABELLED, np.int16), np.zeros(len(xyz), np.int32)
    held = np.zeros(len(xyz), np.int32)
    order = sorted(range(len(boxes)), key=lambda k: (-float(np.prod(boxes[k].lengths)), k))
    for k in order:
        box = boxes[k]
        place = np.abs((xyz.astype(np.float64) - box.centre) @ box.axes.T)
        mine = (place <= box.lengths / 2).all(axis=1)
        semantic[mine], instance[mine] = box.label, k + 1
        held += mine
        if not mine.any():
            dropped[EMPTY] += 1
        if box.label == UNLABELLED:
            dropped[UNKNOWN] += 1
    if several := int((held > 1).sum()):
        dropped[SEVERAL] += several
    return Labels(semantic, instance)
