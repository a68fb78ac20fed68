"""What becomes of damaged raw files: every source, every kind of its files, missing, cut, zeroed in part, exchanged.

Small simulated worlds in the native layouts are damaged one file at a time (`ingest.damage`): cut in the middle and at
a page of the disk, one page of 4 KiB zeroed at ten places, exchanged with a neighbour of the same kind. The worst
outcome of each is a cell of the table in docs/datasets.md.

python -m tests.benchmarks.raw_damage                      all sources, appends to results/raw_damage.json
python -m tests.benchmarks.raw_damage --sources scannet,video --dry
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from brickyard.curate.pipeline import CurateConfig, curate
from brickyard.ingest.clips import ClipOptions
from brickyard.ingest.damage import NAMELESS, OUTCOMES, Damaged, damage_matrix
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.export.pointcept import export_pointcept
from brickyard.shards.storage import Store
from tests.benchmarks.report import append, arguments, markdown

SMALL = SimulationConfig(
    scannet_rooms=2, scannet_frames=2, scannet_spacing=0.2, nuscenes_scenes=2, nuscenes_keyframes=2,
    nuscenes_panoptic=True, nuscenes_columns=90, kitti_frames=2, kitti_drives=2, kitti_drive_frames=2,
    kitti_columns=90, kitti_image_size=(310, 94), kitti_odometry_sequences=2, kitti_odometry_frames=2,
    kitti360_drives=2, kitti360_frames=2, video_walks=2, video_frames=24, s3dis_rooms=2, s3dis_views=2,
    s3dis_points=8000, pointfiles_pulses=4000, pointfiles_images=2, waymo_segments=2, waymo_frames=2,
    waymo_columns=120, waymo_rows=16, scannetpp_scenes=3, scannetpp_photographs=5, scannetpp_frames=6,
    scannetpp_spacing=0.2, scannetpp_size=(219, 146), scannetpp_frame_size=(240, 180), structured3d_houses=2,
    structured3d_rooms=1, structured3d_views=2, structured3d_panorama_size=(256, 128),
    structured3d_image_size=(128, 72), structured3d_packed=False,
    arkitscenes_captures=2, arkitscenes_frames=3, arkitscenes_spacing=0.2, arkitscenes_wide_size=(96, 72),
    ase_walks=2, ase_frames=2, hm3d_buildings=2, hm3d_rooms=1, hm3d_spacing=1.5,
)  # fmt: skip
PLACES = 10
WORDS = {"undetectable": "*cannot be told*", "UNNOTICED": "**not noticed**", "quarantined": "refused"}
DAMAGES = ("missing", "cut", "zeroed", "exchanged")


class Case(NamedTuple):
    """A source on its world: what `simulate` writes, the root in it, and options other than the defaults."""

    world: str
    root: str
    options: dict[str, Any]


CASES = {
    "scannet": Case("scannet", "scannet", {"frames_every": 1, "align_axes": True}),
    "scannetpp": Case("scannetpp", "scannetpp", {"iphone_views": 6}),
    "arkitscenes": Case("arkitscenes", "arkitscenes", {}),
    "ase": Case("ase", "ase", {"every": 1, "points": "semidense"}),
    "hm3d": Case("hm3d", "hm3d", {"density_m": 0.1}),
    "s3dis": Case("s3dis", "s3dis", {"rooms": "Stanford3dDataset_v1.2", "views": "2D-3D-S"}),
    "structured3d": Case("structured3d", "structured3d", {}),
    "nuscenes": Case("nuscenes", "nuscenes", {"sweeps": 2}),
    "waymo_v1": Case("waymo", "waymo/v1", {}),
    "waymo_v2": Case("waymo", "waymo/v2", {}),
    "kitti_object": Case("kitti", "kitti/object", {}),
    "kitti_raw": Case("kitti", "kitti/raw", {}),
    "kitti_odometry": Case("kitti_odometry", "kitti_odometry", {}),
    "kitti360": Case("kitti360", "kitti360", {}),
    "pointfiles": Case("pointfiles", "pointfiles", {}),
    "pointcept": Case("scannet", "pointcept", {}),
    "video": Case("video", "video", {"clips": ClipOptions(frames=8, rate_hz=8.0)}),
}


TOLD_BY_NOTHING = {
    ("*", "exchanged"): NAMELESS,
    ("kitti_object/points", "cut"): "the format has no header: what ends between two points is a shorter scan",
    ("kitti_raw/points", "cut"): "the format has no header: what ends between two points is a shorter scan",
    ("kitti360/points", "cut"): "the format has no header: what ends between two points is a shorter scan",
    ("nuscenes/sweep-#", "cut"): "the format has no header: what ends between two points is a shorter sweep",
    ("pointfiles/points", "missing"): "a folder of files has no list of them",
    ("video/video", "missing"): "a folder of files has no list of them",
    ("video/transforms", "missing"): "a folder of files has no list of them",
}
"""(source/role or *, damage) -> why nothing in the bytes could tell. All else must be noticed."""


def run(
    sources: Sequence[str] = tuple(CASES),
    *,
    config: SimulationConfig = SMALL,
    places: int = PLACES,
    dry: bool = False,
) -> list[dict[str, Any]]:
    """One row for each kind of file and damage, as `ingest.damage.Damaged`, with the source."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="brickyard-raw-damage-") as folder:
        worlds = Path(folder)
        simulate(worlds, datasets=sorted({CASES[name].world for name in sources}), seed=3, config=config)
        if "pointcept" in sources:
            write_pointcept(worlds / "scannet", worlds / "corpus", worlds / "pointcept")
        for name in sources:
            source, case = find_source(name), CASES[name]
            print(f"{name} ...", file=sys.stderr, flush=True)
            found = damage_matrix(source, str(worlds / case.root), source.options(**case.options), places=places)
            rows += [{"source": name, **asdict(excused(name, entry))} for entry in found]
    if not dry:
        append("raw_damage", {"places": places}, rows)
    return rows


