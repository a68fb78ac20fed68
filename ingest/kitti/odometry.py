"""KITTI odometry with SemanticKITTI's labels: 22 sequences of untwisted scans with trajectories and a class per point.

    <root>/sequences/NN/{calib.txt, times.txt, velodyne/%06d.bin, image_2/%06d.png, image_3/..., labels/%06d.label}
    <root>/sequences/NN/poses.txt   SemanticKITTI's trajectory (SuMa), which its labels agree with
    <root>/poses/NN.txt             KITTI's ground truth, 00..10: another trajectory

Planning lists each sequence's folders once and reads its small tables; scans, images and labels stay closed.

What counts as a promised scene
  * A frame with a scan, an image, a label or a line in `times.txt` is promised. Without its scan, or without a line in
    the trajectory that was chosen, it is `Missing`.
  * A scan whose image or label is absent although the sequence has others loses it, counted in `Scene.dropped`.
  * A sequence whose calibration or trajectory cannot be read loses all of these, each for that reason. One without any
    scan (the calibration archive has all 22) is passed over with a `Notice`, unless `sequences` asks for it by name.
  * In a trajectory with a lost block, and in one that is cut, only the lines before are certain (see `tables`).

Names of other lengths than six digits are read, and so are JPEG pictures. A scan, label file or picture exchanged with
that of another frame cannot be told as long as numbers and sizes fit.

With `clips`, a sequence's images become clips (see `ingest.kitti.clips`), with or without scans; a frame beyond the end
of the trajectory has no pose. SemanticKITTI's and KITTI's trajectories are for the same frames.

The world is the first velodyne frame (z up), not the first camera's: with P the pose of camera 0 in the file and
Tr = cam0_from_velo, world_from_scene = Tr^-1 P Tr (semantic-kitti-api). A sequence without a trajectory has the
identity and {"no pose": 1} in `Scene.dropped`. Which trajectory it was is told by `Identity.sources`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.kitti.calibration import PROJECTION, TRANSFORM, inverse, read_calibration, rectified_camera, rigid
from brickyard.ingest.kitti.clips import Frame, plan_clips, read_clip
from brickyard.ingest.kitti.folders import (
    DEFAULT_CAMERAS,
    LICENCE,
    PICTURES,
    Folders,
    Found,
    check_cameras,
    lost_frames,
    root_of,
)
from brickyard.ingest.kitti.images import read_view
from brickyard.ingest.kitti.labels import read_labels
from brickyard.ingest.kitti.poses import Trajectory, ordered_poses, read_pose
from brickyard.ingest.kitti.siblings import tell_lacks
from brickyard.ingest.kitti.timestamps import list_timestamps
from brickyard.ingest.kitti.velodyne import POINT_BYTES, IntensityUnit, check_unit, read_scan_and_mask
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Float64, Identity, Scene, View
from brickyard.shards.storage import Store

DATASET = "kitti_odometry"
VERSION = "2012"
_SEQUENCE = re.compile(r"\d{2,9}/", re.ASCII)
_DIGITS = 6
_MAX_SECONDS = 1e6


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of the odometry benchmark.

    Attributes:
        cameras: views to keep, named as in the raw recordings ("image_02" lies in the folder image_2).
        sequences: numbers of the sequences to read, such as "08"; empty for all.
        every: keep the frames whose number is a multiple of this (10 Hz: every=5 keeps two a second).
        poses: trajectory to use; "auto" takes SemanticKITTI's, else KITTI's, else none.
        clips: yield clips of each camera instead of scans.
        intensity_unit: of scans that are not KITTI's own: "unit" (0..1), "byte" (0..255) or "raw".
    """

    cameras: tuple[str, ...] = DEFAULT_CAMERAS
    sequences: tuple[str, ...] = ()
    every: int = 1
    poses: Literal["auto", "semantic", "kitti", "none"] = "auto"
    clips: ClipOptions | None = None
    intensity_unit: IntensityUnit = "unit"

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        check_unit(self.intensity_unit)
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")
        if self.poses not in ("auto", "semantic", "kitti", "none"):
            raise RecipeError(f"poses must be auto, semantic, kitti or none, found {self.poses!r}")


