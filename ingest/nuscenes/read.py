"""Reading one nuScenes scene from its reference, a keyframe or a clip; no table, no devkit.

The scene frame of a keyframe is LIDAR_TOP's at its time (x right, y forward, z up), that of a clip the car's at the
first image (x forward, y left, z up). Images are rectified already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from brickyard.ingest.nuscenes.sensors import read_view, world_from_ego, world_from_sensor
from brickyard.ingest.nuscenes.sweeps import read_points
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.scene import Identity, Scene

LICENCE = "CC-BY-NC-SA-4.0"


def read(ref: SceneRef) -> Scene:
    """The keyframe or clip of a reference.

    Raises:
        RawDataError: a file is missing or not what the format says, or a pose is none.
    """
    files = RawFiles(ref)
    scene = _read_clip(files) if "frames" in ref.details else _read_keyframe(files)
    return scene.validate()


def _read_keyframe(files: RawFiles) -> Scene:
    details = files.ref.details
    world_from_scene = world_from_sensor(files, "lidar", details["lidar"])
    others = bool(details["cameras"] or details["sweeps"])  # the inverse takes as long as a sweep
    scene_from_world = np.linalg.inv(world_from_scene) if others else np.eye(4)
    points, dropped = read_points(files, scene_from_world)
    views = tuple(
        read_view(files, name, name, camera, scene_from_world) for name, camera in details["cameras"].items()
    )  # fmt: skip
    return Scene(
        identity=_identity(files, details["lidar"]),
        world_from_scene=world_from_scene,
        points=points,
        views=views,
        dropped=_sum(dict(details["dropped"]), dropped),
    )


def _read_clip(files: RawFiles) -> Scene:
    details = files.ref.details
    frames = details["frames"]
    world_from_scene = world_from_ego(files, "the first frame", frames[0])
    scene_from_world = np.linalg.inv(world_from_scene)
    views = tuple(
        read_view(files, frame["role"], details["camera"], details["mount"] | frame, scene_from_world)
        for frame in frames
    )
    return Scene(
        identity=_identity(files, frames[0]),
        world_from_scene=world_from_scene,
        views=views,
        dropped=dict(details["dropped"]),
    )


def _identity(files: RawFiles, first: dict[str, Any]) -> Identity:
    ref = files.ref
    return Identity(
        dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
        scene_id=ref.scene_id, timestamp_ns=first["timestamp_ns"], domain="outdoor", licence=LICENCE,
        sources=files.sources(),
    )  # fmt: skip


def _sum(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
    return {reason: one.get(reason, 0) + two.get(reason, 0) for reason in one | two}
