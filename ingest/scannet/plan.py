"""Lists the scans below a ScanNet release root: one or two folder listings per scan, no payload is opened.

Layout: `scans/sceneSSSS_RR/`, `scans_test/sceneSSSS_RR/` and `scannetv2-labels.combined.tsv`; the official split lists
lie at the root or in `splits/` (see `splits.py`). SSSS is the space: its rescans RR form one sequence. Clips are cut by
the number of frames, for which the first few hundred bytes of each `.sens` are read: 100,000 scans take about
20 seconds to plan, and some more as clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brickyard.ingest.clips import ClipOptions, clip_id, cut, thin
from brickyard.ingest.scannet import sens
from brickyard.ingest.scannet.splits import read_splits, space
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store

DATASET = "scannet"
LABEL_TABLE = "scannetv2-labels.combined.tsv"
ROLES = {
    "mesh": "_vh_clean_2.ply",
    "labels": "_vh_clean_2.labels.ply",
    "segments": "_vh_clean_2.0.010000.segs.json",
    "aggregation": ".aggregation.json",
    "metadata": ".txt",
    "sens": ".sens",
}
BYTES_PER_VERTEX = 41
"""16 bytes of a vertex and about 1.9 faces of 13 bytes each: mesh bytes -> vertices, for planning."""
BYTES_PER_FRAME = 400_000
"""JPEG of 1296x968 and compressed depth of 640x480, for planning."""
BYTES_PER_LABEL_IMAGE = 30_000
IMAGE_SETS = {
    "label_images": ("_2d-label-filt.zip", "label-filt", "_2d-label.zip", "label"),
    "instance_images": ("_2d-instance-filt.zip", "instance-filt", "_2d-instance.zip", "instance"),
}
"""Zips and the folders they unpack to, the one to prefer first: "filt" had its errors filtered."""
CAMERA = "color"


@dataclass(frozen=True, kw_only=True)
class ScanNetOptions:
    """What to take from a scan.

    Attributes:
        frames_every: only every n-th frame of the 30 Hz stream is a candidate.
        max_frames: at most this many candidates become views, spread evenly over the scan.
        read_depth: attach each frame's depth image.
        view_labels: attach each frame's label and instance image where the scan has them (not to clips).
        align_axes: rotate the scene so that walls follow the axes (`axisAlignment` of the scan's `.txt`);
            `world_from_scene` then leads back to the world of the files.
        clips: yield clips of colour frames instead of scans. `frames_every` and `max_frames` do not apply to them,
            `clips.rate_hz` counts frames at 30 Hz (the files' timestamps have no documented unit).
    """

    frames_every: int = 20
    max_frames: int = 16
    read_depth: bool = True
    view_labels: bool = True
    align_axes: bool = False
    clips: ClipOptions | None = None

    def __post_init__(self) -> None:
        if self.frames_every < 1 or self.max_frames < 0:
            raise RecipeError(
                f"scannet options: frames_every must be at least 1 and max_frames at least 0, found "
                f"{self.frames_every} and {self.max_frames}"
            )


def plan(store: Store, options: ScanNetOptions) -> Iterator[SceneRef | Missing]:
    """All scans (or their clips) in the order of their ids, `scans/` before `scans_test/`.

    Yields a `Missing` for a scan folder without its mesh (or, for clips, without a stream of two frames), for a damaged
    split list, and for the scans whose split it may have named. Raises
    `RawDataError` if the root is no ScanNet release, or its split lists contradict each other.
    """
    found = store.list()
    folders = [name for name in ("scans", "scans_test") if f"{name}/" in found]
    if not folders:
        raise RawDataError(
            "neither scans/ nor scans_test/ is here", dataset=DATASET, path=store.uri,
            hint="the root is the folder that holds scans/ and scannetv2-labels.combined.tsv",
        )  # fmt: skip
    lists = read_splits(store)
    yield from (Missing(dataset=DATASET, scene_id=path, reason=reason) for path, reason in lists.damaged.items())
    for name in lists.absent:
        reason = 'this list is not there, though others are: scans that none of them names have the split "none"'
        yield Notice(dataset=DATASET, scene_id=name, reason=reason)
    shared = {"label_table": LABEL_TABLE} if LABEL_TABLE in found else {}
    for folder in folders:
        for name in store.list(folder):
            scan = name.rstrip("/")
            if name.endswith("/") and re.fullmatch(r"scene[0-9]{4}_[0-9]{2}", scan):
                split = lists.of(scan, folder)
                if split is None:
                    reason = f"its split is unknown: no list names it, and {min(lists.damaged)} is damaged"
                    yield Missing(dataset=DATASET, scene_id=scan, reason=reason)
                elif options.clips is not None:
                    yield from _plan_clips(store, f"{folder}/{scan}", split, options, options.clips)
                else:
                    yield _plan_scan(store, f"{folder}/{scan}", split, shared, options)


def _plan_scan(
    store: Store, folder: str, split: str, shared: Mapping[str, str], options: ScanNetOptions
) -> SceneRef | Missing:
    scan = folder.rpartition("/")[2]
    sizes = store.sizes(folder)
    present = {role: scan + suffix for role, suffix in ROLES.items() if scan + suffix in sizes}
    if "mesh" not in present:
        there = ", ".join(suffix for role, suffix in ROLES.items() if role in present) or "nothing of the scan"
        reason = f"{folder}/{scan}{ROLES['mesh']} is missing, without which there are no points; {there} is there"
        return Missing(dataset=DATASET, scene_id=scan, reason=reason)
    frames = min(sizes.get(f"{scan}.sens", 0) // BYTES_PER_FRAME + 1, options.max_frames) if "sens" in present else 0
    details = asdict(options) | {"absent": _absent(folder, present, options)}
    if frames and options.view_labels:
        zips, details["image_folders"] = _image_sets(store, folder, sizes)
        present |= zips
        there = zips.keys() | details["image_folders"].keys()
        details["absent"] += sorted(IMAGE_SETS[kind][0] for kind in IMAGE_SETS.keys() - there if there)
        frames_bytes = frames * (BYTES_PER_FRAME + 2 * BYTES_PER_LABEL_IMAGE * bool(zips or details["image_folders"]))
    else:
        frames_bytes = frames * BYTES_PER_FRAME
    return SceneRef(
        dataset=DATASET,
        scene_id=scan,
        split=split,
        sequence=space(scan),
        root=store.uri,
        files={role: f"{folder}/{name}" for role, name in present.items()} | dict(shared),
        details=details,
        points_estimate=max(1, sizes[present["mesh"]] // BYTES_PER_VERTEX),
        bytes_estimate=1
        + frames_bytes
        + sum(sizes[name] for role, name in present.items() if role in ROLES and role != "sens"),
    )


def _absent(folder: str, present: Mapping[str, str], options: ScanNetOptions) -> list[str]:
    """Suffixes of the files that a scan of the release has and this one lacks; those of the test set are not annotated.

    An absent half of the annotation is told where the other half is read.
    """
    wanted = ["sens"] if options.max_frames else []
    if not folder.startswith("scans_test/"):
        wanted += ["labels", *(["segments", "aggregation"] if not {"segments", "aggregation"} & present.keys() else [])]
    return [ROLES[role] for role in wanted if role not in present]


def _image_sets(store: Store, folder: str, sizes: Mapping[str, int]) -> tuple[dict[str, str], dict[str, str]]:
    """Kind of label images -> zip of the scan, and kind -> folder (relative to the root) where there is no zip."""
    scan = folder.rpartition("/")[2]
    zips: dict[str, str] = {}
    unpacked: dict[str, str] = {}
    for kind, candidates in IMAGE_SETS.items():
        names = [scan + suffix for suffix in candidates if suffix.endswith(".zip") and scan + suffix in sizes]
        if names:
            zips[kind] = names[0]
    if len(zips) < len(IMAGE_SETS):
        names = store.list(folder)
        for kind in IMAGE_SETS.keys() - zips.keys():
            there = [name for name in IMAGE_SETS[kind] if f"{name}/" in names]
            if there:
                unpacked[kind] = f"{folder}/{there[0]}"
    return zips, dict(sorted(unpacked.items()))


def _plan_clips(
    store: Store, folder: str, split: str, options: ScanNetOptions, clips: ClipOptions
) -> Iterator[SceneRef | Missing]:
    scan = folder.rpartition("/")[2]
    sizes = store.sizes(folder)
    files = {role: f"{folder}/{scan}{ROLES[role]}" for role in ("sens", "metadata") if scan + ROLES[role] in sizes}
    whole: dict[str, Any] = {
        "dataset": DATASET, "split": split, "sequence": space(scan), "root": store.uri, "files": files,
    }  # fmt: skip
    if "sens" not in files:
        yield Missing(dataset=DATASET, scene_id=scan, reason=f"{folder}/{scan}.sens is missing")
        return
    raw = RawFiles(SceneRef(scene_id=scan, **whole))
    try:
        count = sens.read_header(raw, files["sens"]).frames
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=scan, reason=str(problem))
        return
    finally:
        raw.store.close()
    runs = cut(clip_frames(count, clips.rate_hz), clips)
    if not runs:
        yield Missing(dataset=DATASET, scene_id=scan, reason=f"{files['sens']} has {count} frames, a clip needs two")
    for number, run in enumerate(runs):
        yield SceneRef(
            scene_id=clip_id(scan, CAMERA, number),
            details=asdict(options) | {"first": run[0], "last": run[-1]},
            bytes_estimate=1 + sizes[f"{scan}.sens"] * len(run) // count,
            **whole,
        )


def clip_frames(count: int, rate_hz: float | None) -> list[int]:
    """Numbers of the frames that clips are cut from, of a stream of `count` frames at 30 Hz."""
    return thin([number / sens.NOMINAL_HZ for number in range(count)], rate_hz)
