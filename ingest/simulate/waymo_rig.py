"""The vehicle, lidars and rolling-shutter cameras of the simulated Waymo drives.

Everything is written from the formulas of the public format description and for itself: nothing of the reader or of
`curate` is used, so that what they make of the files can be held against it. A camera exposes its columns one after the
other; the pixel that sees a point is found by bisection over the columns, each of them a camera of its own at the pose
of its own moment on the true, accelerating path, and pictures are drawn strip by strip with the same poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.sensors import look
from brickyard.ingest.simulate.shapes import Int32, invert, pose
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float32, Float64

SHUTTER = 0.0025
READOUT = 0.044
BISECTIONS = 26
STRIPS = 24


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A path along an arc with a changing speed and a rocking body; it stands still at speed 0.

    Attributes:
        start: float64 (4, 4), world from vehicle at time 0.
        speed: m/s on average.
        bend: 1/m, curvature of the arc.
    """

    start: Float64
    speed: float
    bend: float = 0.02

    def angles_and_places(self, times: Float64) -> tuple[Float64, Float64]:
        """(roll, pitch, yaw) and place, float64 (N, 3) each, relative to the start."""
        move = self.speed / (1 + self.speed)
        along = self.speed * times + 0.3 * move * np.sin(1.7 * times)
        yaw = self.bend * along
        place = np.stack([np.sin(yaw) / self.bend, (1 - np.cos(yaw)) / self.bend, 0.02 * move * np.sin(3 * times)], 1)
        angles = np.stack([0.006 * move * np.sin(4 * times), 0.008 * move * np.sin(5 * times + 1), yaw], 1)
        return angles, place

    def poses(self, times: Float64) -> Float64:
        """World from vehicle, float64 (N, 4, 4)."""
        angles, place = self.angles_and_places(times)
        return np.asarray(self.start @ rigid(angles, place))

    def pose(self, time: float) -> Float64:
        return np.asarray(self.poses(np.array([time]))[0])

    def velocity(self, time: float) -> Float64:
        """What an inertial unit tells, float64 (6,): m/s along the world's axes, rad/s about the vehicle's."""
        step = 1e-4
        before, now, after = self.poses(np.array([time - step, time, time + step]))
        rate = now[:3, :3].T @ (after[:3, :3] - before[:3, :3]) / (2 * step)
        turn = np.array([rate[2, 1] - rate[1, 2], rate[0, 2] - rate[2, 0], rate[1, 0] - rate[0, 1]]) / 2
        return np.concatenate([(after[:3, 3] - before[:3, 3]) / (2 * step), turn])


def rigid(angles: Float64, place: Float64) -> Float64:
    """Roll, pitch, yaw and place, (N, 3) each -> float64 (N, 4, 4), Rz(yaw) Ry(pitch) Rx(roll)."""

    def about(axis: int, angle: Float64) -> Float64:
        one, two = ((1, 2), (2, 0), (0, 1))[axis]
        turn = np.tile(np.eye(3), (len(angle), 1, 1))
        turn[:, one, one] = turn[:, two, two] = np.cos(angle)
        turn[:, two, one] = np.sin(angle)
        turn[:, one, two] = -turn[:, two, one]
        return turn

    result = np.tile(np.eye(4), (len(angles), 1, 1))
    result[:, :3, :3] = about(2, angles[:, 2]) @ about(1, angles[:, 1]) @ about(0, angles[:, 0])
    result[:, :3, 3] = place
    return result


