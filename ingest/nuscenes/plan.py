"""Listing nuScenes: tables -> one self-contained reference per keyframe, in the order of scenes and of time.

The tables are loaded once, here, by the devkit; files are looked up in one listing per folder. A keyframe whose lidar
file is absent (partial downloads are common), or whose rows do not fit together, is `Missing`. An absent camera image
or label file costs the scene that view or those labels, counted in `Scene.dropped`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ingest.nuscenes.categories import published_ids
from ingest.source import Missing, SceneRef
from shards.errors import BrickyardError, RawDataError, RecipeError
from shards.storage import Store

DATASET = "nuscenes"
LIDAR = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
POINT_BYTES = 20
_TABLES = (
    "category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene",
    "sample", "sample_data", "sample_annotation", "map",
)  # fmt: skip
_OPTIONAL_TABLES = ("lidarseg", "panoptic")
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError, BrickyardError)
"""What comes of rows with lost links, other types or names that leave the root."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of nuScenes.

    Attributes:
        version: folder of the tables, such as "v1.0-mini" or "v1.0-trainval".
        cameras: views to keep.
        min_range: metres; points closer to the lidar are dropped and counted (the ego vehicle's own body lies within
            about 1 m). Labels are joined before, in file order.
    """

    version: str = "v1.0-mini"
    cameras: tuple[str, ...] = CAMERAS
    min_range: float = 0.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.cameras) - set(CAMERAS))
        if unknown or len(set(self.cameras)) != len(self.cameras):
            raise RecipeError(f"nuScenes cameras must be different ones of {', '.join(CAMERAS)}; found {self.cameras}")
        if not 0 <= self.min_range < float("inf"):
            raise RecipeError(f"min_range must be at least 0 m, found {self.min_range}")


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the keyframes.

    Raises:
        RecipeError: the root is not local, or has no such version.
        RawDataError: the tables cannot be loaded; names the file and the reason.
    """
    if not store.local:
        raise RecipeError(f"nuScenes is planned with its devkit, which needs a local folder; {store.uri} is remote")
    versions = [name.rstrip("/") for name in store.list() if name.startswith("v1.") and name.endswith("/")]
    if options.version not in versions:
        raise RecipeError(f"no nuScenes {options.version} in {store.uri}; found {', '.join(versions) or 'none'}")
    tables = _load(store, options.version)
    try:
        planner = _Planner(store, options, tables)
        scenes = [(str(row["name"]), row["first_sample_token"]) for row in tables.scene]
    except _MISFITS as problem:
        raise _misfit(options.version, problem) from problem
    for name, first_sample in scenes:
        yield from planner.keyframes(name, first_sample)


def _load(store: Store, version: str) -> Any:
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as problem:
        raise RecipeError(f"nuScenes needs its devkit: pip install 'brickyard[ingest]' ({problem})") from problem
    try:
        return NuScenes(version=version, dataroot=store.path(""), verbose=False)
    except Exception as problem:  # the devkit asserts, or stumbles over whatever a damaged table holds
        raise _diagnosis(store, version, problem) from problem


def _diagnosis(store: Store, version: str, problem: Exception) -> RawDataError:
    """The most telling error for tables the devkit did not load: the file at fault, if one alone is."""
    loaded: dict[str, list[dict[str, Any]]] = {}
    for table in _TABLES + _OPTIONAL_TABLES:
        path = f"{version}/{table}.json"
        if not store.exists(path):
            if table in _OPTIONAL_TABLES:
                continue
            return RawDataError("the table is missing", dataset=DATASET, path=path, hint="unpack the metadata again")
        try:
            rows = json.loads(store.read(path))
        except json.JSONDecodeError as reason:
            return RawDataError(f"no valid JSON: {reason.msg}", dataset=DATASET, path=path, line=reason.lineno)
        except (ValueError, RecursionError) as reason:
            return RawDataError(f"no valid JSON: {reason}", dataset=DATASET, path=path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "token" in row for row in rows):
            return RawDataError("expected a list of rows with tokens", dataset=DATASET, path=path)
        loaded[table] = rows
    if "lidarseg" in loaded and not all("index" in row for row in loaded["category"]):
        hint = "unpack the lidarseg archive last: it replaces this table"
        return RawDataError("no field index", dataset=DATASET, path=f"{version}/category.json", hint=hint)
    masks = store.sizes("maps")
    for name in (str(row.get("filename")) for row in loaded["map"]):
        if name.removeprefix("maps/") not in masks:
            hint = "the devkit wants the maps of the metadata archive"
            return RawDataError("the map is missing", dataset=DATASET, path=name, hint=hint)
    return _misfit(version, problem)


