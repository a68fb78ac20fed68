"""Listing nuScenes: tables -> one self-contained reference per keyframe (or clip), in the order of scenes and of time.

The tables are read once, here, in bounded memory (see `index`); files are looked up in one listing per folder. A
keyframe whose lidar file is absent (partial downloads are common), or whose rows do not fit together, is `Missing`. An
absent image, earlier sweep or label file, or its row or pose, costs the scene that view, sweep or those labels, counted
in `Scene.dropped`. A damaged table is one `Missing` of its own, and costs what needs the rows that are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.nuscenes.categories import published_ids
from brickyard.ingest.nuscenes.clips import plan_clips
from brickyard.ingest.nuscenes.index import LOST_ROW, NO_ROW, Index
from brickyard.ingest.nuscenes.listing import Listing
from brickyard.ingest.nuscenes.splits import split_of
from brickyard.ingest.nuscenes.sweeps import POINT_BYTES
from brickyard.ingest.nuscenes.tables import DATASET, Lost, Row, scan
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import NONSENSE, BrickyardError, RawDataError, RecipeError
from brickyard.shards.storage import Store

LIDAR = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
LABELS = ("lidarseg", "panoptic")
MAX_SWEEPS = 100
_MISFITS = (*NONSENSE, OSError, BrickyardError)
"""What comes of rows with lost links, other types or names that leave the root."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of nuScenes.

    Attributes:
        version: folder of the tables, such as "v1.0-mini" or "v1.0-trainval".
        cameras: views to keep.
        min_range: metres; points closer to the lidar are dropped and counted (the ego vehicle's own body lies within
            about 1 m). Labels are joined before, in file order.
        sweeps: lidar sweeps of a scene, the keyframe's and those before it (10 are half a second); 1 is the keyframe.
        semantic: whose classes a point has where both are installed. Panoptic leaves points in two boxes unlabelled.
        clips: list clips of each camera's images, at 12 Hz, instead of keyframes.
    """

    version: str = "v1.0-mini"
    cameras: tuple[str, ...] = CAMERAS
    min_range: float = 0.0
    sweeps: int = 1
    semantic: Literal["lidarseg", "panoptic"] = "lidarseg"
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.cameras) - set(CAMERAS))
        if unknown or len(set(self.cameras)) != len(self.cameras):
            raise RecipeError(f"nuScenes cameras must be different ones of {', '.join(CAMERAS)}; found {self.cameras}")
        if not 0 <= self.min_range < float("inf"):
            raise RecipeError(f"min_range must be at least 0 m, found {self.min_range}")
        if not 1 <= self.sweeps <= MAX_SWEEPS:
            raise RecipeError(f"sweeps must be 1 to {MAX_SWEEPS}, found {self.sweeps}")
        if self.semantic not in LABELS:
            raise RecipeError(f"semantic must be one of {', '.join(LABELS)}; found {self.semantic!r}")


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the keyframes, or the clips.

    Raises:
        RecipeError: the root has no such version.
        RawDataError: a table gives the same token twice.
    """
    versions = [name.rstrip("/") for name in store.list() if name.startswith("v1.") and name.endswith("/")]
    if options.version not in versions:
        raise RecipeError(f"no nuScenes {options.version} in {store.uri}; found {', '.join(versions) or 'none'}")
    clips = options.clips

    def wanted(channel: str, is_key: bool) -> bool:
        if clips is not None:
            return channel in options.cameras
        return (is_key and (channel == LIDAR or channel in options.cameras)) or (
            channel == LIDAR and options.sweeps > 1
        )

    index = Index(store, options.version, wanted)
    yield from _losses(options.version, index.lost)
    if clips is not None:
        yield from plan_clips(store, index, options.cameras, clips)
        return
    planner = _Planner(store, options, index)
    yield from _losses(options.version, planner.lost)
    for name, _, first_sample in index.scenes:
        yield from planner.scene(name, first_sample)


def _losses(version: str, tables: Mapping[str, Lost]) -> Iterator[Missing]:
    for table, lost in tables.items():
        if lost.first is not None:
            yield Missing(dataset=DATASET, scene_id=f"{version}/{table}.json", reason=lost.reason())


