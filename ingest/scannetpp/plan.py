"""Lists the scenes of a ScanNet++ download: some folder listings a scene, no payload is opened.

    data/<scene>/scans/    mesh_aligned_0.05.ply  segments.json  segments_anno.json
    data/<scene>/dslr/     colmap/{cameras,images}.txt  nerfstudio/transforms*.json  train_test_lists.json
                           resized_images/  resized_anon_masks/  resized_undistorted_images/  resized_undistorted_masks/
    data/<scene>/iphone/   rgb.mkv  rgb_mask.mkv  depth.bin  pose_intrinsic_imu.json  colmap/{cameras,images}.txt
    metadata/semantic_benchmark/{map_benchmark.csv,top100.txt,top100_instance.txt}     splits/*.txt

Which of these are there depends on what the downloader was asked for, so that all but the mesh is optional: what other
scenes of the release have and this one lacks is counted in `Scene.dropped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from brickyard.ingest.scannetpp.chunks import ChunkOptions, planned
from brickyard.ingest.scannetpp.clips import plan_clips
from brickyard.ingest.scannetpp.options import ScanNetPPOptions, device_files, wanted
from brickyard.ingest.scannetpp.splits import DATASET, SCENE, SplitLists, read_splits
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

MESH = "mesh_aligned_0.05.ply"
ANNOTATION = {"segments": "segments.json", "annotation": "segments_anno.json"}
BENCHMARK = "metadata/semantic_benchmark"
CLASS_LISTS = {"top100.txt": "scannetpp100", "top100_instance.txt": "scannetpp84"}
BYTES_PER_VERTEX = 41
"""15 bytes of a vertex and about 2 faces of 13 bytes each: mesh bytes -> vertices, for planning."""
BYTES_PER_PHOTOGRAPH = 900_000
BYTES_PER_FRAME = 600_000
UNUSED = {
    "panocam": "panoramas of the laser scanner",
    "scans/pc_aligned.ply": "all points of the laser scanner",
    "scans/mesh_aligned_0.05_mask.txt": "lists of vertices that were made anonymous",
}
"""What is seen in scenes and not read -> what it is."""
MAX_LIST = 1 << 16


def plan(store: Store, options: ScanNetPPOptions) -> Iterator[SceneRef | Missing]:
    """All scenes, or chunks of them, in the order of their ids.

    Yields a `Missing` for a scene that a list of the three splits names and whose mesh is not there, for a damaged
    list, and for the scenes whose split it may have named; a `Notice` for lists that are not there and for what is seen
    and not read. Raises `RawDataError` if the root is no download of ScanNet++, or has another class list than the one
    that is known; `RecipeError` if the option names another release than the lists are of.
    """
    if "data/" not in store.list():
        raise RawDataError(
            "no folder data/ is here", dataset=DATASET, path=store.uri,
            hint="the root is the folder that holds data/, splits/ and metadata/",
        )  # fmt: skip
    lists, there = read_splits(store), [name.rstrip("/") for name in store.list("data") if name.endswith("/")]
    if options.release and lists.release not in (None, options.release):
        raise RecipeError(
            f"scannetpp options: release is {options.release}, {store.uri} has the training list of {lists.release}"
        )
    scenes = sorted({name for name in there if SCENE.fullmatch(name)} | lists.splits.keys())
    yield from (Missing(dataset=DATASET, scene_id=path, reason=reason) for path, reason in lists.damaged.items())
    yield from _notices(lists, options)
    download = _Download(store, lists, _shared_files(store), options, Counter())
    absent = without_mesh = 0
    for scene in scenes:
        for item in _plan_scene(download, scene):
            if not isinstance(item, Missing):
                yield item
            elif options.partial and scene not in there:
                absent += 1
            elif scene not in lists.splits and scene in lists.new_views:
                without_mesh += 1
            else:
                yield item
    if absent:
        reason = f"{absent} scenes of the lists are not there, as `partial` says"
        yield Notice(dataset=DATASET, scene_id="splits", reason=reason)
    if without_mesh:
        reason = f"{without_mesh} scenes that are for new views alone have no mesh: they are not read"
        yield Notice(dataset=DATASET, scene_id="data", reason=reason)
    for what, count in sorted(download.unread.items()):
        reason = f"{UNUSED[what]}, in {count} scenes: not read"
        yield Notice(dataset=DATASET, scene_id=f"data/*/{what}", reason=reason)


def _notices(lists: SplitLists, options: ScanNetPPOptions) -> Iterator[Notice]:
    for path in lists.absent:
        reason = 'this list is not there: scenes that no other list names have the split "none"'
        yield Notice(dataset=DATASET, scene_id=path, reason=reason)
    if not options.release and lists.release is None:
        reason = "it has neither 230 scenes (v1) nor 856 (v2): the release is unknown, unless the option says it"
        yield Notice(dataset=DATASET, scene_id="splits/nvs_sem_train.txt", reason=reason)


def _shared_files(store: Store) -> dict[str, str]:
    """Role -> path of what all scenes use; the class lists must be those that the label sets were made of."""
    names = store.sizes(BENCHMARK)
    for name, known in CLASS_LISTS.items():
        path = f"{BENCHMARK}/{name}"
        if name not in names:
            continue
        text = store.read(path) if names[name] <= MAX_LIST else b""
        found = tuple(line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip())
        classes = taxonomy(known).classes
        if found != classes:
            first = next((k for k, pair in enumerate(zip(found, classes, strict=False)) if pair[0] != pair[1]), None)
            line = min(len(found), len(classes)) + 1 if first is None else first + 1
            raise RawDataError(
                f"this is not the list of {len(classes)} classes that is known", dataset=DATASET, path=path, line=line,
                hint="download it again; if it is whole, please report it: the dataset has changed",
            )  # fmt: skip
    return {"label_map": f"{BENCHMARK}/map_benchmark.csv"} if "map_benchmark.csv" in names else {}


@dataclass(frozen=True)
class _Download:
    """What all scenes share: the store, its lists, files for all, options, and a tally of what is seen and not read."""

    store: Store
    lists: SplitLists
    shared: Mapping[str, str]
    options: ScanNetPPOptions
    unread: Counter[str]

    @property
    def release(self) -> str:
        return self.options.release or self.lists.release or "unknown"


def _plan_scene(download: _Download, scene: str) -> Iterator[SceneRef | Missing]:
    store, folder = download.store, f"data/{scene}"
    split = download.lists.of(scene)
    scans = store.sizes(f"{folder}/scans")
    if split is None:
        reason = f"its split is unknown: no list names it, and {min(download.lists.damaged)} is damaged"
        yield Missing(dataset=DATASET, scene_id=scene, reason=reason)
    elif download.options.clips is not None:
        yield from plan_clips(store, scene, split, download.options, download.release)
    elif MESH not in scans:
        there = ", ".join(name.rstrip("/") for name in store.list(folder))
        whole = f"{there} is there" if there else "nothing of the scene is there (if that is on purpose: partial: true)"
        reason = f"{folder}/scans/{MESH} is missing, without which there are no points; {whole}"
        yield Missing(dataset=DATASET, scene_id=scene, reason=reason)
    else:
        yield from _cut(_whole(download, scene, split, scans), download.options.chunks)


def _whole(download: _Download, scene: str, split: str, scans: Mapping[str, int]) -> SceneRef:
    options, folder = download.options, f"data/{scene}"
    devices = download.store.list(folder)
    download.unread.update(what for what in UNUSED if f"{what}/" in devices or what.removeprefix("scans/") in scans)
    annotation = {role: f"{folder}/scans/{name}" for role, name in ANNOTATION.items() if name in scans}
    found = device_files(download.store, folder, devices, options)
    expected = ANNOTATION if split != "test" else {}  # the test set's is kept back
    absent = [f"scans/{name}" for role, name in expected.items() if role not in annotation]
    absent += [path for role, path in wanted(options) if role not in found]
    photographs = options.dslr_views if found.keys() & {"dslr_images", "transforms"} else 0
    frames = options.iphone_views if "arkit" in found else 0
    return SceneRef(
        dataset=DATASET,
        scene_id=scene,
        split=split,
        sequence=scene,
        root=download.store.uri,
        files={"mesh": f"{folder}/scans/{MESH}", **annotation, **found}
        | (dict(download.shared) if len(annotation) == len(ANNOTATION) else {}),
        details=asdict(options) | {"release": download.release, "folder": folder, "absent": absent, "chunk": None},
        points_estimate=max(1, scans[MESH] // BYTES_PER_VERTEX),
        bytes_estimate=sum(scans.get(name, 0) for name in (MESH, *ANNOTATION.values()))
        + photographs * BYTES_PER_PHOTOGRAPH
        + frames * BYTES_PER_FRAME,
    )


def _cut(whole: SceneRef, options: ChunkOptions | None) -> Iterator[SceneRef | Missing]:
    """The scene, or its chunks by column and row: how many there may be is known, a reader finds where they lie."""
    if options is None:
        yield whole
        return
    files = RawFiles(whole)
    try:
        columns, rows, vertices = planned(files, whole.files["mesh"], options)
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=str(problem))
        return
    finally:
        files.store.close()
    overlap = (options.size_m / options.stride_m) ** 2
    for column in range(columns):
        for row in range(rows):
            chunk = {
                "column": column, "row": row, "columns": columns, "rows": rows,
                "size": options.size_m, "stride": options.stride_m,
            }  # fmt: skip
            yield replace(
                whole,
                scene_id=f"{whole.scene_id}/chunk-{column}-{row}",
                details={**whole.details, "chunk": chunk},
                points_estimate=max(1, min(vertices, int(vertices * overlap / (columns * rows)))),
            )