def _misfit(version: str, problem: Exception) -> RawDataError:
    reason = f"the tables do not fit together: {type(problem).__name__}: {problem}"
    return RawDataError(reason, dataset=DATASET, path=version, hint="unpack metadata and labels again")


def _official_splits(version: str) -> dict[str, str]:
    """Scene name -> split. Mini has lists of its own: some of its training scenes are validation scenes of trainval."""
    from nuscenes.utils import splits

    lists = {"train": splits.train, "val": splits.val, "test": splits.test}
    found = {name: split for split, names in lists.items() for name in names}
    if version == "v1.0-mini":
        found |= dict.fromkeys(splits.mini_train, "train") | dict.fromkeys(splits.mini_val, "val")
    return found


class _Planner:
    """Walks scenes; keeps the folder listings, the label table and the split lists between keyframes."""

    def __init__(self, store: Store, options: Options, tables: Any) -> None:
        self.store, self.options, self.tables = store, options, tables
        self.label_ids = published_ids(tables.category) if hasattr(tables, "lidarseg") else []
        self.splits = _official_splits(options.version)
        self.label_files = {row["sample_data_token"]: row["filename"] for row in getattr(tables, "lidarseg", [])}
        self._listings: dict[str, dict[str, int]] = {}

    def keyframes(self, name: str, first_sample: str) -> Iterator[SceneRef | Missing]:
        token = first_sample
        seen: set[str] = set()
        while token:
            scene_id = f"{name}/{token}"
            try:
                if token in seen:
                    raise ValueError("the samples of the scene form a circle")
                sample = self.tables.get("sample", token)
                item, following = self._keyframe(name, scene_id, sample), sample["next"]
            except _MISFITS as problem:
                reason = f"tables do not fit together: {type(problem).__name__}: {problem}"
                yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
                return
            yield item
            seen.add(token)
            token = following

    def _keyframe(self, name: str, scene_id: str, sample: dict[str, Any]) -> SceneRef | Missing:
        if LIDAR not in sample["data"]:
            return Missing(dataset=DATASET, scene_id=scene_id, reason=f"no {LIDAR} keyframe in sample_data.json")
        lidar_token = sample["data"][LIDAR]
        lidar = self._sensor(lidar_token)
        sizes = {"points": self._size(lidar["filename"])}
        if sizes["points"] is None:
            reason = f"{lidar['filename']} is not there (not downloaded?)"
            return Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
        sensors, dropped = {"points": lidar}, {}
        for camera in (name for name in self.options.cameras if name in sample["data"]):
            view = self._sensor(sample["data"][camera])
            size = self._size(view["filename"])
            if size is None:
                dropped[f"missing image {camera}"] = 1
            else:
                sensors[camera], sizes[camera] = view, size
        files = {role: sensor.pop("filename") for role, sensor in sensors.items()}
        if lidar_token in self.label_files:
            label_file = self.label_files[lidar_token]
            size = self._size(label_file)
            if size is None:
                dropped["missing lidarseg"] = 1
            else:
                files["lidarseg"], sizes["lidarseg"] = label_file, size
        return SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split=self.splits.get(name, "none"),
            sequence=name,
            root=self.store.path(""),
            files=files,
            details={
                "version": self.options.version,
                "min_range": self.options.min_range,
                "lidar": sensors.pop("points"),
                "cameras": sensors,
                "label_ids": self.label_ids if "lidarseg" in files else [],
                "dropped": dropped,
            },
            points_estimate=(sizes["points"] or 0) // POINT_BYTES,
            bytes_estimate=sum(size or 0 for size in sizes.values()),
        )

    def _sensor(self, token: str) -> dict[str, Any]:
        """Everything about one sensor at its own time, out of four tables."""
        data = self.tables.get("sample_data", token)
        mount = self.tables.get("calibrated_sensor", data["calibrated_sensor_token"])
        ego = self.tables.get("ego_pose", data["ego_pose_token"])
        timestamp_ns = int(data["timestamp"]) * 1000
        if not 0 <= timestamp_ns < 1 << 63:
            raise ValueError(f"sample_data {token} has the timestamp {data['timestamp']}")
        return {
            "filename": str(data["filename"]),
            "timestamp_ns": timestamp_ns,
            "size": [int(data["width"]), int(data["height"])],
            "intrinsics": mount["camera_intrinsic"],
            "ego_from_sensor": {"rotation": mount["rotation"], "translation": mount["translation"]},
            "global_from_ego": {"rotation": ego["rotation"], "translation": ego["translation"]},
        }

    def _size(self, path: str) -> int | None:
        folder, _, name = path.rpartition("/")
        if folder not in self._listings:
            self._listings[folder] = self.store.sizes(folder)
        return self._listings[folder].get(name)
