"""KITTI object detection: shuffled single frames of the raw recordings, `training` (7481) and `testing` (7518).

    <root>/{training,testing}/{velodyne/%06d.bin, image_2/%06d.png, image_3/%06d.png, calib/%06d.txt}

Pictures may also be JPEG (.jpg, .jpeg). Planning lists four folders a split and opens nothing. A frame with an image,
calibration or label but without scan or calibration is `Missing`; a scan whose image is absent although its camera was
downloaded loses that view, counted in `Scene.dropped`. Splits: training -> "train", testing -> "test" (train/val
divisions in use are the community's).

Neighbouring frames of a drive are near-duplicates. `Identity.sequence` is the raw drive where the object devkit's
`mapping` folder was unpacked into the root, and otherwise the folder's name: all of it belongs together, since a split
by frame would leak. With a damaged mapping it is the folder's name, too, counted as "raw drive unknown".

A frame's scan, image or calibration exchanged with another frame's cannot be told: nothing in them names the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from brickyard.ingest.kitti.calibration import (
    MAX_TEXT_BYTES,
    PROJECTION,
    ROTATION,
    TRANSFORM,
    parse_calibration,
    rectified_camera,
    rigid,
)
from brickyard.ingest.kitti.folders import DEFAULT_CAMERAS, LICENCE, PICTURES, Folders, check_cameras, root_of
from brickyard.ingest.kitti.images import read_view
from brickyard.ingest.kitti.mapping import list_drives
from brickyard.ingest.kitti.velodyne import POINT_BYTES, IntensityUnit, check_unit, read_scan
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Identity, Scene, View
from brickyard.shards.storage import Store

DATASET = "kitti_object"
VERSION = "2017"
_SPLITS = {"training": "train", "testing": "test"}
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of the object benchmark.

    Attributes:
        cameras: views to keep, named as in the raw recordings ("image_02" lies in the folder image_2).
        intensity_unit: of scans that are not KITTI's own: "unit" (0..1), "byte" (0..255) or "raw".
    """

    cameras: tuple[str, ...] = DEFAULT_CAMERAS
    intensity_unit: IntensityUnit = "unit"

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        check_unit(self.intensity_unit)


def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of both splits in order of split and number; raises `RecipeError` if there are none."""
    frames, folders = 0, Folders(store, DATASET)
    for split in _SPLITS:
        for item in _plan_split(folders, split, options):
            frames += not isinstance(item, Notice)
            yield item
    yield from folders.notices()
    if not frames:
        raise RecipeError(f"no KITTI object frames in {store.uri}: expected training/velodyne/000000.bin and so on")


def _plan_split(folders: Folders, folder: str, options: Options) -> Iterator[SceneRef | Missing]:
    scans = folders.numbered(f"{folder}/velodyne", (".bin",), _DIGITS)
    calibrations = folders.numbered(f"{folder}/calib", (".txt",), _DIGITS)
    labels = folders.numbered(f"{folder}/label_2", (".txt",), _DIGITS)
    images = {
        camera: found
        for camera in options.cameras
        if (found := folders.numbered(f"{folder}/image_{int(camera[-2:])}", PICTURES, _DIGITS))
    }
    frames = sorted(set().union(scans, calibrations, labels, *images.values()))
    drives, damage, unknown = None, "", {"raw drive unknown (the mapping is damaged)": 1}
    try:
        drives = list_drives(folders.store, DATASET) if folder == "training" and frames else {}
    except RawDataError as problem:
        damage = str(problem)
    for frame in frames:
        scene_id = f"{folder}/{frame:0{_DIGITS}d}"
        if frame not in scans or frame not in calibrations:
            what = "scan (velodyne)" if frame not in scans else "calibration (calib)"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=f"frame {frame} has no {what} in {folder}/")
            continue
        used = {"points": scans[frame], "calibration": calibrations[frame]}
        used |= {camera: found[frame] for camera, found in images.items() if frame in found}
        yield SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split=_SPLITS[folder],
            sequence=(drives or {}).get(frame, folder),
            root=root_of(folders.store),
            files={role: found.path for role, found in used.items()},
            details={
                "cameras": [camera for camera in images if camera in used],
                "dropped": {f"missing image {camera}": 1 for camera in images if camera not in used}
                | (unknown if drives is None else {}),
                "intensity_unit": options.intensity_unit,
            },
            points_estimate=scans[frame].size // POINT_BYTES,
            bytes_estimate=sum(found.size for found in used.values()),
        )
    if damage:
        yield Notice(dataset=DATASET, scene_id="mapping", reason=f"{damage}; all of {folder} counts as one sequence")


def read(ref: SceneRef) -> Scene:
    """One frame; the scene frame is the velodyne's, and so is the world's: the benchmark has no poses.

    Raises:
        RawDataError: a file is missing or not what the format says.
    """
    files = RawFiles(ref)
    points, dropped = read_scan(files, ref.files["points"])
    views = _read_cameras(files)
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=None, domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=np.eye(4),
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_cameras(files: RawFiles) -> tuple[View, ...]:
    cameras = list(files.ref.details["cameras"])
    projections = {camera: f"P{int(camera[-2:])}" for camera in cameras}
    wanted = {"R0_rect": ROTATION, "Tr_velo_to_cam": TRANSFORM} | dict.fromkeys(projections.values(), PROJECTION)
    path = files.ref.files["calibration"]
    found = parse_calibration(files.read(path, limit=MAX_TEXT_BYTES), wanted, partial(files.error, path))
    cam0_from_velo = rigid(found["Tr_velo_to_cam"][:, :3], found["Tr_velo_to_cam"][:, 3])
    views = []
    for camera in cameras:
        intrinsics, pose = rectified_camera(found[projections[camera]], found["R0_rect"], cam0_from_velo)
        view = read_view(files, camera, files.ref.files[camera], intrinsics=intrinsics, scene_from_camera=pose)
        views.append(view)
    return tuple(views)


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
