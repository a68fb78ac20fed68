"""Which captures there are, of which visit and fold: the official lists, and what is strange about them.

    3dod_train_val_splits.csv, raw_train_val_splits.csv     video_id,visit_id,fold
    metadata.csv                                            the same columns, and sky_direction; where no list is there

Captures of a visit show one room. The official folds tear one visit apart (381879), and eight captures have the visit
NA: unknown, not one room. 24 captures of raw have neither mesh nor trajectory, and are all that it has beyond 3dod.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from brickyard.ingest.source import Missing, Notice
from brickyard.shards.storage import Store

DATASET = "arkitscenes"
FOLDS = {"Training": "train", "Validation": "val"}
OFFICIAL = {
    "3dod": ((4498, 549), "a4902d622425d754c0f35fb6e1f3c49d5627421da86fa6fe281199e8d50eab03"),
    "raw": ((4520, 551), "a0b174f4aeb94b0d94b383288b7bcec3df8952b2cb90fea881ee4889c5d0b8b2"),
}
"""Subset -> captures for training and validation, and SHA-256 of the sorted rows, as in `digest`."""
WITHOUT_MESH = frozenset((
    42446164, 42897421, 42897612, 42897848, 42899148, 42899153, 45261582, 45663223, 45663226, 45663227, 47332198,
    47333152, 47333155, 47333960, 47334515, 47334522, 47334523, 47429677, 47430089, 47895482, 48018149, 48018733,
    48458535, 48458541,
))  # fmt: skip
"""Captures of raw that were published without mesh, annotation and trajectory."""
MAX_TABLE = 16 << 20
SKY = {"Up": 0, "Left": 1, "Down": 2, "Right": 3}
"""Where in the stored image the sky is -> quarter turns clockwise that make it upright."""
NOTHING = ("", "NA", "nan", "NaN")
"""Cells of a table that went through a data frame, where there is no value. A row of no capture names none."""
_NUMBER = re.compile(r"(\d{1,12})(\.0)?")


@dataclass(frozen=True)
class Capture:
    """A row: visit as text, "" where it is unknown; fold; quarter turns that the sky's direction stands for."""

    visit: str
    fold: str
    turns: int | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the lists say.

    Attributes:
        path: of the list of folds, None where there is none.
        captures: video_id -> its row.
        told: notices and missing lines of the lists themselves.
        damaged: path of a damaged list, behind whose back captures may have been named.
    """

    path: str | None
    captures: Mapping[str, Capture]
    told: list[Missing] = field(default_factory=list)
    damaged: str | None = None


def read_table(store: Store, subset: str) -> Table:
    """The list of a subset: beside its folds, at the root, or where the official repository has it."""
    metadata, name = f"{subset}/metadata.csv", f"{subset}_train_val_splits.csv"
    places = (f"{subset}/{name}", name, f"{'threedod' if subset == '3dod' else subset}/{name}", metadata)
    path = next((place for place in dict.fromkeys(places) if store.exists(place)), None)
    if path is None:
        reason = f"it is not there: nobody knows which captures show one room, or what is missing; {metadata} helps"
        return Table(path=None, captures={}, told=[Notice(dataset=DATASET, scene_id=name, reason=reason)])
    rows, problem = _rows(store, path)
    told: list[Missing] = []
    if problem is not None:
        told.append(Missing(dataset=DATASET, scene_id=path, reason=problem))
    sky: Mapping[str, Capture] = rows
    if path != metadata and store.exists(metadata):
        sky, damage = _rows(store, metadata)
        if damage is not None:
            told.append(
                Notice(dataset=DATASET, scene_id=metadata, reason=f"{damage}; only sky_direction is taken here")
            )
    captures = {
        video: Capture(row.visit, row.fold, sky[video].turns if video in sky else None) for video, row in rows.items()
    }
    told += _official(path, subset, captures)
    told += _torn(path, captures)
    return Table(path=path, captures=captures, told=told, damaged=None if problem is None else path)


def digest(captures: Mapping[str, Capture]) -> str:
    """SHA-256 of the sorted rows "video_id,visit_id,fold"."""
    rows = sorted(f"{video},{row.visit or 'NA'},{row.fold}" for video, row in captures.items())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _rows(store: Store, path: str) -> tuple[dict[str, Capture], str | None]:
    """The rows that can be read, and what is wrong with the first one that cannot."""
    size = store.size(path) or 0
    if size > MAX_TABLE:
        return {}, f"{size} bytes are no list of captures; download it again"
    lines = store.read(path).decode("utf-8", "replace").splitlines()
    header, *body = lines or [""]
    columns = [name.strip() for name in header.split(",")]
    if not {"video_id", "visit_id", "fold"} <= set(columns):
        return {}, f"line 1: expected the columns video_id,visit_id,fold, found {header[:60]!r}; download it again"
    captures: dict[str, Capture] = {}
    problem = None
    for number, line in enumerate(body, 2):
        if not line.strip():
            continue
        try:
            cells = dict(zip(columns, next(csv.reader([line])), strict=True))
            row = {} if cells["video_id"].strip() in NOTHING else _row(cells, captures)
        except (ValueError, csv.Error) as why:
            problem = problem or f"line {number}: {why}: the list lost lines; download it again"
            continue
        captures |= row
    return captures, problem


def _row(cells: Mapping[str, str], known: Mapping[str, Capture]) -> dict[str, Capture]:
    video, visit = _NUMBER.fullmatch(cells["video_id"].strip()), cells["visit_id"].strip()
    found = _NUMBER.fullmatch(visit)
    if video is None or cells["fold"] not in FOLDS or (found is None and visit not in NOTHING):
        raise ValueError(f"{','.join(cells.values())[:60]!r} is no capture")
    if video[1] in known:
        raise ValueError(f"{video[1]} is named twice")
    turns = SKY.get(cells.get("sky_direction", "").strip())
    return {video[1]: Capture(found[1] if found else "", cells["fold"], turns)}


def _official(path: str, subset: str, captures: Mapping[str, Capture]) -> Iterator[Missing]:
    counts, known = OFFICIAL[subset]
    found = tuple(sum(row.fold == fold for row in captures.values()) for fold in FOLDS)
    if digest(captures) != known:
        reason = (
            f"it is not the official list: {found[0]} captures for training and {found[1]} for validation, "
            f"{counts[0]} and {counts[1]} were published"
            + ("" if found != counts else "; the same numbers, other captures")
        )
        yield Notice(dataset=DATASET, scene_id=path, reason=reason)


def _torn(path: str, captures: Mapping[str, Capture]) -> Iterator[Missing]:
    """Visits that lie in both folds: one room, seen in training and in validation."""
    folds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for video, row in captures.items():
        if row.visit:
            folds[row.visit][row.fold].append(video)
    for visit, found in sorted(folds.items()):
        if len(found) > 1:
            members = "; ".join(f"{fold}: {', '.join(sorted(found[fold]))}" for fold in FOLDS)
            reason = f"visit {visit} lies in both folds ({members}): one room for training and for validation"
            yield Notice(dataset=DATASET, scene_id=f"{path}#{visit}", reason=reason)
