"""Clips of KITTI's cameras: one camera of a drive, frame by frame, for training on views alone.

Three recordings (raw, odometry, KITTI-360) share what is here: thinning and cutting a drive while planning, which opens
no image, and placing the views of a clip while reading, which copies their bytes. Scans need not be there.

The scene frame is the velodyne's at the first view that has a pose. With W_i its pose in the world at view i and C the
calibrated pose of the camera in it,  scene_from_camera_i = W_first^-1 W_i C.  A view whose pose the dataset does not
know has None and is counted as "no pose" in `Scene.dropped` (and "no time" likewise); nothing is made up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from brickyard.ingest.clips import ClipOptions, clip_id, cut, thin
from brickyard.ingest.kitti.calibration import inverse
from brickyard.ingest.kitti.folders import LICENCE, Found
from brickyard.ingest.kitti.images import read_view
from brickyard.ingest.source import Missing, RawFiles, SceneRef
from brickyard.shards.scene import Float64, Identity, Scene

PERIOD = 0.1
"""Seconds between two frames of every KITTI recording."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image of a camera.

    Attributes:
        number: of the frame.
        image: its file.
        seconds: its time, or None where unknown.
        details: JSON-like, what `read_clip`'s functions need to find the time and the pose of the frame.
        files: other files of the frame, kind -> file, such as its GPS/IMU packet.
    """

    number: int
    image: Found
    seconds: float | None
    details: dict[str, Any]
    files: dict[str, Found]


def plan_clips(
    ref: SceneRef, camera: str, frames: Sequence[Frame], options: ClipOptions, *, more: dict[str, Any]
) -> Iterator[SceneRef | Missing]:
    """The clips of one camera of a drive.

    Args:
        ref: its dataset, sequence, split and root are those of the clips; its files belong to each of them.
        frames: in order of their numbers.
        more: further `SceneRef.details` of each clip.
    """
    kept = [frames[index] for index in thin(_times(frames), options.rate_hz)]
    runs = cut(kept, options)
    if not runs:
        reason = f"a clip needs two images, {camera} has {len(kept)} that can be used"
        yield Missing(dataset=ref.dataset, scene_id=f"{ref.sequence}/{camera}", reason=reason)
    for number, run in enumerate(runs):
        used = {role(frame.number, kind): found for frame in run for kind, found in frame.files.items()}
        used |= {role(frame.number, camera): frame.image for frame in run}
        yield SceneRef(
            dataset=ref.dataset,
            scene_id=clip_id(ref.sequence, camera, number),
            split=ref.split,
            sequence=ref.sequence,
            root=ref.root,
            files=dict(ref.files) | {name: found.path for name, found in used.items()},
            details=more | {"clip": camera, "frames": [{"frame": f.number} | f.details for f in run]},
            bytes_estimate=sum(found.size for found in used.values()),
        )


def role(frame: int, kind: str) -> str:
    """Key in `SceneRef.files` of a file of one frame of a clip."""
    return f"{kind}/{frame:010d}"


def _times(frames: Sequence[Frame]) -> list[float]:
    """Seconds of the frames; the nominal ones unless all are known and rising (`read` reports a damaged time)."""
    known = [f.seconds for f in frames if f.seconds is not None and math.isfinite(f.seconds)]
    if len(known) == len(frames) and all(a < b for a, b in pairwise(known)):
        return known
    return [PERIOD * frame.number for frame in frames]


def read_clip(
    files: RawFiles,
    camera: dict[str, Any],
    *,
    version: str,
    world_from_velo: Callable[[dict[str, Any]], Float64 | None],
    timestamp: Callable[[dict[str, Any]], int | None],
) -> Scene:
    """The scene of a clip.

    Args:
        camera: intrinsics and scene_from_camera (its pose in the velodyne frame), and size, model and distortion where
            the calibration has them.
        world_from_velo: details of a frame -> float64 (4, 4), or None where the dataset has no pose.
        timestamp: details of a frame -> nanoseconds, or None.

    Raises:
        RawDataError: a file is missing or not what the format says.
    """
    ref = files.ref
    frames, name = ref.details["frames"], ref.details["clip"]
    poses = [world_from_velo(frame) for frame in frames]
    world_from_scene = next((pose for pose in poses if pose is not None), np.eye(4))
    scene_from_world = inverse(world_from_scene)
    velo_from_camera = np.array(camera["scene_from_camera"], np.float64)
    views = tuple(
        read_view(
            files,
            name,
            ref.files[role(frame["frame"], name)],
            intrinsics=np.array(camera["intrinsics"], np.float64),
            scene_from_camera=None if pose is None else scene_from_world @ pose @ velo_from_camera,
            size=tuple(camera["size"]) if "size" in camera else None,
            timestamp_ns=timestamp(frame),
            camera_model=camera.get("model", "pinhole"),
            distortion=tuple(camera.get("distortion", ())),
        )
        for frame, pose in zip(frames, poses, strict=True)
    )
    lost = {"no pose": sum(pose is None for pose in poses), "no time": sum(v.timestamp_ns is None for v in views)}
    identity = Identity(
        dataset=ref.dataset, version=version, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
        timestamp_ns=views[0].timestamp_ns, domain="outdoor", licence=LICENCE, sources=files.sources(),
    )  # fmt: skip
    return Scene(
        identity=identity,
        world_from_scene=world_from_scene,
        views=views,
        dropped=dict(ref.details.get("dropped", {})) | {reason: count for reason, count in lost.items() if count},
    ).validate()
