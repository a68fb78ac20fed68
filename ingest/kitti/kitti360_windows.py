"""KITTI-360's accumulated clouds: some 200 m of a drive in one binary PLY, where all of its 3D labels are.

    <root>/data_3d_semantics/{train,test}/<drive>/static/<first>_<last>.ply     frame numbers; windows overlap
    <root>/data_3d_semantics/train/2013_05_28_drive_val.txt                     which windows are for validation

    float x y z, uchar red green blue, int semantic instance, uchar visible, float confidence      train, 28 bytes
    float x y z, uchar red green blue, uchar visible                                               test, 16 bytes

Points are in the world of the poses, kilometres from its origin, hence float32 of the file minus a whole-metre origin
in float64. A window of 4 M points costs 112 MB and half a second. The file says which columns there are; `visible` and
`confidence` have no place in a Scene. The dynamic clouds (objects smeared along their way) are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import blank_records
from brickyard.ingest.kitti.calibration import inverse
from brickyard.ingest.kitti.clips import role
from brickyard.ingest.kitti.folders import LICENCE, Found, root_of
from brickyard.ingest.kitti.kitti360_labels import TAXONOMY, classes_of, instances_of, label_roles
from brickyard.ingest.kitti.kitti360_listing import DATASET, DIGITS, VERSION, Listing, pose_files
from brickyard.ingest.kitti.kitti360_views import read_posed_view, world_from_velo
from brickyard.ingest.kitti.tables import ends_inside
from brickyard.ingest.source import Missing, RawFiles, SceneRef
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Float64, Identity, Points, Scene
from brickyard.shards.storage import Store

_POINT_BYTES = {"train": 28, "val": 28, "test": 16}
_MAX_BYTES = 2 << 30
_MAX_HEADER = 4096
_MAX_LIST = 1 << 20
_MAX_COORDINATE = 1e6
_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "char": "i1", "int": "<i4", "uint": "<u4", "short": "<i2"}
_NAME = re.compile(r"(\d{10})_(\d{10})\.ply", re.ASCII)
_VALIDATION = "data_3d_semantics/train/2013_05_28_drive_val.txt"


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A file of accumulated points and the frames it covers, both ends included.

    `listed` is False where the list of validation windows is absent, so that "train" may be "val".
    """

    file: Found
    first: int
    last: int
    split: str
    listed: bool


def plan_windows(
    store: Store, drive: str, listing: Listing, calibration: dict[str, Any], *, asked: bool, views: int
) -> Iterator[SceneRef | Missing]:
    """The accumulated clouds of a drive in order, each with at most `views` posed frames.

    Args:
        calibration: of `kitti360_rig.read_rig`.
        asked: the drive was asked for by name, so one without any cloud is `Missing`.
    """
    try:
        windows = list(_list_windows(store, drive))
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=drive, reason=f"{problem}; this costs all windows of the drive")
        return
    if not windows and asked:
        reason = "the drive has no accumulated clouds (data_3d_semantics)"
        yield Missing(dataset=DATASET, scene_id=drive, reason=reason)
    for window in windows:
        used = {"points": window.file}
        entries, seen = [], _choose_views(window, listing, views)
        for frame, camera in seen:
            used[role(frame, camera)] = listing.images[camera][frame]
            if frame in listing.labels.get(camera, {}):
                used |= label_roles(role(frame, camera), listing.labels[camera][frame])
            time = listing.image_times[camera].get(frame)
            pose = listing.trajectory.places[frame]
            entries.append({"frame": frame, "camera": camera, "timestamp": time, "pose": pose})
        yield SceneRef(
            dataset=DATASET,
            scene_id=f"{drive}/static/{window.first:0{DIGITS}d}_{window.last:0{DIGITS}d}",
            split=window.split,
            sequence=drive,
            root=root_of(store),
            files={name: found.path for name, found in used.items()} | (pose_files(listing, drive) if entries else {}),
            details={"window": entries, "dropped": _losses(window, listing, seen), **calibration},
            points_estimate=_guess_points(window),
            bytes_estimate=sum(found.size for found in used.values()),
        )


def _list_windows(store: Store, drive: str) -> Iterator[_Window]:
    """The static windows of a drive in order; raises `RawDataError` for a damaged list of validation windows."""
    size = store.size(_VALIDATION) or 0
    if size > _MAX_LIST:
        raise RawDataError(f"{size} bytes are too many for a list of windows", dataset=DATASET, path=_VALIDATION)
    data = store.read(_VALIDATION) if size else b""
    if b"\0" in data or ends_inside(data):
        problem = "a part of it is lost (zero bytes or half a line): which windows are for validation cannot be told"
        raise RawDataError(problem, dataset=DATASET, path=_VALIDATION, hint="download it again")
    listed = data.decode("ascii", errors="replace").split()
    validation = {"/".join(line.split("/")[-3:]) for line in listed}
    for split in ("train", "test"):
        folder = f"data_3d_semantics/{split}/{drive}/static"
        for name, bytes_ in sorted(store.sizes(folder).items()):
            match = _NAME.fullmatch(name)
            if match:
                chosen = "val" if f"{drive}/static/{name}" in validation else split
                first, last = (int(word) for word in match.groups())
                yield _Window(
                    file=Found(f"{folder}/{name}", bytes_),
                    first=first,
                    last=last,
                    split=chosen,
                    listed=split == "test" or bool(size),
                )


