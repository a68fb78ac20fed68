"""The camera of every walk: constants of Meta's own code, as the release ships no calibration.

FISHEYE624 at 704 x 704 pixels, one focal length; the pose of the camera in the device's frame is the quaternion and
translation that projectaria_tools calls T_Camera_Device, which leads from the camera to the device. Images lie on their
side as the sensor does: the world's up points to their left, and calibration and poses hold for them so.
"""

from __future__ import annotations

import numpy as np

from brickyard.shards.scene import Float64

SIZE = 704
_FOCAL, _CENTRE = 297.6375381033778, (357.6599197217746, 349.1922497127481)
INTRINSICS: Float64 = np.array([[_FOCAL, 0, _CENTRE[0]], [0, _FOCAL, _CENTRE[1]], [0, 0, 1]])
DISTORTION = (
    0.3650890375644368, -0.1738082418112771, -0.7534945484033189, 2.434788882752295, -2.57786220300886,
    0.8788483538598834, 0.0008005198595407136, -0.000294237814554143, 0.0, 0.0, 0.0, 0.0,
)  # fmt: skip
RADIUS = 353.0
"""Pixels from the middle of the image to where the lens ends: colours beyond are dark, depth is not."""
_ROTATION = (0.326409343828490850, 0.029274992008313648, 0.033361059956531547, 0.9441858687689326)
_TRANSLATION = (-0.007530096566173914, -0.010908549841580260, -0.003598063315542823)


def rigid(quaternion: Float64, translation: Float64) -> Float64:
    """float64 (N, 4, 4) of unit quaternions (N, 4), scalar last, and translations (N, 3)."""
    x, y, z, w = quaternion.T
    result = np.zeros((len(quaternion), 4, 4))
    result[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1)
    result[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1)
    result[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1)
    result[:, :3, 3], result[:, 3, 3] = translation, 1
    return result


DEVICE_FROM_CAMERA: Float64 = rigid(np.array([_ROTATION]), np.array([_TRANSLATION]))[0]