@dataclass(frozen=True, kw_only=True)
class RigCamera:
    """A camera that looks along its x axis, read out from left to right or from right to left.

    Attributes:
        mount: float64 (4, 4), vehicle from camera.
        intrinsic: f_u f_v c_u c_v k1 k2 p1 p2 k3; pixels are counted from the image's corner.
        direction: 2 from left to right, 4 from right to left.
        delay: seconds from the frame's time to the middle of the read-out.
    """

    number: int
    mount: Float64
    width: int
    height: int
    intrinsic: Float64
    direction: int
    delay: float

    def time_of(self, u: Float64) -> Float64:
        """Seconds from the frame's time to the exposure of the column at u."""
        share = u / self.width if self.direction == 2 else (self.width - u) / self.width
        return np.asarray(self.delay + READOUT * (share - 0.5))

    def pixels(self, local: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        """Points (N, 3) in the camera's frame -> (u, v) (N, 2) and whether the model holds for them."""
        f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = self.intrinsic
        ahead = np.maximum(local[:, 0], 1e-6)
        un, vn = -local[:, 1] / ahead, -local[:, 2] / ahead
        r2 = un**2 + vn**2
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        ud = un * radial + 2 * p1 * un * vn + p2 * (r2 + 2 * un**2)
        vd = vn * radial + p1 * (r2 + 2 * vn**2) + 2 * p2 * un * vn
        valid = (local[:, 0] > 0.3) & (radial > 0.8) & (radial < 1.2)
        return np.stack([f_u * ud + c_u, f_v * vd + c_v], 1), valid

    def rays(self, u: Float64, v: Float64) -> Float64:
        """Directions (N, 3) in the camera's frame of pixels, by undoing the distortion step by step."""
        f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = self.intrinsic
        ud, vd = (u - c_u) / f_u, (v - c_v) / f_v
        un, vn = ud.copy(), vd.copy()
        for _ in range(25):
            r2 = un**2 + vn**2
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            un, vn = (
                (ud - 2 * p1 * un * vn - p2 * (r2 + 2 * un**2)) / radial,
                (vd - p1 * (r2 + 2 * vn**2) - 2 * p2 * un * vn) / radial,
            )
        return np.stack([np.ones_like(un), -un, -vn], 1)

    def see(self, drive: Drive, time: float, points: Float64) -> Float64:
        """Where world points (N, 3) are in the picture of the frame at `time`: (u, v) (N, 2), NaN where they are not.

        f(u) = (column at which the camera of column u sees the point) - u changes its sign at the answer.
        """
        result = np.full((len(points), 2), np.nan)
        middle, valid = self._from(drive, time, points, np.full(len(points), self.width / 2))
        near = (np.abs(middle - (self.width / 2, self.height / 2)) < 2.0 * np.array((self.width, self.height))).all(1)
        chosen = np.flatnonzero(valid & near)
        low, high = np.zeros(len(chosen)), np.full(len(chosen), float(self.width))
        first, _ = self._from(drive, time, points[chosen], low)
        last, _ = self._from(drive, time, points[chosen], high)
        crosses = (first[:, 0] >= 0) & (last[:, 0] < self.width)
        chosen, low, high = chosen[crosses], low[crosses], high[crosses]
        for _ in range(BISECTIONS):
            half = (low + high) / 2
            right = self._from(drive, time, points[chosen], half)[0][:, 0] >= half
            low, high = np.where(right, half, low), np.where(right, high, half)
        pixel, valid = self._from(drive, time, points[chosen], low)
        inside = valid & ((pixel >= 0) & (pixel < (self.width, self.height))).all(1)
        result[chosen[inside]] = pixel[inside]
        return result

    def _from(self, drive: Drive, time: float, points: Float64, u: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        place = drive.poses(time + self.time_of(u)) @ self.mount
        local = np.einsum("nji,nj->ni", place[:, :3, :3], points - place[:, :3, 3])
        return self.pixels(local)

    def draw(
        self, world: World, street_from_world: Float64, drive: Drive, time: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Int32]:
        """The picture uint8 (H, W, 3) and what each pixel shows, int32 (H, W) faces, in a few dozen strips."""
        color = np.empty((self.height, self.width, 3), np.uint8)
        face = np.empty((self.height, self.width), np.int32)
        for columns in np.array_split(np.arange(self.width), min(STRIPS, max(1, self.width // 4))):
            u, v = np.meshgrid(columns + 0.5, np.arange(self.height) + 0.5)
            moment = time + float(self.time_of(np.array(columns.mean() + 0.5)))
            place = street_from_world @ drive.pose(moment) @ self.mount
            rays = (self.rays(u.ravel(), v.ravel()) @ place[:3, :3].T).astype(np.float32)
            shape, focal = (self.height, len(columns)), float(self.intrinsic[0])
            strip = look(world, place[:3, 3], np.ascontiguousarray(rays), shape, time=moment, focal=focal, rng=rng)
            color[:, columns], face[:, columns] = strip.color, strip.face
        return color, face


@dataclass(frozen=True, kw_only=True)
class RigLidar:
    """A lidar of H beams and W columns; `beams` lists its inclinations from below, or `limits` gives their range."""

    number: int
    mount: Float64
    height: int
    width: int
    beams: tuple[float, ...]
    limits: tuple[float, float]

    def directions(self) -> Float64:
        """Unit vectors (H, W, 3) in the lidar's frame; row 0 is the highest beam."""
        low, high = self.limits
        rising = self.beams or tuple(low + (k + 0.5) / self.height * (high - low) for k in range(self.height))
        inclination = np.array(rising[::-1])[:, None]
        turn = np.arctan2(self.mount[1, 0], self.mount[0, 0])
        azimuth = (((self.width - np.arange(self.width) - 0.5) / self.width) * 2 - 1) * np.pi - turn
        level = np.cos(inclination)
        height = np.broadcast_to(np.sin(inclination), (self.height, self.width))
        return np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, height], -1)


@dataclass(frozen=True, kw_only=True)
class Echoes:
    """What a lidar measured in a frame.

    Attributes:
        images: float32 (H, W, 4) of both returns: range (-1: none), intensity, elongation, no-label-zone flag.
        faces: int32 (H, W) of both returns, MISS where there is none.
        pixel_pose: float32 (H, W, 6) of TOP, None of the others.
        points: float64 (N, 3) of both returns, row by row, in the world (not the frame).
    """

    images: tuple[Float32, Float32]
    faces: tuple[Int32, Int32]
    pixel_pose: Float32 | None
    points: tuple[Float64, Float64]


def measure(
    world: World, street_from_world: Float64, drive: Drive, lidar: RigLidar, time: float, *, soft: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Echoes:  # fmt: skip
    """One turn. TOP (number 1) turns in 0.1 s around the frame's time, the others are measured at it.

    Args:
        soft: bool (F,), faces that let a part of the pulse through (leaves, fences), which then gives a second echo.
    """
    shape = (lidar.height, lidar.width)
    local, poses, pixel_pose = lidar.directions(), np.broadcast_to(drive.pose(time), (lidar.width, 4, 4)), None
    if lidar.number == 1:
        poses, pixel_pose = _turning(drive, time, shape)
    place = poses @ lidar.mount
    rays = np.einsum("wij,hwj->hwi", place[:, :3, :3], local)
    reach = [np.full(shape, -1, np.float32) for _ in range(2)]
    faces = [np.full(shape, MISS, np.int32) for _ in range(2)]
    for columns in np.array_split(np.arange(lidar.width), 8 if lidar.number == 1 else 1):
        moment = time + (0.1 * (float(columns.mean()) / lidar.width - 0.5) if lidar.number == 1 else 0.0)
        snapshot = world.at(moment)
        eye = place[columns, :3, 3] @ street_from_world[:3, :3].T + street_from_world[:3, 3]
        ray = (rays[:, columns] @ street_from_world[:3, :3].T).reshape(-1, 3).astype(np.float32)
        start = np.tile(eye, (lidar.height, 1))
        passed, open_ = np.zeros(len(ray)), np.ones(len(ray), np.bool_)
        for echo in range(2):
            hits = snapshot.cast((start + ray * passed[:, None]).astype(np.float32), ray)
            distance = (hits.distance + passed + rng.normal(0, 0.01, len(passed))).astype(np.float32)
            kept = (hits.face != MISS) & (distance > 1) & (distance < 75) & (rng.random(len(passed)) > 0.03)
            kept &= open_
            grid = (lidar.height, len(columns))
            reach[echo][:, columns] = np.where(kept, distance, -1).reshape(grid)
            faces[echo][:, columns] = np.where(kept, hits.face, MISS).reshape(grid)
            open_ = kept & soft[hits.face] & (rng.random(len(passed)) < 0.7)
            passed = np.where(open_, distance + 0.2, 0)
    points = tuple(
        (place[:, :3, 3] + rays * distance[..., None].astype(np.float64))[distance > 0] for distance in reach
    )
    images = tuple(_channels(distance, rng) for distance in reach)
    return Echoes(
        images=(images[0], images[1]), faces=(faces[0], faces[1]), pixel_pose=pixel_pose, points=(points[0], points[1])
    )


def _turning(drive: Drive, time: float, shape: tuple[int, int]) -> tuple[Float64, Float32]:
    """Poses (W, 4, 4) from which the columns of TOP are fired, and as the file tells them: rounded to float32 first,
    since in a world of tens of kilometres float32 has steps of millimetres, and the truth must be the file's."""
    times = time + 0.1 * (np.arange(shape[1]) / shape[1] - 0.5)
    exact = drive.poses(times)
    roll = np.arctan2(exact[:, 2, 1], exact[:, 2, 2])
    pitch = np.arcsin(-exact[:, 2, 0])
    yaw = np.arctan2(exact[:, 1, 0], exact[:, 0, 0])
    told = np.concatenate([np.stack([roll, pitch, yaw], 1), exact[:, :3, 3]], 1).astype(np.float32)
    own = told.astype(np.float64)
    return rigid(own[:, :3], own[:, 3:]), np.ascontiguousarray(np.broadcast_to(told, (*shape, 6)))


def _channels(distance: Float32, rng: np.random.Generator) -> Float32:
    filled = distance > 0
    image = np.full((*distance.shape, 4), -1, np.float32)
    image[filled, 0] = distance[filled]
    image[filled, 1] = rng.lognormal(-2, 1.2, int(filled.sum()))  # a heavy tail, beyond 1
    image[filled, 2] = rng.exponential(0.1, int(filled.sum()))
    image[filled, 3] = 0
    return image


def build_rig(
    image_size: tuple[int, int], columns: int, rows: int
) -> tuple[tuple[RigCamera, ...], tuple[RigLidar, ...]]:
    """Cameras by number (FRONT, FRONT_LEFT, FRONT_RIGHT, SIDE_LEFT, SIDE_RIGHT) and lidars by number (TOP, FRONT,
    SIDE_LEFT, SIDE_RIGHT, REAR) with the measures of the real ones; image sizes are those of the front cameras."""
    width, height = image_size
    places = ((0.0, 1.54, 0.0, 2.1), (45.0, 1.49, 0.1, 2.1), (-45.0, 1.49, -0.1, 2.1), (90.0, 1.43, 0.12, 2.1),
              (-90.0, 1.43, -0.12, 2.1))  # fmt: skip
    cameras = []
    for number, (azimuth, x, y, z) in enumerate(places, 1):
        high = height if number < 4 else round(height * 886 / 1280)
        focal = 2060.0 * width / 1920
        intrinsic = np.array([focal, focal * 1.001, width * 0.502, high * 0.497, 0.042, -0.33, 0.0012, -0.0008, 0.0])
        tilt = np.radians((0.3, -0.4))
        cameras.append(
            RigCamera(number=number, mount=pose(x, y, z, np.radians(azimuth), tilt[0], tilt[1]), width=width,
                      height=high, intrinsic=intrinsic, direction=4 if number == 5 else 2, delay=0.01 * number)
        )  # fmt: skip
    beams = tuple(np.radians(-17.6 + 20.0 * (np.arange(rows) / (rows - 1)) ** 0.8).tolist())
    lidars = [RigLidar(number=1, mount=pose(1.43, 0, 2.18, 2.58), height=rows, width=columns, beams=beams,
                       limits=(beams[0], beams[-1]))]  # fmt: skip
    for number, (azimuth, x, y) in enumerate(((0, 4.07, 0), (90, 3.24, 1.02), (-90, 3.24, -1.02), (180, -1.15, 0)), 2):
        mount = pose(x, y, 0.7, np.radians(azimuth + 0.5))
        lidars.append(RigLidar(number=number, mount=mount, height=max(4, rows // 2), width=max(8, columns // 4),
                               beams=(), limits=(-1.57, 0.52)))  # fmt: skip
    return tuple(cameras), tuple(lidars)


def in_vehicle(points: Float64, vehicle: Float64) -> Float64:
    """World points (N, 3) in the frame of a vehicle that stands at `vehicle`."""
    back = invert(vehicle)
    return np.asarray((points - vehicle[:3, 3]) @ back[:3, :3].T)
