"""Waymo v2 (2.x): per-component Parquet files, `<component>/<segment>.parquet`.

Planning reads one small column, the timestamps of `vehicle_pose`, and lists folders. Reading a frame takes its rows out
of each component by key, one row in memory at a time: 0.25 s for 537,000 points, and where a whole segment is one row
group (see `table`) 25 ms more for every frame before it, hence about 5 s for the last of 199. Memory is that of
the longest page of the columns (see there). A clip takes one camera's rows out of `camera_image`, and opens no other
payload.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from brickyard.ingest.source import Missing, RawFiles, SceneRef, Source
from brickyard.ingest.waymo.clip import build_clip, cut_segment
from brickyard.ingest.waymo.component import Components
from brickyard.ingest.waymo.frame import CAMERAS, POINTS_ESTIMATE, SPLITS, Frame, Options, split_of
from brickyard.ingest.waymo.scene import build_scene
from brickyard.ingest.waymo.table import Table
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

DATASET = "waymo_v2"
VERSION = "v2"
_REQUIRED = ("vehicle_pose", "lidar", "lidar_calibration", "lidar_pose")
_OPTIONAL = ("camera_image", "camera_calibration", "lidar_segmentation", "camera_segmentation")
_LABELS = ("lidar_segmentation", "camera_segmentation")
_PICTURES = ("vehicle_pose", "camera_image", "camera_calibration")
_SUFFIX = ".parquet"


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all segments, by split, segment and time, or their clips.

    A segment without one of its required components, or whose `vehicle_pose` is damaged, is one `Missing`; without
    pictures its frames have no views.

    Raises:
        RecipeError: no segment under the root, or a segment asked for is not there.
    """
    components = {f"{component}/" for component in _REQUIRED + _OPTIONAL}
    folders = [f"{split}/" if split else "" for split in ("", *SPLITS) if components & set(store.list(split))]
    found = {folder: _sizes(store, folder) for folder in folders}
    names = {name for files in found.values() for sizes in files.values() for name in sizes}
    if not names:
        raise RecipeError(f"no Waymo v2 segments in {store.uri}: expected vehicle_pose/<segment>{_SUFFIX} and so on")
    unknown = sorted(set(options.segments) - names)
    if unknown:
        raise RecipeError(f"no such segment in {store.uri}: {', '.join(unknown)}")
    installed = [name for name in _LABELS if any(files[name] for files in found.values())]
    for folder, files in found.items():
        labels = [] if split_of(store, folder) == "test" else installed  # nobody labelled those
        for name in sorted({name for sizes in files.values() for name in sizes}):
            if not options.segments or name in options.segments:
                yield from _frames(store, folder, name, files, options, labels=labels)


def _sizes(store: Store, folder: str) -> dict[str, dict[str, int]]:
    """Component -> segment -> bytes, by one listing per component."""
    return {
        component: {
            file.removesuffix(_SUFFIX): size
            for file, size in store.sizes(f"{folder}{component}").items()
            if file.endswith(_SUFFIX)
        }
        for component in _REQUIRED + _OPTIONAL
    }


def _frames(
    store: Store, folder: str, name: str, files: dict[str, dict[str, int]], options: Options, *, labels: list[str]
) -> Iterator[SceneRef | Missing]:
    paths = {component: f"{folder}{component}/{name}{_SUFFIX}" for component in files if name in files[component]}
    required = _REQUIRED if options.clips is None else _PICTURES
    absent = [component for component in required if component not in paths]
    if absent:
        reason = f"{folder}{absent[0]}/{name}{_SUFFIX} is not there (not downloaded?)"
        yield Missing(dataset=DATASET, scene_id=name, reason=reason)
        return
    # What other segments have may have been lost here; labels of this one may also never have been made.
    labels = [component for component in labels if component not in paths]
    if "camera_calibration" not in paths or not options.cameras:
        labels = [component for component in labels if component != "camera_segmentation"]
        paths.pop("camera_image", None)
        paths.pop("camera_segmentation", None)
    fail = partial(RawDataError, dataset=DATASET, path=paths["vehicle_pose"])
    try:
        table = Table(files["vehicle_pose"][name], partial(store.read_range, paths["vehicle_pose"]), fail)
        timestamps = table.timestamps(name)
        if not timestamps and table.segments():
            others = ", ".join(sorted(map(str, table.segments())))
            raise fail(f"its rows are of {others[:100]}: the file was exchanged with another")
        if not timestamps or not 0 < timestamps[0] <= timestamps[-1] < 1 << 53:
            raise fail(f"{len(timestamps)} timestamps, expected positive ones in microseconds")
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=name, reason=str(problem))
        return
    chosen = list(enumerate(timestamps))[:: options.every]
    one = partial(_reference, store, folder, name)
    if options.clips is None:
        size = sum(files[component][name] for component in paths) // len(timestamps)
        for _, time in chosen:
            details = options.details() | {"timestamp_us": time, "absent": labels}
            points = POINTS_ESTIMATE * options.returns
            yield one(f"{name}/{time}", paths=paths, details=details, points=points, size=size)
        return
    paths = {component: paths[component] for component in ("camera_image", "camera_calibration")}
    size = files["camera_image"][name] // len(timestamps) // len(CAMERAS)
    for clip in cut_segment(DATASET, name, chosen, options.cameras, options.clips):
        if isinstance(clip, Missing):
            yield clip
            continue
        scene_id, camera, times = clip
        details = {"camera": camera, "frames": len(times), "timestamps_us": times}
        yield one(scene_id, paths=paths, details=details, points=0, size=max(1, size * len(times)))


def _reference(
    store: Store,
    folder: str,
    name: str,
    scene_id: str,
    *,
    paths: dict[str, str],
    details: dict[str, Any],
    points: int,
    size: int,
) -> SceneRef:
    return SceneRef(
        dataset=DATASET,
        scene_id=scene_id,
        split=split_of(store, folder),
        sequence=name,
        root=store.uri,
        files=paths,
        details=details,
        points_estimate=points,
        bytes_estimate=size,
    )


def read(ref: SceneRef) -> Scene:
    """One frame, in the vehicle's frame at its time; or one clip, in the vehicle's frame at its first picture.

    Raises:
        RawDataError: a component is missing, damaged or not what the format says.
    """
    files = RawFiles(ref)
    if "timestamps_us" in ref.details:
        pictures = Components(files).pictures(ref.details["camera"], ref.details["timestamps_us"])
        return build_clip(files, ref.files["camera_image"], pictures, VERSION)
    image_path = ref.files.get("camera_image", ref.files["lidar"])
    return build_scene(files, ref.files["lidar"], image_path, read_frame(files), VERSION)


def read_frame(files: RawFiles) -> Frame:
    """The frame of a reference, not yet a scene; raises `RawDataError`."""
    return Components(files).frame(files.ref.details["timestamp_us"])


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
