"""Lists the rooms of an S3DIS release, with their views in 2D-3D-S: folder listings only, nothing is opened.

    <rooms>/Area_N/<type>_<k>/Annotations/<class>_<i>.txt     one file per object: the label is in its name
    <rooms>/Area_N/Area_N_alignmentAngle.txt                  only in the release that is not aligned yet

The room's own `<room>.txt` holds the same points without labels, and under a wrong name in one room; it only tells
whether the annotation files are whole (see `total`). The release has clutter (.DS_Store), second copies
("wall_3 (1).txt") and a class outside the 13 (stairs): a file becomes an object only if its name says which class it
is, all others are counted in `Scene.dropped`.

Rooms of one area are scanned in one building, so the area is the sequence, and areas make the splits: the customary
split holds out Area_5, and fold k of the six holds out Area_k (`val_area: k`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from brickyard.ingest.s3dis.gallery import Gallery, below, list_views
from brickyard.ingest.s3dis.total import UNCHECKED
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

DATASET = "s3dis"
TAXONOMY = "s3dis13"
AREAS = (1, 2, 3, 4, 5, 6)
AREA = re.compile(r"Area_[1-6]")
ROOM = re.compile(r"[A-Za-z]+_\d+")
OBJECT = re.compile(r"([A-Za-z]+)_\d+\.txt")
CUSTOMARY = {"stairs": "clutter"}
"""Classes outside the 13 and where the published splits and codes put them."""
BYTES_PER_POINT = {"v1.2-aligned": 36, "v1.2": 62}
"""A line such as `-19.557 -13.432 2.210 112 108 96`, and one with six decimals for everything, for planning."""
VIEW_BYTES = 2 << 20
"""Colour, depth and label image of 1080x1080 pixels, for planning."""
MAX_CHUNKS = 1000


@dataclass(frozen=True, kw_only=True)
class S3DISOptions:
    """What to read.

    Attributes:
        rooms: folder below the root that holds Area_1 .. Area_6; empty if the root does.
        areas: only rooms of these areas.
        val_area: rooms of this area (1..6) have split "val", all others "train": fold `val_area` of the six.
        align_rooms: turn each room about the vertical by its angle in `Area_N_alignmentAngle.txt`, so that walls follow
            the axes; `world_from_scene` leads back to the coordinates of the files. The aligned release has no angles.
        chunk_points: cut rooms of more points (estimated by their size in bytes) into chunks of at most about so many.
        overlap_m: metres by which a chunk reaches into its neighbours.
        views: folder below the root that holds area_1 .. area_6 of 2D-3D-S; None reads no images. They share the
            frame of the release that is not aligned (v1.2); on the aligned one most fail `min_agreement`.
        max_views: at most so many views a room, spread over its scan locations.
        read_depth, read_labels: depth images, and label images with instances, where they are there.
        min_agreement: leave out a view if, of the points at or in front of the surface in its depth image, a smaller
            share lies on it (see `ingest.agreement`); 0 keeps all.
        area_5b: (degrees about z, x, y, z in metres) from the frame of area_5b, which was captured apart, into that of
            area_5a and of the points.
    """

    rooms: str = ""
    areas: tuple[int, ...] = AREAS
    val_area: int = 5
    align_rooms: bool = False
    chunk_points: int | None = None
    overlap_m: float = 0.5
    views: str | None = None
    max_views: int = 24
    read_depth: bool = True
    read_labels: bool = True
    min_agreement: float = 0.5
    area_5b: tuple[float, float, float, float] = (-90.0, -4.10, 6.25, 0.0)

    def __post_init__(self) -> None:
        checks = (
            (self.val_area in AREAS, f"val_area must be 1..6, found {self.val_area}"),
            (set(self.areas) <= set(AREAS) and self.areas != (), f"areas must be out of 1..6, found {self.areas}"),
            (self.chunk_points is None or self.chunk_points >= 100, "chunk_points must be at least 100"),
            (all(map(math.isfinite, self.area_5b)), f"area_5b must be four finite numbers, found {self.area_5b}"),
            (0 <= self.overlap_m <= 100, f"overlap_m must be 0..100, found {self.overlap_m}"),
            (self.max_views > 0, f"max_views must be above 0, found {self.max_views}"),
            (0 <= self.min_agreement <= 1, f"min_agreement must be 0..1, found {self.min_agreement}"),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"s3dis options: {problem}")


def plan(store: Store, options: S3DISOptions) -> Iterator[SceneRef | Missing]:
    """All rooms, or chunks of them, sorted by area and name.

    Yields a `Missing` for a room without annotated objects; raises `RawDataError` if the root holds no areas.
    """
    if options.views is not None and not store.exists(below(options.views).rstrip("/")):
        raise RecipeError(f"s3dis options: views: there is no folder {options.views} in {store.uri}")
    base = below(options.rooms)
    folders = [name.rstrip("/") for name in store.list(base.rstrip("/")) if name.endswith("/")]
    areas = [name for name in folders if AREA.fullmatch(name)]
    if not areas:
        raise RawDataError(
            "no folder Area_1 .. Area_6 is here", dataset=DATASET, path=f"{store.uri}/{base}".rstrip("/"),
            hint="this is the folder Stanford3dDataset_v1.2 or Stanford3dDataset_v1.2_Aligned_Version; see `rooms`",
        )  # fmt: skip
    for area in areas:
        if int(area[-1]) in options.areas:
            yield from _plan_area(store, base + area, options)


def _plan_area(store: Store, path: str, options: S3DISOptions) -> Iterator[SceneRef | Missing]:
    area = path.rpartition("/")[2]
    gallery = None
    if options.views is not None:
        wanted = {"pose"} | ({"depth"} if options.read_depth else set())
        wanted |= {"semantic"} if options.read_labels else set()
        gallery = list_views(store, options.views, int(area[-1]), wanted)
    names = store.list(path)
    angles = f"{area}_alignmentAngle.txt"
    if gallery is not None and not gallery.rooms:
        reason = f"{options.views} has no views of it: its rooms go without"
        yield Notice(dataset=DATASET, scene_id=area, reason=reason)
    table = f"{path}/{angles}" if angles in names else None
    folders = [name.rstrip("/") for name in names if name.endswith("/") and ROOM.fullmatch(name.rstrip("/"))]
    rooms = [_plan_room(store, f"{path}/{name}", table, options) for name in folders]
    witnessed = any(isinstance(room, SceneRef) and "total" in room.files for room in rooms)
    for room in rooms:
        if isinstance(room, Missing):
            yield room
            continue
        if witnessed and "total" not in room.files:
            room.details["dropped"][UNCHECKED] = 1
        if gallery is not None:
            room = _hang(room, gallery, options)
        yield from _cut(room, options)


def _plan_room(store: Store, path: str, angles: str | None, options: S3DISOptions) -> SceneRef | Missing:
    area, room = path.split("/")[-2:]
    folder = f"{path}/Annotations"
    objects: dict[str, int] = {}
    others: list[str] = []
    skipped: Counter[str] = Counter()
    for name, size in sorted(store.sizes(folder).items()):
        if class_of(name) is None:
            skipped["file that names no class"] += 1
            others += [name] if OBJECT.fullmatch(name) else []
        elif size == 0:
            skipped["empty annotation file"] += 1
        else:
            objects[name] = size
    if not objects:
        reason = f"{folder}/ has no <class>_<number>.txt with points"
        return Missing(dataset=DATASET, scene_id=f"{area}/{room}", reason=reason)
    files = {name.removesuffix(".txt"): f"{folder}/{name}" for name in [*objects, *others]}
    total = _own_file(room, store.sizes(path))
    if total is not None:
        files["total"] = f"{path}/{total}"
    if options.align_rooms and angles:
        files["alignment"] = angles
    version = "v1.2" if angles else "v1.2-aligned"
    return SceneRef(
        dataset=DATASET,
        scene_id=f"{area}/{room}",
        split="val" if area == f"Area_{options.val_area}" else "train",
        sequence=area,
        root=store.uri,
        files=files,
        details={
            "room": room,
            "folder": path,
            "objects": list(objects),
            "others": others,
            "align_rooms": options.align_rooms,
            "version": version,
            "dropped": dict(skipped),
            "views": [],
            "min_agreement": options.min_agreement,
            "chunk": None,
        },
        points_estimate=max(1, sum(objects.values()) // BYTES_PER_POINT[version]),
        bytes_estimate=sum(objects.values()),
    )


def _own_file(room: str, names: Iterable[str]) -> str | None:
    """The file of all points of a room: `<room>.txt`, or what is meant by it (`copy_Room_1.txt` of copyRoom_1)."""
    if f"{room}.txt" in names:
        return f"{room}.txt"
    plain = room.replace("_", "").lower()
    meant = [name for name in names if name.replace("_", "").lower().endswith(f"{plain}.txt")]
    return meant[0] if len(meant) == 1 else None


def class_of(name: str) -> int | None:
    """Class id of an annotation file's name such as "ceiling_1.txt"; None if it names none."""
    match = OBJECT.fullmatch(name)
    return None if match is None else class_id(match[1])


