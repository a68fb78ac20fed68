"""Reading a nuScenes keyframe beside the devkit, in one process on one core: milliseconds of CPU time, the best of 40.

    taskset -c 0 python -m tests.ingest.nuscenes_speed <folder with the real sample>

The devkit's numbers are its own loaders' (LidarPointCloud, load_bin_file, PIL for images); ours hold the checks, the
digests, the class mapping and the validated Scene. The ten sweeps are the toy's, with as many points as real ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tests.ingest.nuscenes_toy as toy
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.source import SceneRef

REPEATS = 40


def best(call: Callable[[], Any]) -> float:
    """Milliseconds of CPU time of the fastest call."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def devkit_keyframe(tables: Any, ref: SceneRef, sweeps: int, cameras: tuple[str, ...]) -> None:
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.data_io import load_bin_file

    sample = tables.get("sample", ref.scene_id.split("/")[1])
    lidar = sample["data"]["LIDAR_TOP"]
    if sweeps == 1:
        LidarPointCloud.from_file(tables.get_sample_data_path(lidar))
    else:
        LidarPointCloud.from_file_multisweep(tables, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=sweeps, min_distance=0.0)
    for table in ("lidarseg", "panoptic"):
        load_bin_file(f"{tables.dataroot}/{tables.get(table, lidar)['filename']}", type=table)
    for camera in cameras:
        np.asarray(Image.open(tables.get_sample_data_path(sample["data"][camera])))


def compare(root: Path, what: str, sweeps: int, cameras: tuple[str, ...]) -> None:
    from nuscenes.nuscenes import NuScenes

    tables = NuScenes(toy.VERSION, str(root), verbose=False)
    ref = toy.planned(root, Options(sweeps=sweeps, cameras=cameras))[-1]
    assert isinstance(ref, SceneRef)
    ours = best(lambda: SOURCE.read(ref))
    theirs = best(lambda: devkit_keyframe(tables, ref, sweeps, cameras))
    print(f"{what}: ours {ours:.2f} ms, devkit {theirs:.2f} ms")


def main(sample: str) -> None:
    compare(Path(sample), "keyframe with six images", 1, CAMERAS)
    compare(Path(sample), "keyframe without images", 1, ())
    toy.POINTS = 34_688
    with tempfile.TemporaryDirectory() as folder:
        toy.write_dataset(Path(folder), keyframes=2, between=9)
        compare(Path(folder), "ten sweeps", 10, ())


if __name__ == "__main__":
    main(*sys.argv[1:])
