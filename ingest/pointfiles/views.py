"""Posed images beside a point file: `<name>.transforms.json` of that file alone, or `transforms.json` of its folder.

The poses are in the coordinates of the point file, in its unit. A folder's file that names another point file
(`ply_file_path`) belongs to that one. Views that see none of the scene's points are left out, which is what makes a
tile's views its own; of the others at most `max_views` are taken, spread evenly over the list, so a scene costs no more
memory than was planned.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection

import numpy as np

from brickyard.ingest.pointfiles.cloud import Scale
from brickyard.ingest.source import RawFiles
from brickyard.ingest.transforms import NAME, PosedImage, load_view, read_transforms
from brickyard.shards.scene import Float64, View

PROBES = 4096
"""Points that are projected to find out whether a view sees the scene."""


def find_transforms(path: str, known: Collection[str]) -> str | None:
    """The file of poses that may belong to the point file `path`, out of the paths of the root."""
    stem, folder = posixpath.splitext(path)[0], posixpath.dirname(path)
    candidates = (f"{stem}.{NAME}", posixpath.join(folder, NAME))
    return next((name for name in candidates if name in known), None)


def read_views(
    files: RawFiles, path: str, xyz: Float64, *, origin: Float64, scale: Scale, max_views: int
) -> tuple[tuple[View, ...], dict[str, int]]:
    """Views of the point file `path` in the order of its transforms.json, and what was left out.

    Args:
        xyz: float64 (N, 3), world coordinates in metres.
        origin: float64 (3,), of the scene frame in the world.
        scale: metres per unit of the point file.

    Raises:
        RawDataError: the transforms.json or an image that is there is damaged.
    """
    transforms = files.ref.files["transforms"]
    found = read_transforms(files, transforms)
    own = posixpath.basename(transforms) != NAME
    if not own and found.points is not None and found.points != path:
        return (), {}
    dropped = Counter(found.dropped)
    if scale.flat != scale.height:
        # Poses in coordinates that are stretched along one axis are no rotations.
        return (), dict(dropped + Counter({"views of a file with heights in another unit": len(found.images)}))
    probes = xyz[:: max(1, len(xyz) // PROBES)]
    seeing = [image for image in found.images if _sees(image, probes / scale.flat)]
    there = [image for image in seeing if files.store.size(image.image) is not None]
    chosen = np.unique(np.linspace(0, len(there) - 1, min(max_views, len(there))).round().astype(int))
    for reason, count in (
        ("views that see no point", len(found.images) - len(seeing)),
        ("views whose image is missing", len(seeing) - len(there)),
        ("views beyond max_views", len(there) - len(chosen)),
    ):
        if count:
            dropped[reason] += count
    scene_from_world = np.eye(4)
    scene_from_world[:3, 3] = -origin
    views = tuple(
        load_view(files, there[number], scene_from_world=scene_from_world, metres_per_unit=scale.flat, dropped=dropped)
        for number in chosen
    )
    return views, dict(dropped)


def _sees(image: PosedImage, xyz: Float64) -> bool:
    """Whether a point (N, 3), in the file's unit, falls into the image; taken for granted where its size is unknown."""
    if image.size is None:
        return True
    pose = image.world_from_camera
    pixel = (xyz - pose[:3, 3]) @ pose[:3, :3] @ image.intrinsics(*image.size).T
    ahead = pixel[pixel[:, 2] > 0]
    place = ahead[:, :2] / ahead[:, 2:]
    return bool(((place > -0.5) & (place < np.array(image.size) - 0.5)).all(axis=1).any())
