"""Simulated raw worlds: small datasets in native layouts (ScanNet, nuScenes, KITTI, S3DIS, videos), with their truth.

The licences of the real datasets forbid shipping them; these worlds let everyone run the whole pipeline, and let tests
compare every number with the truth. They are under CC0, and a file LICENSE in each root says so. Rooms and streets are
procedural meshes with drawn textures; pictures and lidar returns come from ray casting (Embree), with the timing,
calibration and file formats of the originals. The default world costs 40 to 50 seconds of one core and 200 MB, two
thirds of it truth. Same seed, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brickyard.ingest import simulated
from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.shards.errors import RecipeError

__all__ = ["ALL_DATASETS", "DATASETS", "SimulationConfig", "simulate"]

DATASETS = ("scannet", "nuscenes", "kitti")
"""What is simulated unless asked otherwise: the demo's."""
ALL_DATASETS = (
    *DATASETS,
    "kitti_odometry",
    "kitti360",
    "s3dis",
    "video",
    "pointfiles",
    "waymo",
    "scannetpp",
    "shapes",
    "structured3d",
    "arkitscenes",
    "ase",
    "hm3d",
)
_ROOTS = {"kitti": ("object", "raw"), "waymo": ("v1", "v2")}
"""The roots of sources in the folder of a dataset, where they are not the folder itself."""
Progress = Callable[[str, int, int], None]
_DEFAULT = SimulationConfig()


def simulate(
    out: Path,
    *,
    datasets: Sequence[str] = DATASETS,
    seed: int = 0,
    config: SimulationConfig = _DEFAULT,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write simulated datasets, such as `out/scannet` or `out/kitti/{object,raw}`, and `out/truth/<dataset>`.

    Args:
        out: a folder for the datasets; what is in their folders already is overwritten, file by file.
        datasets: names out of `ALL_DATASETS`.
        seed: the same seed and config give the same bytes in every file, whichever datasets are asked for.
        progress: called with (dataset, done, total) as scenes are finished.

    Returns:
        dataset -> {"scans" | "scenes" | "frames" | "points": counts, "files": n, "bytes": n}; truth is not counted.

    Raises:
        RecipeError: an unknown dataset.
    """
    unknown = sorted(set(datasets) - set(ALL_DATASETS))
    if unknown:
        raise RecipeError(f"cannot simulate {', '.join(unknown)}; there are {', '.join(ALL_DATASETS)}")
    summary: dict[str, Any] = {}
    for dataset in dict.fromkeys(datasets):

        def tick(done: int, total: int, dataset: str = dataset) -> None:
            if progress is not None:
                progress(dataset, done, total)

        counts = _writer(dataset)(Path(out) / dataset, Path(out) / "truth" / dataset, seed, config, tick)
        for root in ("", *_ROOTS.get(dataset, ())):
            simulated.mark(Path(out) / dataset / root)
        files = [path for path in sorted((Path(out) / dataset).rglob("*")) if path.is_file()]
        summary[dataset] = {**counts, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    return summary


def _writer(dataset: str) -> Callable[..., dict[str, int]]:
    if dataset == "scannet":
        from brickyard.ingest.simulate.scannet import write_scannet

        return write_scannet
    if dataset == "nuscenes":
        from brickyard.ingest.simulate.nuscenes import write_nuscenes

        return write_nuscenes
    if dataset == "pointfiles":
        from brickyard.ingest.simulate.pointfiles import write_pointfiles

        return write_pointfiles
    if dataset == "s3dis":
        from brickyard.ingest.simulate.s3dis import write_s3dis

        return write_s3dis
    if dataset == "structured3d":
        from brickyard.ingest.simulate.structured3d import write_structured3d

        return write_structured3d
    if dataset == "arkitscenes":
        from brickyard.ingest.simulate.arkitscenes import write_arkitscenes

        return write_arkitscenes
    if dataset == "ase":
        from brickyard.ingest.simulate.ase import write_ase

        return write_ase
    if dataset == "hm3d":
        from brickyard.ingest.simulate.hm3d import write_hm3d

        return write_hm3d
    if dataset == "video":
        from brickyard.ingest.simulate.video import write_video

        return write_video
    if dataset == "scannetpp":
        from brickyard.ingest.simulate.scannetpp import write_scannetpp

        return write_scannetpp
    if dataset == "shapes":
        from brickyard.ingest.simulate.random_shapes import write_shapes

        return write_shapes
    if dataset == "kitti_odometry":
        from brickyard.ingest.simulate.kitti_odometry import write_kitti_odometry

        return write_kitti_odometry
    if dataset == "kitti360":
        from brickyard.ingest.simulate.kitti360 import write_kitti360

        return write_kitti360
    if dataset == "waymo":
        from brickyard.ingest.simulate.waymo import write_waymo

        return write_waymo
    from brickyard.ingest.simulate.kitti import write_kitti

    return write_kitti
