"""One frame as both releases tell it: range images, pictures, calibrations and poses, checked but not yet decoded.

Sensors are known by number, as in the dataset; neither release keeps its lists in that order, so everything is looked
up by number and never by position. The vehicle frame is x forward, y left, z up; a Waymo camera looks along its x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.clips import ClipOptions
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Float32, Float64, ReadoutDirection
from brickyard.shards.storage import Store

LASERS = {"TOP": 1, "FRONT": 2, "SIDE_LEFT": 3, "SIDE_RIGHT": 4, "REAR": 5}
CAMERAS = {"FRONT": 1, "FRONT_LEFT": 2, "FRONT_RIGHT": 3, "SIDE_LEFT": 4, "SIDE_RIGHT": 5}
TOP = LASERS["TOP"]
LICENCE = "LicenseRef-Waymo-Open-Dataset"
SPLITS = {
    "training": "train", "validation": "val", "testing": "test", "testing_3d_camera_only_detection": "test",
    "domain_adaptation": "none", "domain_adaptation/training": "none", "domain_adaptation/validation": "none",
    "domain_adaptation/testing": "none",
}  # fmt: skip
"""Folder of the release -> official split. The segments for domain adaptation, most of them without labels, are another
benchmark than the main one, so they join none of its splits."""


def split_of(store: Store, folder: str) -> str:
    """Official split of the segments in a folder below the root; "" is the root, which may be a split folder itself."""
    return SPLITS.get(folder.rstrip("/") or store.path("").rstrip("/").rpartition("/")[2], "none")


RATE_HZ = 10.0
"""Frames come at this rate; clips are thinned by it, so that both releases give the same ones."""

POINTS_ESTIMATE = 180_000
"""Planning figure for one return of five lidars; range images must be opened to know better."""

MAX_PIXELS = 1 << 20
"""Pixels of a range image; TOP has 64 x 2650."""

DIRECTIONS: dict[int, ReadoutDirection] = {1: "down", 2: "right", 3: "up", 4: "left"}
"""Number of a calibration -> where the exposed line moves; 5 is a global shutter, 0 is unknown."""

_MAX_WORLD = 1e7

Fail: TypeAlias = Callable[[str], RawDataError]
"""problem -> the error to raise; it already knows the dataset, file and scene."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of Waymo, in either release.

    Attributes:
        lasers: lidars whose points to keep.
        cameras: views to keep.
        returns: 1 for the first return of each laser pulse, 2 for both.
        segments: context names to read, such as "1024360143612057520_3580_000_3600_000"; empty for all.
        every: keep the frames whose number in the segment is a multiple of this (10 Hz: every=5 keeps two a second).
        clips: list clips of each camera's images instead of frames.
    """

    lasers: tuple[str, ...] = tuple(LASERS)
    cameras: tuple[str, ...] = tuple(CAMERAS)
    returns: int = 2
    segments: tuple[str, ...] = ()
    every: int = 1
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        for kind, chosen, known in (("laser", self.lasers, LASERS), ("camera", self.cameras, CAMERAS)):
            if set(chosen) - set(known) or len(set(chosen)) != len(chosen):
                raise RecipeError(f"Waymo {kind}s must be different ones of {', '.join(known)}; found {chosen}")
        if not self.lasers:
            raise RecipeError("Waymo needs at least one laser")
        if self.clips is not None and not self.cameras:
            raise RecipeError("Waymo clips need at least one camera")
        if self.returns not in (1, 2):
            raise RecipeError(f"returns must be 1 (first) or 2 (both), found {self.returns}")
        if self.every < 1:
            raise RecipeError(f"every must be at least 1, found {self.every}")

    def details(self) -> dict[str, Any]:
        """What a reference must carry for its reader."""
        return {"lasers": list(self.lasers), "cameras": list(self.cameras), "returns": self.returns}


@dataclass(frozen=True, kw_only=True)
class Echo:
    """One return of one laser.

    Attributes:
        image: float32 (H, W, 4): range in metres (empty pixels <= 0), intensity, elongation, no-label-zone flag.
        labels: int32 (H, W, 2): instance id, class 0..22; None where nobody labelled this frame.
    """

    image: Float32
    labels: NDArray[np.int32] | None = None


@dataclass(frozen=True, kw_only=True)
class Laser:
    """One lidar.

    Attributes:
        extrinsic: float64 (4, 4), vehicle from laser.
        inclinations: float64, one per row and lowest beam first, or empty.
        lowest, highest: radians, the range of inclinations where they are not listed.
        echoes: the returns that were asked for, the first first.
        pixel_pose: float32 (H, W, 6), roll pitch yaw x y z of world from vehicle when each pixel was measured (TOP).
    """

    number: int
    extrinsic: Float64
    inclinations: Float64
    lowest: float
    highest: float
    echoes: tuple[Echo, ...]
    pixel_pose: Float32 | None = None


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One picture with its camera.

    Attributes:
        intrinsic: float64 (9,): f_u f_v c_u c_v k1 k2 p1 p2 k3, for pixels whose corner (not centre) is (0, 0).
        extrinsic: float64 (4, 4), vehicle from camera.
        pose: float64 (4, 4), world from vehicle at `pose_time`.
        velocity: float64 (6,): m/s in the world frame, rad/s in the vehicle frame.
        pose_time, trigger, shutter, done: seconds; `trigger` opens the first line, `done` ends the read-out.
        direction: of the read-out, one of `DIRECTIONS`, 5 for a global shutter, 0 for unknown.
        panoptic: (divisor, PNG of 16-bit pixels: class * divisor + instance); None where nobody labelled the picture.
    """

    number: int
    jpeg: bytes
    width: int
    height: int
    intrinsic: Float64
    extrinsic: Float64
    pose: Float64
    velocity: Float64
    pose_time: float
    trigger: float
    shutter: float
    done: float
    direction: int
    panoptic: tuple[int, bytes] | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All that is read of a frame; lasers and cameras in the order of their numbers.

    Attributes:
        pose: float64 (4, 4), world from vehicle at `timestamp_us`.
        dropped: what was asked for and is not there -> how often.
    """

    timestamp_us: int
    pose: Float64
    lasers: tuple[Laser, ...]
    cameras: tuple[Camera, ...]
    dropped: dict[str, int] = field(default_factory=dict)


def numbers(values: Any, count: int, what: str, fail: Fail) -> Float64:
    """`count` finite numbers as float64; raises through `fail`."""
    try:
        array = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise fail(f"{what} is not made of numbers") from None
    if len(array) != count or not np.isfinite(array).all():
        raise fail(f"{what} should be {count} finite numbers, found {array.size}: {array[:4].tolist()}...")
    return array


def transform(values: Any, what: str, fail: Fail) -> Float64:
    """16 numbers, row by row -> rigid float64 (4, 4); raises through `fail`."""
    matrix = numbers(values, 16, what, fail).reshape(4, 4)
    rotation = matrix[:3, :3]
    rigid = (
        np.array_equal(matrix[3], (0, 0, 0, 1))
        and np.abs(rotation).max() < 1.001
        and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-4  # old releases carry float32
        and np.linalg.det(rotation) > 0
    )
    if not rigid or np.abs(matrix[:3, 3]).max() > _MAX_WORLD:
        raise fail(f"{what} is no rigid transform")
    return matrix


def matrix3(values: NDArray[Any], shape: Any, channels: int, what: str, fail: Fail) -> NDArray[Any]:
    """Flat values and a declared shape -> (H, W, channels); raises through `fail` where they disagree."""
    sizes = [int(n) for n in shape]
    if len(sizes) != 3 or min(sizes) < 1 or sizes[2] != channels or max(sizes[:2]) > MAX_PIXELS:
        raise fail(f"{what} has the shape {sizes[:8]}, expected height x width x {channels}")
    if sizes[0] * sizes[1] > MAX_PIXELS or len(values) != sizes[0] * sizes[1] * channels:
        raise fail(f"{what} has {len(values)} values for the shape {sizes}")
    return values.reshape(sizes)


def unique(number: int, seen: Any, what: str, fail: Fail) -> int:
    """The number of a sensor that was not there before; raises through `fail`."""
    if number in seen:
        raise fail(f"{what} {number} is there twice")
    return number
