"""Lists the rooms below an S3DIS release root: two folder listings a room, nothing is opened.

    <root>/Area_N/<type>_<k>/Annotations/<class>_<i>.txt     one file per object: the label is in its name
    <root>/Area_N/Area_N_alignmentAngle.txt                  only in the release that is not aligned yet

The room's own `<room>.txt` holds the same points without labels, and under a wrong name in one room; it is not used.
The release has clutter (.DS_Store), second copies ("wall_3 (1).txt") and a class outside the 13 (stairs): a file
becomes an object only if its name says which class it is, all others are counted in `Scene.dropped`.

Rooms of one area are scanned in one building, so the area is the sequence, and areas make the splits: the customary
split holds out one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ingest.source import Missing, SceneRef
from shards.errors import RawDataError, RecipeError
from shards.storage import Store
from shards.taxonomy import taxonomy

DATASET = "s3dis"
TAXONOMY = "s3dis13"
AREA = re.compile(r"Area_[1-6]")
ROOM = re.compile(r"[A-Za-z]+_\d+")
OBJECT = re.compile(r"([A-Za-z]+)_\d+\.txt")
CUSTOMARY = {"stairs": "clutter"}
"""Classes outside the 13 and where the published splits and codes put them."""
BYTES_PER_POINT = 36
"""A line such as `-19.557 -13.432 2.210 112 108 96`, for planning."""


@dataclass(frozen=True, kw_only=True)
class S3DISOptions:
    """What to read.

    Attributes:
        val_area: rooms of this area (1..6) have split "val", all others "train".
        align_rooms: turn each room about the vertical by its angle in `Area_N_alignmentAngle.txt`, so that walls follow
            the axes; `world_from_scene` leads back to the coordinates of the files. The aligned release has no angles.
    """

    val_area: int = 5
    align_rooms: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.val_area <= 6:
            raise RecipeError(f"s3dis options: val_area must be 1..6, found {self.val_area}")


def plan(store: Store, options: S3DISOptions) -> Iterator[SceneRef | Missing]:
    """All rooms, sorted by area and name.

    Yields a `Missing` for a room without annotated objects; raises `RawDataError` if the root holds no areas.
    """
    areas = [name.rstrip("/") for name in store.list() if name.endswith("/") and AREA.fullmatch(name.rstrip("/"))]
    if not areas:
        raise RawDataError(
            "no folder Area_1 .. Area_6 is here", dataset=DATASET, path=store.uri,
            hint="the root is the folder Stanford3dDataset_v1.2 or Stanford3dDataset_v1.2_Aligned_Version",
        )  # fmt: skip
    for area in areas:
        names = store.list(area)
        angles = f"{area}_alignmentAngle.txt"
        for room in (name.rstrip("/") for name in names if name.endswith("/")):
            if ROOM.fullmatch(room):
                yield _plan_room(store, area, room, f"{area}/{angles}" if angles in names else None, options)


def _plan_room(store: Store, area: str, room: str, angles: str | None, options: S3DISOptions) -> SceneRef | Missing:
    folder = f"{area}/{room}/Annotations"
    objects: dict[str, int] = {}
    skipped: Counter[str] = Counter()
    for name, size in sorted(store.sizes(folder).items()):
        if class_of(name) is None:
            skipped["file that names no class"] += 1
        elif size == 0:
            skipped["empty annotation file"] += 1
        else:
            objects[name] = size
    if not objects:
        reason = f"{folder}/ has no <class>_<number>.txt with points"
        return Missing(dataset=DATASET, scene_id=f"{area}/{room}", reason=reason)
    files = {name.removesuffix(".txt"): f"{folder}/{name}" for name in objects}
    if options.align_rooms and angles:
        files["alignment"] = angles
    return SceneRef(
        dataset=DATASET,
        scene_id=f"{area}/{room}",
        split="val" if area == f"Area_{options.val_area}" else "train",
        sequence=area,
        root=store.path("") if store.local else store.uri,
        files=files,
        details={
            "objects": list(objects),
            "align_rooms": options.align_rooms,
            "version": "v1.2" if angles else "v1.2-aligned",
            "dropped": dict(skipped),
        },
        points_estimate=sum(objects.values()) // BYTES_PER_POINT,
        bytes_estimate=sum(objects.values()),
    )


def class_of(name: str) -> int | None:
    """Class id of an annotation file's name such as "ceiling_1.txt"; None if it names none."""
    match = OBJECT.fullmatch(name)
    known = taxonomy(TAXONOMY).classes
    label = CUSTOMARY.get(match[1], match[1]) if match else ""
    return known.index(label) if label in known else None
