"""Poses of the car (its IMU) from GPS/IMU packets, by the Mercator formula of the KITTI raw devkit.

With s = cos(lat0), lat0 of the drive's first packet, and r = 6378137 m:

    x = s r lon pi/180      y = s r ln tan((90 + lat) pi/360)      z = alt      R = Rz(yaw) Ry(pitch) Rx(roll)

so that x points east, y north and z up, in metres true to scale at lat0. The values are in the millions: float64 only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from brickyard.ingest.kitti.calibration import Fail
from brickyard.shards.scene import Float64

_EARTH_RADIUS = 6378137.0
_VALUES = 30


@dataclass(frozen=True)
class Packet:
    """The pose part of one packet: degrees, metres, radians (yaw 0 = east, counter-clockwise)."""

    latitude: float
    longitude: float
    altitude: float
    roll: float
    pitch: float
    yaw: float


def parse_packet(data: bytes, fail: Fail) -> Packet:
    """The one line of 30 numbers of an oxts file; raises `RawDataError` if it is not that or out of range."""
    try:
        words = data.decode("ascii").split()
        values = [float(word) for word in words[:6]]
    except ValueError as problem:
        raise fail(f"not a line of {_VALUES} numbers: {problem}", line=1) from None
    if len(words) != _VALUES:
        raise fail(f"{len(words)} values, expected {_VALUES}", line=1, hint="the file may be truncated")
    packet = Packet(*values)
    if not all(math.isfinite(value) for value in values):
        raise fail("the pose has values that are not finite", line=1)
    if abs(packet.latitude) >= 90 or abs(packet.longitude) > 360 or abs(packet.altitude) > 1e5:
        raise fail(f"no place on earth: latitude {packet.latitude}, longitude {packet.longitude}", line=1)
    if max(abs(packet.roll), abs(packet.pitch), abs(packet.yaw)) > 100:
        raise fail("roll, pitch, yaw are no angles in radians", line=1)
    return packet


def world_from_imu(packet: Packet, first: Packet) -> Float64:
    """Pose (4, 4) of the IMU in the Mercator frame of the drive whose first packet is `first`."""
    scale = math.cos(math.radians(first.latitude))
    pose = np.eye(4)
    pose[:3, :3] = _rotation(packet.roll, packet.pitch, packet.yaw)
    pose[:3, 3] = (
        scale * _EARTH_RADIUS * math.radians(packet.longitude),
        scale * _EARTH_RADIUS * math.log(math.tan(math.radians(90 + packet.latitude) / 2)),
        packet.altitude,
    )
    return pose


def _rotation(roll: float, pitch: float, yaw: float) -> Float64:
    """Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    rotation: Float64 = about_z @ about_y @ about_x
    return rotation
