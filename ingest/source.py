"""The protocol every dataset follows: plan (list scenes without opening payloads), then read (one scene at a time).

A dataset is one package with one public name, `SOURCE`. `plan` runs once, on the driver; what it yields is picklable
and self-contained, so `read` runs anywhere and never needs another scene, a table or the plan:

    for item in SOURCE.plan(Store("/data/kitti"), SOURCE.options()):
        if isinstance(item, SceneRef):
            scene = SOURCE.read(item)
        else:
            print(item.reason)  # Missing: a scene the dataset should have and has not; Notice: what is not used

Readers raise `RawDataError` for anything wrong with a scene's bytes; the build quarantines that scene and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import xxhash

from brickyard.ingest import simulated
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.plugins import find_plugin, plugin_names
from brickyard.shards.scene import Scene, SourceFile
from brickyard.shards.storage import Store

GROUP = "brickyard.sources"
"""Of the entry points by which sources are found."""

CALLED = "called"
"""Among the details of a reference: the name of its dataset, of a source that reads a layout, not one dataset."""

MAX_FILE_BYTES = 4 << 30
"""No single raw file is loaded whole beyond this; streams such as `.sens` are read by ranges instead."""


@dataclass(frozen=True, kw_only=True)
class SceneRef:
    """All that is needed to read one scene, on any machine.

    Attributes:
        dataset: name of the source that reads it.
        scene_id, split, sequence: as in `shards.scene.Identity`.
        root: path or URI of the dataset's root folder.
        files: role -> path relative to the root, such as {"points": "training/velodyne/000000.bin"}.
        details: JSON-like values (calibration, poses, sizes, options) that `read` needs besides the files; `CALLED`
            among them is the dataset's name in the corpus, where it is another than the source's.
        points_estimate, bytes_estimate: raw points and raw bytes of this scene, for planning shards and memory.
    """

    dataset: str
    scene_id: str
    split: str
    sequence: str
    root: str
    files: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    points_estimate: int = 0
    bytes_estimate: int = 0

    @property
    def key(self) -> str:
        return f"{self.details.get(CALLED, self.dataset)}/{self.scene_id}"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A scene the dataset's own lists promise but whose files are not there; it goes to quarantine with its reason."""

    dataset: str
    scene_id: str
    reason: str

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.scene_id}"


@dataclass(frozen=True, kw_only=True)
class Notice(Missing):
    """What the plan saw below the root and does not use, such as pictures of a format that is not read.

    No scene of the dataset's lists is lost by it: it is printed and kept in the manifest, and changes no exit code.
    `scene_id` is the file or folder concerned, relative to the root.
    """


@dataclass(frozen=True)
class Source:
    """A dataset.

    What lies in a root that `brickyard simulate` wrote (see `ingest.simulated`) is known as simulated, whatever the
    reader says: its references say so, its scenes have the licence and the version of simulated worlds.

    Attributes:
        dataset: name used in recipes.
        options: frozen dataclass of the dataset's options with defaults; the recipe's `options` are checked against it.
        plan: lists the scenes below a root in a stable order, opening tables but no payloads; yields `SceneRef`,
            `Missing` and `Notice`.
        read: raw files of one reference -> validated Scene; raises `RawDataError`.
    """

    dataset: str
    options: type[Any]
    plan: Callable[[Store, Any], Iterator[SceneRef | Missing]]
    read: Callable[[SceneRef], Scene]

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", partial(_plan, self.plan))
        object.__setattr__(self, "read", partial(_read, self.read))


_SIMULATED = "simulated"
"""Among the details of a reference."""


def _plan(
    plan: Callable[[Store, Any], Iterator[SceneRef | Missing]], store: Store, options: Any
) -> Iterator[SceneRef | Missing]:
    marked = None
    for item in plan(store, options):
        if isinstance(item, SceneRef):
            marked = simulated.is_marked(store) if marked is None else marked
            yield replace(item, details={**item.details, _SIMULATED: True}) if marked else item
        else:
            yield item


def _read(read: Callable[[SceneRef], Scene], ref: SceneRef) -> Scene:
    scene = read(ref)
    if not ref.details.get(_SIMULATED):
        return scene
    return replace(scene, identity=replace(scene.identity, licence=simulated.LICENCE, version=simulated.VERSION))


def source_names() -> list[str]:
    """Names of all installed sources, ours and third parties'."""
    return plugin_names(GROUP)


def find_source(dataset: str) -> Source:
    """The source registered under a name (entry point group `brickyard.sources`); raises `RecipeError` if unknown."""
    try:
        source = find_plugin(GROUP, dataset)
    except KeyError:
        raise RecipeError(f"unknown dataset {dataset!r}; installed sources: {', '.join(source_names())}") from None
    if not isinstance(source, Source):
        raise RecipeError(f"the entry point of dataset {dataset!r} is no brickyard.ingest.source.Source")
    return source


class RawFiles:
    """The files of one scene: reads them and keeps the record of what was read.

    Every reader goes through this, so that sizes are checked before memory is taken, errors name the file, and
    `Identity.sources` is complete.
    """

    def __init__(self, ref: SceneRef) -> None:
        self.ref = ref
        self.store = Store(ref.root)
        self._digests: dict[str, xxhash.xxh3_128] = {}
        self._sizes: dict[str, int] = {}

    def error(
        self, path: str, problem: str, *, offset: int | None = None, line: int | None = None, hint: str | None = None
    ) -> RawDataError:
        """A `RawDataError` that names this dataset and scene."""
        return RawDataError(
            problem, dataset=self.ref.dataset, path=path, scene=self.ref.scene_id, offset=offset, line=line, hint=hint
        )

    def size(self, path: str) -> int:
        """Bytes of the file; raises `RawDataError` if it is missing."""
        if path not in self._sizes:
            size = self.store.size(path)
            if size is None:
                raise self.error(path, "file is missing", hint="download it again or drop the scene")
            self._sizes[path] = size
        return self._sizes[path]

    def read(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """The whole file; raises `RawDataError` if it is missing, unreadable or larger than `limit`."""
        size = self.size(path)
        if size > limit:
            raise self.error(path, f"file has {size} bytes, at most {limit} were expected")
        return self.read_range(path, 0, size)

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; raises `RawDataError` if the file ends before."""
        size = self.size(path)
        if offset < 0 or length < 0 or offset + length > size:
            raise self.error(
                path, f"file ends after {size} bytes, {length} bytes were expected here", offset=offset,
                hint="the file is truncated; download it again",
            )  # fmt: skip
        try:
            data = self.store.read_range(path, offset, length)
        except OSError as problem:
            raise self.error(path, f"cannot be read: {problem}") from problem
        if len(data) != length:
            raise self.error(path, "file became shorter while it was read", offset=offset + len(data))
        self._digests.setdefault(path, xxhash.xxh3_128()).update(data)
        return data

    def sources(self) -> tuple[SourceFile, ...]:
        """Record of the files read so far, sorted by path."""
        return tuple(
            SourceFile(path=path, size=self._sizes[path], digest=digest.hexdigest())
            for path, digest in sorted(self._digests.items())
        )
