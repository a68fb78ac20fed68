"""Clips of nuScenes: a camera's images of a scene in time order, keyframes and those between, at 12 Hz.

A reference carries the camera's mounting once and for each image the pose the car had when it was taken, so a clip's
cameras are where the devkit's chain has them, image by image. Scenes are told apart by the samples their rows belong
to, not by the links between images: a lost link costs nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from brickyard.ingest.clips import ClipOptions, clip_id, cut, thin
from brickyard.ingest.nuscenes.index import Index
from brickyard.ingest.nuscenes.listing import Listing
from brickyard.ingest.nuscenes.splits import split_of
from brickyard.ingest.nuscenes.tables import DATASET
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import BrickyardError
from brickyard.shards.storage import Store


def plan_clips(
    store: Store, index: Index, cameras: Sequence[str], options: ClipOptions
) -> Iterator[SceneRef | Missing]:
    """The clips of all scenes, in the order of the scenes, the cameras and of time."""
    listing, splits = Listing(store), split_of(index.version)
    rows = {camera: index.in_time_order(camera) for camera in cameras}
    for name, token, _ in index.scenes:
        for camera in cameras:
            frames, absent = _frames(index, listing, rows[camera].get(token, ()))
            kept = thin([int(index.time_us[row]) * 1e-6 for row, _ in frames], options.rate_hz)
            clips = cut([frames[number] for number in kept], options)
            if not clips:
                reason = f"{len(kept)} images of {camera} are there, a clip needs 2 (not downloaded?)"
                yield Missing(dataset=DATASET, scene_id=clip_id(name, camera, 0), reason=reason)
            starts = [int(index.time_us[clip[0][0]]) for clip in clips]
            lost = _per_clip(starts, [(int(index.time_us[row]), reason) for row, reason in absent])
            for number, clip in enumerate(clips):
                yield _reference(
                    store, index, clip, sequence=name, camera=camera, scene_id=clip_id(name, camera, number),
                    split=splits.get(name, "none"), dropped=lost[number],
                )  # fmt: skip


def _frames(index: Index, listing: Listing, rows: Any) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """((row, bytes) of the images that can be used, (row, reason) of the others)."""
    frames: list[tuple[int, int]] = []
    absent: list[tuple[int, str]] = []
    for row in map(int, rows):
        try:
            index.sensor(row)
            size = listing.size(index.filename(row))
        except LookupError:
            absent.append((row, "images without a pose"))
            continue
        except (BrickyardError, OSError):  # a name that leaves the root
            size = None
        if size is None:
            absent.append((row, "missing images"))
        else:
            frames.append((row, size))
    return frames, absent


def _per_clip(starts: Sequence[int], absent: Sequence[tuple[int, str]]) -> list[dict[str, int]]:
    """What each clip lacks: an absent image counts for the clip that runs at its time (the first, if none does yet)."""
    counts: list[dict[str, int]] = [{} for _ in starts]
    for time, reason in absent if starts else ():
        mine = counts[max(bisect_right(starts, time) - 1, 0)]
        mine[reason] = mine.get(reason, 0) + 1
    return counts


def _reference(
    store: Store, index: Index, clip: Sequence[tuple[int, int]], *, sequence: str, camera: str, scene_id: str,
    split: str, dropped: dict[str, int],
) -> SceneRef:  # fmt: skip
    sensors = [index.sensor(row) for row, _ in clip]
    mount = {name: sensors[0][name] for name in ("intrinsics", "ego_from_sensor", "size")}
    frames = [
        {"role": f"frame-{number:03d}"} | {name: value for name, value in sensor.items() if mount.get(name) != value}
        for number, sensor in enumerate(sensors)
    ]
    return SceneRef(
        dataset=DATASET,
        scene_id=scene_id,
        split=split,
        sequence=sequence,
        root=store.uri,
        files={frame["role"]: index.filename(row) for frame, (row, _) in zip(frames, clip, strict=True)},
        details={"version": index.version, "camera": camera, "mount": mount, "frames": frames, "dropped": dropped},
        bytes_estimate=sum(size for _, size in clip),
    )
