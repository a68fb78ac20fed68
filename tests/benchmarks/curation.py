"""What curators find of planted defects, and how long a million scenes take.

    python -m tests.benchmarks.curation [--worlds 2] [--scenes 1000000] [--dry]

Simulated rooms and streets are built as they are and again with one defect each; the recipe `RECIPE` judges them all.
Its limits were set on the world of seed 0, which is not among those that are measured; those of pitch and yaw were
tightened after a first run on the world of seed 1. A calibration error turns the
cameras of a whole sequence about one axis; a copy has its pictures compressed again, its points thinned out, moved by a
centimetre and turned.
"""

from __future__ import annotations

import io
import re
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from brickyard.curate.describe.describe import Embed, describe
from brickyard.curate.selections.candidates import Candidates
from brickyard.curate.selections.curate import CurationRecipe, run_curators
from brickyard.infra.config import load
from brickyard.infra.verbs.describe import network
from brickyard.ingest.simulate import simulate
from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.encode import summarise
from brickyard.shards.images import decode
from brickyard.shards.index import SCHEMA
from brickyard.shards.scene import Float64, Points, Scene, View
from brickyard.shards.storage import Store
from tests.benchmarks.report import append, arguments, table

CALIBRATION = """
  - filter: {at_least: {pitch_off_degrees: -0.2, yaw_off_degrees: -0.2, roll_off_degrees: -0.6},
             at_most: {pitch_off_degrees: 0.2, yaw_off_degrees: 0.2, roll_off_degrees: 0.6},
             over: sequence, unknown: keep}
  - filter: {at_least: {pitch_off_degrees: -0.15, yaw_off_degrees: -0.15, roll_off_degrees: -0.25},
             at_most: {pitch_off_degrees: 0.15, yaw_off_degrees: 0.15, roll_off_degrees: 0.25},
             domains: [indoor], over: sequence, unknown: keep}
"""
BLUR = "\n  - filter: {at_least: {sharpness: 0.3}, unknown: keep}\n"
BLANK = "\n  - filter: {at_most: {blank_share: 0.1}, unknown: keep}\n"
FROZEN = "\n  - filter: {at_most: {frozen_share: 0.5}, unknown: keep}\n"
UNITS = "\n  - filter: {at_least: {height_m: 0.5}, at_most: {height_m: 100}, unknown: keep}\n"
COPIES = """
  - deduplicate: {by: pictures}
  - deduplicate: {by: embedding}
"""
GUARD = "\n  - guard: {}\n"
RECIPE = UNITS + BLANK + BLUR + FROZEN + CALIBRATION + COPIES + GUARD
"""The limits are for these worlds: another camera has another sharpness."""
SMALL = SimulationConfig(scannet_rooms=2, scannet_frames=5, nuscenes_scenes=3, nuscenes_keyframes=2, kitti_frames=1,
                         kitti_drives=1, kitti_drive_frames=1)  # fmt: skip
WHOLE = SimulationConfig(scannet_rooms=12, nuscenes_scenes=10, kitti_frames=1, kitti_drives=4, kitti_drive_frames=4)


def scenes_of(folder: Path, seed: int, config: SimulationConfig) -> Iterator[Scene]:
    """Rooms and streets of one simulated world."""
    simulate(folder, datasets=["scannet", "nuscenes", "kitti"], seed=seed, config=config)
    for dataset, root in (("scannet", "scannet"), ("nuscenes", "nuscenes"), ("kitti_raw", "kitti/raw")):
        source = find_source(dataset)
        options = source.options(**({"frames_every": 1, "max_frames": 8} if dataset == "scannet" else {}))
        for ref in source.plan(Store(folder / root), options):
            if isinstance(ref, SceneRef):
                yield source.read(ref)


def pictured(scene: Scene, change: Callable[[Image.Image], Image.Image], quality: int = 92) -> Scene:
    """The scene with other pictures of the same size."""

    def changed(view: View) -> View:
        file = io.BytesIO()
        change(Image.fromarray(decode(view.image))).save(file, "JPEG", quality=quality)
        return replace(view, image=file.getvalue(), image_format="jpeg")

    return replace(scene, views=tuple(changed(view) for view in scene.views))


