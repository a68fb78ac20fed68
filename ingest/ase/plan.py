"""Lists the walks of a download: folders that are numbers below the root, each with its `trajectory.csv`, and zips.

    0/   1/   ...   train_chunk_0000012.zip   which holds the walks 120 to 129, as long as nobody unpacks it

There are 100,000 walks of a thousand files each, and no list of them. So a walk's own folders are not looked into: the
reader sees which frames are there; nor are zips opened, so that planning ten thousand of them is one listing. The
release has no split; all of it is called "train". Sonata took 90,000 walks and 10,000 for validation by a rule that was
not published; `split: hashed` is ours: a tenth, by a digest of the number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

import xxhash

from brickyard.ingest.ase.tables import POINTS, TRAJECTORY
from brickyard.ingest.source import Missing, Notice, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store

DATASET = "ase"
WALKS = 100_000
ROW_BYTES, FRAME_BYTES = 140, 260_000
"""About: a row of a trajectory; colour, depth and instances of a frame."""
POINTS_PER_FRAME, POINTS_SEMIDENSE = 12_000, 100_000
"""About: at 2 cm, of a walk as a whole; of the map of a walk in a zip."""
PER_ZIP = 10
_NUMBER, _ZIP = re.compile(r"0|[1-9][0-9]{0,4}"), re.compile(r"train_chunk_(\d{7})\.zip")
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
    whose names do not say what they hold. Raises `RawDataError` if there is no walk.
    """
    folders = {name[:-1] for name in store.list() if name.endswith("/") and _NUMBER.fullmatch(name[:-1])}
    zips: dict[int, tuple[str, int]] = {}
    for name, size in sorted(store.sizes().items()):
        if match := _ZIP.fullmatch(name):
            zips[int(match[1])] = name, size
        elif name.endswith(".zip"):
            reason = "it is not read: its name is not train_chunk_0000000.zip or the like, so unpack it"
            yield Notice(dataset=DATASET, scene_id=name, reason=reason)
    packed = {str(walk) for chunk in zips for walk in range(chunk * PER_ZIP, (chunk + 1) * PER_ZIP)}
    walks = sorted(folders | packed, key=int)
    if not walks:
        raise RawDataError(
            "no walk of Aria Synthetic Environments is here", dataset=DATASET, path=store.uri,
            hint=f"the root holds folders 0, 1, 2, ..., each with a {TRAJECTORY}, or train_chunk_0000000.zip, ...",
        )  # fmt: skip
    roles = {"trajectory": TRAJECTORY} | ({"points": POINTS} if options.points == "semidense" else {})
    settings = asdict(options)

    def look(walk: str) -> SceneRef | Missing:
        files = {role: f"{walk}/{name}" for role, name in roles.items()} if walk in folders else {}
        sizes = {role: store.size(path) for role, path in files.items()}
        there = {role: size for role, size in sizes.items() if size is not None}
        archive, packed_bytes = zips.get(int(walk) // PER_ZIP, (None, 0))
        if archive is None and len(there) < len(roles):
            absent = " and ".join(name for role, name in roles.items() if role not in there)
            return Missing(dataset=DATASET, scene_id=walk, reason=f"{absent} not there; download it again")
        share = packed_bytes // PER_ZIP
        rows = there["trajectory"] // ROW_BYTES if "trajectory" in there else share // FRAME_BYTES
        frames = max(1, rows // options.every)
        dense = there["points"] // 40 if "points" in there else POINTS_SEMIDENSE
        return SceneRef(
            dataset=DATASET, scene_id=walk, split=split_of(walk, options.split), sequence=walk, root=store.uri,
            files={role: files[role] for role in there} | ({} if archive is None else {"zip": archive}),
            details={"options": settings},
            points_estimate=dense if options.points == "semidense" else frames * POINTS_PER_FRAME,
            bytes_estimate=sum(there.values()) + frames * FRAME_BYTES,
        )  # fmt: skip

    if store.local:
        yield from map(look, walks)
        return
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="brickyard-ase") as pool:
        yield from pool.map(look, walks)


def split_of(walk: str, rule: str) -> str:
    """ "train", or by the rule "hashed" a tenth "val"."""
    return "val" if rule == "hashed" and xxhash.xxh64_intdigest(walk.encode()) % 10 == 0 else "train"
