"""The benchmarks that presets are named after: scans of rooms, and of streets."""

from __future__ import annotations

BENCHMARKS = {
    "scannet": ("scannet", "scannet20"),
    "scannet200": ("scannet", "scannet200"),
    "s3dis": ("s3dis", "s3dis13"),
    "nuscenes": ("nuscenes", "nuscenes16"),
    "waymo": ("waymo_v2", "waymo22"),
    "semantickitti": ("kitti_odometry", "semantickitti19"),
}
"""First part of a preset's name -> (dataset of the corpus, taxonomy)."""

OUTDOOR = ("nuscenes", "waymo", "semantickitti")
"""Those of driving scans."""
