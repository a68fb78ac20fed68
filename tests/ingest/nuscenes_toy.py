"""A toy nuScenes that the devkit itself loads: one scene, a lidar and some cameras, forty points a sweep."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.nuscenes.categories import GENERAL
from brickyard.ingest.nuscenes.plan import CAMERAS, Options
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

VERSION = "v1.0-mini"
POINTS = 40
START = 2 * 10**15  # us
CAR, ROAD, EGO = 17, 24, 31


def sweep(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = rng.uniform((2, 2, -2, 0, 0), (30, 30, 2, 255, 0), (POINTS, 5)).astype("<f4")
    records[:, 4] = rng.integers(0, 32, POINTS)
    records[:4, :3] *= 0.02  # the ego vehicle
    return records


def labels(seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).choice((CAR, ROAD, 0), POINTS).astype(np.uint8)
    found[:4] = EGO
    return found


def jpeg(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def yaw(angle: float) -> list[float]:
    return [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]


def panoptic(seed: int = 0) -> np.ndarray:
    """As `labels`, cars numbered; point 5 lies in two boxes, so it has no label."""
    raw = labels(seed).astype(np.uint16)
    found = raw * 1000 + np.where(raw == CAR, 1 + np.arange(POINTS) % 3, 0).astype(np.uint16)
    found[5] = 0
    return found


def npz(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=values)
    return buffer.getvalue()


def write_dataset(
    root: Path, cameras: tuple[str, ...] = CAMERAS[:2], keyframes: int = 2, scene: str = "scene-0061", between: int = 0
) -> None:
    """One scene whose car drives along x at two metres a second and turns a little.

    Args:
        between: sweeps (at 20 Hz) and images (at 12 Hz) before each keyframe but the first; cameras fire 20 ms early.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("attribute", "visibility", "instance", "sample_annotation", "sample", "sample_data",
                              "ego_pose", "lidarseg", "panoptic")
    }  # fmt: skip
    tables["category"] = [{"token": f"c{i}", "name": n, "description": "", "index": i} for i, n in enumerate(GENERAL)]
    tables["log"] = [
        {"token": "log", "logfile": "l", "vehicle": "v", "date_captured": "d", "location": "boston-seaport"}
    ]
    tables["map"] = [{"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/m.png"}]
    tables["scene"] = [{"token": "scene", "log_token": "log", "nbr_samples": keyframes, "first_sample_token": "s0",
                        "last_sample_token": f"s{keyframes - 1}", "name": scene, "description": ""}]  # fmt: skip
    channels = ("LIDAR_TOP", *cameras)
    tables["sensor"] = [{"token": c, "channel": c, "modality": "camera" if c in cameras else "lidar"} for c in channels]
    tables["calibrated_sensor"] = [
        {"token": c, "sensor_token": c, "translation": [0.5 * i, 0.1, 1.8], "rotation": yaw(0.3 * i),
         "camera_intrinsic": [[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]] if c in cameras else []}
        for i, c in enumerate(channels)
    ]  # fmt: skip
    for k in range(keyframes):
        following = f"s{k + 1}" if k + 1 < keyframes else ""
        tables["sample"].append({"token": f"s{k}", "timestamp": START + k * 500_000, "prev": f"s{k - 1}" if k else "",
                                 "next": following, "scene_token": "scene"})  # fmt: skip
        for c in channels:
            for back in range(between if k else 0, -1, -1):
                _add_frame(root, tables, c, k, back)
        for table, data in (("lidarseg", labels(k).tobytes()), ("panoptic", npz(panoptic(k)))):
            name = f"{table}/{VERSION}/LIDAR_TOP{k}_{table}." + ("bin" if table == "lidarseg" else "npz")
            tables[table].append({"token": f"LIDAR_TOP{k}", "sample_data_token": f"LIDAR_TOP{k}", "filename": name})
            write(root / name, data)
    mask = io.BytesIO()
    Image.new("L", (4, 4)).save(mask, "PNG")
    write(root / "maps" / "m.png", mask.getvalue())
    for table, rows in tables.items():
        write(root / VERSION / f"{table}.json", json.dumps(rows, indent=0).encode())


def _add_frame(root: Path, tables: dict[str, list[dict[str, Any]]], channel: str, k: int, back: int) -> None:
    """A sensor's file with its rows: the keyframe k, or the one `back` steps before it."""
    camera = channel != "LIDAR_TOP"
    token = f"{channel}{k}" + (f"-{back}" if back else "")
    time = START + k * 500_000 - back * (83_333 if camera else 50_000) - (20_000 if camera else 0)
    seconds = (time - START) * 1e-6
    folder = "sweeps" if back else "samples"
    name = f"{folder}/{channel}/n+0800__{channel}__{time}." + ("jpg" if camera else "pcd.bin")
    write(root / name, jpeg() if camera else sweep(k + 100 * back).tobytes())
    tables["ego_pose"].append({"token": f"e{token}", "timestamp": time, "rotation": yaw(0.02 * seconds),
                               "translation": [1000.0 + 2 * seconds, 500.0, 0.0]})  # fmt: skip
    before = [row for row in tables["sample_data"] if row["calibrated_sensor_token"] == channel][-1:]
    for row in before:
        row["next"] = token
    tables["sample_data"].append({
        "token": token, "sample_token": f"s{k}", "ego_pose_token": f"e{token}", "calibrated_sensor_token": channel,
        "timestamp": time, "fileformat": "jpg" if camera else "pcd", "is_key_frame": not back,
        "height": 48 if camera else 0, "width": 64 if camera else 0, "filename": name,
        "prev": before[0]["token"] if before else "", "next": "",
    })  # fmt: skip


def write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def edit(root: Path, table: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    file = root / VERSION / f"{table}.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows, indent=0))


def planned(root: Path, options: Options | None = None) -> list[SceneRef | Missing]:
    return list(SOURCE.plan(Store(root), options or Options()))


def read(item: SceneRef | Missing) -> Scene:
    assert isinstance(item, SceneRef), item
    return SOURCE.read(item)
