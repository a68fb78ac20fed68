"""Waymo v2 (2.x): per-component Parquet files, `<component>/<segment>.parquet`.

Planning reads one small column, the timestamps of `vehicle_pose`, and lists folders. Reading a frame takes its rows out
of each component by key, one row in memory at a time: 0.25 s for 537,000 points, and where a whole segment is one row
group (see `table`) 25 ms more for every frame before it, hence about 5 s for the last of 199. Memory stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ingest.source import Missing, RawFiles, SceneRef, Source
from ingest.waymo.component import Components
from ingest.waymo.frame import POINTS_ESTIMATE, SPLITS, Options
from ingest.waymo.scene import build_scene
from ingest.waymo.table import Table
from shards.errors import RawDataError, RecipeError
from shards.scene import Scene
from shards.storage import Store

DATASET = "waymo_v2"
VERSION = "v2"
_REQUIRED = ("vehicle_pose", "lidar", "lidar_calibration", "lidar_pose")
_OPTIONAL = ("camera_image", "camera_calibration", "lidar_segmentation")
_SUFFIX = ".parquet"


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all segments, by split, segment and time.

    A segment without one of its required components, or whose `vehicle_pose` is damaged, is one `Missing`; without
    pictures its frames have no views.

    Raises:
        RecipeError: no segment under the root, or a segment asked for is not there.
    """
    folders = [f"{split}/" for split in SPLITS if store.exists(f"{split}/vehicle_pose")]
    if store.exists("vehicle_pose"):
        folders.insert(0, "")
    found = {folder: _sizes(store, folder) for folder in folders}
    names = {name for files in found.values() for sizes in files.values() for name in sizes}
    if not names:
        raise RecipeError(f"no Waymo v2 segments in {store.uri}: expected vehicle_pose/<segment>{_SUFFIX} and so on")
    unknown = sorted(set(options.segments) - names)
    if unknown:
        raise RecipeError(f"no such segment in {store.uri}: {', '.join(unknown)}")
    for folder, files in found.items():
        for name in sorted({name for sizes in files.values() for name in sizes}):
            if not options.segments or name in options.segments:
                yield from _frames(store, folder, name, files, options)


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
    store: Store, folder: str, name: str, files: dict[str, dict[str, int]], options: Options
) -> Iterator[SceneRef | Missing]:
    paths = {component: f"{folder}{component}/{name}{_SUFFIX}" for component in files if name in files[component]}
    absent = [component for component in _REQUIRED if component not in paths]
    if absent:
        reason = f"{folder}{absent[0]}/{name}{_SUFFIX} is not there (not downloaded?)"
        yield Missing(dataset=DATASET, scene_id=name, reason=reason)
        return
    if "camera_calibration" not in paths or not options.cameras:
        paths.pop("camera_image", None)
    fail = partial(RawDataError, dataset=DATASET, path=paths["vehicle_pose"])
    try:
        table = Table(files["vehicle_pose"][name], partial(store.read_range, paths["vehicle_pose"]), fail)
        timestamps = table.timestamps()
        if not timestamps or not 0 < timestamps[0] <= timestamps[-1] < 1 << 53:
            raise fail(f"{len(timestamps)} timestamps, expected positive ones in microseconds")
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=name, reason=str(problem))
        return
    split = folder.rstrip("/") or store.path("").rpartition("/")[2]
    for number, timestamp in enumerate(timestamps):
        if number % options.every == 0:
            yield SceneRef(
                dataset=DATASET,
                scene_id=f"{name}/{timestamp}",
                split=SPLITS.get(split, "none"),
                sequence=name,
                root=store.path("") if store.local else store.uri,
                files=paths,
                details=options.details() | {"timestamp_us": timestamp},
                points_estimate=POINTS_ESTIMATE * options.returns,
                bytes_estimate=sum(files[component][name] for component in paths) // len(timestamps),
            )


def read(ref: SceneRef) -> Scene:
    """One frame; the scene frame is the vehicle's at the time of the frame.

    Raises:
        RawDataError: a component is missing, damaged or not what the format says.
    """
    files = RawFiles(ref)
    frame = Components(files).read()
    image_path = ref.files.get("camera_image", ref.files["lidar"])
    return build_scene(files, ref.files["lidar"], image_path, frame, VERSION)


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