def class_id(name: str) -> int | None:
    """Class id of a raw class name; None for one nobody knows."""
    known = taxonomy(TAXONOMY).classes
    label = CUSTOMARY.get(name, name)
    return known.index(label) if label in known else None


def _hang(room: SceneRef, gallery: Gallery, options: S3DISOptions) -> SceneRef:
    """The room with its views, thinned evenly in the order of scan locations and frames."""
    name = room.details["room"]
    views, without_pose = gallery.of(name)
    count = min(len(views), options.max_views)
    files, entries = dict(room.files), []
    lost = Counter({"view without a pose": without_pose, "view without its image": gallery.imageless.get(name, 0)})
    for number in range(count):
        view = views[(2 * number + 1) * len(views) // (2 * count)]
        roles = {kind: f"view-{number:03d}-{kind}" for kind in view.files}
        files |= {roles[kind]: path for kind, path in view.files.items()}
        frame = options.area_5b if view.part == "area_5b" else (0.0, 0.0, 0.0, 0.0)
        entries.append({"name": view.name, "roles": roles, "frame": list(frame)})
        lost.update(f"view without its {kind} image" for kind in view.absent)
    if any("semantic" in entry["roles"] for entry in entries):
        if gallery.labels is not None:
            files["labels"] = gallery.labels
        else:
            lost["view without labels: semantic_labels.json is missing"] = count
    dropped = {**room.details["dropped"], **+lost}
    details = {**room.details, "views": entries, "dropped": dropped}
    return replace(room, files=files, details=details, bytes_estimate=room.bytes_estimate + count * VIEW_BYTES)


def _cut(room: SceneRef, options: S3DISOptions) -> Iterator[SceneRef | Missing]:
    """The room, or its chunks: their number is known, where they lie is found by whoever reads one."""
    count = 1 if options.chunk_points is None else math.ceil(room.points_estimate / options.chunk_points)
    if count <= 1:
        yield room
    elif count > MAX_CHUNKS:
        reason = f"{count} chunks, at most {MAX_CHUNKS} are planned: raise chunk_points"
        yield Missing(dataset=DATASET, scene_id=room.scene_id, reason=reason)
    else:
        for number in range(count):
            chunk = {"number": number, "count": count, "overlap_m": options.overlap_m}
            yield replace(
                room,
                scene_id=f"{room.scene_id}/chunk-{number:03d}",
                details={**room.details, "chunk": chunk},
                points_estimate=room.points_estimate // count,
            )
