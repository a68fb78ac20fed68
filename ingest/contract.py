"""What every source promises, as one call for the tests of whoever writes one.

    def test_my_source_keeps_its_promises(tmp_path):
        write_a_few_scenes(tmp_path)
        assert_source_ok(SOURCE, str(tmp_path))

It plans twice, reads the first scenes twice (backwards first: no scene may need the one before it) and the first one
once more for each of its files cut to half; then it plans and reads once more from a store that is not local, and once
more among what file managers leave beside data. That costs about 2 * scenes + files of a scene + 2 readings: a small
folder is enough. While it plans it counts what goes through `Store` in the whole process, so nothing else should use
one then. `ingest.damage` goes on from here: which damage to its files a source notices.
What no data can tell stays unchecked: that the axes mean what the dataset says. Project known points for that.

Pickling is not tried, because nothing here unpickles. A deep copy runs the same protocol object by object (it refuses
locks, open files, generators), and a reference must survive JSON: the last scene of a source that is installed is also
read in a new interpreter that gets nothing but the reference, as a worker on another machine does.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from brickyard.ingest.elsewhere import litter, mirror, opened_below, remote
from brickyard.ingest.sameness import first_difference
from brickyard.ingest.sameness import scene_digest as scene_digest  # noqa: PLC0414
from brickyard.ingest.source import Missing, Notice, SceneRef, Source, find_source, source_names
from brickyard.shards.errors import BrickyardError, RawDataError, SceneError
from brickyard.shards.scene import Float64, Scene, View
from brickyard.shards.storage import Store

PEEK_BYTES = 64 << 10
"""Planning may look at so much of a point file or image: a header, never the payload."""

PLAN_BYTES = 1 << 20
PLAN_SHARE = 0.05
"""Planning may read so many bytes in all, or this share of the bytes of all planned files if that is more."""

MAX_EXTENT_M = {"indoor": 500.0, "outdoor": 10_000.0, "object": 500.0, "video": 10_000.0}
"""No coordinate of a scene lies farther from its origin. Most data left in millimetres break this."""

Item: TypeAlias = SceneRef | Missing

_IMAGES = (".jpg", ".jpeg", ".png")


def assert_source_ok(source: Source, folder: str, options: object | None = None, *, scenes: int = 3) -> None:
    """Hold a source against the protocol of `ingest.source` on a folder of its raw data.

    Args:
        folder: path or URI of the dataset's root.
        options: of type `source.options`; its defaults if None.
        scenes: how many scenes are read, the first ones of the plan.

    Raises:
        AssertionError: the first broken promise, in one sentence with the scene and file concerned.
    """
    options = source.options() if options is None else options
    refs = _check_plan(source, folder, options)
    chosen = refs[:scenes]
    _that(bool(chosen), f"{source.dataset}: the plan of {folder} holds no scene that could be read")
    gc.collect()  # nothing of the plan is left but copies of its references
    first = [_read(source, ref) for ref in reversed(chosen)][::-1]
    for ref, scene in zip(chosen, first, strict=True):
        _check_identity(ref, scene)
        _check_frames(ref.key, scene)
        again = _read(source, ref)
        difference = first_difference(scene, again)
        _that(difference is None, f"{ref.key}: reading it twice gives different values in {difference}")
    _check_worker(source, chosen[-1], first[-1])
    _check_truncations(source, chosen[0], first[0])
    if Store(folder).local:
        items = _plan(source, folder, options)
        _check_remote(source, folder, options, items, first[-1])
        _check_litter(source, folder, options, items, first[-1])


def _that(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _check_plan(source: Source, folder: str, options: object) -> list[SceneRef]:
    """Plan twice; returns deep copies of the references."""
    with watch_store(folder) as watch:
        items = _plan(source, folder, options)
    texts = [_plain_text(source, item) for item in items]
    again = [_plain_text(source, item) for item in _plan(source, folder, options)]
    _that(texts == again, f"{source.dataset}: planning twice gives different scenes or another order")
    keys: set[str] = set()
    for item in items:
        _that(item.key not in keys, f"{item.key}: the plan yields this key twice")
        keys.add(item.key)
        _that(item.dataset == source.dataset, f"{item.key}: planned under another dataset than {source.dataset!r}")
    refs = [copy.deepcopy(item) for item in items if isinstance(item, SceneRef)]
    sizes: dict[str, int] = {}
    for ref in refs:
        sizes |= _check_files(ref)
    payloads = {path for ref in refs for role, path in ref.files.items() if _is_payload(role, path)}
    for path in sorted(payloads & (watch.whole | watch.aside)):
        _that(False, f"{source.dataset}: planning opens the payload {path}; list it and take its size, `read` opens it")
    for path in sorted(payloads):
        count = watch.bytes.get(path, 0)
        _that(count <= PEEK_BYTES, f"{source.dataset}: planning reads {count} bytes of the payload {path}")
    total, allowed = sum(watch.bytes.values()), max(PLAN_BYTES, int(PLAN_SHARE * sum(sizes.values())))
    _that(total <= allowed, f"{source.dataset}: planning reads {total} bytes, {allowed} are enough for tables")
    return refs


def _plan(source: Source, folder: str, options: object) -> list[Item]:
    try:
        return list(source.plan(Store(folder), options))
    except BrickyardError as problem:
        raise AssertionError(f"{source.dataset}: {folder} cannot be planned: {problem}") from problem
    except Exception as problem:
        raise AssertionError(
            f"{source.dataset}: planning raises {type(problem).__name__} ({problem}); a bad file must not end the plan"
        ) from problem


def _plain_text(source: Source, item: object) -> str:
    """The item as JSON, which proves that it is plain data, and is what two plans are compared by."""
    if isinstance(item, Missing):
        _that(bool(item.reason), f"{item.key}: a Missing needs a reason for people")
    elif not isinstance(item, SceneRef):
        raise AssertionError(f"{source.dataset}: the plan yields {type(item).__name__}, no SceneRef or Missing")
    try:
        entries = asdict(item)
        same = type(item)(**copy.deepcopy(entries)) == item
        text = json.dumps(entries)
    except (TypeError, ValueError) as problem:
        raise AssertionError(
            f"{item.key}: the reference is not plain data, it could not travel to a worker: {problem}"
        ) from problem
    _that(same, f"{item.key}: a copy of the reference is not equal to it")
    return text


def _check_files(ref: SceneRef) -> dict[str, int]:
    """Path -> bytes of the files of a reference, all inside its root and there."""
    store, sizes = Store(ref.root), {}
    for role, path in ref.files.items():
        try:
            size = store.size(path)
        except BrickyardError as problem:
            raise AssertionError(f"{ref.key}: the {role} file {path!r} leaves the root: {problem}") from problem
        if size is None:
            raise AssertionError(f"{ref.key}: the planned {role} file {path} is not there; yield Missing instead")
        sizes[path] = size
    _that(ref.bytes_estimate > 0, f"{ref.key}: bytes_estimate is {ref.bytes_estimate}, shards are planned by it")
    _that(ref.points_estimate >= 0, f"{ref.key}: points_estimate is {ref.points_estimate}")
    return sizes


def _is_payload(role: str, path: str) -> bool:
    return role == "points" or path.lower().endswith(_IMAGES)


@dataclass
class _Watch:
    """What went through `Store`: bytes by path, files read whole, files opened without it."""

    bytes: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)


@contextmanager
def watch_store(folder: str) -> Iterator[_Watch]:
    """Count the reads of every `Store`, and notice local files below the folder that are opened past it."""
    watch, root, inside = _Watch(), Store(folder).path("") + "/", []
    methods = {name: getattr(Store, name) for name in ("read", "read_range", "read_into")}

    def note(store: Store, name: str, count: int) -> str:
        path = store.path(name).removeprefix(root)
        watch.bytes[path] = watch.bytes.get(path, 0) + count
        return path

    def counted(method: Any, count: Callable[[Any], int]) -> Any:
        def call(self: Store, name: str, *arguments: Any) -> Any:
            inside.append(name)
            try:
                result = method(self, name, *arguments)
            finally:
                inside.pop()
            if not inside:  # one method may be written with another
                path = note(self, name, count(result))
                if method is methods["read"]:
                    watch.whole.add(path)
            return result

        return call

    for name, method in methods.items():
        setattr(Store, name, counted(method, int if name == "read_into" else len))
    try:
        with opened_below(Store(folder).path(""), lambda: not inside) as watch.aside:
            yield watch
    finally:
        for name, method in methods.items():
            setattr(Store, name, method)


def _read(source: Source, ref: SceneRef) -> Scene:
    try:
        scene = source.read(copy.deepcopy(ref))
        _that(isinstance(scene, Scene), f"{ref.key}: read returns {type(scene).__name__}, no Scene")
        return scene.validate()
    except RawDataError as problem:
        raise AssertionError(f"{ref.key}: whole files are refused: {problem}") from problem
    except SceneError as problem:
        raise AssertionError(f"{ref.key}: the scene breaks its contract: {problem}") from problem


def _check_identity(ref: SceneRef, scene: Scene) -> None:
    identity = scene.identity
    for name in ("dataset", "scene_id", "split", "sequence"):
        planned, read = getattr(ref, name), getattr(identity, name)
        _that(planned == read, f"{ref.key}: planned with {name} {planned!r} and read with {read!r}")
    _that(bool(identity.licence), f"{ref.key}: the licence is empty; give an SPDX id or LicenseRef-{ref.dataset}")
    _that(bool(identity.version), f"{ref.key}: the dataset's version is empty")
    _that(ref.points_estimate > 0 or scene.points is None, f"{ref.key}: points_estimate is 0, but it has points")
    _that(bool(identity.sources), f"{ref.key}: no raw file is recorded in Identity.sources; read through RawFiles")
    store = Store(ref.root)
    for file in identity.sources:
        size = store.size(file.path)
        _that(size == file.size, f"{ref.key}: {file.path} is recorded with {file.size} bytes and has {size}")


def _check_frames(key: str, scene: Scene) -> None:
    """Metres near the origin, cameras near the points, and some point in some image."""
    limit = MAX_EXTENT_M[scene.identity.domain]
    poses = [view.scene_from_camera for view in scene.views if view.scene_from_camera is not None]
    places = np.array([pose[:3, 3] for pose in poses]).reshape(-1, 3)
    xyz = np.empty((0, 3)) if scene.points is None else scene.points.xyz.astype(np.float64)
    for what, values in (("point", xyz), ("camera", places)):
        far = float(np.abs(values).max(initial=0.0))
        _that(
            far <= limit,
            f"{key}: a {what} lies {far:.0f} m from the origin, {limit:.0f} m are plausible for the domain "
            f"{scene.identity.domain!r}; are these metres, and is the way to the world in world_from_scene?",
        )
    if not len(xyz) or not poses:
        return
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    margin = max(10.0, float(np.linalg.norm(high - low)))
    away = float(np.maximum(np.maximum(low - places, places - high), 0).max())
    _that(away <= margin, f"{key}: a camera lies {away:.0f} m outside the points' box; is its pose scene_from_camera?")
    simple = [view for view in scene.views if view.camera_model == "pinhole" and view.scene_from_camera is not None]
    seen = not simple or any(_sees_a_point(xyz, view) for view in simple)
    _that(seen, f"{key}: no point falls into any image; scene_from_camera leads from x right, y down, z forward")


def _sees_a_point(xyz: Float64, view: View) -> bool:
    pose = view.scene_from_camera
    if pose is None:
        return False
    pixel = (xyz - pose[:3, 3]) @ pose[:3, :3] @ view.intrinsics.T
    ahead = pixel[pixel[:, 2] > 0]
    column, row = ahead[:, 0] / ahead[:, 2], ahead[:, 1] / ahead[:, 2]
    return bool(((column > -0.5) & (row > -0.5) & (column < view.width - 0.5) & (row < view.height - 0.5)).any())


_WORKER = """
import json, sys
from brickyard.ingest.sameness import scene_digest
from brickyard.ingest.source import SceneRef, find_source
ref = SceneRef(**json.load(sys.stdin))
print(scene_digest(find_source(ref.dataset).read(ref)))
"""


def _check_worker(source: Source, ref: SceneRef, scene: Scene) -> None:
    """The same scene in a new interpreter, where nothing of the plan ever was; only for an installed source."""
    if source.dataset not in source_names() or find_source(source.dataset) is not source:
        return
    done = subprocess.run(
        [sys.executable, "-c", _WORKER], input=json.dumps(asdict(ref)), capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    _that(done.returncode == 0, f"{ref.key}: cannot be read in a new process from its reference alone: {last}")
    same = done.stdout.split()[-1:] == [scene_digest(scene)]
    _that(same, f"{ref.key}: another scene is read in a new process from its reference alone")


def _check_remote(source: Source, folder: str, options: object, items: Sequence[Item], scene: Scene) -> None:
    """The same plan and the same scene from a store that is not local, and nothing opened past it."""
    root = Store(folder).path("")
    with opened_below(root) as aside, remote(folder) as address:
        there = _plan(source, address, options)
        different = [item.key for item, other in zip(items, there, strict=False) if _moved(item, address) != other]
        if different or len(there) != len(items):
            what = different[0] if different else f"{len(there)} instead of {len(items)} scenes"
            _that(False, f"{source.dataset}: from a remote store it plans {what} in another way; use `store.uri`")
        ref = next(item for item in there if item.key == scene.identity.key and isinstance(item, SceneRef))
        try:
            difference = first_difference(scene, _read(source, ref))
        except OSError as problem:
            raise AssertionError(f"{ref.key}: cannot be read from a remote store: {problem}") from problem
    _that(difference is None, f"{scene.identity.key}: from a remote store other values are read in {difference}")
    for path in sorted(aside):
        _that(False, f"{source.dataset}: {path} is opened past the Store; a remote store has no such path")


def _check_litter(source: Source, folder: str, options: object, items: Sequence[Item], scene: Scene) -> None:
    """What file managers and damaged disks have beside the data changes no scene."""
    with tempfile.TemporaryDirectory(prefix="brickyard-contract-") as place:
        root = Path(place).resolve() / Path(Store(folder).path("")).name
        litter(root, mirror(folder, root))
        store = Store(root)
        there = _plan(source, store.uri, options)
        scenes = [_moved(item, store.uri) for item in items if not isinstance(item, Notice)]
        same = scenes == [item for item in there if not isinstance(item, Notice)]
        _that(same, f"{source.dataset}: companions of file managers beside the data change the plan; list by `Store`")
        ref = next(item for item in there if item.key == scene.identity.key and isinstance(item, SceneRef))
        difference = first_difference(scene, _read(source, ref))
        _that(difference is None, f"{ref.key}: companions of file managers beside the data change {difference}")


def _moved(item: Item, root: str) -> Item:
    return replace(item, root=root) if isinstance(item, SceneRef) else item


def _check_truncations(source: Source, ref: SceneRef, scene: Scene) -> None:
    """Each file of the scene cut to half, in a copy: a Scene (the rest was enough) or a `RawDataError`."""
    raw = Store(ref.root)
    paths = sorted({*ref.files.values(), *(file.path for file in scene.identity.sources)})
    with tempfile.TemporaryDirectory(prefix="brickyard-contract-") as folder:
        copied = Store(folder)
        for path in paths:
            copied.write(path, raw.read(path))
        for path in paths:
            data = raw.read(path)
            copied.write(path, data[: len(data) // 2])
            _check_damaged(source, replace(copy.deepcopy(ref), root=folder), path)
            copied.write(path, data)


def _check_damaged(source: Source, ref: SceneRef, path: str) -> None:
    try:
        found: object = source.read(ref)
        if isinstance(found, Scene):
            found.validate()
    except RawDataError:
        return
    except Exception as problem:
        raise AssertionError(
            f"{ref.key}: with half of {path}, read raises {type(problem).__name__} ({problem}); "
            "what is wrong with the bytes must be a RawDataError"
        ) from problem
    _that(isinstance(found, Scene), f"{ref.key}: with half of {path}, read returns {type(found).__name__}, no Scene")
