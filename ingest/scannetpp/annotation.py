"""Labels of the vertices: objects are sets of segments, segments are sets of vertices, labels are free text.

    segments.json           "segIndices": segment of each vertex (as published, each vertex is a segment of its own)
    segments_anno.json      "segGroups": [{"objectId", "label", "segments": [...], "obb": {...}}, ...]
    map_benchmark.csv       class, ..., semantic_map_to: empty keeps the name, "None" drops it

Objects overlap: a book lies on a shelf, and the vertices are labelled as both. The rule is that of the dataset's
toolkit and of Pointcept: of the objects whose class is in the list, a vertex takes part in the first three, in the
order of the file, and belongs to the one with the fewest vertices (those counted that had not taken part in three
before), the first of equal ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import UNLABELLED, Float32
from brickyard.shards.taxonomy import taxonomy

MAX_JSON = 512 << 20
MAX_TABLE = 16 << 20
MAX_ABSENT_SHARE = 0.05
"""Of the segments that objects name; annotations of another release or scene miss far more."""
PLACES = 3
BOX_SLACK_M = 0.1
CLASSES, INSTANCE_CLASSES = "scannetpp100", "scannetpp84"
MANY = "vertex of several objects: it belongs to the smallest of the first three"
UNMAPPED = "object whose label the map does not know"
NO_MAP = "label map (map_benchmark.csv) is not there: only labels that are names of classes count"
CUT_MAP = "label map (map_benchmark.csv): its last line may be cut off"
ELSEWHERE = "object whose box lies elsewhere than its vertices: perhaps of another scene or release"
TWICE = "object with the objectId of another"
REPORT = "download it again; if it is whole, please report it: no real file was at hand when this was written"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of N vertices.

    Attributes:
        semantic: "scannetpp100" and, of its classes those that have instances, "scannetpp84" -> int16 (N,).
        instance: int32 (N,), objectId + 1 of the object that a vertex belongs to, 0 where none has a class of the 100.
        several: bool (N,), vertices of more than one such object.
    """

    semantic: Mapping[str, NDArray[np.int16]]
    instance: NDArray[np.int32]
    several: NDArray[np.bool_]


@dataclass(frozen=True)
class _Object:
    ident: int
    label: str
    segments: NDArray[np.int64]
    centre: tuple[float, ...] | None


def read_labels(files: RawFiles, xyz: Float32, dropped: Counter[str]) -> Labels:
    """The labels of the vertices (N, 3) of the mesh.

    Args:
        dropped: counts objects of unknown labels, and what does not fit together.

    Raises:
        RawDataError: a damaged file, or files that are not of this mesh.
    """
    path = files.ref.files["annotation"]
    classes = _class_of_label(files, dropped)
    segment_ids, of_vertex = np.unique(_read_segments(files, len(xyz)), return_inverse=True)
    order, starts = _vertices_by_segment(of_vertex, len(segment_ids))
    votes = _Votes(len(xyz))
    absent = named = 0
    seen: set[int] = set()
    for thing in _read_objects(files, path):
        place = np.searchsorted(segment_ids, thing.segments)
        place = place[segment_ids[np.minimum(place, len(segment_ids) - 1)] == thing.segments]
        absent, named = absent + len(thing.segments) - len(place), named + len(thing.segments)
        members = _concatenated_ranges(order, starts, place)
        if _lies_elsewhere(thing, xyz, members):
            dropped[ELSEWHERE] += 1
        if thing.ident in seen:
            dropped[TWICE] += 1
        seen.add(thing.ident)
        known = classes.get(thing.label, _UNKNOWN)
        if known == _UNKNOWN:
            dropped[UNMAPPED] += 1
        elif known != UNLABELLED:
            votes.add(members, known, thing.ident + 1)
    if absent > MAX_ABSENT_SHARE * named:
        raise files.error(
            path, f"{absent} of the {named} segments it names are not in segments.json",
            hint="the files are of different scenes or releases; take both from the same download",
        )  # fmt: skip
    if absent:
        dropped["segment absent from segments.json"] += absent
    return Labels(
        semantic={CLASSES: votes.label, INSTANCE_CLASSES: _instance_classes()[votes.label]},
        instance=votes.instance,
        several=votes.used > 1,
    )


class _Votes:
    """The rule of the smallest of the first three, as objects come along."""

    def __init__(self, vertices: int) -> None:
        self.used = np.zeros(vertices, np.uint8)
        self.label = np.full(vertices, UNLABELLED, np.int16)
        self.instance = np.zeros(vertices, np.int32)
        self._size = np.full(vertices, np.iinfo(np.int64).max)

    def add(self, members: NDArray[np.int64], label: int, instance: int) -> None:
        """The next object, with its distinct vertices."""
        free = members[self.used[members] < PLACES]
        self.used[free] += 1
        smaller = free[self._size[free] > len(free)]
        self._size[smaller] = len(free)
        self.label[smaller] = label
        self.instance[smaller] = instance


_UNKNOWN = -2


