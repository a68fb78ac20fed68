"""Lists the clips below a folder: windows of video files, runs of images. Headers and tables are opened, no payload.

The split is the option's, or else that of a `transforms_<split>.json`, or else the first folder of the path if that is
called train, val (valid, validation) or test, or else "none". All clips of a video, or of a folder, are one sequence.
Files that nothing uses are told at the end, by their suffixes.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from brickyard.ingest.clips import ClipOptions, clip_id
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.ingest.video import cameras, folders
from brickyard.ingest.video.container import duration_s
from brickyard.ingest.video.kinds import PICTURES, images_of
from brickyard.ingest.video.posed import SPLITS, is_table
from brickyard.shards.errors import RecipeError
from brickyard.shards.storage import Store

DATASET = "video"
VIDEOS = (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2ts", ".mts")
MIN_WINDOW_BYTES = 1000
"""A length that leaves less of the file to each window is a lie."""
MAX_WINDOWS = 10_000


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What is made of the files, and what is known about them that they do not say.

    Attributes:
        clips: frames of a clip, overlap, and rate; videos need a rate.
        short_side: pixels of the shorter side of a video's frames, never enlarged; None keeps the video's size.
        image_short_side: the same for image folders, whose images are kept as shipped with None.
        quality: of the JPEGs that are encoded here, 1..100; 4:2:0.
        fps: images a second of image folders: gives them times, and lets `clips.rate_hz` thin them.
        min_motion: grey levels (mean of 24 x 24 pixels) that a shot must change by; 0 keeps stills.
        focal: focal length / longer side where it is unknown; 1.2 is what COLMAP starts from.
        max_window_frames: frames that are decoded for one window, at most.
        licence: SPDX id or LicenseRef of all files.
        version: release of the collection, for the record.
        split: "train", "val", "test" or "none" for all; None takes it from the folder's name.
    """

    clips: ClipOptions = field(default_factory=lambda: ClipOptions(frames=96, rate_hz=6.0))
    short_side: int | None = 256
    image_short_side: int | None = None
    quality: int = 92
    fps: float | None = None
    min_motion: float = 1.0
    focal: float = 1.2
    max_window_frames: int = 20_000
    licence: str = "LicenseRef-unknown"
    version: str = "1"
    split: str | None = None

    def __post_init__(self) -> None:
        sizes = [s for s in (self.short_side, self.image_short_side) if s is not None]
        for holds, what in (
            (all(16 <= size < 65536 for size in sizes), "short_side and image_short_side: 16..65535 or null"),
            (1 <= self.quality <= 100, "quality: 1..100"),
            (self.fps is None or 0 < self.fps <= 1e6, "fps: a positive number or null"),
            (0 <= self.min_motion <= 255, "min_motion: 0..255"),
            (0.1 <= self.focal <= 100, "focal: 0.1..100"),
            (2 <= self.max_window_frames <= 200_000, "max_window_frames: 2..200000"),
            (bool(self.licence and self.version), "licence and version: not empty"),
            (self.split in (None, "train", "val", "test", "none"), "split: train, val, test, none or null"),
        ):
            if not holds:
                raise RecipeError(f"video options: {what} is expected")


def plan(store: Store, options: VideoOptions) -> Iterator[SceneRef | Missing]:
    """Clips in the order of their folders, images before videos; `RecipeError` if there are none."""
    below: dict[str, dict[str, int]] = {}
    for path in store.walk():
        below.setdefault(path.rpartition("/")[0], {})
    for folder in below:
        below[folder] = store.sizes(folder)
    posed = cameras.find_cameras(store, below)
    images = folders.plan_folders(store, below, options)
    found, used, told = False, {shot.path for shots in posed.values() for shot in shots}, set[str]()
    for folder in sorted(below):
        names = [name for name in below[folder] if name.lower().endswith(VIDEOS)]
        items = images.get(folder, [])
        if names and not any(map(is_table, below[folder])):
            items = [item if isinstance(item, SceneRef | Notice) else _cover(item) for item in items]
        for item in items:
            found |= not isinstance(item, Notice)
            if isinstance(item, SceneRef):
                used |= set(item.files.values())
                told |= {folder} if "pictures of formats that are not read" in item.details["dropped"] else set()
            yield _with_split(item, options)
        for name in sorted(names):
            found = True
            path = f"{folder}/{name}" if folder else name
            for item in _plan_video(store, path, below[folder][name], options, posed.get(name.rpartition(".")[0], [])):
                yield _with_split(item, options)
    notices = list(_unused(below, used, told))
    if not found:
        there = "".join(f"; {notice.reason}" for notice in notices[:5])
        expected = f"expected videos ({', '.join(VIDEOS)}) or folders of images"
        raise RecipeError(f"nothing to read in {store.uri}: {expected}{there}")
    yield from notices


