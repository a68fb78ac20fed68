"""The files of a simulated ScanNet++ scene: COLMAP's texts, nerfstudio's JSON, depth.bin in both layouts, films.

The fisheye's rays are found by bisection on the angle, poses are written by the rules of each format, LZ4 blocks come
from numcodecs and films from FFmpeg (PyAV): none of it is the reader's code turned around.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numcodecs import lz4
from numpy.typing import NDArray

from brickyard.ingest.simulate.sensors import Picture, look
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float64

REAL_SIZE = (1752, 1168)
REAL_FISHEYE = (616.721, 617.354, 878.593, 589.767)
"""fx, fy, cx, cy of a scene of the dataset, counted from the corner of its photographs."""
REAL_DISTORTION = (0.06109, 0.003350, 0.002988, -0.001002)


@dataclass(frozen=True)
class FisheyeLens:
    """COLMAP's OPENCV_FISHEYE: parameters count pixels from the corner of the image."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    k: tuple[float, float, float, float] = REAL_DISTORTION

    def rays(self) -> Float64:
        """Unit directions (height * width, 3) of the pixels' centres, row by row."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        x, y = (u.ravel() - self.cx) / self.fx, (v.ravel() - self.cy) / self.fy
        bent = np.hypot(x, y)
        low, high = np.zeros(len(bent)), np.full(len(bent), np.radians(100))
        for _ in range(60):
            middle = (low + high) / 2
            square = middle**2
            reach = middle * (
                1 + square * (self.k[0] + square * (self.k[1] + square * (self.k[2] + square * self.k[3])))
            )
            low, high = np.where(reach < bent, middle, low), np.where(reach < bent, high, middle)
        share = np.divide(np.sin(low), bent, out=np.ones_like(bent), where=bent > 0)
        return np.stack([x * share, y * share, np.cos(low)], axis=1)


def fisheye(size: tuple[int, int]) -> FisheyeLens:
    """The lens of a real scene, for photographs of another size."""
    x, y = size[0] / REAL_SIZE[0], size[1] / REAL_SIZE[1]
    fx, fy, cx, cy = REAL_FISHEYE
    return FisheyeLens(size[0], size[1], fx * x, fy * y, cx * x, cy * y)


def photograph(world: World, lens: FisheyeLens, world_from_camera: Float64, rng: np.random.Generator) -> Picture:
    """What the lens sees; depth is the distance along each ray."""
    directions = np.ascontiguousarray(lens.rays() @ world_from_camera[:3, :3].T, np.float32)
    shape = (lens.height, lens.width)
    return look(world, world_from_camera[:3, 3], directions, shape, time=0.0, focal=lens.fx, rng=rng)


def colmap_camera(model: str, size: tuple[int, int], parameters: Sequence[float]) -> str:
    """cameras.txt with one camera."""
    head = "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
    return f"{head}# Number of cameras: 1\n1 {model} {size[0]} {size[1]} {' '.join(f'{p:.12g}' for p in parameters)}\n"


def colmap_images(poses: dict[str, Float64], rng: np.random.Generator) -> str:
    """images.txt; every third image has no points, which is an empty line."""
    lines = [
        "# Image list with two lines of data per image:",
        "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME",
    ]
    lines += [
        "#   POINTS2D[] as (X, Y, POINT3D_ID)",
        f"# Number of images: {len(poses)}, mean observations per image: 2",
    ]
    for number, (name, world_from_camera) in enumerate(poses.items()):
        camera_from_world = np.linalg.inv(world_from_camera)
        numbers = [*_quaternion(camera_from_world[:3, :3]), *camera_from_world[:3, 3]]
        lines.append(f"{number + 1} {' '.join(f'{x:.12g}' for x in numbers)} 1 {name}")
        points = rng.uniform(0, 200, (0 if number % 3 == 1 else 2, 2))
        lines.append(" ".join(f"{x:.3f} {y:.3f} {-1 if k else 17}" for k, (x, y) in enumerate(points)))
    return "\n".join(lines) + "\n"


def _quaternion(rotation: Float64) -> Float64:
    """Scalar first: the eigenvector of the symmetric matrix of Bar-Itzhack (2000)."""
    r = rotation
    k = np.array([
        [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
        [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
        [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
    ])  # fmt: skip
    vector = np.linalg.eigh(k)[1][:, -1]
    sign = 1.0 if vector[3] >= 0 else -1.0
    return np.asarray(sign * vector[[3, 0, 1, 2]], dtype=np.float64)


def nerfstudio_matrix(world_from_camera: Float64) -> list[list[float]]:
    """As the dataset's toolkit writes it: OpenGL's camera, and then rows exchanged and turned over."""
    matrix = world_from_camera.copy()
    matrix[:3, 1] *= -1
    matrix[:3, 2] *= -1
    matrix = matrix[[1, 0, 2, 3]]
    matrix[2] *= -1
    return [[float(x) for x in row] for row in matrix]


def depth_stream(metres: NDArray[np.float32]) -> bytes:
    """depth.bin as one raw deflate stream of float32 (N, 192, 256)."""
    deflate = zlib.compressobj(4, zlib.DEFLATED, -15)
    return deflate.compress(metres.astype("<f4").tobytes()) + deflate.flush()


def depth_records(metres: NDArray[np.float32]) -> bytes:
    """depth.bin as records: LZ4 blocks of uint16 millimetres, every fifth one deflated float32 metres."""
    parts = []
    for number, image in enumerate(metres):
        if number % 5 == 4:
            blob = depth_stream(image)
        else:
            blob = lz4.compress(np.nan_to_num(np.rint(image * 1000)).astype("<u2").tobytes())[4:]
        parts.append(struct.pack("<i", len(blob)) + blob)
    return b"".join(parts)


def film(pictures: Sequence[NDArray[np.uint8]], codec: str) -> bytes:
    """A Matroska film of RGB pictures (H, W, 3) at 60 Hz, with frames that wait for later ones."""
    import av

    file = io.BytesIO()
    options: dict[str, Any] = {"flags": "+bitexact", "crf": "14", "bf": "2"}
    if codec == "libx265":
        options["x265-params"] = "log-level=none:pools=none:frame-threads=1:bframes=2:keyint=12"
    with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 60)
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 60)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def seen(world: World, eye: Float64, points: Float64, slack: float = 0.01) -> NDArray[np.bool_]:
    """Whether nothing is in front of world points (N, 3) for an eye, bool (N,)."""
    rays = points - eye
    hits = world.at(0).cast(np.ascontiguousarray(np.broadcast_to(eye, rays.shape), np.float32), rays.astype(np.float32))
    length = np.linalg.norm(rays, axis=1)
    return np.asarray((hits.face == MISS) | (hits.distance * length > length - slack * (1 + 0.1 * length)))
