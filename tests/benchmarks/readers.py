"""Reading one raw scene: ours beside what people use, and beside the mere bytes; one core, one process, interleaved.

The other tools are called the way their users call them: devkits, pykitti, plyfile, laspy, `np.loadtxt`. They return
arrays; ours returns a validated Scene and has checked sizes, hashed every byte read and mapped the classes. "bytes" is
reading the same files and nothing else, plus inflating depth images where a format has them inside. Data are simulated
worlds in native layouts, or the real samples with --samples.

python -m tests.benchmarks.readers [--samples FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.storage import Store
from tests.benchmarks.report import append, table

COLUMNS = {
    "what": "s scene", "tool": "s beside", "ours_ms": ".1f ours, ms", "theirs_ms": ".1f theirs, ms",
    "ratio": ".2f times as fast", "bytes_ms": ".1f bytes, ms", "of_floor": ".1f times the bytes",
}  # fmt: skip
_FLOOR_INFLATES = {"scannet"}


@dataclass(frozen=True)
class Contest:
    """One reader and its rival: `theirs(root, ref)` does what users of `tool` do for the same scene."""

    what: str
    dataset: str
    folder: str
    options: dict[str, Any]
    tool: str
    theirs: Callable[[Path, SceneRef], Any] | None
    chooses: str = ""


def scannet_tools(root: Path, ref: SceneRef) -> Any:
    """plyfile for mesh and labels, and the usual reading of `.sens` from front to back."""
    from plyfile import PlyData

    scan = next(path for path in root.rglob(f"{ref.scene_id}_vh_clean_2.ply"))
    vertex = PlyData.read(str(scan))["vertex"]
    xyz = np.stack([vertex[name] for name in ("x", "y", "z")], axis=1)
    labels = scan.with_name(scan.name.replace(".ply", ".labels.ply"))
    classes = np.asarray(PlyData.read(str(labels))["vertex"]["label"]) if labels.exists() else None
    frames = []
    with (scan.parent / f"{ref.scene_id}.sens").open("rb") as file:
        file.read(4)
        file.read(struct.unpack("<Q", file.read(8))[0])
        file.read(4 * 64 + 8)
        width, height, depth_width, depth_height = struct.unpack("<4I", file.read(16))
        file.read(4)
        for _ in range(struct.unpack("<Q", file.read(8))[0]):
            pose = np.frombuffer(file.read(64), np.float32).reshape(4, 4)
            file.read(16)
            color, depth = struct.unpack("<2Q", file.read(16))
            jpeg, packed = file.read(color), file.read(depth)
            frames.append((pose, jpeg, np.frombuffer(zlib.decompress(packed), np.uint16)))
    return xyz, classes, frames, (width, height, depth_width, depth_height)


def loadtxt(root: Path, ref: SceneRef) -> Any:
    room = next(path for path in root.rglob(ref.scene_id) if path.is_dir())
    return np.concatenate([np.loadtxt(path) for path in sorted((room / "Annotations").glob("*_*.txt"))])


def nuscenes_devkit(root: Path, ref: SceneRef) -> Any:
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.data_io import load_bin_file

    cloud = LidarPointCloud.from_file(str(root / ref.files["points"]))
    labels = [
        load_bin_file(str(root / path), type="lidarseg") for role, path in ref.files.items() if role == "lidarseg"
    ]
    images = [np.asarray(Image.open(root / path)) for path in ref.files.values() if path.endswith(".jpg")]
    return cloud.points, labels, images


def pykitti_frame(root: Path, ref: SceneRef) -> Any:
    import pykitti.utils

    images = [pykitti.utils.load_image(str(root / p), "RGB") for p in ref.files.values() if p.endswith(".png")]
    return pykitti.utils.load_velo_scan(str(root / ref.files["points"])), [np.asarray(image) for image in images]


def fromfile(root: Path, ref: SceneRef) -> Any:
    return [
        np.fromfile(root / path, np.float32 if path.endswith(".bin") else np.uint32)
        for path in ref.files.values()
        if path.endswith((".bin", ".label"))
    ]


def laspy_read(root: Path, ref: SceneRef) -> Any:
    import laspy

    cloud = laspy.read(root / ref.files["points"])
    return cloud.xyz, [np.asarray(cloud[name]) for name in ("intensity", "classification", "return_number")]


def plyfile_read(root: Path, ref: SceneRef) -> Any:
    from plyfile import PlyData

    vertex = PlyData.read(str(root / ref.files["points"]))["vertex"]
    # Copied, since plyfile maps a file and reads nothing of it before somebody looks at the values.
    return {name: np.array(vertex[name]) for name in vertex.data.dtype.names}


SIMULATED = (
    Contest("ScanNet scan, all frames", "scannet", "scannet", {"frames_every": 1}, "plyfile, zlib", scannet_tools),
    Contest("S3DIS room", "s3dis", "s3dis/Stanford3dDataset_v1.2", {}, "np.loadtxt", loadtxt),
    Contest("nuScenes keyframe, six cameras", "nuscenes", "nuscenes", {}, "devkit", nuscenes_devkit),
    Contest("nuScenes sweep alone", "nuscenes", "nuscenes", {"cameras": ()}, "devkit", nuscenes_devkit),
    Contest("KITTI raw frame, two cameras", "kitti_raw", "kitti/raw", {}, "pykitti", pykitti_frame),
    Contest("KITTI raw scan alone", "kitti_raw", "kitti/raw", {"cameras": ()}, "pykitti", pykitti_frame),
    Contest("SemanticKITTI scan", "kitti_odometry", "kitti_odometry", {"cameras": ()}, "np.fromfile", fromfile),
    Contest("Waymo v2 frame", "waymo_v2", "waymo/v2", {}, "-", None),
    Contest("Waymo v1 frame", "waymo_v1", "waymo/v1", {}, "-", None),
    Contest("LAS file", "pointfiles", "pointfiles", {}, "laspy", laspy_read, ".las"),
    Contest("PLY file", "pointfiles", "pointfiles", {}, "plyfile", plyfile_read, ".ply"),
)
_SAMPLE_FOLDERS = {
    "s3dis/Stanford3dDataset_v1.2": "s3dis/Stanford3dDataset_v1.2_Aligned_Version",
    "kitti_odometry": "kitti/odometry/dataset", "waymo/v2": "waymo/v2_assembled", "waymo/v1": "waymo/v1_assembled",
    "pointfiles": "las_ply/pdal/autzen",
}  # fmt: skip


def compare(contest: Contest, base: Path, repeats: int) -> dict[str, Any] | None:
    """CPU milliseconds of the first scene that both read, medians of interleaved repeats; None if there is none."""
    root = base / contest.folder
    if not root.is_dir():
        return None
    source = find_source(contest.dataset)
    options = source.options(**contest.options)
    planned = (item for item in source.plan(Store(root), options) if isinstance(item, SceneRef))
    chosen = (ref for ref in planned if ref.files.get("points", "").endswith(contest.chooses))
    ref = next((ref for ref in chosen if contest.theirs is None or _can(contest.theirs, root, ref)), None)
    if ref is None:
        return None
    scene = source.read(ref)
    packed = [zlib.compress(v.depth.values.tobytes()) for v in scene.views if v.depth is not None]
    packed = packed if contest.dataset in _FLOOR_INFLATES else []
    paths = [Path(ref.root) / file.path for file in scene.identity.sources]

    def floor() -> Any:
        return [path.read_bytes() for path in paths], [zlib.decompress(stream) for stream in packed]

    calls: dict[str, Callable[[], Any]] = {"ours": lambda: source.read(ref), "bytes": floor}
    if contest.theirs is not None:
        theirs = contest.theirs
        calls["theirs"] = lambda: theirs(root, ref)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - began))
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "what": contest.what,
        "scene": ref.key,
        "tool": contest.tool,
        "ours_ms": middle["ours"],
        "theirs_ms": middle.get("theirs"),
        "ratio": middle["theirs"] / middle["ours"] if "theirs" in middle else None,
        "bytes_ms": middle["bytes"],
        "of_floor": middle["ours"] / middle["bytes"],
        "spread_ms": statistics.quantiles(times["ours"], n=4)[2] - statistics.quantiles(times["ours"], n=4)[0],
    }


def _can(theirs: Callable[[Path, SceneRef], Any], root: Path, ref: SceneRef) -> bool:
    """Whether the other tool reads this scene at all: the defects of the originals are simulated, too."""
    try:
        theirs(root, ref)
    except Exception:
        return False
    return True


def run(*, samples: Path | None = None, repeats: int = 11, dry: bool = False) -> list[dict[str, Any]]:
    """All contests; prints the table, appends the record."""
    with tempfile.TemporaryDirectory(prefix="brickyard-readers-") as scratch:
        base, contests, origin = Path(scratch), SIMULATED, "simulated worlds"
        if samples is not None:
            base, origin = samples, "real samples"
            contests = tuple(
                Contest(**{**vars(c), "folder": _SAMPLE_FOLDERS.get(c.folder, c.folder)}) for c in SIMULATED
            )
        else:
            config = SimulationConfig(scannet_rooms=1, nuscenes_scenes=1, kitti_frames=1, kitti_drives=1)
            names = ("scannet", "s3dis", "nuscenes", "kitti", "kitti_odometry", "waymo", "pointfiles")
            simulate(base, datasets=names, config=config)
            for path in base.glob("pointfiles/**/*transforms.json"):
                path.unlink()  # the other tools know no images
        rows = [row for contest in contests if (row := compare(contest, base, repeats)) is not None]
    table(f"readers: {origin}, CPU time of one scene, median of {repeats}", rows, COLUMNS)
    if not dry:
        append("readers", {"repeats": repeats, "data": origin}, rows)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=None, help="folder of the real samples")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--dry", action="store_true", help="print, but append nothing to the results")
    options = parser.parse_args()
    run(samples=options.samples, repeats=options.repeats, dry=options.dry)