def moved(scene: Scene, motion: Float64, points: Points) -> Scene:
    """Points as given, cameras moved."""
    views = tuple(
        view if view.scene_from_camera is None else replace(view, scene_from_camera=motion @ view.scene_from_camera)
        for view in scene.views
    )
    return replace(scene, points=points, views=views)


def rotation(axis: Float64, degrees: float) -> Float64:
    """float64 (4, 4), by Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.radians(degrees)
    found = np.eye(4)
    found[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return found


def named(scene: Scene, mark: str, **identity: Any) -> Scene:
    """Under another name."""
    return replace(scene, identity=replace(scene.identity, scene_id=f"{scene.identity.scene_id}-{mark}", **identity))


def near_copy(scene: Scene, seed: int = 0) -> Scene:
    """Scanned again, nearly: compressed again, fewer points, a centimetre of noise, turned about the vertical."""
    assert scene.points is not None
    rng = np.random.default_rng(seed)
    kept = rng.random(len(scene.points)) < 0.6
    turn = rotation(np.array([0.0, 0, 1]), 40)
    xyz = scene.points.xyz[kept] @ turn[:3, :3].T + rng.normal(0, 0.01, (int(kept.sum()), 3))
    again = pictured(scene, lambda image: image, quality=60)
    return moved(again, turn, Points(xyz=xyz.astype(np.float32), ring=_kept(scene.points.ring, kept)))


def _kept(values: Any, kept: Any) -> Any:
    return None if values is None else values[kept]


def miscalibrated(scene: Scene, degrees: float) -> Scene:
    """Every camera turned about its own centre, all of a sequence about the same axis of the vehicle (or the scan)."""
    axis = np.random.default_rng(abs(hash_of(scene.identity.sequence))).normal(size=3)
    turn = rotation(axis, degrees)

    def turned(view: View) -> View:
        if view.scene_from_camera is None:
            return view
        pose = view.scene_from_camera.copy()
        pose[:3, :3] = pose[:3, :3] @ turn[:3, :3]
        return replace(view, scene_from_camera=pose)

    return replace(scene, views=tuple(turned(view) for view in scene.views))


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[-6:], "big")


def frozen(scene: Scene) -> Scene:
    """All frames have the pose of the first: what a tracker that is lost writes."""
    first = next(view.scene_from_camera for view in scene.views if view.scene_from_camera is not None)
    return replace(scene, views=tuple(replace(view, scene_from_camera=first) for view in scene.views))


def in_millimetres(scene: Scene) -> Scene:
    assert scene.points is not None
    scale = np.diag([1.0, 1, 1, 1])
    return moved(scene, scale, replace(scene.points, xyz=scene.points.xyz * np.float32(1000)))


def half_black(scene: Scene) -> Scene:
    black = pictured(scene, lambda image: Image.new("RGB", image.size))
    pairs = enumerate(zip(scene.views, black.views, strict=True))
    return replace(scene, views=tuple(dark if k % 2 else light for k, (light, dark) in pairs))


Spoil = Callable[[Scene], Scene]
SPOILED: dict[str, tuple[str, Spoil]] = {
    "cameras turned by 0.5 degrees": (CALIBRATION, lambda scene: miscalibrated(scene, 0.5)),
    "cameras turned by 1 degree": (CALIBRATION, lambda scene: miscalibrated(scene, 1)),
    "cameras turned by 2 degrees": (CALIBRATION, lambda scene: miscalibrated(scene, 2)),
    "blurred pictures": (BLUR, lambda scene: pictured(scene, lambda image: image.filter(ImageFilter.GaussianBlur(6)))),
    "every other picture black": (BLANK, half_black),
    "frozen poses": (FROZEN, frozen),
    "millimetres for metres": (UNITS, in_millimetres),
}
"""Defect -> the rule that is to find it, and how it is planted in a scene."""


REFUSED = ("filter", "deduplicate", "guard: looks", "guard: its pictures")
"""Beginnings of reasons that no clean scene of these worlds should have."""
NEIGHBOURS_NS = 350_000_000


class Counts(NamedTuple):
    """Scenes."""

    defect: str
    planted: int
    found: int
    clean: int
    refused: int


def false_alarms(judgement: Candidates) -> int:
    """Clean scenes that were refused. Neighbours of a drive at 10 Hz that show the same are copies by right."""
    columns = judgement.table.select(["key", "dataset", "sequence", "timestamp_ns"]).to_pylist()
    scene = {row["key"]: row for row in columns}
    wrong = 0
    for key, why in zip(judgement.keys, judgement.reason, strict=True):
        copy_of = re.match(r"deduplicate: as (\S+) by", why)
        one, other = scene[key], scene[copy_of[1]] if copy_of else None
        times = [row["timestamp_ns"] for row in (one, other) if row and row["timestamp_ns"] is not None]
        beside = other is not None and one["sequence"] == other["sequence"] and len(times) == 2
        wrong += why.startswith(REFUSED) and not (beside and abs(times[0] - times[1]) < NEIGHBOURS_NS)
    return wrong


def described_rows(scenes: Sequence[Scene], embed: Embed | None) -> pa.Table:
    """The described index of scenes that are in no corpus."""
    names = ("key", "dataset", "version", "split", "sequence", "scene_id", "domain", "licence", "timestamp_ns")
    rows = [
        {name: getattr(scene.identity, name) for name in names}
        | summarise(scene) | describe(scene, embed).columns() | {"shard": "none", "blobs": []}
        for scene in scenes
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def judged(rows: pa.Table, steps: str) -> Candidates:
    return run_curators(rows, load("curators:" + steps, CurationRecipe, where="recipe"))


def found_in(scenes: list[Scene], embed: Embed | None, recipe: str = RECIPE, copies: str = COPIES) -> list[Counts]:
    """Of every defect: scenes that have it, and were found; clean scenes, and how many the same rule refuses."""
    whole = described_rows(scenes, embed)
    counts = [Counts("none", 0, 0, len(scenes), false_alarms(judged(whole, recipe)))]
    for name, (rule, spoil) in SPOILED.items():
        concerned = [s for s in scenes if name != "frozen poses" or s.identity.domain == "indoor"]
        spoiled = judged(described_rows([spoil(scene) for scene in concerned], embed), rule)
        alarms = false_alarms(judged(whole, rule))
        counts.append(Counts(name, len(concerned), int((spoiled.weight == 0).sum()), len(scenes), alarms))
    train = [scene for scene in scenes if scene.identity.split != "val"]
    alarms = false_alarms(judged(whole, copies))
    for name, make in (("exact copy", lambda scene: scene), ("near copy", near_copy)):
        added = [named(make(scene), "copy") for scene in train[::2]]
        out = gone(judged(pa.concat_tables([whole, described_rows(added, embed)]), copies))
        pairs = sum(copy.identity.key in out or copy.identity.key[:-5] in out for copy in added)
        counts.append(Counts(name, len(added), pairs, len(scenes), alarms))
    return [*counts, _leaks(scenes, whole, embed)]


def _leaks(scenes: list[Scene], whole: pa.Table, embed: Embed | None) -> Counts:
    """Near copies of validation scenes as training scenes of another dataset."""
    val = [scene for scene in scenes if scene.identity.split == "val"]
    leaks = [named(near_copy(scene), "leak", dataset="elsewhere", split="train", sequence=f"s{k}")
             for k, scene in enumerate(val)]  # fmt: skip
    guard = GUARD if embed is not None else "\n  - guard: {look_alike: 0}\n"
    alarms = false_alarms(judged(whole, guard))
    out = gone(judged(pa.concat_tables([whole, described_rows(leaks, embed)]), guard))
    found = sum(leak.identity.key in out for leak in leaks)
    return Counts("near copy of a validation scene in another dataset", len(leaks), found, len(scenes), alarms)


def gone(scenes: Candidates) -> set[str]:
    return {key for key, weight in zip(scenes.keys, scenes.weight, strict=True) if not weight}


def defects(worlds: Sequence[int], config: SimulationConfig) -> list[dict[str, Any]]:
    """A row for each defect, over all worlds."""
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    embed = network()
    for seed in worlds:
        with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as folder:
            for name, *numbers in found_in(list(scenes_of(Path(folder), seed, config)), embed):
                total[name] = [a + b for a, b in zip(total[name], numbers, strict=True)]
    return [
        {"defect": name, "planted": n, "found": k, "recall": k / n if n else None, "clean": clean, "refused": wrong,
         "alarms": wrong / clean, "precision": k / (k + wrong) if k else None}
        for name, (n, k, clean, wrong) in total.items()
    ]  # fmt: skip


def drawn_index(scenes: int) -> pa.Table:
    """Rows that nobody has scanned, in clusters as streets and rooms are; the last tenth copy the first."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(1000, 128)).astype(np.float32)
    vectors = middles[rng.integers(0, 1000, scenes)] + rng.normal(size=(scenes, 128)).astype(np.float32)
    copies = scenes // 10
    vectors[-copies:] = vectors[:copies] + 0.05 * rng.normal(size=(copies, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = rng.integers(0, 1 << 63, (scenes, 4), dtype=np.uint64)
    offsets = pa.array(np.arange(0, scenes * 128 + 1, 128, dtype=np.int32))
    number = [str(k) for k in range(scenes)]
    columns: dict[str, Any] = {
        "key": [f"d/{k}" for k in number], "scene_id": number, "sequence": number,
        "dataset": ["b" if k % 4 == 0 else "a" for k in range(scenes)],
        "hashes": pa.array(hashes.tolist(), pa.list_(pa.uint64())),
        "split": ["val" if k % 50 == 0 else "train" for k in range(scenes)],
        "n_points": rng.integers(1000, 200_000, scenes),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float16).ravel())),
    }  # fmt: skip

    def column(field: pa.Field) -> pa.Array:
        if field.name in columns:
            return pa.array(columns[field.name], field.type)
        if field.nullable:
            return pa.nulls(scenes, field.type)
        value: Any = [] if pa.types.is_list(field.type) else 0 if pa.types.is_integer(field.type) else "x"
        return pa.repeat(pa.scalar(value, field.type), scenes)

    return pa.Table.from_arrays([column(field) for field in SCHEMA], schema=SCHEMA)


