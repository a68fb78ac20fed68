"""Which folders of images are sequences, and the clips they are cut into: listings and `transforms.json`, no image.

Images are ordered by name, numbers in it by value (2 before 10). With `fps` frame n (the last number of its name, if
these rise) was taken n / fps seconds after frame 0; without it frames have no times and `clips.rate_hz` thins nothing.
A folder that holds videos needs two images to count, so a cover picture is not taken for a sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ingest.clips import clip_id, cut, thin
from ingest.source import Missing, RawFiles, SceneRef
from ingest.transforms import NAME as TRANSFORMS
from ingest.transforms import Transforms, read_transforms
from shards.errors import RawDataError
from shards.storage import Store

if TYPE_CHECKING:
    from ingest.video.plan import VideoOptions

IMAGES = (".jpg", ".jpeg", ".png")
COLOR = re.compile(r"(.+)\.color\.(?:png|jpe?g)$", re.IGNORECASE)
INTRINSICS = "camera-intrinsics.txt"
Sizes = Mapping[str, Mapping[str, int]]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in a name by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def plan_folders(store: Store, below: Sizes, options: VideoOptions) -> dict[str, list[SceneRef | Missing]]:
    """Folder -> its clips, for all folders that are sequences. `below`: folder -> name -> bytes."""
    found: dict[str, list[SceneRef | Missing]] = {}
    taken: set[str] = set()
    for folder in sorted(below):
        if TRANSFORMS in below[folder]:
            found[folder] = list(_posed(store, folder, below, options, taken))
            taken.add(folder)
    for folder in sorted(set(below) - taken):
        frames = _rgbd(folder, below) or _plain(folder, below)
        if frames:
            found[folder] = list(_clips(store, folder, frames, below, options))
    return found


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _posed(
    store: Store, folder: str, below: Sizes, options: VideoOptions, taken: set[str]
) -> Iterator[SceneRef | Missing]:
    """Clips of a `transforms.json`; adds the folders its images lie in to `taken`."""
    path = _join(folder, TRANSFORMS)
    probe = SceneRef(
        dataset="video", scene_id=path, split="none", sequence=folder, root=store.uri, files={"transforms": path}
    )
    try:
        table: Transforms = read_transforms(RawFiles(probe), path)
    except RawDataError as problem:
        yield Missing(dataset="video", scene_id=clip_id(folder or "root", "images", 0), reason=str(problem))
        return
    frames: dict[str, dict[str, str]] = {}
    lost = 0
    for image in table.images:
        for file in (image.image, image.depth):
            taken.add((file or path).rpartition("/")[0])
        if _size(below, image.image) is None:
            lost += 1
            continue
        frames[image.image] = {"image": image.image}
        if image.depth is not None and _size(below, image.depth) is not None:
            frames[image.image]["depth"] = image.depth
    dropped = {**table.dropped, **({"images that are missing": lost} if lost else {})}
    yield from _clips(store, folder, list(frames.values()), below, options, dropped=dropped, transforms=path)


def _rgbd(folder: str, below: Sizes) -> list[dict[str, str]]:
    """7-Scenes: colour images with what lies beside them."""
    names, frames = below[folder], []
    for name in names:
        if match := COLOR.match(name):
            frame = {"image": _join(folder, name)}
            for role, suffix in (("depth", ".depth.png"), ("pose", ".pose.txt")):
                if match[1] + suffix in names:
                    frame[role] = _join(folder, match[1] + suffix)
            frames.append(frame)
    return frames


def _plain(folder: str, below: Sizes) -> list[dict[str, str]]:
    return [{"image": _join(folder, name)} for name in below[folder] if name.lower().endswith(IMAGES)]


def _clips(
    store: Store, folder: str, frames: list[dict[str, str]], below: Sizes, options: VideoOptions, *,
    dropped: Mapping[str, int] | None = None, transforms: str | None = None,
) -> Iterator[SceneRef | Missing]:  # fmt: skip
    sequence = folder or "root"
    frames = sorted(frames, key=lambda frame: natural_key(frame["image"]))
    times = _times([frame["image"] for frame in frames], options.fps)
    if times is not None:
        kept = thin([time / 1e9 for time in times], options.clips.rate_hz)
        frames, times = [frames[k] for k in kept], [times[k] for k in kept]
    if len(frames) < 2:
        reason = f"{folder or 'the root'} has {len(frames)} image{'s' * (len(frames) != 1)}, a clip needs 2"
        yield Missing(dataset="video", scene_id=clip_id(sequence, "images", 0), reason=reason)
        return
    common = {"transforms": transforms} if transforms else {}
    if any("depth" in frame or "pose" in frame for frame in frames) and INTRINSICS in below[folder] and not common:
        common["intrinsics"] = _join(folder, INTRINSICS)
    details: dict[str, Any] = {
        "licence": options.licence, "version": options.version, "short_side": options.image_short_side,
        "quality": options.quality, "focal": options.focal,
    }  # fmt: skip
    for number, run in enumerate(cut(range(len(frames)), options.clips)):
        files = {f"{role}/{k:05d}": path for k, i in enumerate(run) for role, path in frames[i].items()} | common
        yield SceneRef(
            dataset="video", scene_id=clip_id(sequence, "images", number), split="none", sequence=sequence,
            root=store.uri, files=files,
            details={
                "kind": "images", "times_ns": None if times is None else [times[i] for i in run],
                "dropped": dict(dropped or {}) if number == 0 else {}, **details,
            },
            bytes_estimate=max(1, sum(_size(below, path) or 0 for path in files.values())),
        )  # fmt: skip


def _size(below: Sizes, path: str) -> int | None:
    folder, _, name = path.rpartition("/")
    return below.get(folder, {}).get(name)


def _times(paths: Sequence[str], fps: float | None) -> list[int] | None:
    """ns of each image, counted from frame 0."""
    if fps is None:
        return None
    found = [re.findall(r"\d{1,15}", path.rpartition("/")[2]) for path in paths]
    numbers = [int(digits[-1]) if digits else -1 for digits in found]
    rising = all(a < b for a, b in pairwise(numbers)) and numbers[:1] >= [0]
    return [round(n / fps * 1e9) for n in (numbers if rising else range(len(paths)))]