@tell_lacks
def plan(store: Store, options: Options) -> Iterator[SceneRef | Missing]:
    """List the frames of all sequences in order; raises `RecipeError` if there are none, or one asked for is absent."""
    names = store.list("sequences")
    sequences = [name.rstrip("/") for name in names if _SEQUENCE.fullmatch(name)]
    if not sequences:
        raise RecipeError(f"no KITTI odometry sequences in {store.uri}: expected sequences/00/velodyne/ and so on")
    unknown = sorted(set(options.sequences) - set(sequences))
    if unknown:
        raise RecipeError(f"no such sequence in {store.uri}: {', '.join(unknown)}; found {', '.join(sequences)}")
    for name in names:
        if name.rstrip("/") not in sequences:
            reason = "not used: its name is no number of a sequence, such as 00"
            yield Notice(dataset=DATASET, scene_id=f"sequences/{name.rstrip('/')}", reason=reason)
    for name in sequences:
        if not options.sequences or name in options.sequences:
            folders = Folders(store, DATASET)
            yield from _plan_sequence(folders, name, options)
            yield from folders.notices()


def _plan_sequence(folders: Folders, name: str, options: Options) -> Iterator[SceneRef | Missing]:
    files = _list_files(folders, name, options)
    payloads = files.images if options.clips else files.scans
    if not payloads:
        yield _without_payload(folders, name, options)
        return
    try:
        sequence = _open_sequence(folders.store, files, options)
    except RawDataError as problem:
        used = set().union(*files.images.values()) if options.clips else files.promised
        frames = [frame for frame in used if frame % options.every == 0]
        yield from lost_frames(DATASET, name, frames, _DIGITS, str(problem))
        return
    plan_items = _plan_sequence_clips if options.clips else _plan_frames
    yield from plan_items(folders.store, sequence, options)
    if sequence.trajectory.problem:
        reason = f"{sequence.trajectory.problem}; frames without a line before that have no pose"
        yield Notice(dataset=DATASET, scene_id=str(sequence.pose_path), reason=reason)


def _without_payload(folders: Folders, name: str, options: Options) -> Missing:
    """A sequence has nothing to make scenes of; that is a loss only if it was asked for."""
    lost, archive = ("images", "colour") if options.clips else ("scans", "velodyne")
    cameras = [f"image_{int(camera[-2:])}" for camera in options.cameras] if options.clips else ["velodyne"]
    why = folders.unused(*(f"sequences/{name}/{folder}" for folder in cameras))
    reason = f"the sequence has no {lost}{why}"
    if options.sequences:
        return Missing(dataset=DATASET, scene_id=name, reason=f"{reason}; download the {archive} archive")
    return Notice(dataset=DATASET, scene_id=f"sequences/{name}", reason=f"passed over: {reason}")


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What a sequence's folders hold, by frame number; cameras that were not downloaded are left out."""

    name: str
    scans: dict[int, Found]
    labels: dict[int, Found]
    images: dict[str, dict[int, Found]]
    times: dict[int, str]

    @property
    def promised(self) -> set[int]:
        return set().union(self.scans, self.labels, self.times, *self.images.values())


@dataclass(frozen=True, kw_only=True)
class _Sequence(_Files):
    """The same with what its tables say."""

    cameras: dict[str, Any]
    cam0_from_velo: list[list[float]]
    pose_path: str | None
    trajectory: Trajectory


def _list_files(folders: Folders, name: str, options: Options) -> _Files:
    folder = f"sequences/{name}"
    images = {c: folders.numbered(f"{folder}/image_{int(c[-2:])}", PICTURES, _DIGITS) for c in options.cameras}
    return _Files(
        name=name,
        scans=folders.numbered(f"{folder}/velodyne", (".bin",), _DIGITS),
        labels=folders.numbered(f"{folder}/labels", (".label",), _DIGITS),
        images={camera: found for camera, found in images.items() if found},
        times=list_timestamps(folders.store, f"{folder}/times.txt", DATASET),
    )


