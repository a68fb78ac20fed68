"""Whether points and a depth image are of the same place: what is seen, what floats before it, what is hidden.

A pose, or a whole stream, of another room is as good a number as the right one. Only the surface tells: points of the
room, projected into a view, lie on what the view measured. What lies behind is hidden and says nothing; what lies in
front, where the camera saw through, speaks against it. Costs some milliseconds for 50,000 points.
"""

from __future__ import annotations

import numpy as np

from brickyard.shards.cameras import depth_camera, project
from brickyard.shards.scene import Float32, View

MIN_PROBES = 50
TOLERANCE = 0.05
"""Metres between a point and the surface in the depth image, plus as much per 2.5 m of distance."""
NEAREST = 0.1
"""Metres; what is nearer to a camera says nothing."""


def agreement(view: View, xyz: Float32) -> tuple[float, Float32]:
    """(share, points): how far a posed view's depth image agrees with points in the scene frame.

    Of the points that fall on a measured pixel, those within the tolerance of the surface agree, those in front of it
    contradict, those behind are hidden. The share is that of the agreeing among both; 0 if fewer than `MIN_PROBES`
    agree. Without depth or pose, (0, no points).
    """
    if view.depth is None or view.scene_from_camera is None:
        return 0.0, xyz[:0]
    height, width = view.depth.values.shape
    seen = project(xyz, depth_camera(view, view.depth))
    reach, pixel = seen.along(view.depth.along), np.rint(np.nan_to_num(seen.uv, nan=-1.0, posinf=-1.0, neginf=-1.0))
    ahead = np.flatnonzero((reach > NEAREST) & (pixel >= 0).all(axis=1) & (pixel < (width, height)).all(axis=1))
    column, row = pixel[ahead].astype(np.int64).T
    measured = view.depth.values[row, column] * view.depth.scale
    beyond = reach[ahead] - measured
    tolerance = TOLERANCE * (1 + measured / 2.5)
    agree = (measured > 0) & (np.abs(beyond) <= tolerance)
    contradict = (measured > 0) & (beyond < -tolerance)
    count = int(agree.sum())
    share = count / (count + int(contradict.sum())) if count >= max(1, min(MIN_PROBES, len(xyz) // 20)) else 0.0
    return share, xyz[ahead[agree]]