class _Planner:
    """Walks scenes; keeps the folder listings, the label tables and the split lists between keyframes."""

    def __init__(self, store: Store, options: Options, index: Index) -> None:
        self.store, self.options, self.index = store, options, index
        self.listing, self.splits = Listing(store), split_of(options.version)
        self.lidar = index.keyframes(LIDAR)
        cameras = {camera: index.keyframes(camera) for camera in options.cameras}
        # One without any row was never there, unless the table that mounts it lost something.
        mounted = all(index.lost[table].first is None for table in ("sensor", "calibrated_sensor"))
        self.cameras = {camera: rows for camera, rows in cameras.items() if not mounted or (rows != NO_ROW).any()}
        self.lost = {table: Lost() for table in (*LABELS, "category")}
        self.labels = {table: self._label_files(table) for table in LABELS}
        installed = any(of_row is not None for of_row in self.labels.values())
        self.label_ids = self._label_ids() if installed else []

    def scene(self, name: str, first_sample: str) -> Iterator[SceneRef | Missing]:
        """The keyframes of a scene, from one `next` to the other."""
        token, seen = first_sample, set[str]()
        while token:
            scene_id = f"{name}/{token}"
            number = self.index.sample_number.get(token)
            if number is None or token in seen:
                lost = "is in no row of sample.json" if number is None else "comes twice in the scene"
                reason = f"tables do not fit together: the sample {token} {lost}"
                # A circle begins with a scene_id that was listed before; the lost one says where it leads to.
                yield Missing(dataset=DATASET, scene_id=scene_id + (" again" if token in seen else ""), reason=reason)
                return
            try:
                yield self._keyframe(name, scene_id, number)
            except _MISFITS as problem:
                reason = f"tables do not fit together: {problem}"
                yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
            seen.add(token)
            token = self.index.samples[number].next

    def _keyframe(self, name: str, scene_id: str, number: int) -> SceneRef | Missing:
        index, lidar_row = self.index, int(self.lidar[number])
        if lidar_row == NO_ROW:
            return Missing(dataset=DATASET, scene_id=scene_id, reason=f"no {LIDAR} keyframe in sample_data.json")
        found = _Found(self.listing)
        path = index.filename(lidar_row)
        if not found.add("points", path, ""):
            return Missing(dataset=DATASET, scene_id=scene_id, reason=f"{path} is not there (not downloaded?)")
        cameras: dict[str, Any] = {}
        for camera, rows in self.cameras.items():
            row = int(rows[number])
            if row == NO_ROW:
                found.count(f"image {camera} in no row of sample_data.json")
                continue
            try:
                sensor = index.sensor(row)
            except LookupError:
                found.count(f"image {camera} without a pose")
                continue
            if found.add(camera, index.filename(row), f"missing image {camera}"):
                cameras[camera] = sensor
        sweeps = self._sweeps(lidar_row, found)
        lidar_bytes = sum(found.sizes.values()) - sum(found.sizes[camera] for camera in cameras)
        labels = [table for table in LABELS if self._add_labels(table, lidar_row, found)]
        return SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split=self.splits.get(name, "none"),
            sequence=name,
            root=self.store.uri,
            files=found.files,
            details={
                "version": self.options.version,
                "min_range": self.options.min_range,
                "semantic": self.options.semantic,
                "several": self.options.sweeps > 1,
                "lidar": index.sensor(lidar_row),
                "sweeps": sweeps,
                "cameras": cameras,
                "label_ids": self.label_ids if labels else [],
                "dropped": found.dropped,
            },
            points_estimate=lidar_bytes // POINT_BYTES,
            bytes_estimate=sum(found.sizes.values()),
        )

    def _sweeps(self, row: int, found: _Found) -> list[dict[str, Any]]:
        """The sweeps before a keyframe, the latest first, as many as there are; `number` counts absent ones too."""
        index, sweeps = self.index, []
        for number in range(1, self.options.sweeps):
            before = int(index.before[row])
            if before == NO_ROW:  # the recording begins here
                break
            if before == LOST_ROW or index.channel(before) != LIDAR or index.time_us[before] >= index.time_us[row]:
                found.count("lost links to sweeps")
                break
            row, role = before, f"sweep-{number:02d}"
            try:
                sensor = index.sensor(row)
            except LookupError:
                found.count("sweeps without a pose")
                continue
            if found.add(role, index.filename(row), "missing sweeps"):
                sweeps.append({"number": number, "role": role, **sensor})
        return sweeps

    def _add_labels(self, table: str, row: int, found: _Found) -> bool:
        """Note the label file of a lidar keyframe; what is installed and lacks it is counted."""
        of_row = self.labels[table]
        if of_row is None:
            return False
        if not self.label_ids:
            found.count(f"{table} without a usable category.json")
            return False
        if row not in of_row:
            found.count(f"missing {table}")
            return False
        return found.add(table, of_row[row], f"missing {table}")

    def _label_files(self, table: str) -> dict[int, str] | None:
        """Row of a lidar keyframe -> its label file; None where the table is not installed or empty by nature."""
        path = f"{self.options.version}/{table}.json"
        if not self.store.exists(path):
            return None
        tokens: list[str] = []
        names: list[str] = []

        def take(row: Row) -> None:
            token, name = row["sample_data_token"], row["filename"]
            if not isinstance(token, str) or not isinstance(name, str):
                raise TypeError("sample_data_token and filename must be text")
            tokens.append(token)
            names.append(name)

        scan(self.store, path, take, self.lost[table])
        if not tokens and self.lost[table].first is None:
            return None
        return dict(zip(self.index.rows(tokens).tolist(), names, strict=True))

    def _label_ids(self) -> list[int]:
        """What the ids of label files mean; nothing where the table that says it lost rows: they may be any."""
        rows: list[Row] = []
        lost, path = self.lost["category"], f"{self.options.version}/category.json"
        scan(self.store, path, rows.append, lost)
        try:
            ids = published_ids(rows)
        except NONSENSE as problem:
            reason = f"no usable label ids: {type(problem).__name__}: {problem}"
            hint = "unpack the lidarseg archive last: it replaces this table"
            lost.note(RawDataError(reason, dataset=DATASET, path=path, hint=hint))
        return ids if lost.first is None else []


class _Found:
    """The files of a keyframe that are there, with their sizes, and how many are not."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.files: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.dropped: dict[str, int] = {}

    def add(self, role: str, path: str, missing: str) -> bool:
        """Note a file, or count it under `missing`."""
        size = self._listing.size(path)
        if size is None:
            self.count(missing)
            return False
        self.files[role], self.sizes[role] = path, size
        return True

    def count(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