def _open_sequence(store: Store, files: _Files, options: Options) -> _Sequence:
    """Read the tables of a sequence; raises `RawDataError` if its calibration or poses cannot be read."""
    cameras, cam0_from_velo = _calibrate(store, f"sequences/{files.name}/calib.txt", tuple(files.images))
    pose_path = _choose_poses(store, files.name, options)
    return _Sequence(
        **vars(files),
        cameras=cameras,
        cam0_from_velo=cam0_from_velo.tolist(),
        pose_path=pose_path,
        trajectory=ordered_poses(store, pose_path, DATASET) if pose_path else Trajectory(),
    )


def _calibrate(store: Store, path: str, cameras: tuple[str, ...]) -> tuple[dict[str, Any], Float64]:
    """Cameras ready for `SceneRef.details`, and cam0_from_velo (of the rectified camera 0: there is no R_rect)."""
    keys = {camera: f"P{int(camera[-2:])}" for camera in cameras}
    projections = read_calibration(store, path, dict.fromkeys(keys.values(), PROJECTION), DATASET)
    try:
        found = read_calibration(store, path, {"Tr": TRANSFORM}, DATASET)["Tr"]
    except RawDataError as problem:
        if "no line for Tr" not in problem.problem:
            raise
        raise RawDataError(
            "no line for Tr (velodyne to camera 0): an early download lacks it", dataset=DATASET, path=path,
            hint="download data_odometry_calib.zip again",
        ) from None  # fmt: skip
    cam0_from_velo = rigid(found[:, :3], found[:, 3])
    details = {}
    for camera, key in keys.items():
        intrinsics, scene_from_camera = rectified_camera(projections[key], np.eye(3), cam0_from_velo)
        details[camera] = {"intrinsics": intrinsics.tolist(), "scene_from_camera": scene_from_camera.tolist()}
    return details, cam0_from_velo


def _choose_poses(store: Store, name: str, options: Options) -> str | None:
    paths = {"semantic": f"sequences/{name}/poses.txt", "kitti": f"poses/{name}.txt"}
    if options.poses == "auto":
        return next((path for path in paths.values() if store.size(path) is not None), None)
    return paths.get(options.poses)


def _split(sequence: str) -> str:
    """SemanticKITTI's official split; sequences beyond the benchmark's 22 belong to none."""
    number = int(sequence)
    return "val" if number == 8 else "train" if number <= 10 else "test" if number <= 21 else "none"


def _plan_frames(store: Store, sequence: _Sequence, options: Options) -> Iterator[SceneRef | Missing]:
    root = root_of(store)
    optional = sequence.images | ({"labels": sequence.labels} if sequence.labels else {})
    poses = sequence.trajectory
    for frame in sorted(sequence.promised):
        if frame % options.every:
            continue
        scene_id = f"{sequence.name}/{frame:0{_DIGITS}d}"
        if frame not in sequence.scans or (sequence.pose_path and frame not in poses.places):
            lost = "scan (velodyne)" if frame not in sequence.scans else f"line in {sequence.pose_path}"
            why = f": {poses.problem}" if frame in sequence.scans and poses.lost(frame) else ""
            reason = f"frame {frame} was recorded (time, image, label or scan) but has no {lost}{why}"
            yield Missing(dataset=DATASET, scene_id=scene_id, reason=reason)
            continue
        used = {"points": sequence.scans[frame]}
        used |= {role: found[frame] for role, found in optional.items() if frame in found}
        files = {role: found.path for role, found in used.items()}
        dropped = {_loss(role): 1 for role in optional if role not in used}
        if sequence.pose_path:
            files["pose"] = sequence.pose_path
            if options.poses == "auto" and sequence.labels and sequence.pose_path.startswith("poses/"):
                dropped["poses.txt of SemanticKITTI"] = 1  # what labels agree with; KITTI's own stands in
        elif options.poses != "none":
            dropped["no pose"] = 1
        if frame not in sequence.times:
            dropped["no time"] = 1
        yield SceneRef(
            dataset=DATASET,
            scene_id=scene_id,
            split=_split(sequence.name),
            sequence=sequence.name,
            root=root,
            files=files,
            details={
                "time": sequence.times.get(frame),
                "frame": frame,
                "pose": poses.places.get(frame),
                "cam0_from_velo": sequence.cam0_from_velo,
                "cameras": {camera: sequence.cameras[camera] for camera in sequence.images if camera in used},
                "dropped": dropped,
                "intensity_unit": options.intensity_unit,
            },
            points_estimate=sequence.scans[frame].size // POINT_BYTES,
            bytes_estimate=sum(found.size for found in used.values()),
        )


