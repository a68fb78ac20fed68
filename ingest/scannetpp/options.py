"""What to take from a scene, and which files of its devices that needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.scannetpp.chunks import ChunkOptions
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

Photographs = Literal["fisheye", "undistorted", "none"]
Poses = Literal["arkit", "colmap"]
Device = Literal["iphone", "dslr"]


@dataclass(frozen=True, kw_only=True)
class ScanNetPPOptions:
    """What to take from a scene.

    Attributes:
        release: "v1" or "v2", for the record; empty: as the length of nvs_sem_train.txt (230 or 856 scenes) says.
        partial: the download has a part of the scenes on purpose: those of the lists that are not there are no missing
            scenes, one notice counts them.
        dslr: photographs as they were taken ("fisheye"), those that the dataset's toolkit made of them ("undistorted"),
            or "none".
        dslr_views: at most so many photographs a scene (or chunk), spread evenly over those that can be used.
        test_views: take the photographs that are held out for the evaluation of new views, too.
        iphone_views: at most so many frames of the phone's film; 0 opens neither the film nor its depth.
        iphone_poses: "arkit": of all frames, as the phone tracked itself, with the focal length of each; "colmap": of
            some, from the pictures, with distortion.
        read_depth: attach the phone's depth images to its frames.
        max_hidden: leave out views of whose pixels a larger share is painted over to keep people anonymous; 1 keeps all
            and opens no masks.
        min_agreement: leave out frames of the phone if, of the vertices at or in front of the surface in their depth
            image, a smaller share lies on it (see `ingest.agreement`); 0 keeps all. Three real frames of ScanNet have
            0.96 and more, 0.62 to 0.76 if they are moved by 20 cm, and 0.40 to 0.60 by 40 cm.
        chunks: cut scenes into squares that overlap; a photograph belongs to the one in whose core it was taken.
        clips: yield clips instead of scenes: of the phone's film, at `clips.rate_hz` of its nominal 60 Hz, or of the
            photographs in the order of their names. Frames without a pose are left out. Each clip of the film costs
            going through the whole film, and through the whole depth unless `read_depth` is off.
        clips_of: "iphone" or "dslr".
    """

    release: str = ""
    partial: bool = False
    dslr: Photographs = "fisheye"
    dslr_views: int = 16
    test_views: bool = False
    iphone_views: int = 0
    iphone_poses: Poses = "arkit"
    read_depth: bool = True
    max_hidden: float = 0.05
    min_agreement: float = 0.7
    chunks: ChunkOptions | None = None
    clips: ClipOptions | None = None
    clips_of: Device = "iphone"

    def __post_init__(self) -> None:
        checks = (
            (self.release in ("", "v1", "v2"), f"release must be v1 or v2, found {self.release!r}"),
            (self.dslr in get_args(Photographs), f"dslr is none of {', '.join(get_args(Photographs))}"),
            (self.iphone_poses in get_args(Poses), f"iphone_poses is none of {', '.join(get_args(Poses))}"),
            (self.clips_of in get_args(Device), f"clips_of is none of {', '.join(get_args(Device))}"),
            (self.clips is None or self.chunks is None, "chunks and clips exclude each other"),
            (self.clips is None or self.clips_of != "dslr" or self.dslr != "none", "clips of dslr need dslr"),
            (min(self.dslr_views, self.iphone_views) >= 0, "dslr_views and iphone_views must not be negative"),
            (0 <= self.max_hidden <= 1, f"max_hidden must be 0..1, found {self.max_hidden}"),
            (0 <= self.min_agreement <= 1, f"min_agreement must be 0..1, found {self.min_agreement}"),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"scannetpp options: {problem}")


def wanted(options: ScanNetPPOptions) -> Iterator[tuple[str, str]]:
    """(role, path below the scene's folder) of the files of the devices that were asked for."""
    of = None if options.clips is None else options.clips_of
    if of == "dslr" or (of is None and options.dslr != "none" and options.dslr_views):
        yield "dslr_cameras", "dslr/colmap/cameras.txt"
        yield "dslr_images", "dslr/colmap/images.txt"
        yield "transforms", "dslr/nerfstudio/transforms.json"
        yield "photograph_lists", "dslr/train_test_lists.json"
        if options.dslr == "undistorted":
            yield "transforms_undistorted", "dslr/nerfstudio/transforms_undistorted.json"
    if of == "iphone" or (of is None and options.iphone_views):
        yield "arkit", "iphone/pose_intrinsic_imu.json"
        yield "film", "iphone/rgb.mkv"
        yield "mask_film", "iphone/rgb_mask.mkv"
        if options.read_depth:
            yield "depth", "iphone/depth.bin"
        if options.iphone_poses == "colmap":
            yield "iphone_cameras", "iphone/colmap/cameras.txt"
            yield "iphone_images", "iphone/colmap/images.txt"


def device_files(store: Store, folder: str, devices: list[str], options: ScanNetPPOptions) -> dict[str, str]:
    """Role -> path of the files of `wanted` that are there; one listing for each of their folders."""
    listed: dict[str, dict[str, int]] = {}
    found = {}
    for role, path in wanted(options):
        below, _, name = path.rpartition("/")
        if below not in listed:
            listed[below] = store.sizes(f"{folder}/{below}") if f"{below.partition('/')[0]}/" in devices else {}
        if name in listed[below]:
            found[role] = f"{folder}/{path}"
    return found
