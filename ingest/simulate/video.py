"""Simulated rooms as a phone would film them: an image folder with `transforms.json`, and two videos of two shots.

The camera goes through one room and then, after a cut, through another. `tour-0000.mp4` has no calibration, as most
videos; `posed0000.mp4` comes with RealEstate10K's camera files, one for each shot. Frame times are irregular, between
33 and 66 ms, as phones record. H.264 with B-frames, encoded by FFmpeg (PyAV) in one thread: same seed, same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES
from brickyard.ingest.simulate.sensors import Camera, render
from brickyard.ingest.simulate.shapes import invert, pose
from brickyard.ingest.simulate.truth import write_arrays, write_json
from brickyard.shards.scene import Float64

Rng = np.random.Generator
SPACING = 0.12
LINK = "https://www.youtube.com/watch?v="
VAL_FROM = 1000
"""Number of the first walk of the split val."""
STEPS_MS = (33, 40, 50, 66)


def write_video(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write the folder and the videos of all walks below `out/train` and `out/val`; returns counts."""
    counts = {"clips": 0, "frames": 0}
    total = config.video_walks + config.video_val_walks
    for done in range(total):
        split = "train" if done < config.video_walks else "val"
        number = done if split == "train" else VAL_FROM + done - config.video_walks
        _write_walk((out, truth), split, number, config, np.random.default_rng((seed, 4, number)))
        counts["clips"] += 3
        counts["frames"] += 5 * config.video_frames
        tick(done + 1, total)
    return counts


def _write_walk(folders: tuple[Path, Path], split: str, number: int, config: SimulationConfig, rng: Rng) -> None:
    out, truth = folders
    kinds, camera = list(ROOMS), _camera(config.video_size)
    shots = []
    for half in range(2):
        room = build_room(rng, kinds[(2 * number + half) % len(kinds)], spacing=SPACING)
        path = _walk(room, config.video_frames, rng)
        pictures = [render(room.world, camera, view, 0.0, rng) for view in path]
        shots.append((path, [p.color for p in pictures], [p.depth for p in pictures]))
    times = np.concatenate([[0], np.cumsum(rng.choice(STEPS_MS, 2 * config.video_frames - 1))]).astype(np.int64)
    path, colors, depths = shots[0]
    _write_folder(out / split / f"walk{number:04d}", camera, path, colors)
    film = [color for shot in shots for color in shot[1]]
    poses = np.array([view for shot in shots for view in shot[0]])
    for name in (f"tour-{number:04d}", f"posed{number:04d}"):
        target = out / split / f"{name}.mp4"
        target.write_bytes(encode(film, times))
        write_json(truth / f"{name}.json", {"cut": config.video_frames, "times_ms": times.tolist()})
        write_arrays(truth / name, {"world_from_camera": poses, "intrinsics": camera.intrinsics})
    write_arrays(truth / f"walk{number:04d}", {"world_from_camera": np.array(path), "depth": np.array(depths)})
    _write_cameras(out / "cameras", f"posed{number:04d}", camera, poses, times)


def _camera(size: tuple[int, int]) -> Camera:
    """55 degrees wide, square pixels, the principal point a little off the middle."""
    width, height = size
    focal = width / 2 / np.tan(np.radians(27.5))
    return Camera(
        width=width, height=height,
        intrinsics=np.array([[focal, 0, 0.492 * width], [0, focal, 0.507 * height], [0, 0, 1]]),
    )  # fmt: skip


def _walk(room: Room, count: int, rng: Rng) -> list[Float64]:
    """A slow arc above the furniture, looking across the room; room_from_camera with OpenCV axes."""
    width, depth, _ = room.size
    phase, turn = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1)) * np.radians(1.2)
    views = []
    for k in range(count):
        angle = phase + turn * k
        x, y = width * (0.5 + 0.3 * np.cos(angle)), depth * (0.5 + 0.3 * np.sin(angle))
        yaw = angle + np.pi + 0.2 * np.sin(0.05 * k)
        views.append(pose(x, y, 1.75 + 0.05 * np.sin(0.1 * k), yaw, 0.3) @ CAMERA_AXES)
    return views


def encode(pictures: list[NDArray[np.uint8]], times_ms: NDArray[np.int64]) -> bytes:
    """An MP4 of H.264, yuv420p, of RGB pictures (H, W, 3) at these times."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "16", "bf": "2", "flags": "+bitexact"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 15
        stream.codec_context.thread_count = 1
        for picture, time in zip(pictures, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _write_folder(folder: Path, camera: Camera, path: list[Float64], colors: list[NDArray[np.uint8]]) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for number, (view, color) in enumerate(zip(path, colors, strict=True)):
        name = f"images/frame-{number}.jpg"
        (folder / name).write_bytes(simplejpeg.encode_jpeg(color, 92, "RGB", "420"))
        # OpenGL's camera looks along -z, with y up.
        frames.append({"file_path": name, "transform_matrix": (view @ np.diag([1.0, -1, -1, 1])).tolist()})
    k = camera.intrinsics
    calibration = {
        "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2] + 0.5, "cy": k[1, 2] + 0.5,
        "w": camera.width, "h": camera.height,
    }  # fmt: skip
    write_json(folder / "transforms.json", {**calibration, "frames": frames})


def _write_cameras(folder: Path, video: str, camera: Camera, poses: Float64, times_ms: NDArray[np.int64]) -> None:
    """RealEstate10K: a text file for each shot; every second frame, as its authors sampled theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    k = camera.intrinsics
    shares = (
        k[0, 0] / camera.width, k[1, 1] / camera.height,
        (k[0, 2] + 0.5) / camera.width, (k[1, 2] + 0.5) / camera.height, 0, 0,
    )  # fmt: skip
    half = len(poses) // 2
    for shot in range(2):
        lines = [LINK + video]
        for frame in range(shot * half, (shot + 1) * half, 2):
            numbers = [*shares, *invert(poses[frame])[:3].ravel()]
            lines.append(" ".join([str(times_ms[frame] * 1000), *(f"{x:.9f}" for x in numbers)]))
        (folder / f"{video}-{shot}.txt").write_text("\n".join(lines) + "\n")