def _loss(role: str) -> str:
    return "missing labels" if role == "labels" else f"missing image {role}"


def _plan_sequence_clips(store: Store, sequence: _Sequence, options: Options) -> Iterator[SceneRef | Missing]:
    name, path = sequence.name, sequence.pose_path
    ref = SceneRef(
        dataset=DATASET, scene_id=name, split=_split(name), sequence=name, root=root_of(store),
        files={"pose": path} if path else {},
    )  # fmt: skip
    for camera in options.cameras:
        frames = [
            Frame(
                number=number,
                image=image,
                seconds=_guess_seconds(sequence.times.get(number)),
                details={"time": sequence.times.get(number), "pose": sequence.trajectory.places.get(number)},
                files={},
            )
            for number, image in sorted(sequence.images.get(camera, {}).items())
            if number % options.every == 0
        ]
        more = {"cam0_from_velo": sequence.cam0_from_velo, "camera": sequence.cameras.get(camera)}
        yield from plan_clips(ref, camera, frames, options.clips or ClipOptions(), more=more)


def read(ref: SceneRef) -> Scene:
    """One frame or clip; the scene frame is the velodyne's, the world its first frame's, timestamps count from there.

    Raises:
        RawDataError: a file is missing or not what the format says, or labels and points differ in number.
    """
    files = RawFiles(ref)
    if "clip" in ref.details:
        return read_clip(
            files,
            ref.details["camera"],
            version=VERSION,
            world_from_velo=lambda frame: None if frame["pose"] is None else _world_from_velo(files, frame["pose"]),
            timestamp=lambda frame: _timestamp(files, frame["time"], frame["frame"]),
        )
    points, kept, dropped = read_scan_and_mask(files, ref.files["points"])
    if "labels" in ref.files:
        points, unknown = read_labels(files, ref.files["labels"], points, kept)
        dropped |= unknown
    views = tuple(_read_camera(files, name, camera) for name, camera in ref.details["cameras"].items())
    world_from_scene = _world_from_velo(files, ref.details["pose"]) if "pose" in ref.files else np.eye(4)
    identity = Identity(
        dataset=DATASET, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=_timestamp(files, ref.details["time"], ref.details["frame"]),
        domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=world_from_scene,
        points=points,
        views=views,
        dropped=dropped | dict(ref.details["dropped"]),
    ).validate()


def _read_camera(files: RawFiles, name: str, camera: dict[str, Any]) -> View:
    return read_view(
        files,
        name,
        files.ref.files[name],
        intrinsics=np.array(camera["intrinsics"], np.float64),
        scene_from_camera=np.array(camera["scene_from_camera"], np.float64),
        timestamp_ns=_timestamp(files, files.ref.details["time"], files.ref.details["frame"]),
    )


def _world_from_velo(files: RawFiles, place: dict[str, Any]) -> Float64:
    cam0_from_velo = np.array(files.ref.details["cam0_from_velo"], np.float64)
    return inverse(cam0_from_velo) @ read_pose(files, files.ref.files["pose"], place) @ cam0_from_velo


def _guess_seconds(text: str | None) -> float | None:
    """For planning clips; None for a damaged time, which `read` then reports."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _timestamp(files: RawFiles, text: str | None, frame: int) -> int | None:
    """Nanoseconds since the sequence's first frame; scan and images of a frame share the time."""
    if text is None:
        return None
    fail = partial(files.error, f"sequences/{files.ref.sequence}/times.txt", line=frame + 1)
    try:
        seconds = float(text)
    except ValueError:
        raise fail(f"bad time {text[:40]!r}, expected seconds") from None
    if not (math.isfinite(seconds) and 0 <= seconds < _MAX_SECONDS):
        raise fail(f"{text[:40]} s is no time since the first frame")
    return round(seconds * 1e9)


SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)
