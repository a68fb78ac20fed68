"""Clips of Waymo: the pictures of one camera of a segment at 10 Hz, each with its own pose.

The scene frame is the vehicle's in the middle of the first picture's read-out. Clips carry no labels.

Pictures are read frame by frame. Of v1 one record is in memory besides the clip's own JPEGs (measured: 29 MiB more
than before for 100 pictures of 21 MiB out of a segment of 443 MiB, in 6 s); of v2 one page of `camera_image`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from brickyard.ingest.clips import ClipOptions, clip_id, cut, thin
from brickyard.ingest.source import Missing, RawFiles
from brickyard.ingest.waymo.frame import LICENCE, RATE_HZ, Camera
from brickyard.ingest.waymo.view import build_view, exposed_pose
from brickyard.shards.scene import Identity, Scene

T = TypeVar("T")


def cut_segment(
    dataset: str, name: str, frames: Sequence[tuple[int, T]], cameras: Sequence[str], options: ClipOptions
) -> Iterator[tuple[str, str, list[T]] | Missing]:
    """The clips of a segment: (scene_id, camera, frames), or `Missing` for a camera whose pictures make none.

    Args:
        frames: (number in the segment, whatever stands for the frame), in order of time.
    """
    kept = thin([number / RATE_HZ for number, _ in frames], options.rate_hz)
    clips = cut([frames[place][1] for place in kept], options)
    for camera in cameras:
        if not clips:
            reason = f"the segment has {len(kept)} frames, a clip needs 2"
            yield Missing(dataset=dataset, scene_id=clip_id(name, camera, 0), reason=reason)
        for number, clip in enumerate(clips):
            yield clip_id(name, camera, number), camera, clip


def build_clip(files: RawFiles, path: str, cameras: Sequence[Camera], version: str) -> Scene:
    """The validated Scene of a clip; frames without a picture are counted in `dropped`.

    Args:
        path: for errors only.
        cameras: the pictures that are there, in order of time.

    Raises:
        RawDataError: pictures that are not what the format says, or fewer than two.
    """
    wanted, camera = files.ref.details["frames"], files.ref.details["camera"]
    if len(cameras) < 2:
        raise files.error(path, f"{len(cameras)} of {wanted} frames have a picture of {camera}, a clip needs 2")
    start = exposed_pose(files, path, cameras[0])
    views = tuple(build_view(files, path, picture, start) for picture in cameras)
    absent = wanted - len(views)
    identity = Identity(
        dataset=files.ref.dataset, version=version, split=files.ref.split, sequence=files.ref.sequence,
        scene_id=files.ref.scene_id, timestamp_ns=views[0].timestamp_ns, domain="outdoor", licence=LICENCE,
        sources=files.sources(),
    )  # fmt: skip
    dropped = {f"missing image {camera}": absent} if absent else {}
    return Scene(identity=identity, world_from_scene=start, views=views, dropped=dropped).validate()