def scale(scenes: int) -> dict[str, Any]:
    """Time and memory of curating a drawn index by every curator; what this process held before is counted, too."""
    rows = drawn_index(scenes)
    begin, work = time.perf_counter(), time.process_time()
    steps = "\n  - filter: {at_least: {n_points: 2000}}" + COPIES + GUARD + "  - balance: {rarity: 0.5}\n"
    done = judged(rows, steps + f"  - diversity: {{scenes: {scenes // 2}}}\n")
    seconds, work = time.perf_counter() - begin, time.process_time() - work
    why = dict(zip((int(key[2:]) for key in done.keys), done.reason, strict=True))
    refused = {k for k, reason in why.items() if reason.startswith("deduplicate")}
    small = {k for k, reason in why.items() if reason.startswith("filter")}
    there = scenes - scenes // 10
    planted = [(k, k + there) for k in range(scenes // 10) if not {k, k + there} & small]
    found = sum(bool({*pair} & refused) for pair in planted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "scenes": scenes,
        "seconds": seconds,
        "work": work,
        "gib": peak,
        "copies": len(planted),
        "found": found,
        "refused": len(refused),
    }


COLUMNS = {
    "defect": "s defect", "planted": "d scenes with it", "found": "d found", "recall": ".1% found",
    "clean": "d clean scenes", "refused": "d refused", "precision": ".1% precision",
}  # fmt: skip


SCALE = {
    "scenes": ",d scenes", "seconds": ".0f seconds", "work": ".0f of a core",
    "gib": ".1f GiB at most", "copies": ",d copies planted",
    "found": ",d found", "refused": ",d refused as copies",
}  # fmt: skip


def run(*, worlds: int = 2, scenes: int = 1_000_000, dry: bool = False) -> list[dict[str, Any]]:
    """Measure, print, append the record."""
    size = scale(scenes)
    table("Drawn scenes", [size], SCALE)
    rows = defects(range(1, 1 + worlds), WHOLE) if worlds else []
    table("Planted defects", rows, COLUMNS)
    if not dry:
        append("curation", {"worlds": worlds, "recipe": RECIPE}, rows, scale=size)
    return rows


if __name__ == "__main__":
    run(**vars(arguments(__doc__, worlds=2, scenes=1_000_000).parse_args()))