def _class_of_label(files: RawFiles, dropped: Counter[str]) -> Mapping[str, int]:
    """Label -> class id, UNLABELLED for labels that the map knows and whose class is not in the list."""
    ids = {name: number for number, name in enumerate(taxonomy(CLASSES).classes)}
    path = files.ref.files.get("label_map")
    if path is None:
        dropped[NO_MAP] += 1
        return ids
    try:
        text = files.read(path, MAX_TABLE).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it has zero bytes")
        if not text.endswith("\n"):
            dropped[CUT_MAP] += 1
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        found = {}
        for line, row in enumerate(rows, 2):
            name, target = row["class"].strip(), row["semantic_map_to"].strip()
            if None in row or not name:
                raise ValueError(f"row {line} has another number of columns than the header, or no class")
            found[name] = UNLABELLED if target == "None" else ids.get(target or name, UNLABELLED)
    except (csv.Error, *NONSENSE) as problem:
        what = f"expected a table with the columns class and semantic_map_to: {problem}"
        raise files.error(path, what[:200], hint=REPORT) from problem
    return found


@cache
def _instance_classes() -> NDArray[np.int16]:
    """Class id of the 100 -> that of the 84; the last entry, which -1 finds, is UNLABELLED."""
    ids = {name: number for number, name in enumerate(taxonomy(INSTANCE_CLASSES).classes)}
    return np.array([*(ids.get(name, UNLABELLED) for name in taxonomy(CLASSES).classes), UNLABELLED], np.int16)


def _vertices_by_segment(of_vertex: NDArray[np.int64], segments: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(vertices in the order of their segments, where each segment begins among them and where the last one ends)."""
    order = np.argsort(of_vertex, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(of_vertex, minlength=segments))])


def _concatenated_ranges(
    order: NDArray[np.int64], starts: NDArray[np.int64], place: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The vertices of some segments."""
    lengths = starts[place + 1] - starts[place]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    members: NDArray[np.int64] = order[np.repeat(starts[place], lengths) + within]
    return members


def _lies_elsewhere(thing: _Object, xyz: Float32, members: NDArray[np.int64]) -> bool:
    """Whether the centre of an object's box lies outside of the extent of its vertices."""
    if thing.centre is None or not len(members):
        return False
    mine = xyz[members]
    low, high = mine.min(axis=0) - BOX_SLACK_M, mine.max(axis=0) + BOX_SLACK_M
    return not bool(((thing.centre >= low) & (thing.centre <= high)).all())


def _read_segments(files: RawFiles, vertices: int) -> NDArray[np.int64]:
    path = files.ref.files["segments"]
    indices = _read_json(files, path).get("segIndices")
    if not isinstance(indices, list):
        raise files.error(path, "has no list 'segIndices'", hint=REPORT)
    if len(indices) != vertices:
        raise files.error(
            path, f"labels {len(indices)} vertices, the mesh has {vertices}",
            hint="take the mesh and its segments from the same release and scene",
        )  # fmt: skip
    return _integers(files, path, "segIndices", indices)


def _read_objects(files: RawFiles, path: str) -> list[_Object]:
    groups = _read_json(files, path).get("segGroups")
    if not isinstance(groups, list):
        raise files.error(path, "has no list 'segGroups'", hint=REPORT)
    return [_parse_object(files, path, number, group) for number, group in enumerate(groups)]


def _parse_object(files: RawFiles, path: str, number: int, group: Any) -> _Object:
    entry = group if isinstance(group, dict) else {}
    ident, label, segments = entry.get("objectId"), entry.get("label"), entry.get("segments")
    if not (type(ident) is int and isinstance(label, str) and isinstance(segments, list) and 0 <= ident < 2**31 - 1):
        what = f"segGroups[{number}] needs objectId (0 or more), label (text) and segments (list)"
        raise files.error(path, what, hint=REPORT)
    distinct = np.unique(_integers(files, path, f"segGroups[{number}].segments", segments))
    box = entry.get("obb")
    centre = box.get("centroid") if isinstance(box, dict) else None
    known = (
        isinstance(centre, list) and len(centre) == 3 and all(type(x) in (int, float) and abs(x) < 1e9 for x in centre)
    )
    return _Object(ident, label.strip(), distinct, tuple(map(float, centre)) if known and centre else None)


def _integers(files: RawFiles, path: str, name: str, values: list[Any]) -> NDArray[np.int64]:
    if not all(type(value) is int for value in values):
        raise files.error(path, f"{name} must hold integers", hint=REPORT)
    try:
        return np.array(values, np.int64)
    except OverflowError as problem:
        raise files.error(path, f"{name} holds integers beyond 64 bits") from problem


def _read_json(files: RawFiles, path: str) -> dict[str, Any]:
    data = files.read(path, MAX_JSON)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise files.error(path, f"is no readable JSON: {problem}", hint="download it again") from problem
    if not isinstance(content, dict):
        raise files.error(path, "must hold a JSON object", hint=REPORT)
    return content
