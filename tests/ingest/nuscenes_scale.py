"""Tables of nuScenes at any scale, up to trainval's 2.7 million sensor files, and what planning from them costs.

    python -m tests.ingest.nuscenes_scale /a/folder 1.0 keyframes      # or: sweeps, clips, devkit

writes the tables (1.9 GB at scale 1.0, unless they are there), plans from them in this process and prints seconds and
peak memory. No sensor file is written: listings are answered from the tables' own names.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.categories import GENERAL
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.source import SceneRef
from brickyard.shards.storage import Store

VERSION = "v1.0-trainval"
SCENES, SAMPLES = 850, 40
RADARS = tuple(f"RADAR_{side}" for side in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT"))
STEPS = {"LIDAR_TOP": 10} | dict.fromkeys(CAMERAS, 6) | dict.fromkeys(RADARS, 7)
"""Channel -> files from one keyframe to the next: 20, 12 and 13 Hz."""
INTRINSICS = [[1266.417203046554, 0.0, 816.2670197447984], [0.0, 1266.417203046554, 491.5070657929476], [0.0, 0.0, 1.0]]
OPTIONS = {
    "keyframes": Options(version=VERSION),
    "sweeps": Options(version=VERSION, sweeps=10),
    "clips": Options(version=VERSION, clips=ClipOptions()),
}


def token(*names: object) -> str:
    return hashlib.md5(repr(names).encode(), usedforsecurity=False).hexdigest()


def frames(scene: int, only: str | None = None) -> Iterator[tuple[str, int, int, str]]:
    """(channel, number, timestamp in microseconds, file name) of all files of a scene, or of one channel."""
    log = f"n{8 + scene % 7:03d}-2018-08-{1 + scene % 28:02d}-11-{scene % 60:02d}-45+0800"
    for offset, (channel, step) in enumerate(STEPS.items()):
        if only not in (None, channel):
            continue
        suffix = "pcd.bin" if channel == "LIDAR_TOP" else "jpg" if channel in CAMERAS else "pcd"
        for number in range((SAMPLES - 1) * step + 1):
            stamp = 1_533_000_000_000_000 + scene * 30_000_000 + number * 500_000 // step + offset * 3_001
            folder = "sweeps" if number % step else "samples"
            yield channel, number, stamp, f"{folder}/{channel}/{log}__{channel}__{stamp}.{suffix}"


def write_tables(root: Path, scale: float) -> int:
    """Write the tables of `scale` times 850 scenes; returns the rows of sample_data.json."""
    scenes = max(1, round(SCENES * scale))
    folder = root / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    small: dict[str, list[dict[str, Any]]] = {"sample": [], "calibrated_sensor": []}
    small |= {name: [] for name in ("attribute", "visibility", "instance", "sample_annotation")}
    small["category"] = [{"token": f"c{i}", "name": n, "description": "", "index": i} for i, n in enumerate(GENERAL)]
    small["sensor"] = [{"token": c, "channel": c, "modality": c.split("_")[0].lower()} for c in STEPS]
    small["log"] = [
        {"token": "log", "logfile": "l", "vehicle": "v", "date_captured": "d", "location": "boston-seaport"}
    ]
    small["map"] = [{"token": "m", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/m.png"}]
    small["scene"] = [
        {"token": token(s), "log_token": "log", "nbr_samples": SAMPLES, "first_sample_token": token(s, 0),
         "last_sample_token": token(s, SAMPLES - 1), "name": f"scene-{s:04d}", "description": ""}
        for s in range(scenes)
    ]  # fmt: skip
    rows = 0
    with (folder / "sample_data.json").open("w") as data, (folder / "ego_pose.json").open("w") as poses:
        for scene in range(scenes):
            small["sample"] += _samples(scene)
            small["calibrated_sensor"] += [
                {"token": token(scene, c), "sensor_token": c, "translation": [0.9, 0.0, 1.8],
                 "rotation": [0.5, -0.5, 0.5, -0.5],
                 "camera_intrinsic": INTRINSICS if c in CAMERAS else []}
                for c in STEPS
            ]  # fmt: skip
            for channel, number, stamp, name in frames(scene):
                data.write((",\n" if rows else "[\n") + json.dumps(_row(scene, channel, number, stamp, name), indent=0))
                pose = {"token": token(scene, channel, number), "timestamp": stamp,
                        "rotation": [0.5720320396729045, -0.0016977771610471074, 0.011798001930183783, -0.820144651],
                        "translation": [411.3039349319818 + number, 1180.8903791765097, 0.0]}  # fmt: skip
                poses.write((",\n" if rows else "[\n") + json.dumps(pose, indent=0))
                rows += 1
        data.write("\n]")
        poses.write("\n]")
    for name, values in small.items():
        (folder / f"{name}.json").write_text(json.dumps(values, indent=0))
    return rows


def _samples(scene: int) -> list[dict[str, Any]]:
    return [
        {"token": token(scene, k), "timestamp": 1_533_000_000_000_000 + scene * 30_000_000 + k * 500_000,
         "prev": token(scene, k - 1) if k else "", "next": token(scene, k + 1) if k + 1 < SAMPLES else "",
         "scene_token": token(scene)}
        for k in range(SAMPLES)
    ]  # fmt: skip


def _row(scene: int, channel: str, number: int, stamp: int, name: str) -> dict[str, Any]:
    step, image = STEPS[channel], channel in CAMERAS
    own = token(scene, channel, number)
    last = number == (SAMPLES - 1) * step
    return {
        "token": own, "sample_token": token(scene, -(-number // step)), "ego_pose_token": own,
        "calibrated_sensor_token": token(scene, channel), "timestamp": stamp,
        "fileformat": "jpg" if image else "pcd", "is_key_frame": number % step == 0, "height": 900 if image else 0,
        "width": 1600 if image else 0, "filename": name, "prev": token(scene, channel, number - 1) if number else "",
        "next": "" if last else token(scene, channel, number + 1),
    }  # fmt: skip


class NamesOnly(Store):
    """A store whose sensor folders hold every file of so many scenes."""

    def __init__(self, root: Path, scale: float) -> None:
        super().__init__(root)
        self.scenes = max(1, round(SCENES * scale))

    def sizes(self, name: str = "") -> dict[str, int]:
        prefix = name + "/"
        names = (frame[3] for scene in range(self.scenes) for frame in frames(scene, name.rpartition("/")[2]))
        return {path.removeprefix(prefix): 700_000 for path in names if path.startswith(prefix)}


def main(folder: str, scale: str, what: str) -> None:
    root = Path(folder)
    if not (root / VERSION).exists():
        print(write_tables(root, float(scale)), "rows written; run again to measure")
        return
    began = time.perf_counter()
    if what == "devkit":
        from nuscenes.nuscenes import NuScenes

        tables = NuScenes(VERSION, folder, verbose=False)
        print(len(tables.sample_data), "rows")
    else:
        store = NamesOnly(root, float(scale))
        first = 0.0
        count = frames_of = 0
        for item in SOURCE.plan(store, OPTIONS[what]):
            first = first or time.perf_counter() - began
            assert isinstance(item, SceneRef), item
            count, frames_of = count + 1, frames_of + len(item.files)
        print(f"{count} scenes, {frames_of} files, the first after {first:.1f} s", end="; ")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    spent = time.perf_counter() - began
    print(f"{what}: {spent:.1f} s, of which {time.process_time():.1f} s on the processor, peak {peak} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