def excused(source: str, entry: Damaged) -> Damaged:
    """The entry, called undetectable where it passed unnoticed and there is a reason for that."""
    reasons = [TOLD_BY_NOTHING.get((where, entry.damage)) for where in (f"{source}/{entry.role}", "*")]
    why = next(filter(None, reasons), None)
    if entry.outcome != "UNNOTICED" or why is None:
        return entry
    return replace(entry, outcome="undetectable", note=why)


def write_pointcept(raw: Path, corpus: Path, out: Path) -> None:
    """The rooms of a simulated ScanNet in Pointcept's layout, by way of a corpus."""
    source, store, fingerprint = find_source("scannet"), Store(corpus), {"rooms": "pointcept"}
    refs = [item for item in source.plan(Store(raw), source.options()) if isinstance(item, SceneRef)]
    bare = CurateConfig(superpixels=None, correspondences=None)
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    commit_task(store, 0, build, [encode_scene(curate(source.read(ref), bare)) for ref in refs], [])
    finish_build(store, 1, build, [], {})
    export_pointcept(Corpus.open(corpus), Store(out))


def pivot(rows: Sequence[dict[str, Any]]) -> str:
    """The table: a row for each kind of file, a column for each damage; "-" where it changed nothing."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        found = cells.setdefault((row["source"], _file(row)), {})
        found[row["damage"]] = max(row["outcome"], found.get(row["damage"], OUTCOMES[0]), key=OUTCOMES.index)
    lines = [
        {"source": f"`{source}`", "file": f"`{file}`"}
        | {damage: WORDS.get(word, word) for damage, word in found.items()}
        for (source, file), found in cells.items()
    ]
    return markdown(lines, {"source": "s source", "file": "s file"} | {damage: f"s {damage}" for damage in DAMAGES})


def _file(row: dict[str, Any]) -> str:
    """The kind of file, with one name for the six cameras and for the classes of a room's annotations."""
    role = re.sub("^CAM_[A-Z_]+$", "CAM_*", row["role"])
    if "/Annotations/" in row["path"]:
        role = "Annotations/*"
    return role if "." in role else f"{role} ({Path(row['path']).suffix})"


def main() -> None:
    parser = arguments(__doc__, places=PLACES)
    parser.add_argument("--sources", default=",".join(CASES), help="default: all")
    options = parser.parse_args()
    rows = run(options.sources.split(","), places=options.places, dry=options.dry)
    print(pivot(rows))
    for row in rows:
        if row["outcome"] == "UNNOTICED":
            print(f"{row['source']}: {row['role']} ({row['path']}) {row['damage']}: {row['note']}")


if __name__ == "__main__":
    main()
