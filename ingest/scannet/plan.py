"""Lists the scans below a ScanNet release root: one folder listing per scan, no payload is opened.

Layout: `scans/sceneSSSS_RR/`, `scans_test/sceneSSSS_RR/` and `scannetv2-labels.combined.tsv`. The official split lists
(`scannetv2_{train,val,test}.txt`) are looked for at the root and in `splits/`; without them scans have split "none"
and test scans "test". SSSS is the space: its rescans RR form one sequence and share a split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ingest.source import Missing, SceneRef
from shards.errors import RawDataError, RecipeError
from shards.storage import Store

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


@dataclass(frozen=True, kw_only=True)
class ScanNetOptions:
    """What to take from a scan.

    Attributes:
        frames_every: only every n-th frame of the 30 Hz stream is a candidate.
        max_frames: at most this many candidates become views, spread evenly over the scan.
        read_depth: attach each frame's depth image.
        align_axes: rotate the scene so that walls follow the axes (`axisAlignment` of the scan's `.txt`);
            `world_from_scene` then leads back to the world of the files.
    """

    frames_every: int = 20
    max_frames: int = 16
    read_depth: bool = True
    align_axes: bool = False

    def __post_init__(self) -> None:
        if self.frames_every < 1 or self.max_frames < 0:
            raise RecipeError(
                f"scannet options: frames_every must be at least 1 and max_frames at least 0, found "
                f"{self.frames_every} and {self.max_frames}"
            )


def plan(store: Store, options: ScanNetOptions) -> Iterator[SceneRef | Missing]:
    """All scans in the order of their ids, `scans/` before `scans_test/`.

    Yields a `Missing` for a scan folder without its mesh; raises `RawDataError` if the root is no ScanNet release.
    """
    found = store.list()
    folders = [name for name in ("scans", "scans_test") if f"{name}/" in found]
    if not folders:
        raise RawDataError(
            "neither scans/ nor scans_test/ is here", dataset=DATASET, path=store.uri,
            hint="the root is the folder that holds scans/ and scannetv2-labels.combined.tsv",
        )  # fmt: skip
    splits = _official_splits(store)
    shared = {"label_table": LABEL_TABLE} if LABEL_TABLE in found else {}
    for folder in folders:
        for name in store.list(folder):
            scan = name.rstrip("/")
            if name.endswith("/") and re.fullmatch(r"scene\d{4}_\d\d", scan):
                split = splits.get(scan, "test" if folder == "scans_test" else "none")
                yield _plan_scan(store, f"{folder}/{scan}", split=split, shared=shared, options=options)


def _plan_scan(
    store: Store, folder: str, *, split: str, shared: Mapping[str, str], options: ScanNetOptions
) -> SceneRef | Missing:
    scan = folder.rpartition("/")[2]
    sizes = store.sizes(folder)
    present = {role: scan + suffix for role, suffix in ROLES.items() if scan + suffix in sizes}
    if "mesh" not in present:
        return Missing(dataset=DATASET, scene_id=scan, reason=f"{folder}/{scan}{ROLES['mesh']} is missing")
    stream = min(sizes.get(f"{scan}.sens", 0), options.max_frames * BYTES_PER_FRAME)
    return SceneRef(
        dataset=DATASET,
        scene_id=scan,
        split=split,
        sequence=scan[: len("scene0000")],
        root=store.uri,
        files={role: f"{folder}/{name}" for role, name in present.items()} | dict(shared),
        details=asdict(options),
        points_estimate=sizes[present["mesh"]] // BYTES_PER_VERTEX,
        bytes_estimate=stream + sum(sizes[name] for role, name in present.items() if role != "sens"),
    )


def _official_splits(store: Store) -> dict[str, str]:
    """Scan id -> split, from the lists that exist."""
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        for path in (f"scannetv2_{split}.txt", f"splits/scannetv2_{split}.txt"):
            if store.size(path) is not None:
                text = store.read(path).decode("utf-8", "replace")
                splits.update((line.strip(), split) for line in text.splitlines() if line.strip())
                break
    return splits
