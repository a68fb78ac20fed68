"""lowres_wide.traj: ten poses a second, and which pose a frame has that was taken at another time.

    t rx ry rz tx ty tz      seconds, axis times angle (radians), metres; one line a pose

Rotation and translation lead from the world to the camera, so they are inverted here. The world is the mesh's: metres,
z up. Camera: x right, y down, z forward in the image as it is stored, whichever way the tablet was held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.arkitscenes.files import REPORT
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import Float64

MAX_TRAJECTORY = 64 << 20
MAX_METRES = 1000.0
UNFINISHED = "last line of the trajectory, which has no end"
LEVEL_POSES = 20


@dataclass(frozen=True)
class Trajectory:
    """T poses: times float64 (T,) in seconds, rising; scene_from_camera float64 (T, 4, 4)."""

    times: Float64
    poses: Float64


def read_trajectory(files: RawFiles, path: str, dropped: dict[str, int]) -> Trajectory:
    """All poses; raises `RawDataError` with the line of what is none. A last line without its end is left out."""
    lines = files.read(path, MAX_TRAJECTORY).split(b"\n")
    if lines and len(lines[-1].split()) in range(1, 7):
        dropped[UNFINISHED] = dropped.get(UNFINISHED, 0) + 1
        lines.pop()
    rows = [_pose(files, path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise files.error(path, "no poses", hint="download it again")
    table = np.array(rows)
    back = np.flatnonzero(np.diff(table[:, 0]) <= 0)
    if len(back):
        raise files.error(path, "its time does not rise", line=int(back[0]) + 2, hint="download it again")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    turned = rotations(table[:, 1:4]).transpose(0, 2, 1)
    poses[:, :3, :3] = turned
    poses[:, :3, 3] = -np.einsum("tij,tj->ti", turned, table[:, 4:])
    return Trajectory(times=table[:, 0], poses=poses)


def _pose(files: RawFiles, path: str, number: int, line: bytes) -> list[float]:
    def wrong() -> RawDataError:
        what = f"expected t rx ry rz tx ty tz, found {line[:60]!r}"
        return files.error(path, what, line=number, hint=f"download it again; {REPORT}")

    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        raise wrong() from None
    values = np.array(row)
    if len(row) != 7 or not np.isfinite(values).all() or not 0 <= row[0] < 9e9:
        raise wrong()
    if np.linalg.norm(values[1:4]) > 4 * np.pi or np.abs(values[4:]).max() > MAX_METRES:
        raise wrong()
    return row


def rotations(vectors: Float64) -> Float64:
    """Rotation matrices float64 (N, 3, 3) of axes times angles (N, 3), by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=1)
    axis = np.divide(vectors, angle[:, None], out=np.zeros_like(vectors), where=angle[:, None] > 0)
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    sine, rest = np.sin(angle)[:, None, None], (1 - np.cos(angle))[:, None, None]
    result: Float64 = np.eye(3) + sine * cross + rest * (cross @ cross)
    return result


def vector(rotation: Float64) -> Float64:
    """Axis times angle (3,) of a rotation by less than half a turn."""
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = float(np.linalg.norm(skew)) / 2, (float(np.trace(rotation)) - 1) / 2
    if sine < 1e-12:
        return np.zeros(3)
    result: Float64 = skew / (2 * sine) * np.arctan2(sine, cosine)
    return result


def nearest(trajectory: Trajectory, times: Float64, within_s: float) -> dict[int, Float64]:
    """Index of a frame -> the pose that is nearest to it in time, for those that have one within a bound.

    Args:
        times: float64 (F,), seconds.
    """
    right = np.searchsorted(trajectory.times, times).clip(0, len(trajectory.times) - 1)
    left = (right - 1).clip(0)
    gap_left, gap_right = np.abs(times - trajectory.times[left]), np.abs(trajectory.times[right] - times)
    chosen, gap = np.where(gap_left <= gap_right, left, right), np.minimum(gap_left, gap_right)
    return {int(k): trajectory.poses[chosen[k]] for k in np.flatnonzero(gap <= within_s + 1e-9)}


def interpolated(trajectory: Trajectory, times: Float64, between_s: float) -> dict[int, Float64]:
    """Index of a frame -> the pose between its two neighbours in time, if these are not farther apart than a bound.

    The camera's centre moves along a straight line, its rotation along a great arc (slerp). Nothing is extrapolated.
    """
    found: dict[int, Float64] = {}
    for k, time in enumerate(times):
        right = int(np.searchsorted(trajectory.times, time))
        if right < len(trajectory.times) and trajectory.times[right] == time:
            found[k] = trajectory.poses[right]
            continue
        if not 0 < right < len(trajectory.times):
            continue
        before, after = trajectory.times[right - 1], trajectory.times[right]
        if after - before > between_s + 1e-9:
            continue
        first, last, share = trajectory.poses[right - 1], trajectory.poses[right], (time - before) / (after - before)
        pose = np.eye(4)
        arc = vector(first[:3, :3].T @ last[:3, :3])
        pose[:3, :3] = first[:3, :3] @ rotations(share * arc[None])[0]
        pose[:3, 3] = (1 - share) * first[:3, 3] + share * last[:3, 3]
        found[k] = pose
    return found


def quarter_turns(pose: Float64) -> int:
    """How many quarter turns clockwise make the image of a pose upright, 0 to 3: where its sky is.

    As the dataset's `rectify_im.py`: the third row of the pose says how far each image axis leads up.
    """
    x, y = pose[2, 0], pose[2, 1]
    return int(np.argmax((-y, -x, y, x)))


def stands_upright(poses: Float64) -> bool:
    """Whether z is the axis that people hold level: in level images one of the image's axes is level, whatever way the
    tablet is turned, and no other axis of the world has that in most frames. Too few poses pass."""
    if len(poses) < LEVEL_POSES:
        return True
    slant: NDArray[np.float64] = np.abs(poses[:, :3, :2]).min(axis=2).mean(axis=0)
    return bool(slant[2] <= slant[:2].min())