def _cover(item: Missing) -> Notice:
    """A picture beside videos is no sequence that was lost."""
    return Notice(dataset=DATASET, scene_id=item.scene_id, reason=f"not used beside the videos: {item.reason}")


def _unused(below: Mapping[str, Mapping[str, int]], used: set[str], told: set[str]) -> Iterator[Notice]:
    """One notice for each suffix of files that are neither images nor videos and that no clip uses.

    Args:
        told: folders whose pictures of other formats are counted by a clip.
    """
    found: dict[str, list[str]] = {}
    for folder in sorted(below):
        for name in sorted(below[folder]):
            path = posixpath.join(folder, name)
            lower = name.lower()
            if path in used or lower.endswith(VIDEOS) or images_of([name]) or is_table(name):
                continue
            if not (folder in told and lower.endswith(PICTURES)):
                match = re.search(r"\.[a-z][a-z0-9]{0,7}$", lower)
                found.setdefault(match[0] if match else "", []).append(path)
    for suffix, paths in sorted(found.items()):
        kind = f"{suffix} file" if suffix else "file without a known suffix"
        kind += "s" * (len(paths) != 1)
        yield Notice(dataset=DATASET, scene_id=paths[0], reason=f"{len(paths)} {kind} not used, such as {paths[0]}")


def _with_split(item: SceneRef | Missing, options: VideoOptions) -> SceneRef | Missing:
    if isinstance(item, Missing):
        return item
    by_folder = SPLITS.get(item.scene_id.partition("/")[0].lower(), "none")
    return replace(item, split=options.split or (by_folder if item.split == "none" else item.split))


def _plan_video(
    store: Store, path: str, size: int, options: VideoOptions, posed: list[cameras.Shot]
) -> Iterator[SceneRef | Missing]:
    if options.clips.rate_hz is None:
        raise RecipeError("video options: clips.rate_hz is needed to cut video files into windows, such as 6.0")
    if size == 0:
        yield Missing(dataset=DATASET, scene_id=clip_id(path, "video", 0), reason=f"{path} is empty (0 bytes)")
        return
    base: dict[str, Any] = {
        "licence": options.licence, "version": options.version, "short_side": options.short_side,
        "quality": options.quality, "focal": options.focal, "rate_hz": options.clips.rate_hz,
        "frames": options.clips.frames, "min_motion": options.min_motion, "max_frames": options.max_window_frames,
    }  # fmt: skip
    where = store.uri
    if posed:
        for shot in posed:
            yield SceneRef(
                dataset=DATASET, scene_id=clip_id(path, shot.name, 0), split="none", sequence=path, root=where,
                files={"video": path, "cameras": shot.path}, details={"kind": "cameras", **base}, bytes_estimate=size,
            )  # fmt: skip
        return
    windows = cut_windows(duration_s(store, path, size), size, options.clips)
    for number, (start, stop) in enumerate(windows):
        yield SceneRef(
            dataset=DATASET, scene_id=clip_id(path, "video", number), split="none", sequence=path, root=where,
            files={"video": path}, details={"kind": "video", "start_ns": start, "stop_ns": stop, **base},
            bytes_estimate=max(1, size // len(windows)),
        )  # fmt: skip


def cut_windows(seconds: float | None, size: int, clips: ClipOptions) -> list[tuple[int, int | None]]:
    """(start, stop) in ns of equal windows that hold at most `clips.frames` frames each; the last is open.

    Args:
        seconds: length of the video; None, or one that cannot be, makes a single open window.
        size: bytes of the file.
    """
    if seconds is None or clips.rate_hz is None:
        return [(0, None)]
    overlap = clips.overlap / clips.rate_hz
    stride = clips.frames / clips.rate_hz - overlap
    exact = (seconds - overlap) / stride
    count = max(1, math.ceil(exact - 0.05)) if exact < MAX_WINDOWS + 1 else MAX_WINDOWS + 1
    if count > MAX_WINDOWS or (count > 1 and size / count < MIN_WINDOW_BYTES):
        return [(0, None)]
    rest = max(seconds - overlap, 0.0)
    starts = [round(number * rest / count * 1e9) for number in range(count)]
    ends: list[int | None] = [start + round(overlap * 1e9) for start in starts[1:]]
    return list(zip(starts, [*ends, None], strict=True))
