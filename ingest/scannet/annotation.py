"""Labels of ScanNet: objects are unions of segments, segments are sets of mesh vertices, categories are free text.

  segs.json          vertex -> segment id (ids are not contiguous)
  aggregation.json   object -> segment ids and a raw category such as "kitchen cabinet"
  the .tsv table     raw category -> ScanNet id (scannet200) and nyu40 id (nyu40, scannet20)
  labels.ply         vertex -> nyu40 id, the same information without the objects
  label images       pixel -> ScanNet id; instance images: pixel -> objectId + 1 (their files: images.py)

Files of release v1 and v2 carry the same names but belong to different segmentations. Whatever does not fit together
is an error, never a guess: a scan without labels is worth more than a scan with wrong ones.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import UNLABELLED
from brickyard.shards.taxonomy import taxonomy

MAX_JSON = 256 << 20
MAX_TABLE = 16 << 20
MAX_ABSENT_SHARE = 0.05
"""Published annotations name a few segments that do not exist; mixed releases miss far more."""
MAX_CONTRADICTION = 0.2
"""Share of vertices (or pixels) that two files of one annotation may call differently. Tables differ in a few rows."""
RAW_IDS = 1 << 16
SCAN = re.compile(r"scene\d{4}_\d{2}")


@dataclass(frozen=True, kw_only=True)
class Category:
    """Ids of a raw category: `scannet_id` for scannet200, `nyu40_id` for nyu40 and scannet20; 0 where there is none."""

    scannet_id: int
    nyu40_id: int


LabelTable: TypeAlias = Mapping[str, Category]
"""Raw category -> its ids."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Annotated objects of a scan with N vertices.

    Attributes:
        instance: int32 (N,), objectId + 1, 0 where no object.
        category: int32 (N,), index into `names`, -1 where no object.
        names: raw categories.
        members: instance -> raw category, for every object of the scan.
        dropped: what could not be used, and how often.
    """

    instance: NDArray[np.int32]
    category: NDArray[np.int32]
    names: tuple[str, ...]
    members: Mapping[int, str]
    dropped: Mapping[str, int]


def map_labels(raw: NDArray[Any], name: str) -> NDArray[np.int16]:
    """Raw ids (N,) -> int16 class ids of the taxonomy `name`, UNLABELLED where it has no class for them."""
    table = taxonomy(name).from_raw
    mapping = np.full(max(*table, int(raw.max(initial=0))) + 1, UNLABELLED, np.int16)
    mapping[list(table)] = list(table.values())
    labels: NDArray[np.int16] = mapping[raw]
    return labels


def read_label_table(files: RawFiles, path: str, dropped: Counter[str]) -> LabelTable:
    """Raw category -> ids, from the tab-separated table in any of its versions; counts damaged rows in `dropped`."""
    try:
        lines = files.read(path, MAX_TABLE).decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as problem:
        raise files.error(path, "is not UTF-8 text", offset=problem.start) from problem
    header = lines[0].rstrip("\r\n").split("\t") if lines else []
    wanted = ("raw_category", "id", "nyu40id")
    if not set(wanted) <= set(header):
        raise files.error(
            path, f"the header must name the columns {', '.join(wanted)}", line=1,
            hint="the v1 table has other columns; use scannetv2-labels.combined.tsv",
        )  # fmt: skip
    table: dict[str, Category] = {}
    for number, line in enumerate(lines[1:], 2):
        values = line.rstrip("\r\n").split("\t")
        if "\0" in line or (len(values) < len(header) and not line.endswith("\n")):
            dropped["label table: damaged row"] += 1  # a block of zeros, or where the file was cut off
            continue
        cells = dict(zip(header, values, strict=False))
        name, *ids = (cells.get(column, "").strip() for column in wanted)
        for text in ids:
            if text and not (text.isascii() and text.isdigit() and len(text) < 6):
                raise files.error(path, f"id {text[:40]!r} of category {name[:40]!r} is no number", line=number)
        if name:
            table[name] = Category(scannet_id=int(ids[0] or 0), nyu40_id=int(ids[1] or 0))
    return table


def read_objects(files: RawFiles, segments_path: str, aggregation_path: str, vertices: int) -> Objects:
    """Join segments and objects; where two objects claim a segment the later one has it.

    Raises `RawDataError` if the segmentation is not of this mesh or the aggregation not of this segmentation.
    """
    segment_ids, vertex_segment = np.unique(_read_segments(files, segments_path, vertices), return_inverse=True)
    instance = np.zeros(len(segment_ids), np.int32)
    category = np.full(len(segment_ids), -1, np.int32)
    names: dict[str, int] = {}
    members: dict[int, str] = {}
    absent = named = 0
    for number, group in enumerate(_read_groups(files, aggregation_path)):
        object_id, label, claimed = _parse_group(files, aggregation_path, number, group)
        place = np.searchsorted(segment_ids, claimed)
        place = (
            place[segment_ids[np.minimum(place, len(segment_ids) - 1)] == claimed] if len(segment_ids) else place[:0]
        )
        absent, named = absent + len(claimed) - len(place), named + len(claimed)
        instance[place] = object_id + 1
        category[place] = names.setdefault(label, len(names))
        members[object_id + 1] = label
    if absent > MAX_ABSENT_SHARE * named:
        raise files.error(
            aggregation_path, f"{absent} of the {named} segments it names are not in {segments_path}",
            hint="the files are of different releases; take aggregation and segs.json both from v2",
        )  # fmt: skip
    return Objects(
        instance=instance[vertex_segment],
        category=category[vertex_segment],
        names=tuple(names),
        members=members,
        dropped={"segment absent from segs.json": absent} if absent else {},
    )


def object_labels(objects: Objects, table: LabelTable) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, int]]:
    """Per vertex ScanNet id and nyu40 id (0 = none), and the count of categories the table does not know."""
    known = [table.get(name) for name in objects.names]
    ids = np.array([(c.scannet_id, c.nyu40_id) if c else (0, 0) for c in known] + [(0, 0)], np.int64)
    unknown = Counter(name for name, c in zip(objects.names, known, strict=True) if c is None)
    per_vertex = ids[objects.category]
    return per_vertex[:, 0], per_vertex[:, 1], {"unknown raw category": len(unknown)} if unknown else {}


def check_agreement(files: RawFiles, path: str, from_objects: NDArray[np.int64], from_mesh: NDArray[np.int64]) -> int:
    """Vertices where both sources have a nyu40 id and the ids differ; raises `RawDataError` if these are too many."""
    both = (from_objects > 0) & (from_mesh > 0)
    differ = int((from_objects[both] != from_mesh[both]).sum())
    if differ > MAX_CONTRADICTION * int(both.sum()):
        raise files.error(
            path, f"{differ} of {int(both.sum())} annotated vertices have another class in labels.ply",
            hint="the files are of different releases; take aggregation, segs.json and labels.ply from v2",
        )  # fmt: skip
    return differ


def nyu40_ids(table: LabelTable) -> NDArray[np.uint16]:
    """ScanNet id -> nyu40 id (0 = none), uint16 (65536,).

    A few ids (singular and plural of a name) stand in two rows with different classes. The tables are sorted by how
    often a category was used, and the first row counts.
    """
    ids = np.zeros(RAW_IDS, np.uint16)
    for category in reversed(list(table.values())):
        if category.scannet_id < RAW_IDS:
            ids[category.scannet_id] = category.nyu40_id if category.nyu40_id <= 40 else 0
    return ids


def instances_fit(
    instance: NDArray[np.uint16], raw: NDArray[np.uint16] | None, objects: Objects, table: LabelTable
) -> bool:
    """Whether an instance image is of the same annotation as the scan's objects.

    Its instances must be objects of the scan, and (where there is a label image `raw`) its pixels must mostly have
    their object's category. Nothing else tells a picture of release v1: sizes and file names are the same.
    """
    expected = np.full(RAW_IDS, -1, np.int64)
    for ident, name in objects.members.items():
        if ident < RAW_IDS:
            expected[ident] = table[name].scannet_id if name in table else 0
    of_object = instance > 0
    category = expected[instance[of_object]]
    wrong = category < 0
    if raw is not None:
        wrong |= (category > 0) & (raw[of_object] > 0) & (category != raw[of_object])
    return bool(wrong.sum() <= MAX_CONTRADICTION * len(wrong))


def _read_segments(files: RawFiles, path: str, vertices: int) -> NDArray[np.int64]:
    content = _read_json(files, path)
    _check_scan(files, path, content)
    indices = content.get("segIndices")
    if not isinstance(indices, list):
        raise files.error(path, "has no list 'segIndices'")
    if len(indices) != vertices:
        raise files.error(
            path, f"labels {len(indices)} vertices, the mesh has {vertices}",
            hint="take the mesh and its segmentation from the same release (_vh_clean_2)",
        )  # fmt: skip
    return _integers(files, path, "segIndices", indices)


def _read_groups(files: RawFiles, path: str) -> list[Any]:
    content = _read_json(files, path)
    _check_scan(files, path, content)
    groups = content.get("segGroups")
    if not isinstance(groups, list):
        raise files.error(path, "has no list 'segGroups'")
    return groups


def _check_scan(files: RawFiles, path: str, content: Mapping[str, Any]) -> None:
    """Refuse a file that says it is of another scan; some say `scannet.scene0000_00`, some say nothing."""
    named = SCAN.search(str(content.get("sceneId")))
    if named and named[0] != files.ref.scene_id:
        raise files.error(path, f"is of the scan {named[0]}: it was exchanged with another", hint="download it again")


def _parse_group(files: RawFiles, path: str, number: int, group: Any) -> tuple[int, str, NDArray[np.int64]]:
    """Object id, raw category, distinct segment ids of one entry of `segGroups`."""
    entry = group if isinstance(group, dict) else {}
    object_id, label, segments = entry.get("objectId"), entry.get("label"), entry.get("segments")
    if not (isinstance(object_id, int) and isinstance(label, str) and isinstance(segments, list)) or (
        not 0 <= object_id < 2**31 - 1
    ):
        raise files.error(path, f"segGroups[{number}] needs objectId (0 or more), label (text) and segments (list)")
    return object_id, label, np.unique(_integers(files, path, f"segGroups[{number}].segments", segments))


def _integers(files: RawFiles, path: str, name: str, values: list[Any]) -> NDArray[np.int64]:
    if not all(type(v) is int for v in values):
        raise files.error(path, f"{name} must hold integers")
    try:
        return np.array(values, np.int64)
    except OverflowError as problem:
        raise files.error(path, f"{name} holds integers beyond 64 bits") from problem


def _read_json(files: RawFiles, path: str) -> dict[str, Any]:
    data = files.read(path, MAX_JSON)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise files.error(
            path, f"is no readable JSON: {problem}", hint="the file is damaged; download it again"
        ) from problem
    if not isinstance(content, dict):
        raise files.error(path, "must hold a JSON object")
    return content
