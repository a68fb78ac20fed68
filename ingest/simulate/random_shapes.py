"""Scenes of random solids, filmed along smooth paths: as many as one likes, for learning views without real videos.

What stands for the many scenes of a dataset of videos: solids with drawn sizes, turns, textures, in a box with textured
walls, under two lamps, and a camera that moves around them while its height, distance and aim drift. After MegaSynth
(Jiang et al., CVPR 2025, arXiv 2412.14166): what is learned from such scenes carries over, although nothing in them
means anything. A folder of images with `transforms.json` for each, as the source `video` reads them: posed clips.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.solids import Lamps, Rng, Solid, Texture, picture
from brickyard.ingest.simulate.truth import write_arrays, write_json
from brickyard.shards.scene import Float64

KINDS = ("ball", "box", "cylinder", "cone")
TEXTURES = ("plain", "checks", "stripes", "rings", "clouds", "clouds")
EVERY = 10
"""Every tenth scene is of the validation split."""


def write_shapes(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.shapes_scenes` folders below `out/train` and `out/val`; returns counts."""
    size = config.shapes_size
    focal = 0.5 * max(size) / np.tan(np.radians(30))
    intrinsics = np.array([[focal, 0, size[0] / 2 - 0.5], [0, focal, size[1] / 2 - 0.5], [0, 0, 1]])
    for number in range(config.shapes_scenes):
        rng = np.random.default_rng((seed, 11, number))
        solids, lamps = draw_world(rng)
        path = draw_path(rng, config.shapes_frames)
        seen = [picture(solids, lamps, view, intrinsics, size) for view in path]
        name = f"shapes{number:06d}"
        _write_folder(out / ("val" if number % EVERY == EVERY - 1 else "train") / name, intrinsics, path, seen)
        write_arrays(truth / name, {"world_from_camera": np.array(path), "depth": np.array([d for _, d in seen])})
        tick(number + 1, config.shapes_scenes)
    return {"scenes": config.shapes_scenes, "frames": config.shapes_scenes * config.shapes_frames}


def draw_world(rng: Rng) -> tuple[list[Solid], Lamps]:
    """Six to fourteen solids on or above a floor within two metres of the middle, z up; walls and lamps."""
    solids = []
    for _ in range(int(rng.integers(6, 15))):
        size, angle, distance = rng.uniform(0.15, 0.55, 3), rng.uniform(0, 2 * np.pi), 2 * np.sqrt(rng.uniform())
        place = np.eye(4)
        place[:3, :3] = turn(rng) @ np.diag(size)
        lift = size.max() if rng.uniform() < 0.7 else rng.uniform(0.5, 2.0)
        place[:3, 3] = (distance * np.cos(angle), distance * np.sin(angle), lift)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        solids.append(
            Solid(kind=kind, world_from_shape=place, texture=draw_texture(rng, 4.0), shine=rng.uniform(0, 0.5))
        )
    walls = np.diag([*rng.uniform(4.5, 7, 2), rng.uniform(1.8, 3), 1.0])
    walls[2, 3] = walls[2, 2]  # the floor is at height 0
    solids.append(Solid(kind="inside", world_from_shape=walls, texture=draw_texture(rng, 9.0), shine=0.0))
    sun = rng.normal(size=3) * (1, 1, 0.5) + (0, 0, 1.5)
    bulb = np.array([*rng.uniform(-3, 3, 2), rng.uniform(1.5, 3)])
    return solids, Lamps(sun=sun / np.linalg.norm(sun), bulb=bulb, ambient=rng.uniform(0.25, 0.5))


def draw_texture(rng: Rng, most: float) -> Texture:
    """Waves of up to `most` radians a unit."""
    waves = rng.normal(size=(4, 3)) * rng.uniform(0.3 * most, most)
    return Texture(
        kind=TEXTURES[int(rng.integers(len(TEXTURES)))], colors=rng.uniform(0.05, 1, (2, 3)), waves=waves,
        phases=rng.uniform(0, 2 * np.pi, 4),
    )  # fmt: skip


def draw_path(rng: Rng, frames: int) -> list[Float64]:
    """Cameras (world_from_camera, OpenCV axes) some three metres from the middle, at 1 to 2.5 degrees a frame."""
    start, speed = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(1.0, 2.5)) * rng.choice((-1, 1))
    waves, phases = rng.uniform(0.02, 0.07, 4), rng.uniform(0, 2 * np.pi, 4)
    path = []
    for frame in range(frames):
        drift = np.sin(waves * frame + phases)
        angle, distance = start + speed * frame, 3.3 + 0.5 * drift[0]
        eye = np.array([distance * np.cos(angle), distance * np.sin(angle), 1.4 + 0.7 * drift[1]])
        path.append(looking(eye, np.array([0.5 * drift[2], 0.5 * drift[3], 0.6])))
    return path


def looking(eye: Float64, at: Float64) -> Float64:
    """A camera at a place that looks at another one, upright."""
    ahead = (at - eye) / np.linalg.norm(at - eye)
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    camera = np.eye(4)
    camera[:3, :3] = np.stack((right, np.cross(ahead, right), ahead), 1)
    camera[:3, 3] = eye
    return camera


def turn(rng: Rng) -> Float64:
    """A random rotation (3, 3), all alike likely: of a quaternion with normal entries."""
    quaternion = rng.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _write_folder(
    folder: Path, intrinsics: Float64, path: list[Float64], seen: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]
) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for number, (view, (color, _)) in enumerate(zip(path, seen, strict=True)):
        name = f"images/{number:04d}.jpg"
        (folder / name).write_bytes(simplejpeg.encode_jpeg(color, 95, "RGB", "444"))
        # OpenGL's camera looks along -z, with y up.
        frames.append({"file_path": name, "transform_matrix": (view @ np.diag([1.0, -1, -1, 1])).tolist()})
    height, width = seen[0][0].shape[:2]
    calibration = {
        "fl_x": intrinsics[0, 0], "fl_y": intrinsics[1, 1], "cx": intrinsics[0, 2] + 0.5, "cy": intrinsics[1, 2] + 0.5,
        "w": width, "h": height,
    }  # fmt: skip
    write_json(folder / "transforms.json", {**calibration, "frames": frames})
