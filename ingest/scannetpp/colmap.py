"""Cameras and poses as COLMAP writes them as text, of the photographs and of the phone's frames.

    cameras.txt   CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS...
    images.txt    IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and after each such line one with the points in the
                  image, which may be empty

Lines that begin with # are comments. A pose leads from the world, which is that of the mesh, to the camera (x right, y
down, z forward). Pixels are counted from the corner of the image, so half a pixel is taken off the principal point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brickyard.ingest.source import RawFiles
from brickyard.shards.scene import CameraModel, Float64

MAX_CAMERAS = 1 << 20
MAX_IMAGES = 1 << 30
MODELS: dict[str, tuple[CameraModel, int, int]] = {
    "OPENCV_FISHEYE": ("fisheye", 8, 4),
    "OPENCV": ("opencv", 8, 4),
    "PINHOLE": ("pinhole", 4, 0),
}
"""Name -> our model, number of parameters, how many of them (the last) are distortion."""
REPORT = "download it again; if it is whole, please report it: no real file was at hand when this was written"
_COUNT = re.compile(rb"^# *Number of (?:images|cameras): *(\d{1,9})\b")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A calibration: intrinsics float64 (3, 3) with the centre of the top left pixel at (0, 0)."""

    model: CameraModel
    width: int
    height: int
    intrinsics: Float64
    distortion: tuple[float, ...]

    def sized(self, width: int, height: int) -> Float64 | None:
        """Intrinsics for an image of this size; None if it has another shape than the one that was calibrated."""
        x, y = width / self.width, height / self.height
        if abs(x / y - 1) > 1 / width + 1 / height:
            return None
        scale = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return scale @ self.intrinsics


@dataclass(frozen=True, kw_only=True)
class PosedCamera:
    """A camera and where it stands: scene_from_camera float64 (4, 4), rigid."""

    camera: Camera
    scene_from_camera: Float64


def pinhole_intrinsics(fx: float, fy: float, cx: float, cy: float) -> Float64:
    """float64 (3, 3), from values that count pixels from the corner of the image."""
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def read_colmap(files: RawFiles, cameras_path: str, images_path: str) -> Mapping[str, PosedCamera]:
    """Base name of each image, without its suffix -> its camera and pose, in the order of the file.

    Raises:
        RawDataError: a damaged file, or a camera model that is not known to occur.
    """
    cameras = _read_cameras(files, cameras_path)
    data = files.read(images_path, MAX_IMAGES)
    if b"\0" in data:
        raise files.error(images_path, "a block of zero bytes", offset=data.find(b"\0"), hint="download it again")
    found: dict[str, PosedCamera] = {}
    declared, header_next = None, True
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if header_next and (line.startswith(b"#") or not line.strip()):
            # Blank lines stand for images without points; before an image they are no more than the end of the file.
            declared = int(match[1]) if (match := _COUNT.match(line)) else declared
            continue
        if header_next:
            name, posed = _read_image(files, images_path, number, line, cameras)
            if name in found:
                raise files.error(images_path, f"{name} is here twice", line=number, hint=REPORT)
            found[name] = posed
        header_next = not header_next
    if declared is not None and declared != len(found):
        raise files.error(
            images_path, f"it declares {declared} images and has {len(found)}", line=len(lines),
            hint="the file is truncated; download it again",
        )  # fmt: skip
    if not found:
        raise files.error(images_path, "no image is in it", hint=REPORT)
    return found


def _read_cameras(files: RawFiles, path: str) -> dict[str, Camera]:
    cameras: dict[str, Camera] = {}
    for number, line in enumerate(files.read(path, MAX_CAMERAS).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        known = MODELS.get(words[1]) if len(words) > 4 else None
        if known is None:
            what = f"expected `ID MODEL WIDTH HEIGHT ...` with a model of {', '.join(MODELS)}, found {line[:60]!r}"
            raise files.error(path, what, line=number, hint=REPORT)
        model, count, bent = known
        numbers = _numbers(words[2:])
        if numbers is None or len(numbers) != 2 + count or words[0] in cameras:
            what = f"a camera {words[1]} has a size and {count} finite parameters, found {line[:80]!r}"
            raise files.error(path, what, line=number, hint=REPORT)
        width, height, fx, fy, cx, cy, *distortion = numbers
        if not (width == int(width) > 0 and height == int(height) > 0 and max(width, height) < 65536 and fx > 0 < fy):
            raise files.error(path, f"no camera has the size or focal length of {line[:80]!r}", line=number)
        cameras[words[0]] = Camera(
            model=model, width=int(width), height=int(height), intrinsics=pinhole_intrinsics(fx, fy, cx, cy),
            distortion=tuple(distortion[:bent]),
        )  # fmt: skip
    if not cameras:
        raise files.error(path, "no camera is in it", hint=REPORT)
    return cameras


def _read_image(
    files: RawFiles, path: str, number: int, line: bytes, cameras: Mapping[str, Camera]
) -> tuple[str, PosedCamera]:
    words = line.decode("utf-8", "replace").split()
    values = _numbers(words[1:8]) if len(words) == 10 else None
    if values is None or words[8] not in cameras:
        what = "expected `IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME` with a camera of cameras.txt"
        raise files.error(path, f"{what}, found {line[:80]!r}", line=number, hint=REPORT)
    quaternion, translation = np.array(values[:4]), np.array(values[4:])
    if abs(float(np.linalg.norm(quaternion)) - 1) > 1e-3:
        raise files.error(path, f"the quaternion of {words[9]} has not the length 1", line=number, hint=REPORT)
    rotation = _rotation(quaternion / np.linalg.norm(quaternion))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation
    name = words[9].replace("\\", "/").rpartition("/")[2]
    return name.rpartition(".")[0] or name, PosedCamera(camera=cameras[words[8]], scene_from_camera=pose)


def _rotation(q: Float64) -> Float64:
    """Rotation matrix (3, 3) of a unit quaternion, scalar first."""
    w, x, y, z = q
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def _numbers(words: list[str]) -> list[float] | None:
    """Finite numbers, none beyond 1e6; None where a word is none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(math.isfinite(value) and abs(value) < 1e6 for value in values) else None
