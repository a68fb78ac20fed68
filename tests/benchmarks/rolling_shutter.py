"""What a rolling shutter costs: how far points land from where they are seen, with and without its correction.

Simulated Waymo drives at several speeds, through bends of 50 m radius, read by our reader and projected by
`shards.cameras`. The truth is the simulator's: the column that sees a point is found by bisection on the true path,
with a camera model written apart. Errors are in pixels of the full image of 1920 columns; 1 px is the promise. About 10
seconds a speed.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef
from brickyard.ingest.waymo import v2
from brickyard.ingest.waymo.frame import Options
from brickyard.shards.cameras import project
from brickyard.shards.storage import Store
from tests.benchmarks.report import append, arguments, table

SPEEDS = (0.0, 5.0, 10.0, 15.0, 25.0)
FULL_WIDTH = 1920
COLUMNS = {
    "speed": ".0f m/s",
    "points": ",d seen points",
    "on_median": ".3f median px, on",
    "on_99": ".3f 99 % px, on",
    "on_within": ".2% within 1 px, on",
    "off_median": ".2f median px, off",
    "off_99": ".1f 99 % px, off",
    "off_within": ".1% within 1 px, off",
}


def errors(folder: Path, config: SimulationConfig, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in pixels of the full image between projection and truth: corrected, and not."""
    simulate(folder, datasets=("waymo",), seed=seed, config=config)
    found: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    for ref in v2.plan(Store(str(folder / "waymo" / "v2")), Options()):
        if not isinstance(ref, SceneRef):
            raise SystemExit(f"rolling shutter benchmark is void: {ref.reason}")
        scene = v2.read(ref)
        truth = folder / "truth" / "waymo" / ref.sequence / str((scene.identity.timestamp_ns or 0) // 1000)
        xyz = np.load(truth / "xyz.npy")
        for view in scene.views:
            seen = np.load(truth / f"uv_{view.name}.npy") - 0.5  # counted from the corner there
            there = np.isfinite(seen[:, 0])
            for on in (True, False):
                how = view if on else replace(view, rolling_shutter=None)
                distance = np.linalg.norm(project(xyz[there], how).uv - seen[there], axis=1)
                found[on].append(distance * FULL_WIDTH / view.width)
    return np.concatenate(found[True]), np.concatenate(found[False])


def run(*, segments: int = 2, frames: int = 1, dry: bool = False) -> list[dict[str, Any]]:
    """Simulate, read and project at every speed; print the table, append the record."""
    rows = []
    for speed in SPEEDS:
        config = SimulationConfig(
            waymo_segments=segments, waymo_frames=frames, waymo_image_size=(240, 160), waymo_speed=speed
        )
        with tempfile.TemporaryDirectory(prefix="brickyard-shutter-") as folder:
            on, off = errors(Path(folder), config, seed=0)
        row: dict[str, Any] = {"speed": speed, "points": len(on)}
        for name, values in (("on", on), ("off", off)):
            row[f"{name}_median"] = float(np.median(values))
            row[f"{name}_99"] = float(np.percentile(values, 99))
            row[f"{name}_within"] = float((values < 1).mean())
        rows.append(row)
    table("rolling shutter: distance between projection and truth", rows, COLUMNS)
    if not dry:
        append("rolling_shutter", {"segments": segments, "frames": frames}, rows)
    return rows


if __name__ == "__main__":
    options = arguments(__doc__, segments=2, frames=1).parse_args()
    run(**vars(options))
