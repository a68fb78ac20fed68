"""Plans clips: runs of the phone's film, or of the photographs, with poses and without points; no mesh is needed.

How long a film is stands in the last key of the phone's poses, of which the last `TAIL_BYTES` are read; which
photographs there are stands in train_test_lists.json. Readers leave out what has no pose, is bad or painted over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from brickyard.ingest.clips import clip_id, cut, thin
from brickyard.ingest.scannetpp.options import ScanNetPPOptions, device_files
from brickyard.ingest.scannetpp.splits import DATASET
from brickyard.ingest.source import Missing, SceneRef
from brickyard.shards.errors import NONSENSE
from brickyard.shards.storage import Store

FILM_HZ = 60.0
TAIL_BYTES = 32 << 10
MAX_LIST = 1 << 20
BYTES_PER_VIEW = 700_000
NEEDED = {"iphone": ("arkit",), "dslr": ("dslr_cameras", "dslr_images", "photograph_lists")}
_FRAME = re.compile(rb'"frame_(\d{6})"\s*:')


def plan_clips(
    store: Store, scene: str, split: str, options: ScanNetPPOptions, release: str
) -> Iterator[SceneRef | Missing]:
    """The clips of a scene, in order; a `Missing` where its device is not there or gives no two views."""
    folder, clips = f"data/{scene}", options.clips
    assert clips is not None
    files = device_files(store, folder, store.list(folder), options)
    absent = [role for role in NEEDED[options.clips_of] if role not in files]
    if absent:
        reason = f"{folder}/{options.clips_of} has no {' and no '.join(absent)}, which a clip needs"
        yield Missing(dataset=DATASET, scene_id=scene, reason=reason)
        return
    members: Sequence[Any] | None
    if options.clips_of == "iphone":
        count = _film_frames(store, files["arkit"])
        members = None if count is None else clip_frames(count, clips.rate_hz)
    else:
        members = _photographs(store, files["photograph_lists"], options.test_views)
    runs = cut(members, clips) if members is not None else []
    if not runs:
        what = "cannot be read" if members is None else f"names {len(members)} views, a clip needs two"
        reason = f"{files[NEEDED[options.clips_of][-1]]} {what}"
        yield Missing(dataset=DATASET, scene_id=scene, reason=reason)
    for number, run in enumerate(runs):
        yield SceneRef(
            dataset=DATASET,
            scene_id=clip_id(scene, options.clips_of, number),
            split=split,
            sequence=scene,
            root=store.uri,
            files=files,
            details=asdict(options)
            | {"release": release, "folder": folder, "absent": [], "chunk": None, "first": run[0], "last": run[-1]},
            bytes_estimate=len(run) * BYTES_PER_VIEW,
        )


def clip_frames(count: int, rate_hz: float | None) -> list[int]:
    """Numbers of the frames that clips are cut from, of a film of `count` frames."""
    return thin([number / FILM_HZ for number in range(count)], rate_hz)


def _film_frames(store: Store, path: str) -> int | None:
    """Frames of a film by the last key of its poses; None if there is none where it should stand."""
    size = store.size(path) or 0
    found = _FRAME.findall(store.read_range(path, max(0, size - TAIL_BYTES), min(size, TAIL_BYTES)))
    return int(found[-1]) + 1 if found else None


def _photographs(store: Store, path: str, held_out: bool) -> list[str] | None:
    """Names without suffix, sorted; None if the file is damaged."""
    if (store.size(path) or 0) > MAX_LIST:
        return None
    try:
        lists = json.loads(store.read(path))
        names = [*lists["train"], *(lists["test"] if held_out else [])]
        return sorted({name.rpartition(".")[0] for name in names})
    except NONSENSE:
        return None
