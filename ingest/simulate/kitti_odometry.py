"""Writes simulated streets the way KITTI's odometry benchmark and SemanticKITTI ship their sequences.

A sequence is one street driven along: scans with the vehicle's motion taken out, both colour cameras, a class and an
instance for each point (what drives or walks has a moving class), SemanticKITTI's trajectory, which the labels agree
with exactly, and KITTI's own, which differs by centimetres as the real ones do. Sequence 11 is of the test split: it
has neither labels nor ground truth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.kitti import (
    PERIOD,
    RAW_IDS,
    Rig,
    build_rig,
    measure,
    numbers,
    photograph,
    scan_bytes,
    velo_pose,
    write_file,
)
from brickyard.ingest.simulate.shapes import invert, pose
from brickyard.ingest.simulate.streets import Street, build_street
from brickyard.ingest.simulate.truth import write_arrays
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float64

SEQUENCES = ("00", "08", "11")
"""One of each split: train, validation, test."""
MOVING_IDS = {"car": 252, "pedestrian": 254, "bus": 257, "truck": 258}
_THINGS = {"car", "truck", "bus", "bicycle", "pedestrian"}
_START = 0.5


def write_kitti_odometry(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `out/sequences` and `out/poses`; returns counts."""
    names = SEQUENCES[: config.kitti_odometry_sequences]
    counts = {"frames": 0, "points": 0}
    for number, name in enumerate(names):
        rng = np.random.default_rng((seed, 8, number))
        street, rig = build_street(rng, ego_roof=None), build_rig(config.kitti_image_size, rng)
        for frame in range(config.kitti_odometry_frames):
            counts["points"] += _write_frame(out, truth, name, frame, street=street, rig=rig, config=config, rng=rng)
            counts["frames"] += 1
            tick(counts["frames"], len(names) * config.kitti_odometry_frames)
        _write_tables(out, name, street=street, rig=rig, frames=config.kitti_odometry_frames, rng=rng)
    return counts


def point_labels(world: World) -> NDArray[np.uint32]:
    """SemanticKITTI's label of each triangle, uint32 (F,): instance << 16 | raw class."""
    still = np.array([RAW_IDS[name] for name in world.labels], np.uint32)[world.label]
    moving = np.array([MOVING_IDS.get(name, RAW_IDS[name]) for name in world.labels], np.uint32)[world.label]
    thing = np.array([name in _THINGS for name in world.labels])[world.label]
    instance = np.where(thing, world.instance, 0).astype(np.uint32)
    return np.asarray(instance << 16 | np.where(world.owner == MISS, still, moving), dtype=np.uint32)


def _write_frame(
    out: Path, truth: Path, name: str, frame: int, *, street: Street, rig: Rig, config: SimulationConfig,
    rng: np.random.Generator,
) -> int:  # fmt: skip
    folder, time, stem = out / "sequences" / name, _START + frame * PERIOD, f"{frame:06d}"
    sweep = measure(street, config, time, rng)
    label = point_labels(street.world)[sweep.face]
    write_file(folder / "velodyne" / f"{stem}.bin", scan_bytes(sweep.xyz, sweep))
    if name != "11":
        write_file(folder / "labels" / f"{stem}.label", label.astype("<u4").tobytes())
    still = label & 0xFFFF
    for raw, other in MOVING_IDS.items():
        still[still == other] = RAW_IDS[raw]
    arrays: dict[str, NDArray[np.generic]] = {"label": still.astype(np.uint8), "raw": label}
    arrays["world_from_velo"] = velo_pose(street, time)
    for camera in (2, 3):
        png, more = photograph(street, rig, camera, sweep, time=time, rng=rng)
        write_file(folder / f"image_{camera}" / f"{stem}.png", png)
        arrays |= more
    write_arrays(truth / name / stem, arrays)
    return len(label)


def _write_tables(out: Path, name: str, *, street: Street, rig: Rig, frames: int, rng: np.random.Generator) -> None:
    """Calibration, times and trajectories of the rectified camera 0, seen from where it was first."""
    folder, cam0_from_velo = out / "sequences" / name, rig.rectify @ rig.camera_from_velo
    rows = {f"P{k}": rig.projection[k] for k in range(4)} | {"Tr": cam0_from_velo[:3]}
    write_file(folder / "calib.txt", "".join(f"{key}: {numbers(value)}\n" for key, value in rows.items()))
    write_file(folder / "times.txt", "".join(f"{frame * PERIOD:e}\n" for frame in range(frames)))
    camera = [velo_pose(street, _START + frame * PERIOD) @ invert(cam0_from_velo) for frame in range(frames)]
    exact = [invert(camera[0]) @ place for place in camera]
    write_file(folder / "poses.txt", _trajectory(exact))
    if name != "11":
        drift = rng.normal(0, 0.01, (frames, 3))
        drift[0] = 0
        other = [pose(*shift.tolist()) @ place for shift, place in zip(drift, exact, strict=True)]
        write_file(out / "poses" / f"{name}.txt", _trajectory(other))


def _trajectory(poses: list[Float64]) -> str:
    return "".join(numbers(place[:3]) + "\n" for place in poses)
