"""What KITTI-360's folders hold of a drive: scans, images, labels, times and poses, by the number of the frame."""

from __future__ import annotations

from dataclasses import dataclass

from brickyard.ingest.kitti.folders import PICTURES, Folders, Found
from brickyard.ingest.kitti.kitti360_labels import list_image_labels
from brickyard.ingest.kitti.poses import Trajectory, fill_gaps, indexed_poses
from brickyard.ingest.kitti.timestamps import list_timestamps
from brickyard.shards.errors import RawDataError

DATASET = "kitti360"
VERSION = "2021"
DIGITS = 10
CAMERA_FOLDERS = {"image_00": "data_rect", "image_01": "data_rect", "image_02": "data_rgb", "image_03": "data_rgb"}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a drive, by frame number; cameras that were not downloaded are left out.

    Attributes:
        trajectory: the poses, with those that are asked to be interpolated.
        without_poses: what is wrong where poses are required and there are none; None otherwise.
    """

    scans: dict[int, Found]
    images: dict[str, dict[int, Found]]
    scan_times: dict[int, str]
    image_times: dict[str, dict[int, str]]
    trajectory: Trajectory
    without_poses: str | None
    labels: dict[str, dict[int, dict[str, Found]]]

    @property
    def promised(self) -> list[int]:
        times = self.image_times.values()
        return sorted(set().union(self.scans, self.scan_times, *self.images.values(), *times))


def list_drive(
    folders: Folders, drive: str, *, cameras: tuple[str, ...], require_pose: bool, interpolate: int, labels: bool
) -> Listing:
    """List a drive; raises `RawDataError` for timestamps or poses that are no such table at all."""
    store = folders.store
    velodyne, photos = f"data_3d_raw/{drive}/velodyne_points", f"data_2d_raw/{drive}"
    scans = folders.numbered(f"{velodyne}/data", (".bin",), DIGITS)
    images = {c: folders.numbered(f"{photos}/{c}/{CAMERA_FOLDERS[c]}", PICTURES, DIGITS) for c in cameras}
    images = {camera: found for camera, found in images.items() if found}
    path, trajectory, without_poses = pose_path(drive), Trajectory(), None
    if require_pose or store.size(path) is not None:
        try:
            trajectory = indexed_poses(store, path, DATASET)
        except RawDataError as problem:
            if not require_pose:
                raise
            without_poses = str(problem)
    frames = set().union(scans, *images.values()) if interpolate else set()
    return Listing(
        scans=scans,
        images=images,
        scan_times=list_timestamps(store, f"{velodyne}/timestamps.txt", DATASET),
        image_times={c: list_timestamps(store, f"{photos}/{c}/timestamps.txt", DATASET) for c in images},
        trajectory=fill_gaps(trajectory, frames, interpolate),
        without_poses=without_poses,
        labels={c: found for c in images if labels and (found := list_image_labels(folders, drive, c, DIGITS))},
    )


def pose_path(drive: str) -> str:
    """The trajectory of a drive, relative to the root."""
    return f"data_poses/{drive}/poses.txt"


def pose_files(listing: Listing, drive: str) -> dict[str, str]:
    """The trajectory as an entry of `SceneRef.files`; empty where it has no pose."""
    return {"pose": pose_path(drive)} if listing.trajectory.places else {}
