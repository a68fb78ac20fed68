"""How much world to simulate. The defaults make a demo corpus in 40 to 50 seconds of one core."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from brickyard.shards.errors import RecipeError

_FROM_ZERO = frozenset((
    "scannet_frames", "nuscenes_sweeps", "nuscenes_camera_sweeps", "kitti_frames", "kitti_drives", "video_val_walks",
    "s3dis_views", "pointfiles_images", "structured3d_views", "scannetpp_photographs", "scannetpp_frames",
))  # fmt: skip
"""Counts of what may be left out; of all others there is at least one."""
_MOST = {"nuscenes_scenes": 10, "nuscenes_sweeps": 9, "nuscenes_camera_sweeps": 5, "kitti_odometry_sequences": 3,
         "kitti360_drives": 3}  # fmt: skip
_COUNTS, _SIDES, _REALS = 1_000_000, (8, 16_384), (0.001, 1000.0)


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Sizes of the simulated datasets; sizes are (width, height) in pixels.

    Attributes:
        scannet_rooms, scannet_frames: scans, and RGB-D frames in each.
        scannet_spacing: metres between mesh vertices (0.055 gives 30,000-60,000 a room).
        nuscenes_scenes: at most 10, the scenes of v1.0-mini; validation scenes come third and sixth.
        nuscenes_keyframes: samples of a scene, at 2 Hz.
        nuscenes_sweeps: lidar sweeps without labels between two keyframes (at most 9, at 20 Hz).
        nuscenes_camera_sweeps: images without labels between two keyframes (at most 5, at 12 Hz).
        nuscenes_panoptic: whether panoptic labels are written too.
        nuscenes_columns, kitti_columns: firings of the lidar per turn (times 32, 64 beams).
        kitti_frames: frames of the object benchmark; kitti_drives, kitti_drive_frames: of raw.
        video_walks, video_val_walks: walks through two rooms, of the splits train and val; video_frames in each room;
            `video_size` must be even.
        kitti_missing_scan: leave one scan of the first drive out, as happens in the original.
        kitti_odometry_sequences: at most 3 (train, validation, test), of kitti_odometry_frames scans each.
        kitti360_drives: at most 3, the second one of the test split; kitti360_fisheye_size: pixels of a side.
        s3dis_rooms, s3dis_views: rooms of S3DIS, and views of 2D-3D-S in each (square, `s3dis_image_size` pixels).
        s3dis_points: points of a room, about; the real ones have a million.
        pointfiles_pulses: laser pulses of each of the three point files; pointfiles_images: photographs of each.
        waymo_segments, waymo_frames: drives, and frames of each at 10 Hz; splits take turns.
        waymo_image_size: of the front cameras; waymo_columns, waymo_rows: of the top lidar's range image.
        waymo_speed: m/s; None draws one for each drive.
        structured3d_houses, structured3d_rooms, structured3d_views: houses, rooms of each, and perspective pictures of
            each room; structured3d_packed: whether they lie in zips, as they are downloaded.
        scannetpp_scenes: scenes of ScanNet++, splits take turns; scannetpp_photographs of the fisheye camera, and
            scannetpp_frames of the phone's film, in each; scannetpp_spacing: metres between mesh vertices.
        arkitscenes_captures: captures of ARKitScenes, two of each room; arkitscenes_frames of each with a pose, and as
            many without; arkitscenes_size: of the frames of both subsets, arkitscenes_wide_size of the largest of raw;
            arkitscenes_spacing: metres between mesh vertices.
        ase_walks, ase_frames: walks of Aria Synthetic Environments, and frames of each; their size is the camera's.
        hm3d_buildings: of Habitat-Matterport 3D, splits take turns, every other one annotated; hm3d_rooms of each, the
            last one upstairs; hm3d_spacing: metres between mesh vertices.
        shapes_scenes, shapes_frames: scenes of random solids, every tenth for validation, and frames of each.
    """

    scannet_rooms: int = 6
    scannet_frames: int = 10
    scannet_spacing: float = 0.055
    scannet_color_size: tuple[int, int] = (324, 242)
    scannet_depth_size: tuple[int, int] = (160, 120)
    nuscenes_scenes: int = 10
    nuscenes_keyframes: int = 4
    nuscenes_sweeps: int = 1
    nuscenes_camera_sweeps: int = 0
    nuscenes_panoptic: bool = False
    nuscenes_image_size: tuple[int, int] = (480, 270)
    nuscenes_columns: int = 420
    kitti_frames: int = 6
    kitti_drives: int = 2
    kitti_drive_frames: int = 4
    kitti_image_size: tuple[int, int] = (621, 188)
    kitti_columns: int = 360
    kitti_missing_scan: bool = False
    kitti_odometry_sequences: int = 2
    kitti_odometry_frames: int = 4
    kitti360_drives: int = 2
    kitti360_frames: int = 5
    kitti360_image_size: tuple[int, int] = (704, 188)
    kitti360_fisheye_size: int = 350
    video_walks: int = 1
    video_val_walks: int = 0
    video_frames: int = 40
    video_size: tuple[int, int] = (256, 192)
    s3dis_rooms: int = 4
    s3dis_views: int = 6
    s3dis_points: int = 60_000
    s3dis_image_size: int = 270
    pointfiles_pulses: int = 40_000
    pointfiles_images: int = 6
    pointfiles_image_size: tuple[int, int] = (320, 240)
    waymo_segments: int = 2
    waymo_frames: int = 4
    waymo_image_size: tuple[int, int] = (480, 320)
    waymo_columns: int = 600
    waymo_rows: int = 32
    waymo_speed: float | None = None
    structured3d_houses: int = 3
    structured3d_rooms: int = 2
    structured3d_views: int = 3
    structured3d_panorama_size: tuple[int, int] = (512, 256)
    structured3d_image_size: tuple[int, int] = (320, 180)
    structured3d_packed: bool = True
    scannetpp_scenes: int = 3
    scannetpp_photographs: int = 6
    scannetpp_frames: int = 16
    scannetpp_spacing: float = 0.07
    scannetpp_size: tuple[int, int] = (438, 292)
    scannetpp_frame_size: tuple[int, int] = (480, 360)
    arkitscenes_captures: int = 4
    arkitscenes_frames: int = 8
    arkitscenes_spacing: float = 0.07
    arkitscenes_size: tuple[int, int] = (256, 192)
    arkitscenes_wide_size: tuple[int, int] = (384, 288)
    ase_walks: int = 3
    ase_frames: int = 8
    hm3d_buildings: int = 3
    hm3d_rooms: int = 2
    hm3d_spacing: float = 0.4
    shapes_scenes: int = 10
    shapes_frames: int = 24
    shapes_size: tuple[int, int] = (128, 128)

    def __post_init__(self) -> None:
        for field in fields(self):
            if problem := _problem(field.name, getattr(self, field.name)):
                raise RecipeError(f"simulation: {field.name} {problem}")


def _problem(name: str, value: object) -> str | None:
    """What is wrong with a value of the right type; None where nothing is."""
    low, high = (0 if name in _FROM_ZERO else 1), _MOST.get(name, _COUNTS)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if low <= value <= high else f"must be {low} to {high}, found {value}"
    if isinstance(value, float):
        least = 0.0 if name == "waymo_speed" else _REALS[0]
        fits = math.isfinite(value) and least <= value <= _REALS[1]
        return None if fits else f"must be {least:g} to {_REALS[1]:g}, found {value}"
    assert isinstance(value, tuple)
    if len(value) != 2 or not all(_SIDES[0] <= side <= _SIDES[1] for side in value):
        return f"must be two sides of {_SIDES[0]} to {_SIDES[1]} pixels, found {list(value)}"
    if name == "video_size" and any(side % 2 for side in value):
        return f"must be even, as H.264 wants it, found {list(value)}"
    return None