def _guess_points(window: _Window) -> int:
    """Points of a window, guessed from the size of its file."""
    return max(1, window.file.size // _POINT_BYTES[window.split])


def _choose_views(window: _Window, listing: Listing, count: int) -> list[tuple[int, str]]:
    """(frame, camera) of the views of a window: evenly spaced posed frames that have an image, every camera of each."""
    places = listing.trajectory.places
    posed = [f for f in sorted(places) if window.first <= f <= window.last and "before" not in places[f]]
    seen = [frame for frame in posed if any(frame in found for found in listing.images.values())]
    chosen = sorted({seen[(2 * k + 1) * len(seen) // (2 * count)] for k in range(count)}) if seen else []
    return [(frame, camera) for frame in chosen for camera, found in listing.images.items() if frame in found]


def _losses(window: _Window, listing: Listing, views: list[tuple[int, str]]) -> dict[str, int]:
    """What the choice of views had to do without."""
    frames = {frame for frame, _ in views}
    gaps = sum(max(a, window.first - 1) + 1 < min(b, window.last + 1) for a, b in listing.trajectory.gaps)
    counts = {f"missing image {c}": len(frames - set(found)) for c, found in listing.images.items()}
    counts["damaged parts of poses.txt"] = gaps
    counts["no list of validation windows"] = int(not window.listed)
    counts["no time"] = sum(frame not in listing.image_times[camera] for frame, camera in views)
    return {reason: count for reason, count in counts.items() if count}


def read_window_scene(files: RawFiles) -> Scene:
    """A window with its views; the scene's frame has the axes of the world.

    Raises:
        RawDataError: the cloud, an image or a pose is missing or damaged.
    """
    ref = files.ref
    points, world_from_scene, dropped = _read_points(files, ref.files["points"])
    views = []
    for entry in ref.details["window"]:
        name, frame = entry["camera"], entry["frame"]
        view = read_posed_view(
            files, name, role(frame, name), ref.details["cameras"][name], timestamp=entry["timestamp"], frame=frame
        )
        velo = world_from_velo(files, entry["pose"])
        if velo is not None and view.scene_from_camera is not None:
            view = replace(view, scene_from_camera=inverse(world_from_scene) @ velo @ view.scene_from_camera)
        views.append(view)
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=None, domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=world_from_scene,
        points=points,
        views=tuple(views),
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_points(files: RawFiles, path: str) -> tuple[Points, Float64, dict[str, int]]:
    """Points of a window, world_from_scene (a translation by whole metres), and what was dropped.

    Raises:
        RawDataError: no such PLY, truncated or padded, or without a usable point.
    """
    data = files.read(path, limit=_MAX_BYTES)
    count, dtype, start = _parse_header(files, path, data)
    if count * dtype.itemsize != len(data) - start:
        problem = f"{count} points of {dtype.itemsize} bytes are declared, {len(data) - start} bytes follow"
        raise files.error(path, problem, offset=start, hint="the file is truncated; download it again")
    table = np.frombuffer(data, dtype, count, start)
    world = np.stack([table[axis] for axis in "xyz"], axis=1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = (np.abs(world) <= _MAX_COORDINATE).all(axis=1)
    blank = blank_records(table, dtype.itemsize)
    usable = near & ~blank
    losses = {"points in a lost block (zeros)": int(blank.sum()), "impossible points": int((~near & ~blank).sum())}
    dropped = {reason: lost for reason, lost in losses.items() if lost}
    if 2 * usable.sum() < count:
        problem = f"only {usable.sum()} of {count} points are usable (not zeros, within {_MAX_COORDINATE:.0f} m)"
        raise files.error(path, problem, offset=start, hint="download it again")
    table, world = table[usable], world[usable]
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = np.round((world.min(axis=0) + world.max(axis=0)) / 2)
    labelled = "semantic" in (dtype.names or ())
    points = Points(
        xyz=(world - world_from_scene[:3, 3]).astype(np.float32),
        color=np.stack([table[name] for name in ("red", "green", "blue")], axis=1),
        semantic={TAXONOMY: classes_of(_column(table, "semantic"))} if labelled else {},
        instance=instances_of(_column(table, "instance")) if labelled else None,
    )
    return points, world_from_scene, dropped


def _column(table: NDArray[np.void], name: str) -> NDArray[np.int32]:
    return np.ascontiguousarray(table[name], np.int32)


def _parse_header(files: RawFiles, path: str, data: bytes) -> tuple[int, np.dtype[np.void], int]:
    """(points, record, byte where they begin)."""
    head, end, _ = data[:_MAX_HEADER].partition(b"end_header\n")
    lines = head.decode("ascii", errors="replace").splitlines()
    if not end or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise files.error(path, "no binary little-endian PLY with a short header", offset=0, hint="download it again")
    count, fields = -1, []
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if words[:2] == ["element", "vertex"] and count < 0 and len(words) == 3 and words[2].isdecimal():
            count = int(words[2][:12])
        elif words[:1] == ["property"] and count >= 0 and len(words) == 3 and words[1] in _TYPES:
            fields.append((words[2], _TYPES[words[1]]))
        elif words[:1] not in (["comment"], ["obj_info"]):
            raise files.error(path, f"{line[:60]!r} has no place in the header of an accumulated cloud", line=number)
    kinds = dict(fields)
    wanted = dict.fromkeys("xyz", "<f4") | dict.fromkeys(("red", "green", "blue"), "u1")
    if "semantic" in kinds or "instance" in kinds:
        wanted |= dict.fromkeys(("semantic", "instance"), "<i4")
    wrong = [name for name, kind in wanted.items() if kinds.get(name) != kind]
    if wrong or len(kinds) != len(fields) or count < 1:
        raise files.error(path, f"the header lacks points, repeats a property or has no usable {', '.join(wrong)}")
    return count, np.dtype(fields), len(head) + len(end)
