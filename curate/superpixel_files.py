"""Superpixels that somebody else made: PNG files as `brickyard export --to superpixels` writes them.

SAM's masks, an older version's SLIC, another corpus's maps: whatever partitions an image, as long as there is a map
for every view. The layout is in `shards.label_maps`; each view's provenance is the method that the manifest gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import xxhash

from brickyard.curate.images import MAX_PIXELS
from brickyard.shards.documents import read_document
from brickyard.shards.errors import BrickyardError, ImageError, RecipeError, SceneError
from brickyard.shards.label_maps import MANIFEST, SHAPE, folder_of, read_map
from brickyard.shards.scene import Scene, Superpixels, View
from brickyard.shards.storage import Store

_MOST_MANIFEST = 16 << 20
_SPARE = 1 << 16
"""Bytes that a PNG may have beyond those of its pixels: its chunks and what compression adds."""


@dataclass(frozen=True, kw_only=True)
class SuperpixelFiles:
    """Superpixels from files, one PNG a view, as `brickyard export --to superpixels` writes them.

    Attributes:
        root: their folder, or a URI; `${NAME}` in it is a variable of the environment. A build that is resumed takes
            maps that changed meanwhile for the same: put other maps elsewhere.
    """

    kind: ClassVar[str] = "files"

    root: str

    def __post_init__(self) -> None:
        if not self.root:
            raise RecipeError("superpixels from files need a root")


def add_superpixel_files(scene: Scene, config: SuperpixelFiles) -> Scene:
    """The scene with superpixels in every view (existing ones are replaced).

    Raises:
        SceneError: a map or the scene's manifest is missing or damaged, or is none of this image.
    """
    if not scene.views:
        return scene
    folder = folder_of(scene.identity.dataset, scene.identity.scene_id)
    store = Store(config.root).below(folder)
    place, subject = f"{store.uri}/{MANIFEST}", f"scene {scene.identity.key}"
    data = _read(store, MANIFEST, _MOST_MANIFEST, subject)
    manifest = read_document(data, f"{subject}: {place}", SHAPE, most=_MOST_MANIFEST, error=SceneError)
    if manifest["scene"] != scene.identity.key:
        raise SceneError(f"{subject}: {place} is of scene {manifest['scene']!r}: maps of another scene lie here")
    absent = [view.name for view in scene.views if view.name not in manifest["views"]]
    if absent:
        raise SceneError(
            f"{subject}: {place} has no map of {len(absent)} of {len(scene.views)} views, such as {absent[0]}: each "
            "needs one"
        )
    views = (
        replace(view, superpixels=_load(store, f"{subject}, view {view.name}", view, manifest["views"][view.name]))
        for view in scene.views
    )
    return replace(scene, views=tuple(views)).validate()


def _load(store: Store, subject: str, view: View, entry: dict[str, Any]) -> Superpixels:
    name = entry["file"]
    if "/" in name or not name.endswith(".png"):
        raise SceneError(f"{subject}: the map {name!r} is not the name of a PNG beside its manifest")
    if view.width * view.height > MAX_PIXELS:
        raise SceneError(f"{subject}: {view.width}x{view.height} pixels are more than {MAX_PIXELS}")
    data = _read(store, name, 3 * view.width * view.height + _SPARE, subject)
    if "xxh3" in entry and xxhash.xxh3_64_hexdigest(data) != entry["xxh3"]:
        raise SceneError(f"{subject}: {store.uri}/{name} is not what its manifest was written for (xxh3 differs)")
    try:
        labels = read_map(data, view.width, view.height)
    except ImageError as problem:
        raise SceneError(f"{subject}: {store.uri}/{name} at byte {problem.offset}: {problem}") from problem
    found = Superpixels(labels=labels, provenance=entry["method"])
    if found.count != entry.get("count", found.count):
        raise SceneError(f"{subject}: {store.uri}/{name} has {found.count} ids, its manifest says {entry['count']}")
    return found


def _read(store: Store, name: str, most: int, subject: str) -> bytes:
    try:
        return store.read(name, most=most)
    except FileNotFoundError as problem:
        raise SceneError(
            f"{subject}: there is no {store.uri}/{name}: export or make the superpixels of it"
        ) from problem
    except BrickyardError as problem:
        raise SceneError(f"{subject}: {problem}") from problem
