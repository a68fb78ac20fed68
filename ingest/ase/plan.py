"""Lists the walks of a download: folders that are numbers below the root, each with its `trajectory.csv`.

There are 100,000 walks of a thousand files each, and no list of them. So a walk's own folders are not looked into: the
reader sees which frames are there. The release has no split; all of it is called "train". Sonata took 90,000 walks and
10,000 for validation by a rule that was not published; `split: hashed` is ours: a tenth, by a digest of the number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

import xxhash

from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store

DATASET = "ase"
WALKS = 100_000
ROW_BYTES, FRAME_BYTES = 140, 260_000
"""About: a row of a trajectory; colour, depth and instances of a frame."""
POINTS_PER_FRAME = 12_000
"""At 2 cm, of a walk as a whole."""
_NUMBER, _ARCHIVE = re.compile(r"0|[1-9][0-9]{0,4}"), re.compile(r".*\.zip")
_AT_A_TIME = 32


@dataclass(frozen=True, kw_only=True)
class ASEOptions:
    """What to take from a walk.

    Attributes:
        points: "fused" from depth, with colour, normals, classes and instances; or the "semidense" map, which has none.
        every: frames are taken this far apart, or further where some were not downloaded.
        max_views: at most so many of them become views, spread evenly; points come from all.
        grid_m: at most one point in a cube of this many metres, that of the first frame; 0 keeps every pixel.
        min_cosine: pixels whose surface is seen at a more grazing angle than this cosine become no points.
        read_depth, read_labels: attach to each view its depth, and its class and instance images.
        min_agreement: refuse a walk whose frames contradict each other's depth more than this (see `ingest.agreement`),
            as they do where images were turned upright and calibrations were not; 0 does not look.
        max_inverse_std, max_std: of semi-dense points, 1/m and m; others are left out and counted.
        split: "published", where all is "train", or "hashed", where a tenth is "val".
    """

    points: Literal["fused", "semidense"] = "fused"
    every: int = 10
    max_views: int = 16
    grid_m: float = 0.02
    min_cosine: float = 0.15
    read_depth: bool = True
    read_labels: bool = True
    min_agreement: float = 0.7
    max_inverse_std: float = 0.005
    max_std: float = 0.01
    split: Literal["published", "hashed"] = "published"

    def __post_init__(self) -> None:
        checks = (
            (self.points in ("fused", "semidense"), f"points cannot be {self.points!r}"),
            (self.split in ("published", "hashed"), f"no split {self.split!r}"),
            (self.every > 0 and self.max_views >= 0, "every must be positive, max_views not negative"),
            (self.grid_m == 0 or 0.001 <= self.grid_m <= 1, f"grid_m must be 0, or 0.001..1, found {self.grid_m}"),
            (0 <= self.min_cosine < 1, f"min_cosine must be 0..1, found {self.min_cosine}"),
            (0 <= self.min_agreement <= 1, f"min_agreement must be 0..1, found {self.min_agreement}"),
            (self.max_inverse_std > 0 and self.max_std > 0, "max_inverse_std and max_std must be positive"),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"ase options: {problem}")


def plan(store: Store, options: ASEOptions) -> Iterator[SceneRef | Missing]:
    """All walks by their numbers.

    Yields a `Missing` for a walk without its trajectory or, if asked for, its semi-dense points, a `Notice` for zips
    that were not unpacked. Raises `RawDataError` if there is no walk.
    """
    names = store.list()
    folders = [name.rstrip("/") for name in names if name.endswith("/")]
    walks = sorted((name for name in folders if _NUMBER.fullmatch(name)), key=int)
    for name in names:
        if _ARCHIVE.fullmatch(name):
            yield Notice(dataset=DATASET, scene_id=name, reason="zips are not read: unpack them")
    if not walks:
        raise RawDataError(
            "no walk of Aria Synthetic Environments is here", dataset=DATASET, path=store.uri,
            hint="the root holds folders 0, 1, 2, ..., each with a trajectory.csv",
        )  # fmt: skip
    roles = {"trajectory": "trajectory.csv"}
    if options.points == "semidense":
        roles["points"] = "semidense_points.csv.gz"
    settings = asdict(options)

    def look(walk: str) -> SceneRef | Missing:
        files = {role: f"{walk}/{name}" for role, name in roles.items()}
        sizes = {role: store.size(path) for role, path in files.items()}
        absent = [roles[role] for role, size in sizes.items() if size is None]
        if absent:
            return Missing(
                dataset=DATASET, scene_id=walk, reason=f"{' and '.join(absent)} not there; download it again"
            )
        frames = max(1, (sizes["trajectory"] or 0) // ROW_BYTES // options.every)
        count = (sizes["points"] or 0) // 40 if "points" in sizes else frames * POINTS_PER_FRAME
        return SceneRef(
            dataset=DATASET, scene_id=walk, split=split_of(walk, options.split), sequence=walk, root=store.uri,
            files=files, details={"options": settings}, points_estimate=count,
            bytes_estimate=sum(size or 0 for size in sizes.values()) + frames * FRAME_BYTES,
        )  # fmt: skip

    if store.local:
        yield from map(look, walks)
        return
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="brickyard-ase") as pool:
        yield from pool.map(look, walks)


def split_of(walk: str, rule: str) -> str:
    """ "train", or by the rule "hashed" a tenth "val"."""
    return "val" if rule == "hashed" and xxhash.xxh64_intdigest(walk.encode()) % 10 == 0 else "train"
