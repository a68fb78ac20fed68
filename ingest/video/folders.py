"""Which folders of images are sequences, and the clips they are cut into: listings and `transforms.json`, no image.

Images are ordered by name, numbers in it by value (2 before 10). With `fps` frame n (the last number of its name, if
these rise) was taken n / fps seconds after frame 0; without it frames have no times and `clips.rate_hz` thins nothing.
A folder that holds videos needs two images to count, so a cover picture is not taken for a sequence. Folders of depth,
labels, masks and smaller copies (`kinds`) are no sequences; what becomes of a `transforms.json` is told in `posed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from brickyard.ingest.clips import clip_id, cut, thin
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.ingest.transforms import NAME as TRANSFORMS
from brickyard.ingest.video.kinds import PICTURES, Kinds, Sizes, extras, images_of
from brickyard.ingest.video.posed import Posed, find_posed, size_of
from brickyard.shards.storage import Store

if TYPE_CHECKING:
    from brickyard.ingest.video.plan import VideoOptions

COLOR = re.compile(r"(.+)\.color\.(?:png|jpe?g)$", re.IGNORECASE)
INTRINSICS = "camera-intrinsics.txt"


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in a name by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def plan_folders(store: Store, below: Sizes, options: VideoOptions) -> dict[str, list[SceneRef | Missing]]:
    """Folder -> its clips, for all folders that are sequences. `below`: folder -> name -> bytes."""
    found: dict[str, list[SceneRef | Missing]] = {}
    tables, taken = find_posed(store, below)
    for table in tables:
        found.setdefault(table.folder, []).extend(_of_table(store, table, below, options))
    kinds = Kinds(store, below)
    for folder in sorted(set(below) - taken - {table.folder for table in tables}):
        if frames := _rgbd(folder, below):
            found[folder] = list(_clips(store, folder, frames, below, options))
        elif images := images_of(below[folder]):
            if why := kinds.belongs_to(folder):
                reason = f"{len(images)} images are no clip of their own: {why}"
                found[folder] = [Notice(dataset="video", scene_id=folder, reason=reason)]
            else:
                found[folder] = list(_of_images(store, folder, images, below, options))
    return found


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _of_table(store: Store, table: Posed, below: Sizes, options: VideoOptions) -> Iterator[SceneRef | Missing]:
    """Clips of a `transforms.json`."""
    if table.second:
        yield Notice(dataset="video", scene_id=table.path, reason=f"not used: {TRANSFORMS} beside it is")
    elif table.problem is not None:
        yield Missing(
            dataset="video", scene_id=clip_id(table.folder or "root", table.name, 0), reason=table.problem
        )  # fmt: skip
    else:
        frames = [dict(frame) for frame in table.frames]
        yield from _clips(store, table.folder, frames, below, options, dropped=table.dropped, table=table)


def _of_images(
    store: Store, folder: str, images: Sequence[str], below: Sizes, options: VideoOptions
) -> Iterator[SceneRef | Missing]:
    """Clips of a folder of plain pictures."""
    left_out = extras(images)
    others = sum(name.lower().endswith(PICTURES) for name in below[folder])
    dropped = {"images of depth, labels or masks": len(left_out), "pictures of formats that are not read": others}
    frames = [{"image": _join(folder, name)} for name in images if name not in left_out]
    yield from _clips(store, folder, frames, below, options, dropped={k: n for k, n in dropped.items() if n})


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


def _clips(
    store: Store, folder: str, frames: list[dict[str, str]], below: Sizes, options: VideoOptions, *,
    dropped: Mapping[str, int] | None = None, table: Posed | None = None,
) -> Iterator[SceneRef | Missing]:  # fmt: skip
    sequence, name = folder or "root", "images" if table is None else table.name
    frames = sorted(frames, key=lambda frame: natural_key(frame["image"]))
    times = _times([frame["image"] for frame in frames], options.fps)
    if times is not None:
        kept = thin([time / 1e9 for time in times], options.clips.rate_hz)
        frames, times = [frames[k] for k in kept], [times[k] for k in kept]
    if len(frames) < 2:
        place = folder or "the root" if table is None else table.path
        besides = "".join(f"; {what}: {count}" for what, count in (dropped or {}).items())
        reason = f"{place} has {len(frames)} image{'s' * (len(frames) != 1)}, a clip needs 2{besides}"
        yield Missing(dataset="video", scene_id=clip_id(sequence, name, 0), reason=reason)
        return
    common = {} if table is None else {"transforms": table.path}
    if any("depth" in frame or "pose" in frame for frame in frames) and INTRINSICS in below[folder] and not common:
        common["intrinsics"] = _join(folder, INTRINSICS)
    details: dict[str, Any] = {
        "licence": options.licence, "version": options.version, "short_side": options.image_short_side,
        "quality": options.quality, "focal": options.focal,
    }  # fmt: skip
    split = "none" if table is None else table.split
    for number, run in enumerate(cut(range(len(frames)), options.clips)):
        files = {f"{role}/{k:05d}": path for k, i in enumerate(run) for role, path in frames[i].items()} | common
        yield SceneRef(
            dataset="video", scene_id=clip_id(sequence, name, number), split=split, sequence=sequence,
            root=store.uri, files=files,
            details={
                "kind": "images", "times_ns": None if times is None else [times[i] for i in run],
                "dropped": dict(dropped or {}) if number == 0 else {}, **details,
            },
            bytes_estimate=max(1, sum(size_of(below, path) or 0 for path in files.values())),
        )  # fmt: skip


def _times(paths: Sequence[str], fps: float | None) -> list[int] | None:
    """ns of each image, counted from frame 0."""
    if fps is None:
        return None
    found = [re.findall(r"\d{1,15}", path.rpartition("/")[2]) for path in paths]
    numbers = [int(digits[-1]) if digits else -1 for digits in found]
    rising = all(a < b for a, b in pairwise(numbers)) and numbers[:1] >= [0]
    return [round(n / fps * 1e9) for n in (numbers if rising else range(len(paths)))]
