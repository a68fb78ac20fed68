"""Figures of the path of a camera: jumps, gaps in time, poses that stand still while the pictures move.

Only for scenes whose views are one camera's: scans of rooms and clips. The cameras of a vehicle lie where they are
mounted; whether that vehicle moved is seen from scene to scene (`place`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from brickyard.shards.scene import Float64, Scene

FIGURES: Mapping[str, tuple[str, str, int]] = {
    "pose_jump": ("1", "largest step of the camera over the median of all steps that are none of standing still", 1),
    "time_gap": ("1", "largest time between two views over the median", 1),
    "frozen_share": ("share", "neighbouring views with exactly the same pose, at different times or pictures", 1),
    "rotation_error": ("1", "how far the rotation of a pose is from one, at most (largest entry of RR' - 1)", 1),
}
LEAST_VIEWS = 3
SAME = 1e-9


def describe_poses(scene: Scene) -> dict[str, float]:
    """The figures; none outdoors, or for fewer than three views with poses."""
    views = [view for view in scene.views if view.scene_from_camera is not None]
    if scene.identity.domain == "outdoor" or len(views) < LEAST_VIEWS:
        return {}
    if all(view.timestamp_ns is not None for view in views):
        views.sort(key=lambda view: view.timestamp_ns or 0)
    poses = np.stack([view.scene_from_camera for view in views if view.scene_from_camera is not None])
    frozen = [
        bool(np.abs(one.scene_from_camera - other.scene_from_camera).max() < SAME) and one.image != other.image
        for one, other in pairwise(views)
        if one.scene_from_camera is not None and other.scene_from_camera is not None
    ]
    found = {"frozen_share": float(np.mean(frozen)), "rotation_error": _rotation_error(poses)}
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    if len(moved := steps[steps > SAME]) >= LEAST_VIEWS:
        found["pose_jump"] = float(moved.max() / np.median(moved))
    times = np.array([view.timestamp_ns for view in views if view.timestamp_ns is not None], np.float64)
    if len(times) == len(views) and (gaps := np.diff(times)).size and np.median(gaps) > 0:
        found["time_gap"] = float(gaps.max() / np.median(gaps))
    return found


def _rotation_error(poses: Float64) -> float:
    rotation = poses[:, :3, :3]
    return float(np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max())
