"""Lists the captures of a download: three folder listings each, no payload is opened.

    3dod/metadata.csv   3dod/<fold>/<id>/  <id>_3dod_mesh.ply  <id>_3dod_annotation.json  <id>_frames/
    raw/metadata.csv    raw/<fold>/<id>/   the same files, and the folders (or zips) of frames beside them
    upsampling/...      pictures without mesh or trajectory: not read

What of a capture was not unpacked is read from its zip. Which kinds of files are there depends on what was downloaded,
so that all but the mesh is optional: what is asked for and not there is counted in `Scene.dropped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from brickyard.ingest.arkitscenes.files import CaptureFiles
from brickyard.ingest.arkitscenes.frames import posed_frames
from brickyard.ingest.arkitscenes.options import ARKitScenesOptions
from brickyard.ingest.arkitscenes.table import DATASET, FOLDS, WITHOUT_MESH, Capture, Table, read_table
from brickyard.ingest.clips import clip_id, cut, thin
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.storage import Store

KINDS = ("lowres_wide", "lowres_wide_intrinsics", "lowres_depth", "confidence", "wide", "wide_intrinsics", "vga_wide",
         "vga_wide_intrinsics", "highres_depth")  # fmt: skip
CLOUDS = "laser_scanner_point_clouds"
UNUSED = {
    "*.mov": ((".mov",), "films"),
    "ultrawide": (("ultrawide/", "ultrawide.zip"), "frames of the ultra-wide camera, whose pose is not published"),
}
"""What is seen of captures and not read -> endings of its names, and what it is."""
BYTES_PER_VERTEX = 40
"""16 bytes of a vertex and two faces of 13 bytes each, or a little less: mesh bytes -> vertices, for planning."""
PACKED_POINTS = 150_000
"""Vertices of a capture in a zip, for planning: the size of its mesh stands in the zip alone."""
BYTES_PER_VIEW = {"lowres_wide": 120_000, "vga_wide": 600_000, "wide": 4_000_000, "none": 0}


def plan(store: Store, options: ARKitScenesOptions) -> Iterator[SceneRef | Missing]:
    """All captures of a subset, or clips of them, in the order of their ids.

    Yields a `Missing` for a capture that the list names and that is not there, lies in another fold than the list
    says, or has no mesh (for clips: no two frames with a pose); a `Notice` for what is strange about the list, and for
    what is seen and not read. Raises `RawDataError` if the root is no download of ARKitScenes.
    """
    subset = _subset(store, options)
    table = read_table(store, subset)
    yield from table.told
    for other in ("3dod", "raw", "upsampling"):
        if other != subset and f"{other}/" in store.list():
            reason = f"not read: {subset} is" + (", and it has no mesh" if other == "upsampling" else "")
            yield Notice(dataset=DATASET, scene_id=other, reason=reason)
    download = _Download(store, subset, table, options, Counter())
    there = _captures(store, subset)
    absent = known = unnamed = 0
    for video in sorted({*there, *table.captures}, key=lambda video: (len(video), video)):
        row = table.captures.get(video)
        if video not in there and row is not None:
            if options.partial:
                absent += 1
            elif int(video) in WITHOUT_MESH:
                known += 1
            else:
                reason = f"{subset}/{row.fold}/{video} is not there, neither a folder nor a zip"
                yield Missing(dataset=DATASET, scene_id=video, reason=reason)
            continue
        unnamed += table.path is not None and row is None
        for item in _plan_capture(download, video, there[video], row):
            if isinstance(item, Missing) and int(video) in WITHOUT_MESH:
                known += 1
            else:
                yield item
    yield from _tallies(download, absent, known, unnamed)


def _subset(store: Store, options: ARKitScenesOptions) -> str:
    names = store.list()
    subset = options.subset or next((name for name in ("3dod", "raw") if f"{name}/" in names), "")
    if not subset or f"{subset}/" not in names:
        hint = "the root is the folder that holds 3dod/ or raw/, in which Training/ and Validation/ lie"
        raise RawDataError(f"no folder {subset or '3dod'}/ is here", dataset=DATASET, path=store.uri, hint=hint)
    return subset


@dataclass(frozen=True)
class _Download:
    """What all captures share, and a tally of what is seen and not read."""

    store: Store
    subset: str
    table: Table
    options: ARKitScenesOptions
    unread: Counter[str]


@dataclass(frozen=True)
class _Place:
    """Where a capture lies: its folds (two are a mistake), and whether as a folder, a zip or both."""

    folds: tuple[str, ...]
    unpacked: bool
    zipped: bool


def _captures(store: Store, subset: str) -> dict[str, _Place]:
    """video_id -> where it lies; one listing for each fold. A folder goes before a zip."""
    found: dict[str, dict[str, set[str]]] = {}
    for fold in FOLDS:
        for name in store.list(f"{subset}/{fold}"):
            video, kind = (name[:-1], "folder") if name.endswith("/") else (name.removesuffix(".zip"), "zip")
            if video.isdecimal() and video.isascii() and (kind == "folder" or name.endswith(".zip")):
                found.setdefault(video, {}).setdefault(kind, set()).add(fold)
    return {
        video: _Place(tuple(sorted(set().union(*kinds.values()))), "folder" in kinds, "zip" in kinds)
        for video, kinds in found.items()
    }


def _plan_capture(download: _Download, video: str, place: _Place, row: Capture | None) -> Iterator[SceneRef | Missing]:
    fold, table = place.folds[0], download.table
    if len(place.folds) > 1:
        yield Missing(dataset=DATASET, scene_id=video, reason="it lies in both folds, Training and Validation")
    elif row is not None and row.fold != fold:
        reason = f"it lies in {fold}, the list {table.path} says {row.fold}"
        yield Missing(dataset=DATASET, scene_id=video, reason=reason)
    elif row is None and table.damaged is not None:
        reason = f"no list names it, and {table.damaged} is damaged: its visit and fold are unknown"
        yield Missing(dataset=DATASET, scene_id=video, reason=reason)
    else:
        yield from _plan_whole(download, video, place, fold, row)


def _plan_whole(
    download: _Download, video: str, place: _Place, fold: str, row: Capture | None
) -> Iterator[SceneRef | Missing]:
    options, folder = download.options, f"{download.subset}/{fold}/{video}"
    mesh, files = f"{video}_3dod_mesh.ply", dict[str, str]()
    names = download.store.sizes(folder) if place.unpacked else {}
    if place.unpacked:
        files = _unpacked(download, video, folder, names)
    if place.zipped and mesh not in names:  # never unpacked, or not to its end
        files["zip"] = f"{folder}.zip"
    if options.clips is None and not place.zipped and mesh not in names:
        reason = f"{folder}/{mesh} is missing, without which there are no points"
        yield Missing(dataset=DATASET, scene_id=video, reason=reason)
        return
    vertices = names[mesh] // BYTES_PER_VERTEX + 1 if mesh in names else PACKED_POINTS
    views = 0 if options.images == "none" else options.views
    ref = SceneRef(
        dataset=DATASET,
        scene_id=video,
        split=FOLDS[fold],
        sequence=(row.visit if row else "") or video,
        root=download.store.uri,
        files=files,
        details=asdict(options)
        | {"subset": download.subset, "video": video, "folder": folder, "turns": None if row is None else row.turns},
        points_estimate=vertices,
        bytes_estimate=vertices * BYTES_PER_VERTEX + views * BYTES_PER_VIEW[options.images],
    )
    if options.clips is None:
        yield ref
    else:
        yield from _plan_clips(ref, options)


def _unpacked(download: _Download, video: str, folder: str, names: dict[str, int]) -> dict[str, str]:
    """Role -> path of what is there of a capture; the zips of single kinds of files are in raw alone."""
    options, frames = download.options, folder + (f"/{video}_frames" if download.subset == "3dod" else "")
    below = names if frames == folder else download.store.sizes(frames)
    files = {}
    if options.clips is None and f"{video}_3dod_mesh.ply" in names:
        files["mesh"] = f"{folder}/{video}_3dod_mesh.ply"
    if options.clips is None and options.boxes and f"{video}_3dod_annotation.json" in names:
        files["annotation"] = f"{folder}/{video}_3dod_annotation.json"
    if options.images != "none" and "lowres_wide.traj" in below:
        files["trajectory"] = f"{frames}/lowres_wide.traj"
    files |= {f"zip_{kind}": f"{folder}/{kind}.zip" for kind in KINDS if f"{kind}.zip" in names}
    listed = {*names, *(download.store.list(folder) if frames == folder else ())}
    download.unread.update(what for what, found in UNUSED.items() if any(name.endswith(found[0]) for name in listed))
    return files


def _plan_clips(ref: SceneRef, options: ARKitScenesOptions) -> Iterator[SceneRef | Missing]:
    """The clips of a capture, of its frames with poses: its trajectory is read for that."""
    assert options.clips is not None
    try:
        frames = posed_frames(CaptureFiles(ref), ref.details, Counter())
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=ref.scene_id, reason=str(problem))
        return
    times = [frame.milliseconds for frame in frames]
    runs = cut([times[k] for k in thin([time / 1000 for time in times], options.clips.rate_hz)], options.clips)
    if not runs:
        reason = f"{len(times)} frames of {ref.details['images']} have a pose, a clip needs two"
        yield Missing(dataset=DATASET, scene_id=ref.scene_id, reason=reason)
    for number, run in enumerate(runs):
        yield replace(
            ref,
            scene_id=clip_id(ref.scene_id, options.images, number),
            details={**ref.details, "first": run[0], "last": run[-1], "count": len(run)},
            points_estimate=0,
            bytes_estimate=len(run) * BYTES_PER_VIEW[options.images],
        )


def _tallies(download: _Download, absent: int, known: int, unnamed: int) -> Iterator[Notice]:
    subset = download.subset
    if absent:
        reason = f"{absent} captures of the list are not there, as `partial` says"
        yield Notice(dataset=DATASET, scene_id=subset, reason=reason)
    if known:
        reason = f"{known} captures that were published without mesh and trajectory: they are not read"
        yield Notice(dataset=DATASET, scene_id=f"{subset}/*", reason=reason)
    if unnamed:
        reason = f"{unnamed} captures are here that it does not name: they have the split of their folder, no visit"
        yield Notice(dataset=DATASET, scene_id=f"{download.table.path}#unnamed", reason=reason)
    if f"{CLOUDS}/" in download.store.list(subset):
        reason = "clouds of the laser scanner, which lie in another frame than the meshes: not read"
        yield Notice(dataset=DATASET, scene_id=f"{subset}/{CLOUDS}", reason=reason)
    for what, count in sorted(download.unread.items()):
        reason = f"{UNUSED[what][1]}, of {count} captures: not read"
        yield Notice(dataset=DATASET, scene_id=f"{subset}/*/{what}", reason=reason)
