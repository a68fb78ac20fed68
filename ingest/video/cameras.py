"""RealEstate10K's camera files: a text file for each shot of a YouTube video, with the poses of its frames.

    https://www.youtube.com/watch?v=KJDU2WSrDmQ
    52553000 0.474812461 0.844111024 0.5 0.5 0.0 0.0  [12 numbers: camera-from-world, three rows of four]

Times are microseconds of the video; focal lengths and the principal point are shares of width and height, from the
corner of the image; camera axes are OpenCV's. The poses come from structure from motion: their unit is no metre, it
differs from shot to shot. A video with camera files (`<id>.mp4`, anywhere below the root like them) yields only these
shots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlparse

import numpy as np

from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import Float64
from brickyard.shards.storage import Store

LINK_BYTES = 200
MAX_BYTES = 16 << 20
NUMBERS = 19


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A camera file: `name` without suffix, `path` relative to the root."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class PosedTime:
    """`intrinsics` of an image of 1 x 1 with the origin at its corner, float64 (3, 3); pose with OpenCV axes."""

    time_ns: int
    intrinsics: Float64
    world_from_camera: Float64 | None


def find_cameras(store: Store, folders: Mapping[str, Mapping[str, int]]) -> dict[str, list[Shot]]:
    """Video id -> its camera files in the order of their paths, from the first line of every text file."""
    found: dict[str, list[Shot]] = {}
    for folder in sorted(folders):
        for name, size in sorted(folders[folder].items()):
            if name.endswith(".txt") and 20 < size <= MAX_BYTES:
                path = f"{folder}/{name}" if folder else name
                link, _, rest = store.read_range(path, 0, LINK_BYTES).decode("latin-1").partition("\n")
                if link.startswith("http") and rest[:1].isdigit():
                    found.setdefault(_video_id(link.strip()), []).append(Shot(name=name[:-4], path=path))
    return found


def _video_id(link: str) -> str:
    try:
        address = urlparse(link)
        return (parse_qs(address.query).get("v") or [address.path.rpartition("/")[2]])[0]
    except ValueError:
        return ""


def read_cameras(files: RawFiles, path: str) -> list[PosedTime]:
    """The lines of a camera file in order of time; raises `RawDataError` naming the line that is none."""
    shot: list[PosedTime] = []
    for number, line in enumerate(files.read(path, MAX_BYTES).decode("latin-1").splitlines()[1:], start=2):
        try:
            values = np.array(line.split(), np.float64)
            time = int(line.split()[0]) * 1000
            if values.shape != (NUMBERS,) or not np.isfinite(values).all() or not 0 <= time < 1 << 62:
                raise ValueError
            if not (values[1:3] > 0).all() or np.abs(values).max() > 1e12:
                raise ValueError
        except NONSENSE:
            raise files.error(
                path, f"expected a time in microseconds and 18 numbers, found {line[:60]!r}", line=number
            ) from None
        if shot and time <= shot[-1].time_ns:
            raise files.error(path, "times do not rise", line=number)
        fx, fy, cx, cy = values[1:5]
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        shot.append(
            PosedTime(time_ns=time, intrinsics=intrinsics, world_from_camera=_inverse(values[7:].reshape(3, 4)))
        )
    if len(shot) < 2:
        raise files.error(path, f"{len(shot)} frames have poses, a clip needs 2")
    return shot


def _inverse(camera_from_world: Float64) -> Float64 | None:
    """float64 (4, 4), its rotation made orthonormal to the last digit; None if it is no rigid motion."""
    rotation = camera_from_world[:, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 5e-4 or np.linalg.det(rotation) < 0:
        return None
    left, _, right = np.linalg.svd(rotation)
    pose = np.eye(4)
    pose[:3, :3] = (left @ right).T
    pose[:3, 3] = -pose[:3, :3] @ camera_from_world[:, 3]
    return pose


def pixels(intrinsics: Float64, width: int, height: int) -> Float64:
    """Intrinsics of an image of 1 x 1, origin at its corner -> of one of this size, pixel centres at whole numbers."""
    scaled = np.diag([width, height, 1.0]) @ intrinsics
    scaled[:2, 2] -= 0.5
    return np.asarray(scaled, dtype=np.float64)
